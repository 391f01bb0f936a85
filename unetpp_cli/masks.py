"""Class indices as pictures: files, colours, overlays; maps of uncertainty. numpy and Pillow only.

predict writes its files with this; the sample sheets and whoever reads a mask back use it too. Large pictures
(20,000x20,000) are worked on in strips of rows.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from unetpp_cli.colors import color_table, uncertainty_palette
from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.files import replacing

Mask = npt.NDArray[np.uint8]
"""(H, W) class indices; `VOID` (255) where there is none."""

RGB = npt.NDArray[np.uint8]
"""(H, W, 3) red, green and blue, 0..255."""

CLASSES_KEY = "classes"
"""Text chunk of a mask that holds the class names, in index order, as a JSON list."""

# Measured on CamVid's masks (480x360, one core): run lengths take 0.8 ms and 6.4 kB. zlib's level 1 takes
# the same time for 7.7 kB, level 6 takes 2.0 ms for 5.3 kB and level 9 12 ms for 4.5 kB; on speckled masks
# run lengths win both ways (1.0 ms, 12.3 kB; level 6: 3.1 ms, 13.0 kB). They win for grey indices and for
# colours as well (4.4 ms, 5.8 kB; level 6: 5.6 ms, 6.1 kB), where the filters of PNG turn areas into zeros.
_COMPRESSION = {"compress_type": zlib.Z_RLE, "compress_level": 1}


def save_mask(
    path: str | os.PathLike[str], mask: Mask, classes: ClassSet, text: Mapping[str, str] | None = None
) -> None:
    """Writes a mask as a palette PNG: the pixel value is the class index, the colour the class's colour.

    Equal arguments give equal bytes. An existing file is replaced only by a finished one.

    Args:
        mask: (H, W) uint8, every value a class index or `VOID`.
        text: text chunks beside `CLASSES_KEY`, such as `model`, `depth`, `precision` and `Software`.

    Raises:
        ValueError: the mask is no (H, W) uint8 array, or holds a value that is no class.
        UserError: the file cannot be written.
    """
    _check(mask, classes)
    _save_flat(
        path, _with_palette(mask, color_table(classes)), {CLASSES_KEY: _names(classes), **(text or {})}
    )


def save_color(
    path: str | os.PathLike[str], mask: Mask, classes: ClassSet, text: Mapping[str, str] | None = None
) -> None:
    """Writes a mask as an RGB PNG in its classes' colours, `VOID` in `void_color`. Else as `save_mask`.

    Raises:
        ValueError: the mask is no (H, W) uint8 array, or holds a value that is no class.
        UserError: the file cannot be written.
    """
    _check(mask, classes)
    picture = _with_palette(mask, color_table(classes)).convert("RGB")
    _save_flat(path, picture, {CLASSES_KEY: _names(classes), **(text or {})})


def save_index(path: str | os.PathLike[str], mask: Mask, text: Mapping[str, str] | None = None) -> None:
    """Writes a mask as an 8-bit grey PNG: the pixel value is the class index, 255 is `VOID`.

    `read_mask` reads it, too.

    Args:
        mask: (H, W) uint8.
        text: text chunks; the class names are not among them by themselves.

    Raises:
        ValueError: the mask is no (H, W) uint8 array.
        UserError: the file cannot be written.
    """
    _save_flat(path, Image.fromarray(_flat(mask)), text or {})


def save_map(path: str | os.PathLike[str], values: Mask, text: Mapping[str, str] | None = None) -> None:
    """Writes a map of uncertainty as a palette PNG: the pixel value is the figure, dark is sure.

    Args:
        values: (H, W) uint8: 0 (sure) to 255 (as unsure as can be).
        text: text chunks.

    Raises:
        ValueError: the map is no (H, W) uint8 array.
        UserError: the file cannot be written.
    """
    _save_flat(path, _with_palette(values, uncertainty_palette()), text or {})


def _check(mask: Mask, classes: ClassSet) -> None:
    stray = [value for value in values_in(_flat(mask)) if value >= len(classes) and value != VOID]
    if stray:
        raise ValueError(f"the mask holds {stray}, but there are {len(classes)} classes")


def _flat(mask: Mask) -> Mask:
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"a mask is (H, W) uint8, not {mask.shape} {mask.dtype}")
    return mask


def _with_palette(mask: Mask, table: RGB) -> Image.Image:
    """A palette picture that shares the mask's memory, as long as the mask lies there row by row."""
    picture = Image.fromarray(_flat(mask))
    picture.putpalette(table.tobytes())
    return picture


