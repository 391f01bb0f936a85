"""Pictures as uint8 arrays: one way to decode them, for training, evaluation and predict alike.

Needs numpy and Pillow only. `data.layouts` reads images with it, `jobs.predict` whatever it is given.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from unetpp_cli.errors import UserError

Picture = bytes | str | os.PathLike[str] | IO[bytes]
"""An encoded picture: its bytes, its path, or a seekable stream over it."""

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2"}
)
"""Lower-case suffixes of the files that are taken for pictures."""

MAX_PIXELS = 1 << 30
"""A gigapixel: above any frame, low enough to stop a small file that unfolds into all the memory."""

_LIMIT_LOCK = threading.Lock()  # Pillow keeps its limit in a global
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_PIECE = 1 << 18  # pixels of more than 8 bits that are scaled at once


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122  (archive members too)


def decode_image(
    picture: Picture,
    channels: int = 3,
    name: str | None = None,
    reserve: Callable[[int], None] | None = None,
) -> npt.NDArray[np.uint8]:
    """Decodes a picture, upright as its EXIF orientation says.

    Palettes become colours and CMYK becomes RGB. Alpha is dropped, not painted over: the colours under it
    are what the camera saw. Deeper pixels are scaled to 8 bits by the range of their type (16 bits) or by
    the smallest usual range that holds them (1, 255, 65535).

    Args:
        picture: bytes, path or stream. Of several frames the first is taken.
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma).
        name: how messages name it; the path when omitted.
        reserve: called with the bytes of the result before a pixel is decoded; it may wait until there is
            room for them.

    Returns:
        (H, W, 3) or, with one channel, (H, W); uint8.

    Raises:
        UserError: it cannot be read or decoded, or `channels` is neither 1 nor 3.
        MemoryError: there is no memory for it.
    """
    if channels not in {1, 3}:
        raise UserError(f"Pictures are read with 3 channels or with 1, not with {channels}.")
    with opened(picture, name) as image:
        if reserve is not None:
            reserve(image.width * image.height * channels)
        return pixels_of(image, channels)


def pixels_of(image: Image.Image, channels: int) -> npt.NDArray[np.uint8]:
    """What `decode_image` returns, of an image that Pillow has opened; the image stays as it is."""
    upright = turned(image)
    if upright.mode in _DEEP_MODES:
        upright = Image.fromarray(_to_8_bits(np.asarray(upright), upright.mode))
    wanted = "RGB" if channels == 3 else "L"
    if upright.mode != wanted:
        if "transparency" in upright.info:  # Pillow would warn that it drops it
            upright = upright.copy()
            upright.info.pop("transparency")
        upright = upright.convert(wanted)
    return np.array(upright)


def image_size(picture: Picture, name: str | None = None) -> tuple[int, int]:
    """The (height, width) that `decode_image` will give, read from the header alone (but for TIFF).

    Raises:
        UserError: it cannot be read or is no picture.
    """
    with opened(picture, name) as image:
        if image.format == "TIFF":
            image.load()  # which also turns it
        width, height = image.size
        # Pillow looks for a PNG's orientation behind the pixels, too, and decodes them all on the way.
        if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
            return height, width
        return (width, height) if _orientation(image) >= 5 else (height, width)


@contextlib.contextmanager
def opened(picture: Picture, name: str | None = None) -> Iterator[Image.Image]:
    """A Pillow image over `picture`; whatever goes wrong with it in the block becomes a `UserError`.

    Raises:
        UserError: as `decode_image`.
        MemoryError: as it comes.
    """
    shown = name or (str(Path(picture)) if isinstance(picture, (str, os.PathLike)) else "the picture")
    try:
        stream = io.BytesIO(picture) if isinstance(picture, bytes) else picture
        with _open(stream) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{shown} has {image.width}x{image.height} pixels; {MAX_PIXELS:,} is the limit.",
                    "Cut it into parts.",
                )
            yield image
    except (UserError, MemoryError):  # a lack of memory is no fault of the picture
        raise
    except FileNotFoundError as error:
        raise UserError(f"There is no file {shown}.", "Check the path given.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{shown} is no picture, or a damaged one.", "Replace or remove it.") from error
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"Cannot read the picture {shown}: {reason}.", "Replace or remove it.") from error


def turned(image: Image.Image) -> Image.Image:
    """The image upright: rotated or mirrored as its EXIF orientation says."""
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none, or none that makes sense."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a sound picture
        return 1


def _to_8_bits(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.uint8]:
    """Scales (H, W) integers or floats of more than 8 bits to 0..255.

    Piece by piece: float64 and numpy's indices take eight bytes a pixel, the picture no more than four.
    """
    flat = values.reshape(-1)
    pieces = [slice(start, start + _PIECE) for start in range(0, flat.size, _PIECE)]
    scaled = np.empty(flat.size, np.uint8)
    if mode.startswith("I;16"):
        table = _scaled(np.arange(65_536, dtype=np.float64), 65_535.0)
        for piece in pieces:
            scaled[piece] = table[flat[piece]]
    else:
        top = max((float(_deep(flat[piece]).max()) for piece in pieces), default=0.0)
        usual = (1.0, 255.0, 65_535.0) if mode == "F" else (255.0, 65_535.0)
        full = next((bound for bound in usual if top <= bound), top)
        for piece in pieces:
            scaled[piece] = _scaled(_deep(flat[piece]), full)
    return scaled.reshape(values.shape)


def _deep(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The values as float64; what is negative, infinite or no number becomes 0."""
    deep: npt.NDArray[np.float64] = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(min=0)
    return deep


def _scaled(deep: npt.NDArray[np.float64], full: float) -> npt.NDArray[np.uint8]:
    """0..full as 0..255."""
    scaled: npt.NDArray[np.uint8] = (deep * (255 / full)).round().astype(np.uint8)
    return scaled


def _open(stream: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """`Image.open` without Pillow's own limit, which is below the size of an aerial photograph."""
    with _LIMIT_LOCK:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(stream)
        finally:
            Image.MAX_IMAGE_PIXELS = before
