"""The training curves: loss and mIoU of every head, pixel accuracy, learning rate, epoch by epoch.

The training job redraws them as epochs pass. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from unetpp_cli.errors import listed
from unetpp_cli.report import figure as look
from unetpp_cli.report import units
from unetpp_cli.report.history import EpochRecord, best_epoch

_WIDTH, _HEIGHT = 12.8, 8.0
_LEFT = 0.05
_FEW = 20
"""Epochs up to which each has a dot on its line."""


def curves(
    path: str | os.PathLike[str],
    records: Sequence[EpochRecord],
    title: str = "",
    resumed: Sequence[int] = (),
) -> None:
    """Draws a training so far. PNG, 1600x1000 pixels.

    On the left the training loss and the validation loss of each head; on the right the mIoU of each head,
    pixel accuracy and learning rate. Without any validation the training loss takes the whole left side.

    Args:
        resumed: the epochs in which the training was taken up again; a grey line stands before each.
    """
    figure = look.new(_WIDTH, _HEIGHT)
    best = best_epoch(records)
    validated = [record for record in records if record.val]  # not every epoch need be
    look.titles(figure, title, _subtitle(best, bool(validated), resumed), left=_LEFT * _WIDTH)
    edges = {"top": 0.87, "bottom": 0.07, "hspace": 0.28}
    left = figure.add_gridspec(2, 1, left=_LEFT, right=0.485, **edges)
    right = figure.add_gridspec(2, 2, left=0.535, right=0.985, wspace=0.24, **edges)

    panels: list[tuple[Any, str]] = []  # with the corner that its lines leave free
    if validated:
        train = look.panel(figure, left[0, 0], "Training loss")
        losses = look.panel(figure, left[1, 0], "Validation loss", "epoch")
        depths = sorted({depth for record in validated for depth in record.val})
        _heads(losses, validated, depths, lambda record, depth: _val(record, depth, "loss"))
        scores = look.panel(figure, right[0, :], "Validation mIoU, %")
        _mious(scores, validated, depths, best)
        accuracy = look.panel(figure, right[1, 0], "Pixel accuracy, %", "epoch")
        rate = look.panel(figure, right[1, 1], "Learning rate", "epoch")
        panels += [(losses, "upper right"), (scores, "lower right")]
    else:
        train = look.panel(figure, left[:, 0], "Training loss", "epoch")
        accuracy = look.panel(figure, right[0, :], "Pixel accuracy, %")
        rate = look.panel(figure, right[1, :], "Learning rate", "epoch")
    _train_losses(train, records)
    _accuracies(accuracy, records, validated)
    _rates(rate, records)
    panels += [(train, "upper right"), (accuracy, "lower right"), (rate, "upper right")]

    for axes, corner in panels:
        from_zero = axes is not accuracy or len(records) < 2  # accuracies differ in their last per cents only
        _scales(axes, [record.epoch for record in records], from_zero, may_be_log=axes is not rate)
        if best is not None:
            axes.axvline(best.epoch, color=look.FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        for epoch in resumed:
            axes.axvline(epoch - 0.5, color="#d0d0d0", linewidth=1.2, zorder=1)
        _legend(axes, corner)
    look.save(figure, path)


def _subtitle(best: EpochRecord | None, is_validated: bool, resumed: Sequence[int]) -> str:
    if best is not None:
        facts = [f"best mIoU {units.percent(best.miou)} % (L{max(best.val)}, epoch {best.epoch})"]
    else:
        facts = [] if is_validated else ["no validation"]
    if resumed:
        facts.append(f"resumed in epoch {listed(map(str, resumed))}")
    return ", ".join(facts)


def _train_losses(axes: Any, records: Sequence[EpochRecord]) -> None:
    """A line per head; the loss that is minimised in grey, unless it is the loss of the only head."""
    depths = sorted({depth for record in records for depth in record.train_heads})
    if len(depths) != 1 or any(record.train_heads.get(depths[0]) != record.train_loss for record in records):
        _line(axes, records, [record.train_loss for record in records], look.FAINT, "minimised")
    _heads(axes, records, depths, lambda record, depth: record.train_heads.get(depth, math.nan))


def _accuracies(axes: Any, records: Sequence[EpochRecord], validated: Sequence[EpochRecord]) -> None:
    """Of the deepest head: on the training crops and on the validation images."""
    _line(axes, records, [100 * record.train_accuracy for record in records], look.FAINT, "train")
    if validated:
        deepest = max(max(record.val) for record in validated)
        values = [100 * _val(record, deepest, "accuracy") for record in validated]
        _line(axes, validated, values, look.head_color(deepest), f"val L{deepest}")


def _rates(axes: Any, records: Sequence[EpochRecord]) -> None:
    """The learning rate; a small one in units of a power of ten that the title names: 1.6, not 0.00016."""
    highest = max((record.lr for record in records if math.isfinite(record.lr)), default=0.0)
    exponent = math.floor(math.log10(highest)) if highest > 0 else 0
    exponent = exponent if exponent < -1 else 0
    if exponent:
        axes.set_title(f"Learning rate, 1e{exponent}", loc="left", fontsize=11, color=look.INK)
    _line(axes, records, [record.lr / 10.0**exponent for record in records], look.INK, "")


def _mious(
    axes: Any, validated: Sequence[EpochRecord], depths: Sequence[int], best: EpochRecord | None
) -> None:
    """A line per head, the best epoch of the deepest one starred; the legend holds each head's best."""
    highest = {}
    for depth in depths:
        finite = [value for record in validated if math.isfinite(value := _val(record, depth, "miou"))]
        highest[depth] = f"   best {100 * max(finite):.1f}" if finite else ""
    _heads(axes, validated, depths, lambda record, depth: 100 * _val(record, depth, "miou"), highest)
    if best is not None:
        style = {"markersize": 17, "color": look.head_color(max(best.val)), "markeredgecolor": "white"}
        axes.plot([best.epoch], [100 * best.miou], "*", zorder=5, clip_on=False, **style)


