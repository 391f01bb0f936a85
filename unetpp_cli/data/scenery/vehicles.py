"""Cars, vans and buses: a body and a cabin on wheels, seen from any side. Used by `plan`."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from unetpp_cli.data.scenery.canvas import CAR
from unetpp_cli.data.scenery.light import TOWARDS_US, Color, Tint, pick, scaled
from unetpp_cli.data.scenery.stage import Stage
from unetpp_cli.data.scenery.view import Vec, facing

PAINT: tuple[Color, ...] = (
    (206, 208, 210),
    (164, 168, 174),
    (112, 116, 122),
    (40, 42, 46),
    (44, 62, 112),
    (150, 34, 34),
    (176, 46, 38),
    (36, 78, 60),
    (86, 112, 148),
    (188, 176, 140),
)
LIVERY: tuple[Color, ...] = ((168, 36, 36), (196, 158, 52), (52, 92, 140))
GLASS: Color = (52, 62, 72)
RUBBER: Color = (24, 24, 26)
SILL = 0.26
"""Height of the body's lower edge in metres."""

Face = tuple[Vec, Vec, Vec, Vec]
"""Lower left, lower right, upper right, upper left as seen from outside."""


@dataclass(frozen=True)
class Shape:
    """Proportions in metres. Positions along the vehicle run from its middle towards its nose.

    Attributes:
        length, width: overall.
        belt: height of the window line.
        roof: overall height.
        nose: height of the bonnet's front edge.
        cabin: where the cabin has its rear foot, rear top, front top and front foot.
        panes: from where to where the side windows reach.
        wheel: radius.
        axles: the rear and the front axle.
        blind: whether the tail has small windows in metal doors.
    """

    length: float
    width: float
    belt: float
    roof: float
    nose: float
    cabin: tuple[float, float, float, float]
    panes: tuple[float, float]
    wheel: float
    axles: tuple[float, float]
    blind: bool = False

    @property
    def top_width(self) -> float:
        """The roof's share of the width."""
        return 0.8 if self.roof < 1.9 else 0.96


HATCHBACK = Shape(3.9, 1.7, 0.95, 1.47, 0.72, (-1.93, -1.55, 0.3, 1.05), (-1.45, 0.8), 0.31, (-1.2, 1.25))
SALOON = Shape(4.5, 1.76, 0.95, 1.43, 0.72, (-1.6, -0.95, 0.25, 1.05), (-1.25, 0.8), 0.32, (-1.35, 1.4))
ESTATE = Shape(4.5, 1.8, 1.05, 1.68, 0.85, (-2.23, -2.0, 0.35, 1.0), (-1.95, 0.75), 0.36, (-1.35, 1.4))
VAN = Shape(5.0, 1.95, 1.2, 2.15, 1.0, (-2.49, -2.45, 1.2, 1.9), (0.5, 1.65), 0.35, (-1.5, 1.6), blind=True)
BUS = Shape(9.5, 2.5, 1.3, 3.0, 1.28, (-4.74, -4.7, 4.66, 4.72), (-4.4, 4.5), 0.48, (-2.8, 2.9))

CARS = (HATCHBACK, HATCHBACK, SALOON, ESTATE, VAN)


def vehicle(stage: Stage, shape: Shape, x: float, z: float, heading: float, *, driving: bool) -> None:
    """Puts a vehicle on the road, its middle at (x, z).

    Args:
        heading: 0 drives away from us (we see its tail), pi towards us; clockwise from above.
        driving: whether its lights are on at dusk.
    """
    car = _Vehicle(stage, shape, pick(stage.rng, LIVERY if shape is BUS else PAINT), x, z, heading, driving)
    half = shape.length / 2
    corners = [car.point(along, side, 0.0) for along in (-half, half) for side in (-1.0, 1.0)]
    left, right = min(p[0] for p in corners), max(p[0] for p in corners)
    near, far = min(p[2] for p in corners), max(p[2] for p in corners)
    stage.shadow((left, right), (near, far), shape.roof * 0.9)
    if stage.camera.sees((left, 0.0, near), (right, shape.roof, far)):
        stage.place((left, right), (near, far), car.draw)


