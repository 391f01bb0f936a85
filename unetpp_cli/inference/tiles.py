"""Where to cut an image that is too large for one pass, so that nobody can see it. Arithmetic only, no torch.

Called by `passes`, which runs the network over the tiles, and by the predictor, which decides whether to cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unetpp_cli.errors import UserError

LARGEST_AUTOMATIC = 2048
"""Larger sides save little: at depth 4 a rim of 128 costs 31 % more arithmetic here, 78 % at 1,024."""

_SHARPNESS = 8
"""Of the Gaussian window: its standard deviation is the tile's side over this, as is usual for patches."""


def radius(depth: int) -> int:
    """How many pixels away from a pixel the input can still change its logits at head `depth`.

    11, 27, 59, 123 at depths 1 to 4: each level doubles the pixels' size, and what they look at.
    """
    return int(2 ** (depth + 3)) - 5


def halo(depth: int, multiple: int) -> int:
    """`radius(depth)` rounded up to `multiple`: what a tile must see around what is kept of it."""
    return _up(radius(depth), multiple)


@dataclass(frozen=True)
class Tiling:
    """The wish to cut images into squares.

    Attributes:
        size: side in pixels of the largest square that the network sees at once; used as the network's
            padding multiple allows, rounded down.
        overlap: pixels that neighbouring tiles share. None is as much as exactness needs, twice the halo:
            each tile's rim is thrown away and the logits are those of the whole image. With less, they are
            blended, and only similar.
    """

    size: int
    overlap: int | None = None

    def __str__(self) -> str:
        return f"{self.size}, overlap {self.overlap}" if self.overlap else str(self.size)


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels of the padded image.

    Attributes:
        start, stop: what the network sees.
        first, last: what is kept of it.
        weights: of each pixel kept, where tiles are blended: those of all spans sum to 1 at every pixel.
            None where this span alone has the pixel.
    """

    start: int
    stop: int
    first: int
    last: int
    weights: tuple[float, ...] | None = None


def parse_tiling(size: int | None, overlap: int | None) -> Tiling | None:
    """What `--tile` and `--overlap` ask for; None without a wish.

    Raises:
        UserError: an overlap of no tiles.
    """
    if size is None:
        if overlap is not None:
            raise UserError("--overlap is what tiles share, and there are none.", "Add --tile, 1024 say.")
        return None
    return Tiling(size, overlap)


def smallest_size(tiling: Tiling, multiple: int, depth: int) -> int:
    """The smallest `Tiling.size` that works with its overlap: one multiple more than what is shared."""
    return _shared(tiling, multiple, depth) + multiple


def check_tiling(tiling: Tiling, multiple: int, depth: int) -> None:
    """Refuses a tiling that cannot be.

    Args:
        multiple: what the network pads its input to a multiple of.
        depth: of the deepest head that is read.

    Raises:
        UserError: the tiles are too small for what they have to share, or a number is out of range.
    """
    if tiling.overlap is not None and tiling.overlap < 0:
        raise UserError(
            f"--overlap {tiling.overlap}: tiles cannot share less than nothing.", "Use 0 or more."
        )
    smallest = smallest_size(tiling, multiple, depth)
    if tiling.size >= smallest:
        return
    if not _is_exact(tiling, multiple, depth):
        raise UserError(
            f"--tile {tiling.size} is too small for --overlap {tiling.overlap}.",
            f"Use --tile {smallest} or more, or a smaller overlap.",
        )
    rim = halo(depth, multiple)
    raise UserError(
        f"--tile {tiling.size} is too small: at depth {depth} a pixel depends on others up to "
        f"{radius(depth)} away, so a rim of {rim} around each tile is computed and thrown away.",
        f"Use --tile {smallest} or more, a shallower depth, or --overlap with less than {2 * rim} (blended).",
    )


def spans(length: int, multiple: int, depth: int, tiling: Tiling) -> tuple[Span, ...]:
    """Cuts one axis. All spans are equally long and start at multiples of `multiple`; the first starts where
    the image does and the last ends where it ends, so that the convolutions meet their zeros in the place
    where they meet them without tiles.

    Args:
        length: of the padded image's axis, a multiple of `multiple`.
        multiple: what the network pads its input to a multiple of.
        depth: of the deepest head that is read.

    Raises:
        UserError: see `check_tiling`.
    """
    check_tiling(tiling, multiple, depth)
    longest = tiling.size // multiple * multiple
    if length <= longest:
        return (Span(0, length, 0, length),)
    shared = _shared(tiling, multiple, depth)
    count = math.ceil((length - shared) / (longest - shared))
    # The shortest side that needs no more tiles than the longest: less is computed twice.
    side = shared + _up(math.ceil((length - shared) / count), multiple)
    starts = [min(k * (side - shared), length - side) for k in range(count)]
    if not _is_exact(tiling, multiple, depth):
        return _blended(length, side, starts)
    ends = [start + side - shared // 2 for start in starts[:-1]] + [length]
    return tuple(
        Span(start, start + side, first, last)
        for start, first, last in zip(starts, [0, *ends[:-1]], ends, strict=True)
    )


def _blended(length: int, side: int, starts: list[int]) -> tuple[Span, ...]:
    """Spans that are kept whole, each pixel weighted by a Gaussian around the middle of its span."""
    middle, deviation = (side - 1) / 2, side / _SHARPNESS
    window = [math.exp(-0.5 * ((place - middle) / deviation) ** 2) for place in range(side)]
    total = [0.0] * length
    for start in starts:
        for place, weight in enumerate(window):
            total[start + place] += weight
    return tuple(
        Span(
            start,
            start + side,
            start,
            start + side,
            tuple(weight / total[start + place] for place, weight in enumerate(window)),
        )
        for start in starts
    )


def pass_bytes(
    pixels: int, width: int, depth: int, values: int, *, passes: int = 1, half: bool = False
) -> int:
    """About how much memory a pass takes at its peak, weights not counted.

    The peak is at X(0,depth): rows 0 to depth hold all their nodes so far, row i with 2^i channels on a
    quarter^i of the pixels, and the concatenation lies there twice, before and after its BatchNorm.

    Args:
        pixels: that go through the network at once.
        width: channels of row 0.
        depth: of the deepest head that is read.
        values: logits per pixel that are asked for, of all heads together.
        passes: how many are averaged.
        half: computed in 16 bits.
    """
    rows = sum((depth - i + 1) / 2**i for i in range(1, depth + 1))
    channels = width * (depth + rows + 2 * (depth + 1))
    # Averaging holds the sum so far, the new logits, and a copy of either while they are added.
    kept = values * (1 if passes == 1 else 4)
    return int(pixels * (_OVERHEAD * channels * (2 if half else 4) + 4 * kept))


_OVERHEAD = 2.0
"""Peak of the resident set over what the tensors add up to: convolutions reorder their input and weights, and
freed memory lies in pieces. On a CPU 1.1 to 1.9 were measured: widths 8, 16 and 64, depths 1, 2 and 4, 256 to
1,024 pixels a side, fp32 and bf16, with glibc's allocator as it is and as the command line sets it."""


