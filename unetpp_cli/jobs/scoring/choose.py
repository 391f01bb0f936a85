"""Which depth to keep: the article's rule as arithmetic on the measured table of depths.

"When head 3 does as well as head 4, delete level 4." Called by the prune job. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import DepthResult

DEFAULT_DROP = 0.5
"""Points of mean IoU that a smaller depth may cost when nobody says what else to ask for."""


@dataclass(frozen=True)
class Limits:
    """What is asked of a depth; None is no limit.

    Attributes:
        max_drop: percentage points of mean IoU that it may lose against the deepest head.
        max_ms: milliseconds per image.
        max_mb: megabytes (10**6 bytes) of its file.

    Raises:
        UserError: a limit that is no finite number, a negative loss, or a budget of nothing.
    """

    max_drop: float | None = None
    max_ms: float | None = None
    max_mb: float | None = None

    def __post_init__(self) -> None:
        for option, value in self.given.items():
            is_drop = option == "--max-drop"
            if not math.isfinite(value) or value < 0 or (value == 0 and not is_drop):
                least = "0 or more points of mean IoU" if is_drop else "above 0"
                raise UserError(f"{option} is {value:g}, but must be {least}.", f"Write {option} 0.5.")

    @property
    def given(self) -> dict[str, float]:
        """The limits that there are, by the option that sets them."""
        options = {"--max-drop": self.max_drop, "--max-ms": self.max_ms, "--max-mb": self.max_mb}
        return {option: value for option, value in options.items() if value is not None}

    def resolved(self) -> Limits:
        """These limits; without any, the default loss."""
        return self if self.given else Limits(max_drop=DEFAULT_DROP)


@dataclass(frozen=True)
class Choice:
    """The depth that was chosen, and why.

    Attributes:
        depth: of the head that is to become the deepest.
        reasons: a sentence for every depth, the shallowest first.
    """

    depth: int
    reasons: tuple[str, ...]


def choose(results: Sequence[DepthResult], limits: Limits, *, reference: float | None = None) -> Choice:
    """The smallest depth that keeps the promise; with budgets alone, the most accurate one within them.

    With `max_drop`, or without any limit (then it is 0.5), the promise is: at most that many points of mean
    IoU below the deepest head, and within the budgets. The ensemble is never a choice.

    Args:
        results: measured rows with their cost; those without a depth are passed over. `cost.file_bytes` is of
            the file that would be written, `cost.milliseconds` must be there when there is a `max_ms`.
        reference: the mean IoU (0..1) that losses are counted from, when the deepest row's is not the one:
            that of the float32 network, for rows measured in half storage.

    Raises:
        UserError: no depth will do (each one's reason is in the message), or nothing could be scored.
        ValueError: times are missing.
    """
    limits = limits.resolved()
    rows = sorted((row for row in results if row.depth is not None), key=lambda row: row.depth or 0)
    best = rows[-1].scores.miou if reference is None else reference
    if math.isnan(best):
        raise UserError(
            "No depth can be chosen: not one pixel of these masks belongs to a class that is scored.",
            "Choose another --split or other --data.",
        )
    is_promise = limits.max_drop is not None
    faults = {row.depth: _faults(row, best, limits) for row in rows}
    fitting = [row for row in rows if not faults[row.depth]]
    if not fitting:
        what = "keeps the promise" if is_promise else "is within the budget"
        each = "; ".join(f"{row.label} {' and '.join(faults[row.depth])}" for row in rows)
        raise UserError(f"No depth {what}: {each}.", f"Allow more with {' or '.join(limits.given)}.")
    # max() keeps the first of equals, which is the smallest.
    chosen = fitting[0] if is_promise else max(fitting, key=lambda row: row.scores.miou)
    reasons = []
    for row in rows:
        if faults[row.depth]:
            reasons.append(f"{row.label} {' and '.join(faults[row.depth])}.")
        elif row is not chosen and is_promise:
            reasons.append(f"{row.label} would do, but {chosen.label} is smaller.")
        elif row is not chosen:
            behind = round(100 * (chosen.scores.miou - row.scores.miou), 9)
            than = (
                f"{behind:.2f} points less accurate than" if behind else "no more accurate than the smaller"
            )
            reasons.append(f"{row.label} is within the budget, but {than} {chosen.label}.")
        else:
            why = "the smallest that keeps the promise" if is_promise else "the most accurate in the budget"
            against = rows[-1].label + (" in float32" if reference is not None else "")
            facts = _facts(row, limits)
            if against != row.label:
                drop = 100 * (best - row.scores.miou)
                facts.insert(1, f"{abs(drop):.2f} points {'above' if drop < 0 else 'below'} {against}")
            reasons.append(f"{row.label} is chosen, {why}: {', '.join(facts)}.")
    return Choice(chosen.depth or 0, tuple(reasons))


def _faults(row: DepthResult, best: float, limits: Limits) -> list[str]:
    """What keeps a depth from being chosen, as verbs with their objects; empty when nothing does."""
    # A difference of fractions is exact to 1e-16 only, and half a point is half a point.
    figures = [("loses", round(100 * (best - row.scores.miou), 9), "points", limits.max_drop)]
    if limits.max_ms is not None:
        figures.append(("takes", _milliseconds(row), "ms", limits.max_ms))
    if limits.max_mb is not None:
        figures.append(("needs", _megabytes(row), "MB", limits.max_mb))
    return [
        f"{verb} {_beyond(value, limit)} {unit} ({limit:g} allowed)"
        for verb, value, unit, limit in figures
        if limit is not None and value > limit
    ]


def _facts(row: DepthResult, limits: Limits) -> list[str]:
    """The figures that a chosen depth was asked for."""
    facts = [f"mIoU {100 * row.scores.miou:.2f} %"]
    if limits.max_ms is not None:
        facts.append(f"{_milliseconds(row):.2f} ms")
    if limits.max_mb is not None:
        facts.append(f"{_megabytes(row):.2f} MB")
    return facts


def _milliseconds(row: DepthResult) -> float:
    if row.cost is None or row.cost.milliseconds is None:
        raise ValueError(f"{row.label} was not timed")
    return row.cost.milliseconds


def _megabytes(row: DepthResult) -> float:
    if row.cost is None:
        raise ValueError(f"{row.label} has no cost")
    return row.cost.file_bytes / 1e6


def _beyond(value: float, limit: float) -> str:
    """`value` with as many decimals (two at least) as show that it is above `limit`."""
    shown = (f"{value:.{digits}f}" for digits in range(2, 9))
    return next((text for text in shown if float(text) > limit), f"{value:g}")
