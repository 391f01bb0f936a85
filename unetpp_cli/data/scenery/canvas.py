"""Image and labels, painted side by side: a mask is exactly what was painted. Used by all of `scenery`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.data.scenery.light import Color
from unetpp_cli.data.scenery.view import Camera, Pixel, Vec, cross

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CAMVID11))
"""Label values, in the order of `CAMVID11`."""

SUPERSAMPLING = 2
"""Canvas pixels along the side of a pixel of the finished picture."""


class Canvas:
    """A picture under way. Later things cover earlier ones; without a label they are details of those."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height), SKY)
        self._paint = ImageDraw.Draw(self.image)
        self._mark = ImageDraw.Draw(self.labels)

    def polygon(self, points: Sequence[Pixel], color: Color, label: int | None = None) -> None:
        """A filled polygon."""
        self._paint.polygon(points, ink(color))
        if label is not None:
            self._mark.polygon(points, label)

    def mark(self, points: Sequence[Pixel], label: int) -> None:
        """Labels a polygon without painting it."""
        self._mark.polygon(points, label)

    def disc(self, centre: Pixel, radii: Pixel, color: Color, label: int | None = None) -> None:
        """A filled upright ellipse."""
        box = _around(centre, radii)
        self._paint.ellipse(box, ink(color))
        if label is not None:
            self._mark.ellipse(box, label)

    def ring(self, centre: Pixel, radius: float, thick: float, color: Color, label: int) -> None:
        """A spoked wheel: painted as a rim, labelled as the disc within."""
        box = _around(centre, (radius, radius))
        self._paint.ellipse(box, outline=ink(color), width=max(1, round(thick)))
        self._mark.ellipse(box, label)

    def sprite(self, sprite: Image.Image, corner: Pixel, label: int) -> None:
        """An RGBA picture by its upper left corner, labelled where it is at least half opaque."""
        at = (round(corner[0]), round(corner[1]))
        alpha = sprite.getchannel("A")
        self.image.paste(sprite, at, alpha)
        self.labels.paste(label, at, alpha.point([0] * 128 + [255] * 128))

    def wall(
        self, camera: Camera, texture: Image.Image, foot: tuple[Vec, Vec], height: float, label: int
    ) -> None:
        """A textured upright rectangle in perspective.

        Args:
            texture: RGB, or RGBA where it lets the background through; the label fills the whole outline
                either way, as CamVid's annotators fill railings.
            foot: where the texture's lower left and lower right corners stand.
            height: in metres.
        """
        (ax, ay, az), (bx, by, bz) = foot
        ring = ((ax, ay, az), (bx, by, bz), (bx, by + height, bz), (ax, ay + height, az))
        outline = [camera.project(corner) for corner in ring]
        columns, rows = zip(*outline, strict=True)
        left, top = max(0, math.floor(min(columns))), max(0, math.floor(min(rows)))
        right = min(camera.width, math.ceil(max(columns)) + 1)
        bottom = min(camera.height, math.ceil(max(rows)) + 1)
        if right <= left or bottom <= top:
            return
        size = (right - left, bottom - top)
        inverse = _texture_coordinates(camera, texture.size, foot, height, (left, top))
        seen = texture.transform(size, Image.Transform.PERSPECTIVE, inverse, Image.Resampling.BILINEAR)
        shape = Image.new("L", size)
        ImageDraw.Draw(shape).polygon([(x - left, y - top) for x, y in outline], 255)
        self.labels.paste(label, (left, top), shape)
        self.image.paste(seen, (left, top), seen.getchannel("A") if seen.mode == "RGBA" else shape)


def ink(color: Color) -> tuple[int, int, int]:
    """The colour as Pillow wants it."""
    red, green, blue = color
    return min(255, max(0, int(red))), min(255, max(0, int(green))), min(255, max(0, int(blue)))


def pixels(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Real pixel values, cut to 0..255."""
    return np.clip(values, 0, 255).astype(np.uint8)


def _around(centre: Pixel, radii: Pixel) -> tuple[float, float, float, float]:
    (x, y), (across, up) = centre, radii
    return x - across, y - up, x + across, y + up


def _texture_coordinates(
    camera: Camera, size: tuple[int, int], foot: tuple[Vec, Vec], height: float, origin: tuple[int, int]
) -> list[float]:
    """Pillow's eight perspective coefficients, from canvas pixels (less `origin`) to texture pixels.

    Texture pixel (s, t) lies at P = corner + s * along + t * down; a point (X, Y, Z) of the camera's frame
    appears at (f X + cx Z, cy Z - f Y, Z), homogeneous. The product is a 3x3 matrix. Its inverse is, up to
    scale, its adjugate, written out in plain floats so that every machine computes the same.
    """
    a, b = camera.straight(foot[0]), camera.straight(foot[1])
    along = [(q - p) / size[0] for p, q in zip(a, b, strict=True)]
    down = [0.0, -height / size[1], 0.0]
    corner = [a[0], a[1] + height, a[2]]
    centre, horizon = camera.centre - origin[0], camera.horizon - origin[1]
    s, t, one = (
        (camera.focal * x + centre * z, horizon * z - camera.focal * y, z)
        for x, y, z in (along, down, corner)
    )
    rows = (cross(t, one), cross(one, s), cross(s, t))
    whole = rows[2][2] or 1e-12
    return [value / whole for row in rows for value in row][:8]
