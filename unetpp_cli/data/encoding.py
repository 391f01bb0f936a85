"""Masks on disk -> class indices: reading pixel values or colours as they are, and looking them up.

What the values mean is found out by `data.meaning`; this module reads and applies it. Called by
`data.layouts` (which judges masks by their `MaskFacts`) and, for every sample, by `Dataset.read_mask`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.classes import VOID, Color
from unetpp_cli.data.findings import counted
from unetpp_cli.data.images import Picture, opened, turned
from unetpp_cli.errors import UserError, listed

STRAY_BUDGET = 0.001
"""The share of a mask's pixels that may have colours on no list and become void; above it, it is refused.

CamVid's own Seq05VD_f02610_L.png has about 180 such pixels of 691,200; a mask that was resized with
interpolation or saved as JPEG has thousands.
"""

GREY = 0x010101
"""Times a grey value = that grey as a packed colour."""


def pack(color: Color) -> int:
    """A colour as one number, `red + 256 green + 65536 blue`: the order in which Pillow lays out bytes."""
    red, green, blue = color
    return red | green << 8 | blue << 16


def unpack(packed: int) -> Color:
    """The inverse of `pack`."""
    return packed & 255, packed >> 8 & 255, packed >> 16 & 255


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask as it is stored.

    Attributes:
        values: (H, W) integers: stored values, or packed colours when `colored`.
        colored: whether the pixels are colours. Grey stored as RGB is not: its values are the greys.
        palette: packed colour of each value (256,) for a palette file; its `values` are the indices.
    """

    values: npt.NDArray[np.integer]
    colored: bool
    palette: npt.NDArray[np.uint32] | None = None

    def as_colors(self) -> npt.NDArray[np.integer]:
        """(H, W) packed colours, whichever way they are stored."""
        if self.colored:
            return self.values
        colors: npt.NDArray[np.integer] = (
            self.values.astype(np.uint32) * GREY if self.palette is None else self.palette[self.values]
        )
        return colors


def read_raw(picture: Picture, name: str) -> RawMask:
    """Reads a mask without interpreting it: modes 1, L, LA, P, PA, I;16, I, F with whole numbers, RGB, RGBA.

    Palette masks give their indices, not the colours these stand for. Alpha is ignored.

    Raises:
        UserError: no picture, a JPEG (its values are not the ones that were saved), fractions, or a mode
            that no mask has.
    """
    with opened(picture, name) as stored:
        if stored.format in {"JPEG", "MPO"}:
            raise UserError(
                f"The mask {name} is a JPEG: compression has changed its values.",
                "Save the masks as PNG from where they were made.",
            )
        image = turned(stored)
        mode = image.mode
        if mode in {"RGB", "RGBA", "RGBX"}:
            # Four bytes a pixel, read as one little-endian number: the fastest way to a packed colour.
            packed = np.asarray(image.convert("RGBA")).view("<u4")[..., 0] & 0xFFFFFF
            grey = packed & 255
            if (grey * GREY == packed).all():
                return RawMask(grey.astype(np.uint8), colored=False)
            return RawMask(packed, colored=True)
        if mode in {"P", "PA"}:
            indices = image if mode == "P" else image.getchannel(0)
            return RawMask(np.array(indices), colored=False, palette=_palette(image.getpalette() or []))
        if mode == "LA":
            return RawMask(np.array(image.getchannel(0)), colored=False)
        values = np.array(image, dtype=np.uint8) if mode == "1" else np.array(image)
    if mode not in {"1", "L", "I", "F"} and not mode.startswith("I;16"):
        raise UserError(f"The mask {name} has mode {mode}.", "Save the masks as grey, palette or RGB PNG.")
    if mode == "F" and not (values == np.floor(values)).all():
        raise UserError(f"The mask {name} holds fractions.", "A mask holds whole numbers: class indices.")
    if mode in {"I", "F"}:
        if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise UserError(
                f"The mask {name} holds values from {values.min()} to {values.max()}.",
                "Class indices run from 0 to 254, with 255 for void.",
            )
        values = values.astype(np.uint16)
    return RawMask(values, colored=False)


def _palette(flat: list[int]) -> npt.NDArray[np.uint32]:
    """(256,) packed colours of a palette given as red, green, blue, red, ..."""
    colors = np.zeros(768, dtype=np.uint32)
    colors[: len(flat)] = flat[:768]
    red, green, blue = colors.reshape(256, 3).T
    packed: npt.NDArray[np.uint32] = red | green << 8 | blue << 16
    return packed


@dataclass(frozen=True)
class MaskFacts:
    """What one mask holds.

    Attributes:
        name: how messages name it.
        pixels: their number.
        colored: whether `counts` is about packed colours rather than values.
        counts: value or packed colour -> number of pixels.
        rows: value -> mean row of its pixels, 0 (top) to 1 (bottom).
        palette: value that occurs -> its packed colour, for a palette mask.
    """

    name: str
    pixels: int
    colored: bool
    counts: Mapping[int, int]
    rows: Mapping[int, float]
    palette: Mapping[int, int] | None = None

    def colors(self) -> dict[int, int]:
        """Packed colour -> number of pixels, whichever way the colours are stored."""
        if self.colored:
            return dict(self.counts)
        table = self.palette or {}
        found: dict[int, int] = {}
        for value, count in self.counts.items():
            color = table.get(value, value * GREY)
            found[color] = found.get(color, 0) + count
        return found


