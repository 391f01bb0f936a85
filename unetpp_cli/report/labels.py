"""Labels of points in a plot, each placed where it hides no other, no point and no line.

`report.plots` calls this; it never imports matplotlib, but works on its axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unetpp_cli.report import figure as look

Point = tuple[float, float]

_SIDES = ((-1, 1), (1, -1), (1, 1), (-1, -1), (0, 1), (0, -1))
"""Where a label may stand, as seen from its point: left or right, above or below."""

_DISTANCES = (9.0, 26.0, 46.0, 68.0, 92.0, 118.0)
"""Points of print between a point and its label; beyond the first a line leads there."""

_MARKER = 8.0
"""Half the width of a point's marker, in points of print."""


@dataclass(frozen=True)
class Label:
    """A text for the point (x, y) of the data; `side` is where it stands if there is room."""

    text: str
    x: float
    y: float
    side: tuple[int, int] = (-1, 1)


def place_labels(axes: Any, labels: Sequence[Label], lines: Sequence[tuple[Point, Point]]) -> None:
    """Writes the labels beside their points, each in the free place that is nearest.

    Args:
        axes: matplotlib axes whose limits are final.
        lines: ends of the straight lines that labels should not cross, in the data's units.
    """
    figure = axes.figure
    renderer, scale = figure.canvas.get_renderer(), figure.dpi / 72
    axes.autoscale_view()
    to_pixels = axes.transData
    points = to_pixels.transform([(label.x, label.y) for label in labels] or [(0, 0)])[: len(labels)]
    inside = axes.get_window_extent(renderer)
    frame = np.array([inside.x0, inside.y0, figure.bbox.x1, figure.bbox.y1])
    inked = [_along(*to_pixels.transform(line)) for line in lines]
    markers = [np.concatenate([point - _MARKER * scale, point + _MARKER * scale]) for point in points]
    written: list[_Box] = []
    # From the right: there a curve flattens and its points crowd, while to their left there is room.
    for label, point in sorted(zip(labels, points, strict=True), key=lambda pair: -pair[1][0]):
        style = {"fontsize": 10, "color": look.INK, "linespacing": 1.3}
        note = axes.annotate(label.text, (label.x, label.y), (0, 0), textcoords="offset points", **style)
        extent = note.get_window_extent(renderer)
        sides = sorted(_SIDES, key=lambda side: side != label.side)
        places = [
            _place(point, np.array([extent.width, extent.height]), side, distance, scale)
            for distance, side in itertools.product(_DISTANCES, sides)
        ]
        # The first that is free; where none is, the one that hides least.
        best = min(places, key=lambda place: _hidden(place, [*markers, *written], written, inked, frame))
        written.append(np.concatenate([best.box[:2] - 3 * scale, best.box[2:] + 3 * scale]))
        note.set_position(tuple((best.box[:2] - point) / scale))
        note.set(ha="left", va="bottom", multialignment=("right", "center", "left")[best.side[0] + 1])
        if best.leader is not None:
            x, y = to_pixels.inverted().transform(best.leader).T
            axes.plot(x, y, color=look.FAINT, linewidth=0.7, zorder=1.5, scalex=False, scaley=False)


_Floats = npt.NDArray[np.float64]
_Box = npt.NDArray[np.float64]
"""Left, lower, right and upper edge, in pixels."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a label may stand, and the two ends of the line that leads there from its point."""

    box: _Box
    side: tuple[int, int]
    leader: _Floats | None


def _place(point: _Floats, size: _Floats, side: tuple[int, int], distance: float, scale: float) -> _Place:
    """The place of a label of this size on that side of its point. Sideways it never goes far."""
    toward = np.array(side)
    low = point + toward * scale * np.array([_DISTANCES[0], distance]) + (toward - 1) / 2 * size
    box = np.concatenate([low, low + size])
    if distance == _DISTANCES[0]:
        return _Place(box, side, None)
    foot = np.array([low[0] + size[0] / 2, box[1] if side[1] > 0 else box[3]])
    return _Place(box, side, np.stack([foot, point]))


def _along(start: _Floats, end: _Floats) -> _Floats:
    """(N, 2) points from one end of a line to the other, about 3 pixels apart."""
    return np.linspace(start, end, 2 + int(np.linalg.norm(end - start) / 3))


def _hidden(
    place: _Place, taken: Sequence[_Box], written: Sequence[_Box], lines: Sequence[_Floats], frame: _Box
) -> float:
    """How much a label there would hide, or lose at the edge; 0 is a free place."""
    box = place.box
    lost = (box[2] - box[0]) * (box[3] - box[1]) - _common(box, frame)
    crossed = sum(_within(line, box) for line in lines)
    if place.leader is not None:
        crossed += sum(_within(_along(*place.leader), other) for other in written)
    return float(4 * lost + sum(_common(box, other) for other in taken) + 20 * crossed)


def _within(line: _Floats, box: _Box) -> int:
    """How many of these points lie in the box."""
    return int(((line >= box[:2] - 2) & (line <= box[2:] + 2)).all(axis=1).sum())


def _common(box: _Box, other: _Box) -> float:
    """The area that two boxes share."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(sides.clip(0).prod())
