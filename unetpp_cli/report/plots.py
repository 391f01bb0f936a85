"""Pictures of numbers: accuracy against time, the confusion matrix, IoU and share of pixels per class.

train and eval draw them; the training curves have a page of their own. matplotlib is imported when something
is drawn, and only through its object-oriented interface: no global figure, no display.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.metrics import DepthResult, Scores
from unetpp_cli.report import figure as look
from unetpp_cli.report import units
from unetpp_cli.report.labels import Label, place_labels
from unetpp_cli.report.tables import told


def depth_plot(path: str | os.PathLike[str], results: Sequence[DepthResult], title: str = "") -> None:
    """Draws mIoU against milliseconds per image, a labelled point per depth. PNG, 1200x800 pixels.

    Where any time is missing the horizontal axis is GMAC per image instead. A thin bar is the 95 % interval
    of the mIoU, where there is one. Rows without cost or score are left out.
    """
    rows = [(result, result.cost) for result in results if result.cost is not None]
    timed = all(cost.milliseconds is not None for _, cost in rows)
    points = [
        (float(cost.milliseconds or 0) if timed else cost.gmac, 100 * result.scores.miou, result, cost)
        for result, cost in rows
        if math.isfinite(result.scores.miou)
    ]
    has_intervals = any(told(result.interval) for _, _, result, _ in points)
    subtitle = "higher and further left is better" + "; bars: 95 % intervals of the mIoU" * has_intervals

    figure = look.new(9.6, 6.4)
    look.titles(figure, title, subtitle, left=0.8)
    grid = figure.add_gridspec(1, 1, left=0.085, right=0.97, top=0.84, bottom=0.11)
    axes = look.panel(figure, grid[0, 0], "mIoU, %", "ms per image" if timed else "GMAC per image")
    heads = [(x, y) for x, y, result, _ in points if result.depth is not None]
    axes.plot([x for x, _ in heads], [y for _, y in heads], color=look.FAINT, linewidth=1.2, zorder=2)
    lines, labels = list(itertools.pairwise(heads)), []
    for x, y, result, cost in points:
        is_head, color = result.depth is not None, look.head_color(result.depth)
        style = {"marker": "o" if is_head else "D", "markersize": 11 if is_head else 9}
        axes.plot([x], [y], color=color, zorder=3, **style)
        if interval := told(result.interval):
            low, high = 100 * interval.low, 100 * interval.high
            axes.vlines([x], low, high, color=color, linewidth=1.2, zorder=2.5)
            lines.append(((x, low), (x, high)))
        # Above and to the left a rising curve leaves room. The ensemble is about as slow and about as good
        # as the deepest head, so its label rather goes the other way.
        text = f"{result.label}  {y:.1f} %\n{units.count(cost.parameters)} params"
        labels.append(Label(text, x, y, (-1, 1) if is_head else (1, -1)))
    axes.margins(y=0.28)
    axes.set_xlim(0, 1.2 * max((x for x, *_ in points), default=0.0) or 1)
    place_labels(axes, labels, lines)
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
    totals = scores.truth[shown][:, None]
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
        axes.text(101, line, f"{value:.1f}", va="center_baseline", fontsize=10, color=look.INK)
    axes.set_yticks(range(len(shown)), names, fontsize=10)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 107)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    if heads[:-1]:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderpad": 0}
        axes.legend(frameon=False, ncols=8, fontsize=9, columnspacing=1.2, handletextpad=0.1, **place)
    look.save(figure, path)


_MARKS = (("o", look.INK), ("D", look.GREY), ("s", look.FAINT))  # of the second split, the third, ...
_MANY = 16
"""Classes above which those that never occur are not worth a line."""


def class_shares(
    path: str | os.PathLike[str],
    shares: Mapping[str, Sequence[int]],
    classes: ClassSet,
    title: str = "",
    weights: Sequence[float] | None = None,
) -> None:
    """Draws which share of a split's labelled pixels each class has. PNG, the most frequent class on top.

    A bar for the first split, a mark for every other one, the figures beside them. Void classes are left out,
    and of more than 16 classes those that occur nowhere.

    Args:
        shares: labelled pixels of each class, in class order, by split: {"train": [...], "val": [...]}.
        weights: the weight of each class in the loss, in class order; written in a column of its own.

    Raises:
        ValueError: `shares` is empty.
    """
    if not shares:
        raise ValueError("there is no split to draw")
    shown, percent = _shares(shares, classes)
    names = [classes.names[index] for index in shown]
    columns = {f"{split} %": [_share(values[index]) for index in shown] for split, values in percent.items()}
    if weights is not None:
        columns["weight"] = units.column(weights[index] for index in shown)

    left, right, lines = look.text_width(names) + 0.1, 0.85 * len(columns) + 0.15, max(len(shown), 1)
    width, height = left + 5.6 + right, 1.9 + 0.32 * lines
    figure = look.new(width, height)
    totals = {split: sum(counts[index] for index in classes.scored) for split, counts in shares.items()}
    pixels = ", ".join(f"{units.count(total)} in {split}" for split, total in totals.items())
    look.titles(figure, title, f"labelled pixels per class: {pixels}", left)
    edges = {"left": left / width, "right": 1 - right / width, "top": 1 - 1.15 / height}
    place = figure.add_gridspec(1, 1, bottom=0.6 / height, **edges)[0, 0]
    axes = look.panel(figure, place, "", "% of the labelled pixels")
    first, *others = percent
    colors = [look.hex_color(classes.colors[index]) for index in shown]
    style = {"edgecolor": look.INK, "linewidth": 0.6, "height": 0.72}
    axes.barh(range(len(shown)), percent[first][shown], color=colors, zorder=2, **style)
    for number, (split, (marker, color)) in enumerate(zip(others, itertools.cycle(_MARKS), strict=False)):
        style = {"marker": marker, "color": color, "edgecolors": "white", "linewidths": 0.9}
        heights = np.arange(len(shown)) + 0.32 * (number - (len(others) - 1) / 2)  # none hides another
        axes.scatter(percent[split][shown], heights, s=40, label=split, zorder=3, **style)
    for column, (heading, cells) in enumerate(columns.items()):
        edge = 1 + 0.85 * (column + 1) / 5.6
        style = {"transform": axes.get_yaxis_transform(), "ha": "right", "fontsize": 10}
        style["va"] = "center_baseline"  # as the names on the left
        for line, text in enumerate([heading, *cells], start=-1):
            axes.text(edge, line, text, color=look.GREY if line < 0 else look.INK, **style)
    axes.set_yticks(range(len(shown)), names, fontsize=10)
    axes.set_ylim(lines - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    if others:  # the lower right is free: the bars get shorter downwards
        style = {"frameon": False, "fontsize": 10, "handletextpad": 0.1, "alignment": "left"}
        axes.legend(loc="lower right", title=f"bars: {first}", **style)
    look.save(figure, path)


def _shares(
    shares: Mapping[str, Sequence[int]], classes: ClassSet
) -> tuple[list[int], dict[str, npt.NDArray[np.float64]]]:
    """The classes to show, sorted by their share of the first split; per cent of each class in each split."""
    percent, total = {}, np.zeros(len(classes))
    for split, counts in shares.items():
        pixels = np.array(counts, dtype=np.float64)
        pixels[list(classes.void)] = 0
        percent[split] = 100 * pixels / max(pixels.sum(), 1.0)
        total += pixels
    shown = [index for index in classes.scored if total[index] > 0 or len(classes.scored) <= _MANY]
    first = next(iter(percent.values()))
    return sorted(shown, key=lambda index: -first[index]), percent


def _share(percent: float) -> str:
    """`33.42`, `0.27`, `<0.01`; `-` for none at all."""
    return f"{percent:.2f}" if percent >= 0.005 else "<0.01" if percent > 0 else "-"