def survey(raw: RawMask, name: str) -> MaskFacts:
    """Counts the values of a mask and finds out where in the picture they are."""
    height, width = raw.values.shape
    flat = raw.values.ravel()
    # Masks are made of long runs of one value: counting runs is far cheaper than counting pixels.
    breaks = np.empty(flat.size, dtype=bool)
    breaks[0] = True
    np.not_equal(flat[1:], flat[:-1], out=breaks[1:])
    breaks[::width] = True
    starts = np.flatnonzero(breaks)
    lengths = np.diff(starts, append=flat.size)
    values, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse, weights=lengths)
    rows = np.bincount(inverse, weights=lengths * (starts // width)) / counts / max(height - 1, 1)
    keys = [int(value) for value in values]
    palette = raw.palette
    return MaskFacts(
        name=name,
        pixels=flat.size,
        colored=raw.colored,
        counts={key: int(count) for key, count in zip(keys, counts, strict=True)},
        rows={key: float(row) for key, row in zip(keys, rows, strict=True)},
        palette=None if palette is None else {key: int(palette[key]) for key in keys},
    )


@dataclass(frozen=True)
class Encoding:
    """How a data set's masks store classes.

    Attributes:
        colored: whether classes are told by colour; else by value.
        table: (packed colour or value, class index or `VOID`) pairs; what is not in it is a stray.
    """

    colored: bool
    table: tuple[tuple[int, int], ...]

    def mapped(self, mapping: Mapping[int, int]) -> Encoding:
        """The same encoding with every class index replaced by `mapping` of it (`VOID` stays `VOID`)."""
        table = tuple((key, VOID if index == VOID else mapping[index]) for key, index in self.table)
        return Encoding(self.colored, table)

    def strays(self, facts: MaskFacts) -> dict[int, int]:
        """Values or packed colours of the mask that mean nothing -> number of pixels."""
        known = dict(self.table)
        counts = facts.colors() if self.colored else facts.counts
        if facts.colored and not self.colored:
            raise _colors_among_indices(facts.name)
        return {key: count for key, count in counts.items() if key not in known}

    def decode(self, raw: RawMask, name: str) -> npt.NDArray[np.uint8]:
        """Class indices (H, W) uint8, `VOID` (255) where there is none.

        Raises:
            UserError: the mask holds values of no class, or too many pixels of no listed colour.
        """
        if raw.colored and not self.colored:
            raise _colors_among_indices(name)
        keys = raw.as_colors() if self.colored else raw.values
        found = _lookup(self.colored, self.table)[keys]
        unknown = found == 0
        if unknown.any():
            stray, counts = np.unique(keys[unknown], return_counts=True)
            strays = {int(key): int(count) for key, count in zip(stray, counts, strict=True)}
            self.judge(strays, keys.size, name)
            found = np.where(unknown, VOID + 1, found)
        mask: npt.NDArray[np.uint8] = (found - 1).astype(np.uint8)
        return mask

    def judge(self, strays: Mapping[int, int], pixels: int, name: str) -> None:
        """Refuses a mask for its strays: any value, or more off-list colours than the budget allows.

        Raises:
            UserError: names the mask, the most frequent strays and the cure.
        """
        total = sum(strays.values())
        if not strays or (self.colored and total <= STRAY_BUDGET * pixels):
            return
        often = sorted(strays, key=lambda key: (-strays[key], key))
        if self.colored:
            shown = listed((f"{unpack(key)} {strays[key]:,}x" for key in often), 3)
            raise UserError(
                f"{name} has {total:,} pixels ({100 * total / pixels:.1f} %) of colours on no list: {shown}.",
                "Masks that were resized with interpolation or saved as JPEG look like this: take the "
                "originals. If the colours are classes of your own, list them in a classes.txt beside the "
                "data, one 'name r g b' a line.",
            )
        shown = listed((f"{key} ({counted(strays[key], 'pixel')})" for key in often), 3)
        highest = max((key for key, index in self.table if index != VOID), default=0)
        raise UserError(
            f"{name} holds the value {shown}, which is no class: classes are 0..{highest}.",
            "Correct the mask, or name every class in a classes.txt beside the data, one a line, from 0 on "
            "('Void' for a value that is never scored).",
        )


@functools.lru_cache(maxsize=4)
def _lookup(colored: bool, table: tuple[tuple[int, int], ...]) -> npt.NDArray[np.uint16]:
    """Class index + 1 for every value or packed colour, 0 for strays.

    All 2^24 colours have their place, but pages of zeros that nobody writes to take no memory.
    """
    lookup = np.zeros(1 << 24 if colored else 1 << 16, dtype=np.uint16)
    for key, index in table:
        lookup[key] = index + 1
    return lookup


def _colors_among_indices(name: str) -> UserError:
    return UserError(
        f"{name} holds colours, while other masks of this data hold class indices.",
        "Save all masks the same way.",
    )
