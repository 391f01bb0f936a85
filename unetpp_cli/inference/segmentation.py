"""What Python code gets for an image: the mask, and what else can be made of it. Called by `predictor`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli import masks
from unetpp_cli.data.classes import ClassSet
from unetpp_cli.data.images import decode_image, pixels_of
from unetpp_cli.errors import UserError
from unetpp_cli.legend import with_legend

Bytes = npt.NDArray[np.uint8]

ImageLike = str | os.PathLike[str] | bytes | Image.Image | Bytes
"""A path, the bytes of a file, a Pillow image, or an (H, W, 3), (H, W, 4) or (H, W) uint8 array."""

Images = list[ImageLike] | tuple[ImageLike, ...]
"""Several of them, not necessarily of one size."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented image. All arrays are at the image's own size.

    Attributes:
        image: (H, W, 3) uint8 RGB, or (H, W) for a network of one channel: what the network was shown.
        mask: (H, W) uint8 class indices.
        classes: what the indices mean.
        text: model, depth and precision: what is written into a mask's file.
    """

    image: Bytes = field(repr=False)
    mask: Bytes = field(repr=False)
    classes: ClassSet
    text: dict[str, str] = field(default_factory=dict)
    _ask: Callable[[], npt.NDArray[np.float32]] | None = field(default=None, repr=False)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(K, H, W) float32, summing to 1 over the K classes.

        Computed, by another pass of the network, when it is asked for first: they take K floats a pixel.
        """
        if self._ask is None:
            raise ValueError("this segmentation was made without a network")
        return self._ask()

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels of each class that occurs, the largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        order = sorted(np.flatnonzero(counts).tolist(), key=lambda index: -counts[index])
        return {self.classes.names[index]: float(counts[index] / self.mask.size) for index in order}

    def color(self, *, legend: bool = False) -> Bytes:
        """(H, W, 3) uint8: the mask in its classes' colours; wider with a legend."""
        return self._named(masks.colorize(self.mask, self.classes), legend)

    def overlay(self, opacity: float = 0.5, *, legend: bool = False) -> Bytes:
        """(H, W, 3) uint8: the mask's colours over the image; wider with a legend.

        Args:
            opacity: 0 (only the image) to 1 (only the colours).
        """
        image = self.image if self.image.ndim == 3 else np.repeat(self.image[..., None], 3, axis=2)
        return self._named(masks.overlay(image, self.mask, self.classes, opacity), legend)

    def save(self, path: str | os.PathLike[str], kind: str = "palette", **options: Any) -> None:
        """Writes a file, in one step.

        Args:
            kind: `palette` (PNG; the pixel value is the index, its colour the class's), `index` (grey PNG),
                `color` or `overlay` (PNG or JPEG).
            options: of `overlay` or `color`.

        Raises:
            ValueError: there is no such kind, or it has no such options.
            UserError: the file cannot be written, or its suffix says another format.
        """
        flat = kind in ("palette", "index")
        if flat and options:
            raise ValueError(f"kind '{kind}' has no options, such as {', '.join(options)}")
        if flat and Path(path).suffix.lower() != ".png":
            raise UserError(f"Cannot write {path}: masks are PNG files.", "End its name with .png.")
        if kind == "palette":
            masks.save_mask(path, self.mask, self.classes, self.text)
        elif kind == "index":
            masks.save_index(path, self.mask, self.text)
        elif kind == "color":
            masks.save_picture(path, self.color(**options), self.text)
        elif kind == "overlay":
            masks.save_picture(path, self.overlay(**options), self.text)
        else:
            raise ValueError(f"kind '{kind}' is none of palette, index, color, overlay")

    def _named(self, picture: Bytes, legend: bool) -> Bytes:
        return with_legend(picture, self.classes, masks.values_in(self.mask)) if legend else picture


def as_pixels(image: ImageLike, channels: int) -> Bytes:
    """The image as the network takes it, in memory of its own: (H, W, 3) uint8, or (H, W) with one channel.

    Raises:
        UserError: a file that cannot be read.
        ValueError: an array of another shape or type.
    """
    if isinstance(image, (str, bytes, os.PathLike)):
        return decode_image(Path(image) if isinstance(image, os.PathLike) else image, channels)
    if isinstance(image, Image.Image):
        try:
            return pixels_of(image, channels)
        except OSError as error:  # a lazily opened file that is cut off
            raise UserError(f"Cannot read the picture: {error}.", "Replace it.") from error
    array = np.asarray(image)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (3, 4))
        or not array.size
    ):
        raise ValueError(f"an image is (H, W, 3), (H, W, 4) or (H, W) uint8, not {array.shape} {array.dtype}")
    # Copied: whoever refills his buffer with the next frame must not change what this one looked like.
    own = np.array(array if array.ndim == 2 else array[..., :3])
    return own if (own.ndim == 3) == (channels == 3) else pixels_of(Image.fromarray(own), channels)
