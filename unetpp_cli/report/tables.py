"""What eval found out, as tables for people and as JSON and CSV for machines: the same facts in all of them.

Fractions 0..1 in JSON and CSV, per cent in the tables. A class without a labelled pixel has no score. How two
models differ is shown by `report.comparison`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.metrics import DepthResult, Interval
from unetpp_cli.report import console as terminal
from unetpp_cli.report import units

_NOTHING = "-"
_BROAD = 10_000
"""Columns that hold any table."""


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: Sequence[str | Text]

    @property
    def is_empty(self) -> bool:
        return all(str(cell) == _NOTHING for cell in self.cells)


def depth_table(results: Sequence[DepthResult], title: str = "") -> Table:
    """A row per depth, then the ensemble: what each gives and what it costs. The best mIoU is starred.

    Columns that no row has anything for are left out: times that were not taken, memory on the CPU.
    """
    return _joined(results, [*_gains(results), *_costs(results)], title)


def depth_tables(results: Sequence[DepthResult], title: str, width: int) -> list[Table]:
    """`depth_table`, in two where it is too wide: what each depth gives, and what it costs.

    Args:
        width: columns of the terminal. Each of the two fits 80.
    """
    whole = depth_table(results, title)
    costs = _costs(results)
    if full_width(whole) <= width or all(column.is_empty for column in costs):
        return [whole]
    prefix = f"{title}: " if title else ""
    return [
        _joined(results, _gains(results), f"{prefix}what each depth gives"),
        _joined(results, costs, f"{prefix}what it costs"),
    ]


def full_width(table: Table) -> int:
    """Columns that a table takes where nothing has to be cut or broken."""
    console = Console(file=io.StringIO(), width=_BROAD)
    return Measurement.get(console, console.options, table).maximum


def _joined(results: Sequence[DepthResult], columns: Sequence[_Column], title: str) -> Table:
    """The rows' labels and those of the columns that hold anything."""
    shown = [column for column in columns if not column.is_empty]
    table = new_table(title)
    is_model = any(result.depth is not None or result.cost is not None for result in results)
    table.add_column("depth" if is_model or not results else "masks", overflow="fold")
    for column in shown:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for row, result in enumerate(results):
        table.add_row(Text(result.label), *(column.cells[row] for column in shown))
    return table


def _gains(results: Sequence[DepthResult]) -> list[_Column]:
    """How good each row is, per cent."""

    def per_cent(heading: str, values: Iterable[float | None]) -> _Column:
        return _Column(heading, [_NOTHING if value is None else units.percent(value) for value in values])

    scores = [result.scores for result in results]
    known = [each.miou for each in scores if not math.isnan(each.miou)]
    best = max(known) if len(known) > 1 else math.nan
    star = terminal.glyph(terminal.out, "★", "*")
    miou: list[str | Text] = [
        # The star stands before the figure: the decimal points stay below each other.
        Text(f"{star} {units.percent(each.miou)}", "bold green")
        if each.miou == best
        else units.percent(each.miou)
        for each in scores
    ]
    return [
        _Column("mIoU %", miou),
        _Column("95 %", [_range(result.interval) for result in results]),
        per_cent("pixel\nacc %", (each.pixel_accuracy for each in scores)),
        per_cent("mean\nacc %", (each.mean_accuracy for each in scores)),
        per_cent("fwIoU\n%", (each.frequency_weighted_iou for each in scores)),
        per_cent("Dice\n%", (each.mean_dice for each in scores)),
        per_cent("BF\n%", (result.mean_boundary for result in results)),
    ]


def _costs(results: Sequence[DepthResult]) -> list[_Column]:
    """What each row asks for."""
    costs = [result.cost for result in results]

    def per_image(heading: str, values: Iterable[float | None]) -> _Column:
        return _Column(heading, units.column(values))

    return [
        _Column("params", [units.count(cost.parameters) if cost else _NOTHING for cost in costs]),
        per_image("GMAC", (cost.gmac if cost else None for cost in costs)),
        per_image("MB", (cost.file_bytes / 1e6 if cost else None for cost in costs)),
        per_image("ms/\nimage", (cost.milliseconds if cost else None for cost in costs)),
        per_image(
            "peak\nMB", (cost.peak_bytes / 1e6 if cost and cost.peak_bytes else None for cost in costs)
        ),
    ]


def _range(interval: Interval | None) -> str:
    """`60.1-64.4`: per cent; `-` where the interval cannot be told."""
    interval = told(interval)
    return f"{units.percent(interval.low)}-{units.percent(interval.high)}" if interval else _NOTHING


def told(interval: Interval | None) -> Interval | None:
    """The interval; None for one that cannot be told, too."""
    if interval is None or math.isnan(interval.low) or math.isnan(interval.high):
        return None
    return interval


