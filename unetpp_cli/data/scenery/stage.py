"""What a scene is drawn with and what waits to be drawn; shadows; noise. Used by everything in `scenery`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unetpp_cli.data.scenery.canvas import SUPERSAMPLING, Canvas
from unetpp_cli.data.scenery.light import TOWARDS_US, Color, Light, scaled
from unetpp_cli.data.scenery.painter import Sight, Span, farthest_first, sight
from unetpp_cli.data.scenery.view import Camera, Pixel, Vec

Floats = npt.NDArray[np.float32]
Draw = Callable[[], None]
"""Draws one thing that has been decided on."""
T = TypeVar("T")

TILE = 256
"""Side of a tile of noise in pixels: a power of two."""


@dataclass
class Stage:
    """One scene in the making.

    Attributes:
        lumps, speckle: (TILE, TILE) smooth and white noise around 0, for every surface of the scene.
        sunless: how much of the sun the ground misses, 0..255, at the final resolution (shadows are soft).
        dim: how dark the ground is under and around things that stand, likewise.
        glows: lamps to be blurred over the finished picture: where, radius in pixels, colour.
    """

    rng: np.random.Generator
    camera: Camera
    light: Light
    canvas: Canvas
    lumps: Floats
    speckle: Floats
    sunless: Image.Image
    dim: Image.Image
    glows: list[tuple[Pixel, float, Color]] = field(default_factory=list)
    _waiting: list[Draw] = field(default_factory=list)
    _sights: list[Sight] = field(default_factory=list)

    def place(self, x: Span, z: Span, draw: Draw) -> None:
        """Puts something into the street that covers this much ground; `draw` runs when its turn comes."""
        self._sights.append(sight(self.camera, x, z))
        self._waiting.append(draw)

    def draw(self) -> None:
        """Draws what was placed, from far to near."""
        for index in farthest_first(self._sights):
            self._waiting[index]()

    def uniform(self, low: float, high: float) -> float:
        """A random number in [low, high)."""
        return low + (high - low) * float(self.rng.random())

    def chance(self, probability: float) -> bool:
        """True that often."""
        return float(self.rng.random()) < probability

    def one_of(self, choices: Sequence[T]) -> T:
        """Any of them."""
        return choices[int(self.rng.random() * len(choices))]

    def paint(
        self, face: Sequence[Vec], color: Color, label: int | None = None, normal: Vec = TOWARDS_US
    ) -> None:
        """A flat face of one colour, lit and seen through the air in front of it."""
        seen = self.light.tint(face[0][2], normal)(color)
        self.canvas.polygon([self.camera.project(point) for point in face], seen, label)

    def glow(self, at: Pixel, radius: float, color: Color) -> None:
        """A lamp that shines, `radius` canvas pixels around."""
        self.glows.append((at, radius, color))

    def shadow(self, x: Span, z: Span, height: float, lift: float = 0.0) -> None:
        """The shadow that a box casts on the ground, and the dark around its foot.

        Args:
            x, z: from, to.
            height: of its top, in metres.
            lift: of its underside (a crown floats over its trunk).
        """
        if z[0] > 50.0:  # too far off to be seen
            return
        dx, dy, dz = self.light.direction
        base = [(x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1])]
        if max(self.light.sun) > 0.0:
            cast = [(px - dx / dy * up, pz - dz / dy * up) for px, pz in base for up in (lift, height)]
            self._fill(self.sunless, _hull(cast), 255)
        if not lift:
            left, right, near, far = x[0] - 0.12, x[1] + 0.12, z[0] - 0.12, z[1] + 0.12
            self._fill(self.dim, [(left, near), (right, near), (right, far), (left, far)], 120)

    def _fill(self, layer: Image.Image, ground: Sequence[Pixel], value: int) -> None:
        points = [self.camera.project((x, 0.0, z)) for x, z in ground]
        ImageDraw.Draw(layer).polygon([(x / SUPERSAMPLING, y / SUPERSAMPLING) for x, y in points], value)


class Cutout:
    """Something flat that faces the camera, drawn in metres to the right of and above its foot."""

    def __init__(self, stage: Stage, foot: Vec, label: int, size: float = 1.0) -> None:
        self.canvas, self.label = stage.canvas, label
        self.tint = stage.light.tint(foot[2])
        self.sunny = (
            1.0 if stage.light.direction[0] > 0 else -1.0
        )  # the side that is brighter: 1 right, -1 left
        self.scale = stage.camera.scale(foot[2]) * size
        self._foot = stage.camera.project(foot)

    def at(self, x: float, y: float) -> Pixel:
        """The canvas pixel of a point."""
        return self._foot[0] + x * self.scale, self._foot[1] - y * self.scale

    def polygon(self, points: Sequence[Pixel], color: Color) -> None:
        """A filled polygon."""
        self.canvas.polygon([self.at(x, y) for x, y in points], self.tint(color), self.label)

    def box(self, left: float, bottom: float, right: float, top: float, color: Color) -> None:
        """A rectangle."""
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], color)

    def regular(self, corners: int, radius: float, color: Color) -> None:
        """A regular polygon around the foot, with a corner on top."""
        turns = [2 * math.pi * corner / corners for corner in range(corners)]
        self.polygon([(radius * math.sin(turn), radius * math.cos(turn)) for turn in turns], color)

    def limb(self, a: Pixel, b: Pixel, start: float, end: float, color: Color) -> None:
        """A tapered bar from a to b, `start` and `end` wide."""
        (ax, ay), (bx, by) = a, b
        length = math.hypot(bx - ax, by - ay) or 1.0
        nx, ny = (by - ay) / length / 2, (ax - bx) / length / 2
        left = [(ax + nx * start, ay + ny * start), (bx + nx * end, by + ny * end)]
        right = [(bx - nx * end, by - ny * end), (ax - nx * start, ay - ny * start)]
        self.polygon([*left, *right], color)

    def post(self, height: float, thick: float, color: Color) -> None:
        """An upright tube over the foot."""
        for inner, outer, tone in ((-0.5, 0.5, 0.6), (-0.15, 0.5, 1.0), (0.1, 0.36, 1.4)):
            a, b = inner * self.sunny * thick, outer * self.sunny * thick
            outline = [(a, 0.0), (b, 0.0), (0.8 * b, height), (0.8 * a, height)]
            self.polygon(outline, scaled(color, tone))

    def disc(self, middle: Pixel, radii: Pixel, color: Color) -> None:
        """A filled upright ellipse."""
        across, up = radii
        seen = self.tint(color)
        self.canvas.disc(self.at(*middle), (across * self.scale, up * self.scale), seen, self.label)


def noise(rng: np.random.Generator) -> Floats:
    """A (TILE, TILE) float32 tile of smooth noise around 0, about -1..1, that repeats without a seam."""
    total = np.zeros((TILE, TILE), np.float32)
    for octave, tile in enumerate(_octaves()):
        down, right = (int(value * TILE) for value in rng.random(2))
        total += 0.55**octave * np.roll(tile, (down, right), (0, 1))
    return total


def tiled(tile: Floats, rng: np.random.Generator, height: int, width: int) -> Floats:
    """(height, width) from a random place of a square tile, which is repeated where it is too small."""
    side = len(tile)
    down, right = (int(value * side) for value in rng.random(2))
    if height <= side and width <= side:  # no need to repeat it
        down, right = down * (side - height) // side, right * (side - width) // side
        return tile[down : down + height, right : right + width]
    rows, columns = (down + np.arange(height)) % side, (right + np.arange(width)) % side
    return tile[rows[:, None], columns]


@functools.cache
def _octaves() -> list[Floats]:
    """Five tiles of smooth noise in -0.5..0.5, with 4, 8, .. 64 lumps along a side, for all scenes."""
    rng = np.random.default_rng(11)
    tiles = []
    for octave in range(5):
        cells = 4 << octave
        step = TILE // cells
        grid = np.pad(rng.random((cells, cells), dtype=np.float32) - 0.5, 2, mode="wrap")
        side = (cells + 4) * step
        whole = np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
        tiles.append(whole[2 * step : 2 * step + TILE, 2 * step : 2 * step + TILE])
    return tiles


def _hull(points: list[Pixel]) -> list[Pixel]:
    """The convex hull, by Andrew's monotone chain."""
    ordered = sorted(set(points))
    hull: list[Pixel] = []
    for run in (ordered, ordered[::-1]):
        start = len(hull)
        for x, y in run:
            while len(hull) >= start + 2:
                (ax, ay), (bx, by) = hull[-2], hull[-1]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                hull.pop()
            hull.append((x, y))
        hull.pop()
    return hull
