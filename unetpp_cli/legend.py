"""The names of classes beside chips of their colours. Used by predict's pictures and by the sample sheets.

Needs numpy and Pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unetpp_cli.colors import void_color
from unetpp_cli.data.classes import VOID, ClassSet, Color
from unetpp_cli.masks import RGB

SMALLEST_TEXT = 11
"""Pixels; below this the letters of Pillow's built-in font run together."""


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font (Aileron, Latin letters) at a size in pixels."""
    built_in = ImageFont.load_default(size=max(size, SMALLEST_TEXT))
    assert isinstance(built_in, ImageFont.FreeTypeFont)  # a Pillow without FreeType draws 10 pixels only
    return built_in


def text_size(height: int, width: int) -> int:
    """Pixels of the letters that suit a picture of this size: 14 beside 480x360, 28 beside 960x720."""
    return max(SMALLEST_TEXT, round(math.sqrt(height * width) / 30))


def legend(classes: ClassSet, present: Iterable[int], height: int, size: int | None = None) -> RGB:
    """Names beside colour chips on white, in as many columns as the height asks for.

    Args:
        present: the class indices to show; `VOID` is shown as `void`.
        height: pixels of the result; at least one row of text is drawn.
        size: pixels of the letters; by default what suits a 4:3 picture of this height.

    Returns:
        (H, W, 3) uint8; W follows from the names. H is `height`, or one row where that is less.
    """
    letters = font(size or text_size(height, height * 4 // 3))
    entries = legend_entries(classes, present)
    row, gap = legend_row(letters), round(letters.size * 0.6)
    height = max(height, row + gap)
    rows = max(1, (height - gap) // row)
    columns = [entries[start : start + rows] for start in range(0, len(entries), rows)]
    # Columns of equal length: 11 names in two columns are 6 and 5, not 10 and 1.
    if len(columns) > 1:
        even = -(-len(entries) // len(columns))
        columns = [entries[start : start + even] for start in range(0, len(entries), even)]
    widths = [round(max(letters.getlength(name) for name, _ in column)) + 1 for column in columns]
    chip = round(letters.size * 1.6)
    canvas = Image.new("RGB", (gap + sum(chip + gap + width + gap for width in widths), height), "white")
    draw, left = ImageDraw.Draw(canvas), gap
    for column, width in zip(columns, widths, strict=True):
        for line, (name, color) in enumerate(column):
            middle = gap // 2 + line * row + row // 2
            half = round(letters.size * 0.5)
            box = (left, middle - half, left + chip, middle + half)
            draw.rectangle(box, fill=color, outline=(120, 120, 120))
            draw.text((left + chip + gap, middle), name, fill="black", font=letters, anchor="lm")
        left += chip + gap + width + gap
    return np.array(canvas)


def legend_entries(classes: ClassSet, present: Iterable[int]) -> list[tuple[str, Color]]:
    """(name, colour) of the indices given, ascending, each once; `VOID` comes last, as `void`."""
    indices: Sequence[int] = sorted(set(present))
    return [
        ("void", void_color(classes)) if index == VOID else (classes.names[index], classes.colors[index])
        for index in indices
    ]


def legend_row(letters: ImageFont.FreeTypeFont) -> int:
    """Pixels from one line of a legend to the next."""
    return round(letters.size * 1.55)


def with_legend(picture: RGB, classes: ClassSet, present: Iterable[int]) -> RGB:
    """The picture with a legend of the classes `present` to its right, (H', W', 3).

    H' is the picture's height, unless it is too low for a legible legend: then white is added below.
    """
    indices = sorted(set(present))
    if not indices:
        return picture
    height, width = picture.shape[:2]
    size = text_size(height, width)
    # A thumbnail is given room for up to eight lines: one line of all names would be far wider than it is.
    lines = -(-len(indices) // -(-len(indices) // 8))
    least = round((lines + 0.5) * legend_row(font(size))) + 1
    beside = legend(classes, indices, max(height, least), size)
    canvas = np.full((beside.shape[0], width + beside.shape[1], 3), 255, dtype=np.uint8)
    canvas[:height, :width] = picture
    canvas[:, width:] = beside
    return canvas
