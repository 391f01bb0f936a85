"""`unetpp train`: from a resolved config to a run folder, in the order in which it happens."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.classes import ClassSet
from unetpp_cli.data.dataset import (
    Decoded,
    EvaluationExamples,
    Example,
    TrainingBatches,
    TrainingSamples,
    collate,
    decoded_bytes,
)
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.devices import choose_device, device_name, memory_used, place, resolve_precision
from unetpp_cli.errors import UserError
from unetpp_cli.files import write_text
from unetpp_cli.inference.evaluation import Evaluation, evaluate
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.jobs.interrupt import Interruption
from unetpp_cli.jobs.runs import new_run
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, architecture_of, save_model
from unetpp_cli.report import console
from unetpp_cli.report.history import EpochRecord, HeadScore, write_history
from unetpp_cli.report.plots import curves
from unetpp_cli.report.progress import TrainingDisplay
from unetpp_cli.report.sheet import Sample, save_sheet
from unetpp_cli.training.loop import Step, Trainer, TrainingResult, train_epoch
from unetpp_cli.training.losses import criterion
from unetpp_cli.training.optimization import AveragedWeights, build_optimizer

CACHE_LIMIT = 2 << 30  # bytes of decoded pictures that `cache: auto` keeps
SHEET_IMAGES = 6
REDRAW_SECONDS = 8.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a training left: `folder`, the `records` of its epochs, and the exit code of the command."""

    folder: Path
    records: tuple[EpochRecord, ...]
    exit_code: int


def choose_recipe(config: TrainConfig) -> tuple[str, str]:
    """The recipe for somebody who named none, and a sentence that says why.

    Args:
        config: as resolved so far; its `data` and `gpus` decide.
    """
    if config.data == "demo":
        return "quick", ""
    if choose_device(config.gpus).type == "cpu":
        return (
            "quick",
            "Without a GPU the recipe is 'quick'; '--recipe camvid' is the good one, and slow here.",
        )
    return "camvid", ""


