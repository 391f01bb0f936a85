"""(image, mask) pairs as tensors: what a DataLoader's workers do. Called by the training and eval jobs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError

if TYPE_CHECKING:  # eval needs no albumentations, which takes its time to import
    from unetpp_cli.data.augment import Augmentation
    from unetpp_cli.data.layouts import Dataset, Pair

Array = npt.NDArray[np.uint8]


class Decoded:
    """Pairs, decoded and brought to the geometry; optionally kept, so that each is decoded once.

    What is kept lies in one memory-mapped temporary file: all workers share it, forked or spawned, whatever
    the size of /dev/shm, and the system may drop it under pressure.

    Args:
        data, pairs: what to read.
        geometry: the size that images and masks are brought to.
        channels: 3 (RGB) or 1 (grey).
        keep: whether to keep what was decoded.
    """

    def __init__(
        self, data: Dataset, pairs: Sequence[Pair], geometry: Geometry, channels: int, keep: bool
    ) -> None:
        self.data, self.pairs, self.geometry, self.channels = data, tuple(pairs), geometry, channels
        self._file: str | None = None
        if keep:
            self._sizes = [geometry.size(*data.image_size(pair)) for pair in self.pairs]
            lengths = [1 + height * width * (channels + 1) for height, width in self._sizes]
            self._starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
            self._folder = tempfile.TemporaryDirectory(prefix="unetpp-cache-")
            self._file = str(Path(self._folder.name) / "decoded")
            with Path(self._file).open("wb") as stream:
                stream.truncate(self._starts[-1])
        self._kept: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getstate__(self) -> dict[str, object]:
        # The map is opened anew in each process, and only this one removes the file.
        return {**self.__dict__, "_kept": None, "_folder": None}

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Image (H, W) or (H, W, C) and mask (H, W) with `VOID` = 255, both uint8, at the geometry's size."""
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
            self._kept[start] = 1  # last: two workers may both decode it, none reads half of it
        # Copies: a transform that writes in place must not reach what is kept.
        image = np.array(self._kept[start + 1 : split]).reshape(shape)
        return image, np.array(self._kept[split:end]).reshape(height, width)

    def _decode(self, index: int) -> tuple[Array, Array]:
        pair = self.pairs[index]
        image = self.geometry.image(self.data.read_image(pair, self.channels))
        return image, self.geometry.mask(self.data.read_mask(pair))


def decoded_bytes(data: Dataset, pairs: Sequence[Pair], geometry: Geometry, channels: int) -> int:
    """Bytes that `Decoded` keeps for `pairs`."""
    sizes = (geometry.size(*data.image_size(pair)) for pair in pairs)
    return sum(height * width * (channels + 1) for height, width in sizes)


def chw(image: Array) -> Tensor:
    """(H, W) or (H, W, C) uint8 array -> (C, H, W) uint8 tensor, contiguous."""
    if image.ndim == 2:
        image = image[..., None]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class TrainingSamples(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Augmented samples. Its keys are (epoch, index), so a sample depends on nothing else.

    Returns:
        image (C, H, W) uint8 and mask (H, W) uint8 with `VOID` = 255; normalisation happens on the device.
    """

    def __init__(self, decoded: Decoded, augmentation: Augmentation) -> None:
        self.decoded, self.augmentation = decoded, augmentation

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image, mask = self.augmentation(*self.decoded[index], epoch, index)
        return chw(image), torch.from_numpy(np.ascontiguousarray(mask))


class TrainingBatches(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """The keys of one epoch's batches, shuffled by (seed, epoch).

    Args:
        count: number of samples.
        batch_size: samples a batch.
        seed: the training's seed.
        drop_last: leave out the last batch when it is smaller (kept when it is the only one).
    """

    def __init__(self, count: int, batch_size: int, seed: int, drop_last: bool) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.drop_last = drop_last and count >= batch_size
        self.epoch = 1

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for batch in range(len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in indices]


def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stacks samples of one size.

    Raises:
        UserError: their sizes differ.
    """
    sizes = {tuple(image.shape[-2:]) for image, _ in samples}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(
            f"The images of one batch differ in size ({shown}).",
            "End the recipe's augment list with a RandomCrop, or stretch all to one size: --size 480x360.",
        )
    return torch.stack([image for image, _ in samples]), torch.stack([mask for _, mask in samples])


@dataclass(frozen=True)
class Example:
    """One image to be scored: (C, H, W) uint8 at the geometry's size; its mask (h, w) uint8, as on disk."""

    index: int
    image: Tensor
    mask: Tensor


class EvaluationExamples(torch.utils.data.Dataset[Example]):
    """Images at the geometry's size with their masks at native size, unaugmented, in order."""

    def __init__(self, data: Dataset, pairs: Sequence[Pair], geometry: Geometry, channels: int) -> None:
        self.data, self.pairs, self.geometry, self.channels = data, tuple(pairs), geometry, channels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        pair = self.pairs[index]
        image = self.geometry.image(self.data.read_image(pair, self.channels))
        mask = np.ascontiguousarray(self.data.read_mask(pair))
        return Example(index, chw(image), torch.from_numpy(mask))
