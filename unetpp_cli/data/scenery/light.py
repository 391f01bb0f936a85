"""Times of day, and what their light and haze make of a colour. Used by everything in `scenery`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.scenery.view import Vec

Color = tuple[float, float, float]
"""Red, green, blue, 0..255."""

TOWARDS_US: Vec = (0.0, 0.3, -1.0)
"""The normal of what is drawn flat, facing the camera."""
UP: Vec = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Tint:
    """A surface's colour times `gain` plus `haze`, per channel, is what the camera sees."""

    gain: Color
    haze: Color

    def __call__(self, color: Color) -> Color:
        (red, green, blue), (r, g, b), (x, y, z) = color, self.gain, self.haze
        return red * r + x, green * g + y, blue * b + z


@dataclass(frozen=True)
class Light:
    """A time of day.

    Attributes:
        zenith, horizon: colours of the sky.
        ambient, sun: strength per colour channel of skylight and of direct sunlight.
        cloud: share of the sky under clouds, 0..1.
        haze: distance in metres at which 63 % of a colour is air.
        rise: the sun's least and greatest height above the horizon, in degrees.
        lamps: whether street lamps, head lamps and windows are lit.
        direction: unit vector towards the sun.
    """

    zenith: Color
    horizon: Color
    ambient: Color
    sun: Color
    cloud: float
    haze: float
    rise: tuple[float, float]
    lamps: bool = False
    direction: Vec = UP

    def strength(self, normal: Vec) -> Color:
        """Light per colour channel on a surface with this (not necessarily unit) normal."""
        nx, ny, nz = normal
        dx, dy, dz = self.direction
        length = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
        direct = max(0.0, nx * dx + ny * dy + nz * dz) / length
        sky = 0.8 + 0.2 * ny / length
        (a, b, c), (r, g, b_) = self.ambient, self.sun
        return a * sky + r * direct, b * sky + g * direct, c * sky + b_ * direct

    def clear(self, distances: Iterable[float]) -> npt.NDArray[np.float32]:
        """How much of a colour gets through the air from these distances, 0..1.

        Not with numpy's exponential, whose last bit depends on the processor: scenes are the same everywhere.
        """
        return np.asarray([math.exp(-z / self.haze) for z in distances], np.float32)

    def tint(self, z: float, normal: Vec = TOWARDS_US) -> Tint:
        """What this light and the air up to z make of the colours of a surface."""
        clear = math.exp(-z / self.haze)
        return Tint(scaled(self.strength(normal), clear), scaled(self.horizon, 1.0 - clear))


NOON = Light((84, 138, 210), (200, 220, 236), (0.66, 0.7, 0.77), (0.76, 0.73, 0.66), 0.3, 260, (32, 62))
OVERCAST = Light((164, 171, 182), (216, 219, 222), (0.94, 0.96, 1.0), (0, 0, 0), 0.95, 170, (60, 70))
EVENING = Light((104, 132, 186), (244, 214, 176), (0.6, 0.6, 0.69), (0.95, 0.72, 0.45), 0.42, 190, (11, 22))
DUSK = Light((52, 68, 118), (172, 144, 142), (0.53, 0.56, 0.69), (0, 0, 0), 0.55, 220, (5, 6), lamps=True)

_HOURS = (NOON,) * 8 + (OVERCAST,) * 6 + (EVENING,) * 4 + (DUSK,) * 2


def time_of_day(rng: np.random.Generator) -> Light:
    """One of the four, with the sun anywhere around us and the weather a little different."""
    light = _HOURS[int(rng.random() * len(_HOURS))]
    height, turn, gain, cloud = (float(value) for value in rng.random(4))
    low, high = (math.radians(angle) for angle in light.rise)
    rise, turn = low + (high - low) * height, 2 * math.pi * turn
    return replace(
        light,
        direction=(math.cos(rise) * math.sin(turn), math.sin(rise), math.cos(rise) * math.cos(turn)),
        ambient=scaled(light.ambient, 0.9 + 0.2 * gain),
        cloud=light.cloud + 0.3 * (cloud - 0.5),
    )


def scaled(color: Color, factor: float) -> Color:
    """The colour, lighter or darker."""
    return color[0] * factor, color[1] * factor, color[2] * factor


def pick(rng: np.random.Generator, choices: Sequence[Color]) -> Color:
    """One of several colours, a little off: no two walls or coats are the same."""
    which, gain, r, g, b = (float(value) for value in rng.random(5))
    red, green, blue = scaled(choices[int(which * len(choices))], 0.88 + 0.24 * gain)
    return red + 10 * r - 5, green + 10 * g - 5, blue + 10 * b - 5