def _names(classes: ClassSet) -> str:
    return json.dumps(list(classes.names), ensure_ascii=False)


def _save_flat(path: str | os.PathLike[str], picture: Image.Image, text: Mapping[str, str]) -> None:
    """Writes a picture of flat areas as PNG with text chunks, in one step."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=_chunks(text), **_COMPRESSION)


def _chunks(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)  # tEXt; iTXt where Latin-1 cannot spell it
    return chunks


def read_mask(path: str | os.PathLike[str]) -> tuple[Mask, dict[str, str]]:
    """Reads a mask of class indices and its text chunks. The inverse of `save_mask`.

    Returns:
        (H, W) uint8 class indices, and the text chunks of the file (empty for other programs' masks).

    Raises:
        UserError: there is no such picture, or its pixels are colours rather than class indices.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            mode, mask = picture.mode, np.array(picture)
            text = {str(key): str(value) for key, value in getattr(picture, "text", {}).items()}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Cannot read the mask {path}: {error}.", "Give a palette or grey PNG.") from error
    if mode not in {"P", "L"}:
        raise UserError(
            f"{path} holds colours (mode {mode}), not class indices.",
            "Give a palette or grey PNG whose pixel values are class indices.",
        )
    return mask, text


def save_picture(path: str | os.PathLike[str], picture: RGB, text: Mapping[str, str] | None = None) -> None:
    """Writes an (H, W, 3) uint8 picture as PNG or JPEG, by the suffix of `path`, in one step.

    Args:
        text: text chunks of the PNG; a JPEG has none.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    options: dict[str, Any] = {"compress_level": 3, "pnginfo": _chunks(text or {})}
    suffix = Path(path).suffix.lower()
    if suffix in {".jpg", ".jpeg"}:
        options = {"quality": 92, "subsampling": 0}  # the edges between flat colours stay sharp
    elif suffix != ".png":
        raise UserError(f"Cannot write {path}: pictures are PNG or JPEG.", "Name it .png or .jpg.")
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, **options)


def values_in(mask: Mask) -> tuple[int, ...]:
    """The values that occur in a mask, ascending."""
    counts = np.zeros(256, dtype=np.int64)
    for rows in strips(mask):
        counts += np.bincount(mask[rows].ravel(), minlength=256)  # eight times as big inside
    return tuple(int(value) for value in np.flatnonzero(counts))


def colorize(mask: Mask, classes: ClassSet) -> RGB:
    """The mask in its classes' colours, (H, W, 3)."""
    table, colors = color_table(classes), np.empty((*mask.shape, 3), dtype=np.uint8)
    for rows in strips(mask):
        table.take(mask[rows], axis=0, out=colors[rows], mode="clip")  # several times as fast as table[mask]
    return colors


def overlay(image: RGB, mask: Mask, classes: ClassSet, opacity: float = 0.5) -> RGB:
    """The image with the mask's colours over it; where the mask is `VOID` the image stays as it is.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) uint8.
        opacity: 0 (only the image) to 1 (only the colours).

    Raises:
        ValueError: the sizes differ, or the opacity is not within 0..1.
    """
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"image {image.shape} and mask {mask.shape} do not match")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} is not within 0..1")
    # In 1/256ths and 16 bits, strip by strip: a big picture is never held as larger numbers.
    weight = round(opacity * 256)
    table = color_table(classes).astype(np.uint16) * weight + 128
    mixed = np.empty(image.shape, dtype=np.uint8)
    for rows in strips(mask):
        part = image[rows].astype(np.uint16) * (256 - weight)
        part += table.take(mask[rows], axis=0)
        part >>= 8
        mixed[rows] = part
        void = mask[rows] == VOID
        if void.any():  # predictions hold none
            mixed[rows][void] = image[rows][void]
    return mixed


def side_by_side(image: RGB, other: RGB) -> RGB:
    """The two pictures next to each other, (H, W + W', 3): the image, say, and its overlay.

    Raises:
        ValueError: they are not two uint8 RGB pictures of one height.
    """
    for picture in (image, other):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"a picture is (H, W, 3) uint8, not {picture.shape} {picture.dtype}")
    if len(image) != len(other):
        raise ValueError(f"pictures {len(image)} and {len(other)} pixels high do not fit beside each other")
    return np.concatenate([image, other], axis=1)


def strips(mask: Mask) -> Iterator[slice]:
    """Rows from top to bottom, about a quarter of a million pixels at a time."""
    rows = max(1, 2**18 // max(mask.shape[1], 1))
    return (slice(top, top + rows) for top in range(0, len(mask), rows))
