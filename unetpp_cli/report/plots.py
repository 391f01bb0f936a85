"""Pictures of numbers: training curves, accuracy against time, the confusion matrix, per-class bars.

train redraws the curves every epoch, eval draws the others. matplotlib is imported when something is drawn,
and only through its object-oriented interface: no global figure, no display.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unetpp_cli.inference.metrics import DepthResult, Scores
from unetpp_cli.report import figure as look
from unetpp_cli.report import units
from unetpp_cli.report.history import EpochRecord, best_epoch

_TRAIN = look.FAINT


def curves(path: str | os.PathLike[str], records: Sequence[EpochRecord], title: str = "") -> None:
    """Draws a training so far: loss, mIoU per head, pixel accuracy, learning rate. PNG, 1600x1000 pixels.

    Without a validation split the mIoU panel shows the training loss of each head instead.
    """
    figure = look.new(12.8, 8)
    grid = figure.add_gridspec(
        2, 2, height_ratios=(3, 2), left=0.06, right=0.985, top=0.87, bottom=0.07, hspace=0.33, wspace=0.15
    )
    best = best_epoch(records)
    validated = [record for record in records if record.val]  # not every epoch need be
    deepest = max((max(record.val) for record in validated), default=0)
    subtitle = "" if deepest else "no validation split"
    if best is not None:
        subtitle = f"best mIoU {units.percent(best.miou)} % (L{max(best.val)}, epoch {best.epoch})"
    look.titles(figure, title, subtitle, left=0.06 * 12.8)

    loss = look.panel(figure, grid[0, 0], "Loss")
    _line(loss, records, [record.train_loss for record in records], _TRAIN, "train")
    if deepest:
        values = [_val(record, deepest, "loss") for record in validated]
        _line(loss, validated, values, look.head_color(deepest), f"val L{deepest}")
        scores = look.panel(figure, grid[0, 1], "Validation mIoU, %")
        _per_head_miou(scores, records, best)
    else:
        scores = look.panel(figure, grid[0, 1], "Training loss per head")
        for depth in sorted({depth for record in records for depth in record.train_heads}):
            values = [record.train_heads.get(depth, math.nan) for record in records]
            _line(scores, records, values, look.head_color(depth), f"L{depth}")

    accuracy = look.panel(figure, grid[1, 0], "Pixel accuracy, %", "epoch")
    _line(accuracy, records, [100 * record.train_accuracy for record in records], _TRAIN, "train")
    if deepest:
        values = [100 * _val(record, deepest, "accuracy") for record in validated]
        _line(accuracy, validated, values, look.head_color(deepest), f"val L{deepest}")
    rate = look.panel(figure, grid[1, 1], "Learning rate", "epoch")
    _line(rate, records, [record.lr for record in records], look.INK, "")

    for axes, from_zero in ((loss, True), (scores, True), (accuracy, len(records) < 2), (rate, True)):
        _scales(axes, [record.epoch for record in records], from_zero, may_be_log=axes is not rate)
        if best is not None:
            axes.axvline(best.epoch, color=look.FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            style = {"framealpha": 0.9, "edgecolor": "none", "fontsize": 9, "labelcolor": look.INK}
            falls = axes is loss or (not deepest and axes is scores)
            place = "upper right" if falls else "lower right"  # where losses and scores leave room
            axes.legend(handles[::-1], labels[::-1], loc=place, **style)  # the deepest line lies on top, too
    look.save(figure, path)


def _per_head_miou(axes: Any, records: Sequence[EpochRecord], best: EpochRecord | None) -> None:
    """A line per head, the deepest one bold, its best epoch starred; the legend holds each head's best."""
    validated = [record for record in records if record.val]
    depths = sorted({depth for record in validated for depth in record.val})
    for depth in depths:
        values = [100 * _val(record, depth, "miou") for record in validated]
        finite = [value for value in values if math.isfinite(value)]
        label = f"L{depth}   best {max(finite):.1f}" if finite else f"L{depth}"
        _line(axes, validated, values, look.head_color(depth), label, 2.4 if depth == depths[-1] else 1.4)
    if best is not None:
        style = {"markersize": 17, "color": look.head_color(max(best.val)), "markeredgecolor": "white"}
        axes.plot([best.epoch], [100 * best.miou], "*", zorder=5, clip_on=False, **style)


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
    marker = "o" if len(records) <= 20 or any(math.isnan(height) for height in heights) else ""
    style = {"color": color, "linewidth": width, "marker": marker, "markersize": 3 + width}
    axes.plot([record.epoch for record in records], heights, label=label, zorder=3, **style)