def class_table(results: Sequence[DepthResult], classes: ClassSet, title: str = "") -> Table:
    """A row per scored class: colour, name, share of the labelled pixels, IoU at every depth; then the mean.

    A class that does not occur has dashes and counts in no mean. Void classes are not shown.
    """
    table = new_table(title)
    table.add_column("   class")  # the chips stand before the names
    table.add_column("pixels %", justify="right", no_wrap=True)
    for result in results:
        table.add_column(Text(result.label), justify="right", no_wrap=True)
    if not results:
        return table
    pixels = results[0].scores.truth
    present, total = results[0].scores.present, max(int(pixels.sum()), 1)
    for index in classes.scored:
        share = units.percent(pixels[index] / total) if present[index] else "-"
        scores = [units.percent(float(result.scores.iou[index])) for result in results]
        style = None if present[index] else "dim"
        name = Text.assemble(terminal.chip(classes.colors[index]), " ", classes.names[index])
        table.add_row(name, share, *scores, style=style)
    table.add_section()
    means = [units.percent(result.scores.miou) for result in results]
    table.add_row("   mean IoU %", "", *means, style="bold")
    return table


def results_json(
    split: str, results: Sequence[DepthResult], extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The results as plain JSON values: `{"split": ..., "depths": {"1": {...}, ...}, "ensemble": {...}}`.

    Each entry holds `miou`, its 95 % `interval` [low, high], `pixel_accuracy`, `mean_accuracy`,
    `frequency_weighted_iou`, `dice` and `boundary_f1` (means); by class name `iou`, `class_dice`,
    `class_accuracy` and `class_boundary_f1`; `parameters`, `gmac`, `file_bytes`, `ms` and `peak_bytes`.
    Shares are fractions 0..1; what is not known is None, never NaN. `ensemble` is None when it was not
    evaluated. Rows of masks, which have a name and no depth, stand in `masks` by name.

    Args:
        results: of one model, or of masks.
        extra: further facts (model, data, device), added at the top level.
    """
    depths = {str(result.depth): _entry(result) for result in results if result.depth is not None}
    others = {result.name: _entry(result) for result in results if result.depth is None}
    data = {**(extra or {}), "split": split, "depths": depths, "ensemble": others.pop("", None)}
    if others:
        data["masks"] = others
    plain: dict[str, Any] = without_nan(data)
    return plain


def results_csv(groups: Sequence[tuple[str, Sequence[DepthResult]]]) -> str:
    """The results as CSV: a header, then a line for each, with the IoU of every scored class at the end.

    Shares are fractions 0..1; what is not known is an empty field.

    Args:
        groups: the name of each model or folder of masks, and its results; all in the same classes.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    results = [(name, result) for name, rows in groups for result in rows]
    classes = results[0][1].scores.classes if results else None
    names = [classes.names[index] for index in classes.scored] if classes else []
    headings = ["name", "row", "miou", "miou_low", "miou_high", *_FURTHER]
    writer.writerow([*headings, *(f"iou {name}" for name in names)])
    for name, result in results:
        entry = without_nan(_entry(result))  # None is written as nothing
        low, high = entry["interval"] or (None, None)
        further = [entry[key] for key in _FURTHER]
        row = [name, result.label, entry["miou"], low, high]
        writer.writerow([*row, *further, *entry["iou"].values()])
    return stream.getvalue()


_FURTHER = (
    *("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "dice", "boundary_f1"),
    *("parameters", "gmac", "file_bytes", "ms", "peak_bytes"),
)
"""The plain figures of an entry that stand in the CSV as they are called in the JSON."""


def _entry(result: DepthResult) -> dict[str, Any]:
    scores, cost, interval = result.scores, result.cost, told(result.interval)
    scored = scores.classes.scored

    def by_name(values: npt.NDArray[np.float64]) -> dict[str, float]:
        return {scores.classes.names[index]: float(values[index]) for index in scored}

    return {
        "miou": scores.miou,
        "interval": [interval.low, interval.high] if interval else None,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
        "dice": scores.mean_dice,
        "boundary_f1": result.mean_boundary,
        "iou": by_name(scores.iou),
        "class_dice": by_name(scores.dice),
        "class_accuracy": by_name(scores.accuracy),
        "class_boundary_f1": None if result.boundary is None else by_name(result.boundary),
        "parameters": cost.parameters if cost else None,
        "gmac": cost.gmac if cost else None,
        "file_bytes": cost.file_bytes if cost else None,
        "ms": cost.milliseconds if cost else None,
        "peak_bytes": cost.peak_bytes if cost else None,
    }


def without_nan(value: Any) -> Any:
    """The value with None for every float that JSON cannot spell."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def new_table(title: str) -> Table:
    """An empty table in the look that all of them share, its title flush left."""
    # Text: a title may hold a file name, and [brackets] in one are no markup.
    heading = Text(title, style="bold") if title else None
    return Table(
        title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold"
    )
