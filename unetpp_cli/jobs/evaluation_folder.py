"""What `unetpp eval --out` leaves to look at: plots, sheets of the best and the worst images, tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.errors import UserError
from unetpp_cli.files import write_text
from unetpp_cli.inference.bootstrap import blocks_of
from unetpp_cli.jobs.measure import Measured
from unetpp_cli.report import units
from unetpp_cli.report.plots import class_bars, confusion_plot, depth_plot
from unetpp_cli.report.sheet import Sample, save_sheet

_SHOWN = 4
"""Images on each of the two sheets."""
_RESULTS = "results.json"


class EvaluationFolder:
    """The folder of an evaluation.

    results.json and results.csv hold everything; images.csv a line per image. Of each model there are
    depth.png, confusion.png, classes.png, best.png and worst.png; where there are several, in subfolders
    numbered in their order.

    Args:
        path: a new or empty folder, or one of an earlier evaluation, whose files are replaced.

    Raises:
        UserError: it holds something else.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        try:
            is_ours = (self.path / _RESULTS).is_file()
            if self.path.exists() and not is_ours and (not self.path.is_dir() or any(self.path.iterdir())):
                raise UserError(
                    f"--out {path} holds something else than an evaluation.", "Name a new folder."
                )
        except OSError as error:
            raise UserError(f"Cannot look into --out {path}: {error.strerror}.", "Choose another.") from error
        self._waiting: list[tuple[Measured, Dataset, str, Sequence[Pair], Callable[[Pair], Any]]] = []

    def add(
        self,
        measured: Measured,
        data: Dataset,
        split: str,
        pairs: Sequence[Pair],
        predict: Callable[[Pair], npt.NDArray[np.uint8]],
    ) -> None:
        """Has this one drawn by `finish`; `predict` is asked for the masks of the images that are shown."""
        self._waiting.append((measured, data, split, pairs, predict))

    def finish(self, report: Mapping[str, Any], table: str) -> None:
        """Writes the tables and draws everything.

        Raises:
            UserError: the folder cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot make --out {self.path}: {error.strerror}.", "Choose another.") from error
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["name", "row", "image", "miou"])
        for measured, _, _, pairs, _ in self._waiting:
            for label, tally in measured.tallies.items():
                for index, miou in sorted(tally.images.items()):
                    writer.writerow([measured.name, label, pairs[index].stem, f"{miou:.6f}"])
        # First of all, since this is by which the folder is known again.
        write_text(self.path / _RESULTS, json.dumps(report, indent=2) + "\n")
        write_text(self.path / "results.csv", table)
        write_text(self.path / "images.csv", lines.getvalue())
        for number, (measured, data, split, pairs, predict) in enumerate(self._waiting, start=1):
            folder = self.path
            if len(self._waiting) > 1:
                safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in measured.name)
                folder = self.path / f"{number}-{safe}"
                folder.mkdir(exist_ok=True)
            self._draw(folder, measured, data, split, pairs, predict)

    @staticmethod
    def _draw(
        folder: Path,
        measured: Measured,
        data: Dataset,
        split: str,
        pairs: Sequence[Pair],
        predict: Callable[[Pair], npt.NDArray[np.uint8]],
    ) -> None:
        main = measured.main
        title = f"{measured.name} on {data.name} {split}"
        if len(measured.rows) > 1:
            depth_plot(folder / "depth.png", measured.rows, title)
        if main.depth is not None:
            class_bars(folder / "classes.png", measured.rows, title)
        confusion_plot(folder / "confusion.png", main.scores, f"{title}, {main.label}")
        known = {index: miou for index, miou in measured.tally.images.items() if not np.isnan(miou)}
        order = sorted(known, key=lambda index: (known[index], index))
        blocks = blocks_of([pair.stem for pair in pairs])
        for name, ranked in (("worst", order), ("best", order[::-1])):
            rows = []
            for index in _spread(ranked, blocks):
                pair = pairs[index]
                caption = f"{pair.stem}, mIoU {units.percent(known[index])} %"
                image, truth = data.read_image(pair), data.read_mask(pair)
                rows.append(Sample(caption, image, truth, predict(pair)))
            if rows:
                save_sheet(folder / f"{name}.png", rows, data.classes, prediction=main.label)


def _spread(ranked: Sequence[int], blocks: Sequence[int]) -> list[int]:
    """The first few of `ranked`, of different blocks while there are any: neighbouring frames look alike."""
    seen: set[int] = set()
    ahead: list[int] = []
    behind: list[int] = []
    for index in ranked:
        (behind if blocks[index] in seen else ahead).append(index)
        seen.add(blocks[index])
    return [*ahead, *behind][:_SHOWN]