def _heads(
    axes: Any,
    records: Sequence[EpochRecord],
    depths: Sequence[int],
    value: Callable[[EpochRecord, int], float],
    notes: dict[int, str] | None = None,
) -> None:
    """A line per head, the deepest one bold and on top."""
    for depth in depths:
        label = f"L{depth}{(notes or {}).get(depth, '')}"
        values = [value(record, depth) for record in records]
        _line(axes, records, values, look.head_color(depth), label, 2.4 if depth == depths[-1] else 1.4)


def _line(
    axes: Any,
    records: Sequence[EpochRecord],
    values: Sequence[float],
    color: str,
    label: str,
    width: float = 1.8,
) -> None:
    """A line over the epochs, with gaps where a value is not finite. No line where no value is."""
    heights = [value if math.isfinite(value) else math.nan for value in values]
    if all(math.isnan(height) for height in heights):
        return
    # Dots while epochs are few, and where a gap could leave a point without any line.
    marker = "o" if len(records) <= _FEW or any(math.isnan(height) for height in heights) else ""
    style = {"color": color, "linewidth": width, "marker": marker, "markersize": 3 + width}
    axes.plot([record.epoch for record in records], heights, label=label, zorder=3, **style)


def _scales(axes: Any, epochs: Sequence[int], from_zero: bool, may_be_log: bool) -> None:
    """Whole epochs with room for a single one; heights from 0, or logarithmic if they span a factor of 30."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    first, last = min(epochs, default=1), max(epochs, default=1)
    room = max(0.9 if last - first < 4 else 0.5, 0.02 * (last - first))  # the legend has to go somewhere
    axes.set_xlim(first - room, last + room)
    values = [value for line in axes.get_lines() for value in line.get_ydata() if math.isfinite(value)]
    if not values:
        axes.set_yticks([])
        style = {"ha": "center", "va": "center", "color": look.GREY, "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no finite value yet", **style)
    elif may_be_log and min(values) > 0 and max(values) / min(values) > 30:
        axes.set_yscale("log")
    elif from_zero:
        axes.set_ylim(min(0.0, *values), max(values) * 1.07 or 1.0)


def _legend(axes: Any, corner: str) -> None:
    """The names of the lines, the last drawn first, as it lies on top."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        style = {"framealpha": 0.9, "edgecolor": "none", "fontsize": 9, "labelcolor": look.INK}
        axes.legend(handles[::-1], labels[::-1], loc=corner, **style)


def _val(record: EpochRecord, depth: int, name: str) -> float:
    return float(getattr(record.val[depth], name)) if depth in record.val else math.nan