def _scales(axes: Any, epochs: Sequence[int], from_zero: bool, may_be_log: bool) -> None:
    """Whole epochs with room for a single one; heights from 0, or logarithmic if they span a factor of 30."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    first, last = min(epochs, default=1), max(epochs, default=1)
    room = max(0.5, 0.02 * (last - first))
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


def _val(record: EpochRecord, depth: int, name: str) -> float:
    return float(getattr(record.val[depth], name)) if depth in record.val else math.nan


def depth_plot(path: str | os.PathLike[str], results: Sequence[DepthResult], title: str = "") -> None:
    """Draws mIoU against milliseconds per image, a labelled point per depth. PNG, 1200x800 pixels.

    Where any time is missing the horizontal axis is GMAC per image instead.
    """
    timed = all(result.milliseconds is not None for result in results)
    figure = look.new(9.6, 6.4)
    look.titles(figure, title, "higher and further left is better", left=0.8)
    grid = figure.add_gridspec(1, 1, left=0.085, right=0.97, top=0.84, bottom=0.11)
    axes = look.panel(figure, grid[0, 0], "mIoU, %", "ms per image" if timed else "GMAC per image")
    points = [
        (float(result.milliseconds or 0) if timed else result.gmac, 100 * result.scores.miou, result)
        for result in results
        if math.isfinite(result.scores.miou)
    ]
    heads = [(x, y) for x, y, result in points if result.depth is not None]
    axes.plot([x for x, _ in heads], [y for _, y in heads], color=look.FAINT, linewidth=1.2, zorder=2)
    furthest = max((x for x, _, _ in points), default=0.0)
    for x, y, result in points:
        is_head = result.depth is not None
        style = {"marker": "o" if is_head else "D", "markersize": 11 if is_head else 9}
        axes.plot([x], [y], color=look.head_color(result.depth), zorder=3, **style)
        # Above and to the left a rising curve leaves room. The ensemble is about as slow and about as good
        # as the deepest head, so its label goes the other way, and so does one that would meet the axis.
        above = is_head and x > 0.2 * furthest
        place = {"xytext": (-9, 7) if above else (9, -7), "textcoords": "offset points"}
        place |= {"ha": "right", "va": "bottom"} if above else {"ha": "left", "va": "top"}
        text = f"{result.label}  {y:.1f} %\n{units.count(result.parameters)} params"
        axes.annotate(text, (x, y), fontsize=10, color=look.INK, linespacing=1.3, **place)
    axes.margins(y=0.28)
    axes.set_xlim(0, 1.2 * furthest or 1)
    look.save(figure, path)


def confusion_plot(path: str | os.PathLike[str], scores: Scores, title: str = "") -> None:
    """Draws the confusion matrix in per cent of each true class's pixels, with names. PNG.

    Classes that occur neither in the truth nor in the predictions are left out.
    """
    there = scores.present | (scores.confusion.sum(axis=0) > 0)
    there[list(scores.classes.void)] = False
    shown = np.flatnonzero(there)
    names = [scores.classes.names[index] for index in shown]
    counts = scores.confusion[np.ix_(shown, shown)]
    totals = scores.confusion[shown].sum(axis=1, keepdims=True)
    share = np.full(counts.shape, np.nan)
    np.divide(100.0 * counts, totals, out=share, where=totals > 0)

    # All in inches: names to the left, names at 45 degrees above, square cells.
    cell, label = 0.55 if len(shown) <= 16 else 0.42, look.text_width(names)
    slanted = 0.75 * label
    side = cell * max(len(shown), 1)
    width, height = max(label + side + slanted, 6.2), 0.85 + slanted + side + 0.15
    figure = look.new(width, height)
    look.titles(figure, title, "per cent of the true class's pixels; rows: truth, columns: prediction", 0.2)
    axes = figure.add_axes((label / width, 0.15 / height, side / width, side / height))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=10)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5 or row == column:
            text = "-" if math.isnan(value) else f"{value:.0f}"
            color = "white" if value > 55 else look.INK
            axes.text(column, row, text, ha="center", va="center", fontsize=10, color=color)
    look.save(figure, path)


def class_bars(path: str | os.PathLike[str], results: Sequence[DepthResult], title: str = "") -> None:
    """Draws the IoU of each class: a bar for the deepest head, a dot for every other one. PNG.

    Classes without a labelled pixel are left out.

    Raises:
        ValueError: `results` holds no head.
    """
    heads = sorted((result for result in results if result.depth is not None), key=lambda r: r.depth or 0)
    if not heads:
        raise ValueError("there is no result of any head to draw")
    deepest = heads[-1].scores
    shown = [int(index) for index in np.flatnonzero(deepest.present)]
    names = [deepest.classes.names[index] for index in shown]
    left, width, height = look.text_width(names) + 0.1, 9.6, 1.45 + 0.4 * max(len(shown), 1)
    figure = look.new(width, height)
    subtitle = f"IoU per class, %; bars: {heads[-1].label}, mean {units.percent(deepest.miou)}"
    look.titles(figure, title, subtitle, left)
    edges = {"left": left / width, "right": 0.97, "top": 1 - 0.95 / height, "bottom": 0.4 / height}
    axes = look.panel(figure, figure.add_gridspec(1, 1, **edges)[0, 0], "")
    values = 100 * deepest.iou[shown]
    colors = [look.hex_color(deepest.classes.colors[index]) for index in shown]
    style = {"edgecolor": look.INK, "linewidth": 0.6, "height": 0.72}
    axes.barh(range(len(shown)), values, color=colors, zorder=2, **style)
    for head in heads[:-1]:
        style = {"color": look.head_color(head.depth), "edgecolors": "white", "linewidths": 0.9}
        axes.scatter(
            100 * head.scores.iou[shown], range(len(shown)), s=42, label=head.label, zorder=3, **style
        )
    for line, value in enumerate(values):
        axes.text(101, line, f"{value:.1f}", va="center", fontsize=10, color=look.INK)
    axes.set_yticks(range(len(shown)), names, fontsize=10)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 107)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    if heads[:-1]:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderpad": 0}
        axes.legend(frameon=False, ncols=8, fontsize=9, columnspacing=1.2, handletextpad=0.1, **place)
    look.save(figure, path)