def automatic_tiling(
    height: int, width: int, multiple: int, depth: int, budget: float, bytes_per_pixel: float, values: int
) -> Tiling | None:
    """None when an image of this size goes through in one pass, else the largest tiles that do.

    Args:
        height, width: of the image as the network meets it.
        budget: bytes that may be taken.
        bytes_per_pixel: of one pass.
        values: logits per pixel that are kept, of all heads together.
    """
    if bytes_per_pixel * height * width <= budget:
        return None
    smallest = smallest_size(Tiling(1), multiple, depth)
    side = max(smallest, LARGEST_AUTOMATIC // multiple * multiple)
    # Beside the tile there is a band of logits over the whole width.
    while side > smallest and side * (bytes_per_pixel * side + 4 * values * width) > budget:
        side -= multiple
    return Tiling(side)


def _is_exact(tiling: Tiling, multiple: int, depth: int) -> bool:
    return tiling.overlap is None or tiling.overlap >= 2 * halo(depth, multiple)


def _shared(tiling: Tiling, multiple: int, depth: int) -> int:
    """Pixels that neighbours share, a multiple of `multiple`, so that every tile starts at one."""
    rims = 2 * halo(depth, multiple)
    return rims if tiling.overlap is None else min(rims, _up(tiling.overlap, multiple))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
