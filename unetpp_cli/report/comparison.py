"""How two models, or two depths, differ on the same images: a table, a sentence, and JSON. Called by eval.

An interval that excludes 0 is called a difference on these images, and nothing more than that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.metrics import DepthResult, Difference, Interval
from unetpp_cli.report import console as terminal
from unetpp_cli.report import units
from unetpp_cli.report.tables import new_table, told, without_nan

_NAME_WIDTH = 16
"""Columns that the name of a model has at most as a heading; a longer one is folded."""


def comparison_table(
    first: DepthResult, second: DepthResult, difference: Difference, classes: ClassSet, title: str = ""
) -> Table:
    """A row per class that occurs: IoU of both, the difference, its 95 % interval; then the mean IoU.

    Where the interval excludes 0 the difference has an arrow and is bold.

    Args:
        first, second: on the same images, in the same classes.
        difference: `second` less `first`.
    """
    table = new_table(title)
    table.add_column("   class")  # the chips stand before the names
    for name in (difference.first, difference.second):
        table.add_column(Text(name), justify="right", overflow="fold", max_width=_NAME_WIDTH)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    there = first.scores.present & second.scores.present
    for index in classes.scored:
        if not there[index]:
            continue
        low, high = (float(bound) for bound in difference.intervals[index])
        table.add_row(
            Text.assemble(terminal.chip(classes.colors[index]), " ", classes.names[index]),
            units.percent(float(first.scores.iou[index])),
            units.percent(float(second.scores.iou[index])),
            *_cells(float(difference.iou[index]), Interval(low, high)),
        )
    table.add_section()
    table.add_row(
        "   mean IoU %",
        units.percent(first.scores.miou),
        units.percent(second.scores.miou),
        *_cells(difference.miou, difference.interval),
        style="bold",
    )
    return table


def verdict(difference: Difference, sequences: int) -> str:
    """One sentence: whether the second differs from the first in mean IoU on these sequences.

    Args:
        sequences: how many the images come from.
    """
    interval = told(difference.interval)
    subject = f"{difference.second} against {difference.first}"
    if not math.isfinite(difference.miou):
        return f"{subject}: there is no mean IoU to compare."
    subject += f", mean IoU {points([difference.miou])[0]} points"
    if interval is None:
        return f"{subject}: too few blocks of consecutive images to tell whether that is a difference."
    bounds = f"(95 % interval {_range(interval)})"
    where = "on this one sequence" if sequences == 1 else "on these sequences"
    what = "differs" if _sign(interval) else "no difference shown"
    return f"{subject}: {what} {where} {bounds}."


def comparison_json(difference: Difference, classes: ClassSet) -> dict[str, Any]:
    """The difference as plain JSON values, second less first, in fractions.

    `first`, `second`, `miou`, its 95 % `interval` [low, high] and whether that excludes 0 (`differs`); in
    `iou` the same three by class name. What is not known is None.
    """
    plain: dict[str, Any] = without_nan(
        {
            "first": difference.first,
            "second": difference.second,
            **_entry("miou", difference.miou, difference.interval),
            "iou": {
                classes.names[index]: _entry(
                    "difference",
                    float(difference.iou[index]),
                    Interval(*map(float, difference.intervals[index])),
                )
                for index in classes.scored
            },
        }
    )
    return plain


def points(shares: Iterable[float]) -> list[str]:
    """`+1.2`, `-0.3`: differences of shares in percentage points; `-` for NaN.

    With two decimals where one would make a nought of what is none, so that an interval from +0.02 up is not
    read as one that touches 0.
    """
    values = [100 * share for share in shares]
    decimals = 2 if any(0 < abs(value) < 0.05 for value in values) else 1
    # Rounded first, and 0 added: -0.001 is +0.0, not -0.0.
    return [
        f"{round(value, decimals) + 0:+.{decimals}f}" if math.isfinite(value) else "-" for value in values
    ]


def _cells(value: float, interval: Interval) -> tuple[Text, str]:
    """The difference, with an arrow where it is one, and its interval."""
    sign = _sign(interval)
    arrows = {1: ("▲", "^"), -1: ("▼", "v"), 0: ("", "")}
    arrow = terminal.glyph(terminal.out, *arrows[sign])
    style = {1: "bold green", -1: "bold red", 0: ""}[sign]
    return Text(f"{arrow} {points([value])[0]}".lstrip(), style), _range(interval)


def _range(interval: Interval) -> str:
    """`+0.4 to +1.9`; `-` where it cannot be told."""
    return " to ".join(points([interval.low, interval.high])) if told(interval) else "-"


def _sign(interval: Interval) -> int:
    """1 or -1 where the whole interval lies above or below 0, else 0."""
    return (interval.low > 0) - (interval.high < 0)


def _entry(key: str, value: float, interval: Interval) -> dict[str, Any]:
    known = told(interval)
    return {
        key: value,
        "interval": [known.low, known.high] if known else None,
        "differs": bool(_sign(known)) if known else None,
    }
