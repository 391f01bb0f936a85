"""What the values of an 8-bit picture look like: the colours of classes and of void, the ramp of uncertainty.

`masks` paints and writes with these; they need numpy only.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.classes import VOID, ClassSet, Color, palette

Table = npt.NDArray[np.uint8]
"""(256, 3) red, green and blue of every value that 8 bits can hold."""

_RAMP: tuple[Color, ...] = (
    (6, 8, 26),
    (62, 32, 118),
    (156, 46, 118),
    (226, 94, 72),
    (247, 168, 60),
    (254, 248, 200),
)
"""Night blue, violet, crimson, orange, amber, ivory: each lighter than the one before, in grey print, too."""

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
"""Linear sRGB to CIE XYZ; the sums of its rows are the white point D65."""


def void_color(classes: ClassSet) -> Color:
    """The colour of `VOID`: black, or where a class is black, the first colour that no class has."""
    pascal_void: Color = (224, 224, 192)
    for color in ((0, 0, 0), pascal_void):
        if color not in classes.colors:
            return color
    return next(color for color in palette(256) if color not in classes.colors)


def color_table(classes: ClassSet) -> Table:
    """(256, 3): the colour of every value a mask can hold. Values that mean nothing are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(classes)] = classes.colors
    table[VOID] = void_color(classes)
    return table


@functools.cache
def uncertainty_palette() -> Table:
    """(256, 3): the colour of every uncertainty, from dark (0, sure) to bright (255, as unsure as can be).

    Equal steps in the value are equal distances in CIELAB, so they look about equally large; the lightness
    never falls. The table is read-only.
    """
    path = _to_lab(np.array(_RAMP, dtype=np.float64))
    for _ in range(4):  # cut the corners, where the eye would see an edge
        ahead, behind = 0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]
        path = np.concatenate([path[:1], np.stack([ahead, behind], axis=1).reshape(-1, 3), path[-1:]])
    reached = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    wanted = np.linspace(0, reached[-1], 256)
    lab = np.stack([np.interp(wanted, reached, path[:, axis]) for axis in range(3)], axis=1)
    table: Table = _from_lab(lab).round().clip(0, 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def _to_lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 3) sRGB, 0..255, as CIELAB: lightness 0..100, green to red, blue to yellow."""
    rgb = rgb / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _from_lab(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of `_to_lab`; what a screen cannot show is cut off."""
    y = (lab[:, 0] + 16) / 116
    roots = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * _TO_XYZ.sum(axis=1)
    linear = (xyz @ np.linalg.inv(_TO_XYZ).T).clip(0, 1)
    rgb: npt.NDArray[np.float64] = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return 255 * rgb
