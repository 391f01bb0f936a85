"""The camera: how a point of the street becomes a pixel. Used by everything in `scenery`.

Street coordinates are metres: x to the right of the camera, y up from the road, z along the street, which may
bend. Pixels are those of the supersampled canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Vec = tuple[float, float, float]
"""x, y, z in metres."""
Pixel = tuple[float, float]
"""Column, row on the supersampled canvas. Also a point (x, y) in metres of something flat."""

NEAR = 1.0
"""Nothing nearer than this many metres is projected."""
FAR = 150.0
"""Where the street ends in haze, in metres."""
KERB = 0.12
"""Height of the pavement above the road, in metres."""


@dataclass(frozen=True)
class Camera:
    """A level camera behind a windscreen, looking along +z.

    Attributes:
        width, height: of the canvas, in pixels.
        focal: focal length in pixels.
        centre, horizon: the vanishing point's column and row.
        eye: height of the lens above the road, in metres.
        bend: the street's middle lies at x = bend * z**2.
    """

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    eye: float
    bend: float

    def scale(self, z: float) -> float:
        """Pixels per metre at distance z."""
        return self.focal / max(z, NEAR)

    def project(self, point: Vec) -> Pixel:
        """Where a point of the street appears."""
        x, y, z = point
        z = z if z > NEAR else NEAR
        scale = self.focal / z
        return self.centre + (x + self.bend * z * z) * scale, self.horizon - (y - self.eye) * scale

    def straight(self, point: Vec) -> Vec:
        """A point of the (bent) street in the camera's own frame, whose origin is the lens."""
        x, y, z = point
        return x + self.bend * z * z, y - self.eye, z

    def sees(self, low: Vec, high: Vec) -> bool:
        """Whether anything of the upright box between two opposite corners can be within the picture."""
        corners = [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
        columns, rows = zip(*map(self.project, corners), strict=True)
        return bool(
            max(columns) > 0 and min(columns) < self.width and max(rows) > 0 and min(rows) < self.height
        )


def facing(face: Sequence[Vec]) -> Vec:
    """The outward normal of a flat face whose corners run counter-clockwise as seen from outside."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = face[0], face[1], face[2]
    return cross((cx - ax, cy - ay, cz - az), (bx - ax, by - ay, bz - az))


def cross(a: Vec, b: Vec) -> Vec:
    """The vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
