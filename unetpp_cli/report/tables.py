"""What eval found out, as tables for people and as JSON for machines: the same facts in both.

Fractions 0..1 in JSON, per cent in the tables. A class that no labelled pixel belongs to has no score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.metrics import DepthResult
from unetpp_cli.report import console as terminal
from unetpp_cli.report import units


def depth_table(results: Sequence[DepthResult], title: str = "") -> Table:
    """A row per depth, then the ensemble: accuracy, size, work and time. The best mIoU is starred."""
    table = _table(title)
    table.add_column("depth")
    for heading in ("mIoU %", "pixel acc %", "mean acc %", "params", "GMAC", "ms/image"):
        table.add_column(heading, justify="right", no_wrap=True)
    known = [result.scores.miou for result in results if not math.isnan(result.scores.miou)]
    best = max(known, default=math.nan)
    star = terminal.glyph(terminal.out, "★", "*")
    gmac = units.column(result.cost.gmac if result.cost else None for result in results)
    times = units.column(result.cost.milliseconds if result.cost else None for result in results)
    for result, work, time in zip(results, gmac, times, strict=True):
        scores, is_best = result.scores, result.scores.miou == best
        style = "bold green" if is_best else ""
        table.add_row(
            result.label,
            # The star stands before the figure: the decimal points stay below each other.
            Text(f"{star} {units.percent(scores.miou)}" if is_best else units.percent(scores.miou), style),
            units.percent(scores.pixel_accuracy),
            units.percent(scores.mean_accuracy),
            units.count(result.cost.parameters) if result.cost else "-",
            work,
            time,
        )
    return table


def class_table(results: Sequence[DepthResult], classes: ClassSet, title: str = "") -> Table:
    """A row per scored class: colour, name, share of the labelled pixels, IoU at every depth; then the mean.

    A class that does not occur has dashes and counts in no mean. Void classes are not shown.
    """
    table = _table(title)
    table.add_column("   class")  # the chips stand before the names
    table.add_column("pixels %", justify="right", no_wrap=True)
    for result in results:
        table.add_column(f"{result.label}", justify="right", no_wrap=True)
    if not results:
        return table
    pixels = results[0].scores.confusion.sum(axis=1)
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

    Each entry holds `miou`, `pixel_accuracy`, `mean_accuracy`, `frequency_weighted_iou` and `dice` (a mean),
    `iou` by class name, `parameters`, `gmac` and `ms`. Shares are fractions 0..1; what is not known is None,
    never NaN. `ensemble` is None when it was not evaluated.

    Args:
        extra: further facts (model, data, device), added at the top level.
    """
    entries = {result.depth: _entry(result) for result in results}
    data = {
        **(extra or {}),
        "split": split,
        "depths": {str(depth): entry for depth, entry in entries.items() if depth is not None},
        "ensemble": entries.get(None),
    }
    plain: dict[str, Any] = _without_nan(data)
    return plain


def _entry(result: DepthResult) -> dict[str, Any]:
    scores = result.scores
    return {
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
        "dice": scores.mean_dice,
        "iou": {scores.classes.names[index]: float(scores.iou[index]) for index in scores.classes.scored},
        "parameters": result.cost.parameters if result.cost else None,
        "gmac": result.cost.gmac if result.cost else None,
        "ms": result.cost.milliseconds if result.cost else None,
    }


def _without_nan(value: Any) -> Any:
    """The value with None for every float that JSON cannot spell."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(title: str) -> Table:
    # Text: a title may hold a file name, and [brackets] in one are no markup.
    heading = Text(title, style="bold") if title else None
    return Table(
        title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold"
    )