class _Vehicle:
    """Draws the faces that look towards the camera, body before cabin. Its parts are convex."""

    def __init__(
        self, stage: Stage, shape: Shape, color: Color, x: float, z: float, heading: float, driving: bool
    ) -> None:
        self.stage, self.shape, self.color, self.driving = stage, shape, color, driving
        self.x, self.z, self.sin, self.cos = x, z, math.sin(heading), math.cos(heading)
        self._tints: dict[Vec, Tint] = {}

    def point(self, along: float, across: float, up: float) -> Vec:
        """From the vehicle's frame (across: -1 its left flank .. 1 its right flank) to the street."""
        sideways = across * self.shape.width / 2
        return (
            self.x + sideways * self.cos + along * self.sin,
            up,
            self.z - sideways * self.sin + along * self.cos,
        )

    def draw(self) -> None:
        """Paints the vehicle."""
        shape, half = self.shape, self.shape.length / 2
        self._underside()
        # The body in profile, from the tail over the bonnet to the nose.
        profile = [
            (-half, SILL),
            (-half, shape.belt),
            (shape.cabin[3] + 0.02, shape.belt),
            (half, shape.nose),
            (half, SILL),
        ]
        for (a, low), (b, high) in itertools.pairwise(profile):
            self._strip(a, low, b, high, 1.0, 1.0)
        for side in (-1.0, 1.0):
            normal = self._outwards(side)
            if normal:
                self._paint(
                    [self.point(along, side, up) for along, up in profile], self.color, normal, label=True
                )
                self._flank(side, normal)
        self._tail()
        self._nose()
        self._cabin()

    def _underside(self) -> None:
        shape, floor = self.shape, 0.45 * self.shape.length
        for axle in shape.axles:
            for side in (-0.83, 0.83):
                for along in (axle - 0.8 * shape.wheel, axle + 0.8 * shape.wheel):
                    corners = ((-0.15, 0.0), (0.15, 0.0), (0.15, 0.4), (-0.15, 0.4))
                    tyre = [self.point(along, side + across, up) for across, up in corners]
                    self._paint(tyre, RUBBER, label=True)
        below = [
            self.point(a, s, 0.2) for a, s in ((-floor, -0.9), (-floor, 0.9), (floor, 0.9), (floor, -0.9))
        ]
        self._paint(below, (16, 16, 18), label=True)

    def _flank(self, side: float, normal: Vec) -> None:
        """Sill, doors and wheels on one side of the body."""
        shape, half, out = self.shape, self.shape.length / 2, 1.005 * side
        if self.stage.camera.scale(self.z) < 9.0:  # too far off to be seen
            return

        def box(back: float, front: float, low: float, high: float, tone: float) -> None:
            corners = ((back, low), (front, low), (front, high), (back, high))
            self._paint(
                [self.point(along, out, up) for along, up in corners], scaled(self.color, tone), normal
            )

        box(-half, half, SILL, 0.4, 0.55)
        back, front = shape.panes
        for seam in (back + 0.05, (back + front) / 2, front):
            box(seam - 0.015, seam + 0.015, 0.42, shape.belt, 0.6)
        turns = [2 * math.pi * step / 14 for step in range(14)]
        for axle in shape.axles:
            for reach, color in ((1.0, RUBBER), (0.6, (150, 152, 156)), (0.2, (70, 72, 76))):
                radius = reach * shape.wheel
                rim = [
                    self.point(axle + radius * math.cos(turn), out, shape.wheel + radius * math.sin(turn))
                    for turn in turns
                ]
                self._paint(rim, color, normal, label=True)

    def _tail(self) -> None:
        shape = self.shape
        face = self._end(-1.0, shape.belt)
        if not self._seen(face):
            return
        self._paint(_patch(face, 0, 0, 1, 0.25), scaled(self.color, 0.5), facing(face))
        self._paint(
            _patch(face, 0.33, 0.42, 0.67, 0.58), (226, 196, 60), facing(face)
        )  # British: yellow behind
        for left, right in ((0.02, 0.14), (0.86, 0.98)):
            self._lamp(_patch(face, left, 0.58, right, 0.94), (178, 26, 26), (255, 60, 44), 0.2)

    def _nose(self) -> None:
        face = self._end(1.0, self.shape.nose)
        if not self._seen(face):
            return
        self._paint(_patch(face, 0, 0, 1, 0.2), scaled(self.color, 0.5), facing(face))
        self._paint(_patch(face, 0.27, 0.5, 0.73, 0.88), (34, 36, 40), facing(face))
        self._paint(_patch(face, 0.36, 0.2, 0.64, 0.4), (224, 224, 220), facing(face))
        for left, right in ((0.03, 0.23), (0.77, 0.97)):
            self._lamp(_patch(face, left, 0.52, right, 0.9), (206, 210, 212), (255, 250, 226), 0.35)

    def _cabin(self) -> None:
        shape, narrow = self.shape, self.shape.top_width
        back, top_back, top_front, front = shape.cabin
        self._strip(top_back, shape.roof, top_front, shape.roof, narrow, narrow)
        tail = self._strip(back, shape.belt, top_back, shape.roof, 0.94, narrow)
        screen = self._strip(top_front, shape.roof, front, shape.belt, narrow, 0.94)
        if tail and shape.blind:
            for left, right in ((0.08, 0.46), (0.54, 0.92)):
                self._paint(_patch(tail, left, 0.25, right, 0.8), GLASS, facing(tail))
        # Glass mirrors the sky in its upper half; the windscreen's face begins at the roof.
        for face, low, high in ((None if shape.blind else tail, 0.5, 0.92), (screen, 0.08, 0.5)):
            if face:
                self._paint(_patch(face, 0.06, 0.08, 0.94, 0.92), GLASS, facing(face))
                self._paint(_patch(face, 0.06, low, 0.94, high), scaled(GLASS, 1.5), facing(face))
        for side in (-1.0, 1.0):
            normal = self._outwards(side)
            if normal:
                feet = [self.point(along, 0.94 * side, shape.belt) for along in (back, front)]
                tops = [self.point(along, narrow * side, shape.roof) for along in (top_front, top_back)]
                self._paint([*feet, *tops], self.color, normal, label=True)
                self._side_windows(side, normal)

    def _side_windows(self, side: float, normal: Vec) -> None:
        shape = self.shape
        back, top_back, top_front, front = shape.cabin
        start, end = shape.panes
        count = 2 if 1.5 < end - start < 4 else max(1, round((end - start) / 1.4))
        for pane in range(count):
            corners = []
            for share, up in ((0.03, 0.1), (0.95, 0.1), (0.95, 0.86), (0.03, 0.86)):
                along = start + (end - start) * (pane + share) / count
                rear = back + up * (top_back - back) + 0.12  # the cabin narrows upwards
                fore = front + up * (top_front - front) - 0.12
                across = side * (0.945 + up * (shape.top_width - 0.945))
                height = shape.belt + up * (shape.roof - shape.belt)
                corners.append(self.point(min(max(along, rear), fore), across, height))
            self._paint(corners, scaled(GLASS, 1.15), normal)

    def _lamp(self, face: list[Vec], off: Color, burning: Color, reach: float) -> None:
        if not (self.stage.light.lamps and self.driving):
            self._paint(face, off)
            return
        points = [self.stage.camera.project(corner) for corner in face]
        self.stage.canvas.polygon(points, burning)
        middle = (sum(x for x, _ in points) / 4, sum(y for _, y in points) / 4)
        self.stage.glow(middle, (0.1 + reach) * self.stage.camera.scale(self.z), scaled(burning, 0.7))

    def _strip(self, a: float, low: float, b: float, high: float, lower: float, upper: float) -> Face | None:
        """A painted face across the vehicle, between two points of a profile; None if it is turned away."""
        face = (
            self.point(a, -lower, low),
            self.point(a, lower, low),
            self.point(b, upper, high),
            self.point(b, -upper, high),
        )
        if not self._seen(face):
            return None
        self._paint(list(face), self.color, facing(face), label=True)
        return face

    def _end(self, way: float, high: float) -> Face:
        """The upright face of the tail (way -1) or the nose (way 1)."""
        along = way * self.shape.length / 2
        left, right = way, -way
        return (
            self.point(along, left, SILL),
            self.point(along, right, SILL),
            self.point(along, right, high),
            self.point(along, left, high),
        )

    def _outwards(self, side: float) -> Vec | None:
        """The normal of a flank (-1 left, 1 right), or None if it is turned away."""
        back, front = (-1.0, 1.0) if side > 0 else (1.0, -1.0)
        face = tuple(
            self.point(along, side, up) for along, up in ((back, 0), (front, 0), (front, 1), (back, 1))
        )
        return facing(face) if self._seen(face) else None

    def _seen(self, face: tuple[Vec, ...]) -> bool:
        """Whether a face's outer side is towards the camera."""
        flat = [self.stage.camera.straight(corner) for corner in face]
        return sum(n * p for n, p in zip(facing(flat), flat[0], strict=True)) < 0.0

    def _paint(self, face: list[Vec], color: Color, normal: Vec = TOWARDS_US, *, label: bool = False) -> None:
        if normal not in self._tints:
            self._tints[normal] = self.stage.light.tint(self.z, normal)
        points = [self.stage.camera.project(corner) for corner in face]
        self.stage.canvas.polygon(points, self._tints[normal](color), CAR if label else None)


def _patch(face: Face, left: float, bottom: float, right: float, top: float) -> list[Vec]:
    """The part of a face between these shares of its width and height."""

    def at(u: float, v: float) -> Vec:
        x, y, z = (
            (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)
            for a, b, c, d in zip(*face, strict=True)
        )
        return x, y, z

    return [at(left, bottom), at(right, bottom), at(right, top), at(left, top)]
