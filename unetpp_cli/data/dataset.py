"""(image, mask) pairs, decoded and brought to size. Called by training's and eval's loaders."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError

if TYPE_CHECKING:
    from unetpp_cli.data.layouts import Dataset, Pair

Array = npt.NDArray[np.uint8]


class Decoded:
    """Pairs, decoded and brought to the geometry; optionally kept, so that each is decoded once.

    What is kept lies in one memory-mapped file: all workers share it, forked or spawned, whatever the size of
    /dev/shm, and the system may drop it under pressure.

    Args:
        data, pairs: what to read.
        geometry: the size that images and masks are brought to.
        channels: 3 (RGB) or 1 (grey).
        folder: where to keep what was decoded, shared with whoever names the same one; None to keep nothing.
        native_masks: leave the masks at their own size, as scoring needs them.
        name: of the file in `folder`.
    """

    def __init__(
        self,
        data: Dataset,
        pairs: Sequence[Pair],
        geometry: Geometry,
        channels: int,
        folder: str | os.PathLike[str] | None = None,
        *,
        native_masks: bool = False,
        name: str = "decoded",
    ) -> None:
        self.data, self.pairs, self.geometry, self.channels = data, tuple(pairs), geometry, channels
        self.native_masks = native_masks
        self._file: Path | None = None
        self._kept: npt.NDArray[np.uint8] | None = None
        if folder is not None:
            native = [data.image_size(pair) for pair in self.pairs]
            self._sizes = [geometry.size(*size) for size in native]
            self._mask_sizes = native if native_masks else self._sizes
            both = zip(self._sizes, self._mask_sizes, strict=True)
            lengths = [1 + math.prod(size) * channels + math.prod(mask) for size, mask in both]
            self._starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
            self._file = Path(folder) / name
            with self._file.open("ab") as stream:  # never shortens what another process has made
                try:
                    if hasattr(os, "posix_fallocate"):  # or a full disk would be met while writing to memory
                        os.posix_fallocate(stream.fileno(), 0, self._starts[-1])
                    stream.truncate(self._starts[-1])
                except OSError as error:
                    raise UserError(
                        f"Cannot keep the decoded images in {folder}: {error.strerror}.",
                        "Set TMPDIR to a larger disk, or --cache off.",
                    ) from error

    @property
    def is_kept(self) -> bool:
        """Whether each pair is decoded only once."""
        return self._file is not None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}  # the map is opened anew in each process

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Image (H, W) or (H, W, C) and mask (H, W) with `VOID` = 255, both uint8."""
        if self._file is None:
            return self._decode(index)
        if self._kept is None:
            self._kept = np.memmap(self._file, dtype=np.uint8, mode="r+")
        height, width = self._sizes[index]
        start, end = self._starts[index], self._starts[index + 1]
        split = start + 1 + height * width * self.channels
        shape = (height, width, self.channels) if self.channels > 1 else (height, width)
        if not self._kept[start]:
            image, mask = self._decode(index)
            self._kept[start + 1 : split] = image.ravel()
            self._kept[split:end] = mask.ravel()
            self._kept[start] = 1  # last: two processes may both decode it, none reads half of it
        # Copies: a transform that writes in place must not reach what is kept.
        image = np.array(self._kept[start + 1 : split]).reshape(shape)
        return image, np.array(self._kept[split:end]).reshape(self._mask_sizes[index])

    def _decode(self, index: int) -> tuple[Array, Array]:
        pair = self.pairs[index]
        image = self.geometry.image(self.data.read_image(pair, self.channels))
        mask = self.data.read_mask(pair)
        return image, mask if self.native_masks else self.geometry.mask(mask)


def decoded_bytes(
    data: Dataset, pairs: Sequence[Pair], geometry: Geometry, channels: int, *, native_masks: bool = False
) -> int:
    """Bytes that `Decoded` keeps for `pairs`."""
    total = 0
    for native in map(data.image_size, pairs):
        size = geometry.size(*native)
        total += math.prod(size) * channels + math.prod(native if native_masks else size)
    return total


def chw(image: Array) -> Tensor:
    """(H, W) or (H, W, C) uint8 array -> (C, H, W) uint8 tensor, contiguous."""
    if image.ndim == 2:
        image = image[..., None]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@dataclass(frozen=True)
class Example:
    """One image to be scored: (C, H, W) uint8 at the geometry's size; its mask (h, w) uint8, as on disk."""

    index: int
    image: Tensor
    mask: Tensor


class EvaluationExamples(torch.utils.data.Dataset[Example]):
    """Images at the geometry's size with their masks at native size, unaugmented, in order.

    Args:
        folder: where to keep what was decoded, for a split that is read again and again.
    """

    def __init__(
        self,
        data: Dataset,
        pairs: Sequence[Pair],
        geometry: Geometry,
        channels: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.decoded = Decoded(data, pairs, geometry, channels, folder, native_masks=True, name="examples")

    @property
    def is_kept(self) -> bool:
        """Whether each image is decoded only once."""
        return self.decoded.is_kept

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, index: int) -> Example:
        image, mask = self.decoded[index]
        return Example(index, chw(image), torch.from_numpy(np.ascontiguousarray(mask)))