def train(config: TrainConfig, recipe: str, note: str = "") -> Outcome:
    """Trains as `config` says and leaves a run folder.

    Args:
        recipe: the recipe's name, for the run's name.
        note: why this recipe, when it was chosen for the user; said together with the time it will take.

    Raises:
        UserError: whatever the user can mend; before the first step nothing has been written.
    """
    device = choose_device(config.gpus)
    precision = resolve_precision(config.precision, device)
    augmentation = Augmentation(config.augment, config.seed)
    data = open_dataset(
        config.data, classes=config.classes or None, split_by=config.split_by or None, seed=config.seed
    )
    console.say(f"Data: {data.name}: {data.summary()}")
    if data.classes.name == "camvid32" and not config.classes:
        console.say("All 32 classes are learnt; --classes camvid11 merges them into the benchmark's 11.")
    for text in data.warnings:
        console.warn(text)
    pairs, val = data.splits.get("train", ()), data.splits.get("val", ())
    if not pairs:
        raise UserError(f"{config.data} has no training images.", "Look at it: unetpp check " + config.data)
    if not val:
        console.warn("There is no val split: no scores, and 'best' stays away. Evaluate on other data.")

    torch.manual_seed(config.seed)
    geometry = Geometry.parse(config.size)
    heads = None if config.deep_supervision else (config.depth,)
    network = UNetPlusPlus(
        len(data.classes), config.channels, width=config.width, depth=config.depth, heads=heads
    )
    place(network, device)
    keep = config.cache == "on" or (
        config.cache == "auto" and decoded_bytes(data, pairs, geometry, config.channels) <= CACHE_LIMIT
    )
    decoded = Decoded(data, pairs, geometry, config.channels, keep)
    batches = TrainingBatches(len(pairs), config.batch_size, config.seed, config.drop_last)
    workers = _workers(config.workers, device, keep)
    loader = DataLoader(
        TrainingSamples(decoded, augmentation),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    val_loader = _loader(data, "val", config, geometry, workers, device)

    weighted = config.class_weights in ("enet", "median-frequency")
    pixels = count_pixels(decoded, data.classes) if weighted else None
    trainer = Trainer(
        config=config,
        network=network,
        optimizer=build_optimizer(network, config),
        criterion=criterion(config, data.classes, pixels, len(network.head_depths), device),
        average=AveragedWeights(network, config.ema) if config.ema else None,
        device=device,
        precision=precision,
        steps_per_epoch=math.ceil(len(batches) / config.accumulate),
    )
    header = Header(
        architecture=architecture_of(network),
        classes=data.classes,
        mean=tuple(config.mean),
        std=tuple(config.std),
        geometry=geometry,
        recipe=config.to_recipe(),
        data={
            "layout": data.layout,
            "split_by": data.split_by,
            **{name: len(pairs) for name, pairs in data.splits.items()},
            "fingerprint": data.fingerprint(),
        },
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    console.say(
        f"Network: UNet++ width {config.width}, depth {config.depth}, {len(network.head_depths)} heads, "
        f"{parameters / 1e6:.2f} M parameters, on {device_name(device)} in {precision}"
    )
    if note:
        console.say(f"{note} About {_minutes(_estimate(trainer, next(iter(loader)), len(batches)))}.")

    folder = new_run(config.out, f"{data.name}-{recipe}")
    console.say(f"Run: {folder}")
    write_text(folder / "config.yaml", config.to_yaml(recipe))
    return _Run(trainer, header, data, folder).fit(loader, batches, val_loader)


class _Run:
    """A training under way: what it has recorded and what lies in its folder."""

    def __init__(self, trainer: Trainer, header: Header, data: Dataset, folder: Path) -> None:
        self.trainer, self.header, self.data, self.folder = trainer, header, data, folder
        self.records: list[EpochRecord] = []
        self.best = -math.inf
        self.best_epoch = 0
        self.drawn = -math.inf  # when curves.png was last drawn

    def fit(
        self,
        loader: DataLoader[tuple[torch.Tensor, torch.Tensor]],
        batches: TrainingBatches,
        val_loader: DataLoader[Example] | None,
    ) -> Outcome:
        """All epochs; ends early, but well, when a signal asks for it."""
        config = self.trainer.config
        began = time.perf_counter()
        display = TrainingDisplay()
        with Interruption() as interrupted, display:
            display.start(config.epochs, len(batches), self.trainer.network.head_depths)
            for epoch in range(1, config.epochs + 1):
                start = time.perf_counter()
                batches.epoch = epoch
                on_step = partial(self._show, display, epoch)
                result = train_epoch(self.trainer, loader, on_step, lambda: bool(interrupted))
                if not result.finished:
                    break
                due = epoch % config.val_every == 0 or epoch == config.epochs
                validation = None
                if val_loader is not None and due and not interrupted:
                    validation = self._validate(val_loader, display.validating)
                self._record(epoch, result, validation, time.perf_counter() - start, display)
                if interrupted:
                    break
        if interrupted:
            if self.records:
                self._draw()
            self._save("last", None)  # the middle of an epoch: no score belongs to these weights
        if val_loader is not None and self.records:
            self._sheet()
        self._farewell(interrupted, time.perf_counter() - began)
        return Outcome(self.folder, tuple(self.records), interrupted.exit_code)

    @property
    def network(self) -> UNetPlusPlus:
        """The network that is validated and saved: the averaged one, if there is one."""
        average = self.trainer.average
        return average.network if average is not None else self.trainer.network

    def _show(self, display: TrainingDisplay, epoch: int, step: Step) -> None:
        memory = memory_used(self.trainer.device)
        display.step(epoch, step.number, step.loss, step.lr, step.images_per_second, memory)

    def _validate(self, loader: DataLoader[Example], show: Callable[[int, int], None]) -> Evaluation:
        network = self.network.eval()
        config, total, done = self.trainer.config, len(self.data.splits["val"]), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            show(done, total)

        return evaluate(
            network,
            loader,
            self.data.classes,
            config.mean,
            config.std,
            self.trainer.device,
            self.trainer.precision,
            with_losses=True,
            on_images=advance,
        )

    def _record(
        self,
        epoch: int,
        result: TrainingResult,
        validation: Evaluation | None,
        seconds: float,
        display: TrainingDisplay,
    ) -> None:
        """History, weights and curves of a finished epoch."""
        depths = self.trainer.network.head_depths
        val: dict[int, HeadScore] = {}
        if validation is not None:
            val = {
                depth: HeadScore(validation.losses[depth], scores.pixel_accuracy, scores.miou)
                for depth, scores in validation.heads.items()
            }
        record = EpochRecord(
            epoch=epoch,
            lr=result.lr,
            train_loss=result.loss,
            train_accuracy=result.accuracy,
            train_heads=dict(zip(depths, result.heads, strict=True)),
            val=val,
            seconds=seconds,
            images_per_second=result.images_per_second,
        )
        self.records.append(record)
        is_best = bool(val) and val[depths[-1]].miou > self.best
        if is_best:
            self.best, self.best_epoch = val[depths[-1]].miou, epoch
            self._save("best", record)
        self._save("last", record)
        every = self.trainer.config.save_every
        if every and epoch % every == 0:
            self._save(f"epoch-{epoch:04d}", record)
        write_history(self.folder / "history.csv", self.records)
        # Drawing takes half a second: every epoch, but not when epochs are shorter than that is worth.
        if epoch == self.trainer.config.epochs or time.perf_counter() - self.drawn > REDRAW_SECONDS:
            self._draw()
        display.epoch_done(record, is_best)

    def _draw(self) -> None:
        curves(self.folder / "curves.png", self.records, self.folder.name)
        self.drawn = time.perf_counter()

    def _save(self, name: str, record: EpochRecord | None) -> None:
        """Writes weights/NAME.safetensors, with the scores of `record` in its header."""
        metrics: dict[str, object] = {"steps": self.trainer.step}
        if record is not None:
            metrics["epoch"] = record.epoch
            metrics["val"] = {
                str(depth): {"miou": score.miou, "pixel_accuracy": score.accuracy, "loss": score.loss}
                for depth, score in record.val.items()
            }
        header = dataclasses.replace(self.header, metrics=metrics)
        save_model(self.folder / "weights" / f"{name}.safetensors", self.network, header)

    def _sheet(self) -> None:
        """A sheet of validation images, spread over the split: image, truth, prediction."""
        pairs = self.data.splits["val"]
        chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(SHEET_IMAGES, len(pairs))).astype(int)]
        network = copy.deepcopy(self.network)
        model = Model(network=network, header=self.header, path=self.folder, hash="")
        predictor = Predictor(model, self.trainer.device, precision=self.trainer.precision)
        samples = []
        for pair in chosen:
            image = self.data.read_image(pair, predictor.channels)
            samples.append(Sample(pair.stem, image, self.data.read_mask(pair), predictor.mask(image)))
        save_sheet(self.folder / "samples.png", samples, self.data.classes)

    def _farewell(self, interrupted: Interruption, seconds: float) -> None:
        weights = self.folder / "weights"
        if interrupted:
            console.say(
                f"Interrupted after epoch {len(self.records)}; the weights are in {weights}/last.safetensors"
            )
            return
        console.say(f"Trained {len(self.records)} epochs in {_minutes(seconds)}.")
        if self.best_epoch:
            score = f"val mIoU {100 * self.best:.1f} %"
            console.say(f"Best: epoch {self.best_epoch}, {score} -> {weights}/best.safetensors")
        else:
            console.say(f"Weights: {weights}/last.safetensors")
        name = "best" if self.best_epoch else "last"
        console.say("Next:")
        console.say(f"  unetpp eval {self.folder} --data {self.trainer.config.data}")
        heads = self.trainer.network.head_depths
        if len(heads) > 1:
            console.say(f"  unetpp prune --depth {heads[-2]} {weights}/{name}.safetensors")
        console.say(f"  unetpp predict photo.png -o mask.png --model {self.folder}")


