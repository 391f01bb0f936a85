"""The folder of a run, and all that a training leaves in it to look at and to go on from.

Written by rank 0 only. Everything here but the state follows from the state, and is written after it.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.dataset import Decoded
from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.files import sweep, write_text
from unetpp_cli.inference.metrics import Scores
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.jobs.learning.resume import STATE
from unetpp_cli.masks import Mask, read_mask, save_mask, save_picture
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, save_model
from unetpp_cli.report import console
from unetpp_cli.report.curves import curves
from unetpp_cli.report.history import EpochRecord, write_history, write_history_lines
from unetpp_cli.report.plots import class_shares, confusion_plot
from unetpp_cli.report.receipt import Receipt
from unetpp_cli.report.sheet import Drawn, Sample, sample_sheet, save_augment_sheet
from unetpp_cli.report.tensorboard import TensorBoard
from unetpp_cli.training.state import State, save_state

SHEET_IMAGES = 6
AUGMENT_IMAGES, AUGMENT_DRAWS = 4, 5
REDRAW_SECONDS = 8.0


class RunFolder:
    """What lies in a run's folder.

    Args:
        path: the folder, which exists.
        header: of the weights files, without metrics.
        data: where the sample sheets take their images.
        config: decides what is written.
        recipe: that the settings started from.
        step: the optimiser step at which a resumed run goes on; None for a new one.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        data: Dataset,
        config: TrainConfig,
        recipe: str,
        step: int | None = None,
    ) -> None:
        sweep(path)
        self.path, self.header, self.dataset = path, header, data
        self.config, self.recipe, self.step = config, recipe, step
        self.resumed: list[int] = []  # epochs in which the run was taken up again
        self._drawn = time.perf_counter()
        self._scores: tuple[Scores, int] | None = None
        self._board = TensorBoard(path, header.classes, step) if config.tensorboard else None
        facts = {"name": data.name, "summary": data.summary(), **header.data}
        self.receipt = Receipt.open(path, arguments=sys.argv[1:], recipe=recipe, data=facts)

    def before_training(
        self,
        pixels: Sequence[int],
        class_weights: torch.Tensor | None,
        decoded: Decoded,
        augmentation: Augmentation,
        *,
        as_before: bool,
    ) -> None:
        """What can be seen before the first step: config.yaml, classes.png, augment.png.

        Args:
            as_before: the run is resumed with its own settings, so the pictures are there.
            pixels: labelled pixels per class in the training split.
            class_weights: (C,), of the loss.
        """
        write_text(self.path / "config.yaml", self.config.to_yaml(self.recipe))
        if as_before:
            return
        weights = None if class_weights is None else class_weights.tolist()
        shares = {"train": pixels}
        class_shares(self.path / "classes.png", shares, self.header.classes, self.dataset.name, weights)
        preview(self.path / "augment.png", self.dataset, decoded, augmentation)

    def begin(self, precision: str, device: str, processes: int) -> None:
        """run.json: a start of this run, with what it runs on."""
        if self.receipt.warning:
            console.warn(self.receipt.warning)
        self.receipt.begin(
            arguments=sys.argv[1:],
            step=self.step or 0,
            precision=precision,
            device=device,
            world_size=processes,
        )

    def end(self, ending: str) -> None:
        """run.json: how the start ended."""
        self.receipt.end(ending)
        if self._board is not None:
            self._board.close()

    def state(self, state: State) -> None:
        """state.safetensors: what `--resume` goes on from."""
        save_state(self.path / STATE, state)

    def weights(
        self, network: UNetPlusPlus, names: Sequence[str], steps: int, record: EpochRecord | None
    ) -> None:
        """weights/NAME.safetensors for each name, with the scores of `record` in the header."""
        metrics: dict[str, object] = {"steps": steps}
        if record is not None:
            metrics["epoch"] = record.epoch
            metrics["val"] = {
                str(depth): {"miou": score.miou, "pixel_accuracy": score.accuracy, "loss": score.loss}
                for depth, score in record.val.items()
            }
        header = dataclasses.replace(self.header, metrics=metrics)
        for name in names:
            save_model(self.path / "weights" / f"{name}.safetensors", network, header)

    def record(
        self, records: Sequence[EpochRecord], scores: Scores | None = None, *, is_over: bool = False
    ) -> None:
        """history.csv, history.jsonl, curves.png and confusion.png.

        Drawing takes a second: after every epoch, but not when epochs are shorter than that is worth.

        Args:
            scores: of the deepest head on the validation split, where the last epoch has been validated.
        """
        if not records:  # none is left, or none has come yet
            for name in ("history.csv", "history.jsonl", "curves.png"):
                (self.path / name).unlink(missing_ok=True)
            return
        write_history(self.path / "history.csv", records)
        write_history_lines(self.path / "history.jsonl", records, self.header.classes)
        if self._board is not None:
            self._board.epoch(records[-1])
        self._scores = (scores, records[-1].epoch) if scores is not None else self._scores
        if is_over or time.perf_counter() - self._drawn > REDRAW_SECONDS:
            curves(self.path / "curves.png", records, self.path.name, resumed=self.resumed)
            if self._scores is not None:
                title = f"{self.path.name}, val, epoch {self._scores[1]}"
                confusion_plot(self.path / "confusion.png", self._scores[0], title)
            self._drawn = time.perf_counter()

    def samples(self, network: UNetPlusPlus, device: torch.device, precision: str, epoch: int) -> None:
        """samples.png: validation images, the truth, and what the network says after epoch `epoch`.

        What it said after the first epoch is kept as masks, and set beside it.
        """
        masks = self._predict(network, device, precision)
        pairs = self._sheet_pairs()
        if epoch == 1:
            for pair, mask in zip(pairs, masks, strict=True):
                save_mask(self._first_mask(pair), mask, self.header.classes)
        rows = []
        for pair, mask in zip(pairs, masks, strict=True):
            file = self._first_mask(pair)
            first = read_mask(file)[0] if epoch > 1 and file.is_file() else None
            image, truth = self.dataset.read_image(pair), self.dataset.read_mask(pair)
            rows.append(Sample(pair.stem, image, truth, mask, first))
        sheet = sample_sheet(rows, self.header.classes, prediction=f"epoch {epoch}", earlier="epoch 1")
        save_picture(self.path / "samples.png", sheet)
        if self._board is not None:
            self._board.picture("samples", sheet, epoch)

    def _sheet_pairs(self) -> list[Pair]:
        """A few validation images, spread over the split."""
        pairs = self.dataset.splits["val"]
        return [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(SHEET_IMAGES, len(pairs))).astype(int)]

    def _first_mask(self, pair: Pair) -> Path:
        return self.path / "samples" / f"{pair.stem}-epoch-1.png"

    def _predict(self, network: UNetPlusPlus, device: torch.device, precision: str) -> list[Mask]:
        model = Model(network=copy.deepcopy(network), header=self.header, path=self.path, hash="")
        predictor = Predictor(model, device, precision=precision)
        images = (self.dataset.read_image(pair, predictor.channels) for pair in self._sheet_pairs())
        return [predictor.mask(image) for image in images]


def preview(path: Path, data: Dataset, decoded: Decoded, augmentation: Augmentation) -> None:
    """A sheet of training images, each with a few draws of its augmentation, masks laid over."""
    rows, first = [], augmentation.progression.full
    for index in np.linspace(0, len(decoded) - 1, min(AUGMENT_IMAGES, len(decoded))).astype(int):
        image, mask = decoded[index]
        draws = [
            augmentation(image, mask, epoch, int(index)) for epoch in range(first, first + AUGMENT_DRAWS)
        ]
        rows.append(Drawn(decoded.pairs[index].stem, image, mask, draws))
    save_augment_sheet(path, rows, data.classes)
