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
from unetpp_cli.jobs.scoring.measure import Measured
from unetpp_cli.report import units
from unetpp_cli.report.plots import class_bars, confusion_plot, depth_plot
from unetpp_cli.report.sheet import Sample, save_sheet

_SHOWN = 4
"""Images on each of the two sheets."""
_RESULTS = "results.json"

Predict = Callable[[Pair], npt.NDArray[np.uint8]]


def evaluation_folder(path: str) -> Path:
    """The place of `--out`, which is not made yet: a new or empty folder, or one of an earlier evaluation.

    Raises:
        UserError: it holds something else.
    """
    folder = Path(path)
    try:
        is_ours = (folder / _RESULTS).is_file()
        if folder.exists() and not is_ours and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--out {path} holds something else than an evaluation.", "Name a new folder.")
    except OSError as error:
        raise UserError(f"Cannot look into --out {path}: {error.strerror}.", "Choose another.") from error
    return folder


def write_evaluation(
    folder: Path,
    report: Mapping[str, Any],
    table: str,
    measured: Sequence[tuple[Measured, Predict]],
    data: Dataset,
    split: str,
    block: int,
) -> None:
    """Writes results.json, results.csv and images.csv, and of each model the plots and sheets.

    depth.png, confusion.png, classes.png, best.png and worst.png lie beside the tables; where there are
    several models, in subfolders numbered in their order.

    Args:
        report, table: what goes into results.json and results.csv.
        measured: with each, what gives its mask of a pair's image, for the images that are shown.
        block: images in a row of which a sheet shows one at the most, while there are others.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make --out {folder}: {error.strerror}.", "Choose another.") from error
    pairs = data.splits[split]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["name", "row", "image", "miou"])
    for one, _ in measured:
        for label, tally in one.tallies.items():
            for index, miou in sorted(tally.images.items()):
                writer.writerow([one.name, label, pairs[index].stem, f"{miou:.6f}"])
    # First of all, since this is by which the folder is known again.
    write_text(folder / _RESULTS, json.dumps(report, indent=2) + "\n")
    write_text(folder / "results.csv", table)
    write_text(folder / "images.csv", lines.getvalue())
    for number, (one, predict) in enumerate(measured, start=1):
        place = folder
        if len(measured) > 1:
            safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in one.name)
            place = folder / f"{number}-{safe}"
            place.mkdir(exist_ok=True)
        _draw(place, one, predict, data, split, block)


def _draw(folder: Path, measured: Measured, predict: Predict, data: Dataset, split: str, block: int) -> None:
    main, pairs = measured.main, data.splits[split]
    title = f"{measured.name} on {data.name} {split}"
    if len(measured.rows) > 1:
        depth_plot(folder / "depth.png", measured.rows, title)
    if main.depth is not None:
        class_bars(folder / "classes.png", measured.rows, title)
    confusion_plot(folder / "confusion.png", main.scores, f"{title}, {main.label}")
    known = {index: miou for index, miou in measured.tally.images.items() if not np.isnan(miou)}
    order = sorted(known, key=lambda index: (known[index], index))
    blocks = blocks_of([pair.stem for pair in pairs], block)
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