def count_pixels(decoded: Decoded, classes: ClassSet) -> list[int]:
    """Labelled pixels per class over all masks of `decoded`."""
    counts = np.zeros(256, dtype=np.int64)
    for index in range(len(decoded)):
        counts += np.bincount(decoded[index][1].ravel(), minlength=256)
    counts[list(classes.void)] = 0
    return [int(count) for count in counts[: len(classes)]]


def _loader(
    data: Dataset, split: str, config: TrainConfig, geometry: Geometry, workers: int, device: torch.device
) -> DataLoader[Example] | None:
    """Batches of the split's images in order, or None when it is empty."""
    if not data.splits.get(split):
        return None
    # On the CPU one image at a time is as fast as several, and takes less memory.
    return DataLoader(
        EvaluationExamples(data, data.splits[split], geometry, config.channels),
        batch_size=config.batch_size if device.type == "cuda" else 1,
        collate_fn=list,
        num_workers=min(1, workers) if device.type == "cpu" else workers,
        persistent_workers=workers > 0,
    )


def _workers(wish: int, device: torch.device, cached: bool) -> int:
    """How many processes decode: none when a cached picture is faster at hand than from a process."""
    if wish >= 0:
        return wish
    cores = os.cpu_count() or 1
    if device.type == "cuda":
        return min(8, max(1, cores - 1))
    return 0 if cached else 1


def _estimate(trainer: Trainer, batch: tuple[torch.Tensor, torch.Tensor], steps: int) -> float:
    """Seconds that the whole training will take, from two steps on a copy that is thrown away."""
    throwaway = copy.deepcopy(trainer.network)
    trial = Trainer(
        config=trainer.config,
        network=throwaway,
        optimizer=build_optimizer(throwaway, trainer.config),
        criterion=trainer.criterion,
        average=None,
        device=trainer.device,
        precision=trainer.precision,
        steps_per_epoch=trainer.steps_per_epoch,
    )
    train_epoch(trial, [batch])
    start = time.perf_counter()
    train_epoch(trial, [batch])
    # Validation and writing come on top; a quarter is what they take on CamVid and on the demo.
    return 1.25 * (time.perf_counter() - start) * steps * trainer.config.epochs


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
