"""What a training's loaders do: which sample is met when, and by which process. Called by the training job.

The order of an epoch is a function of (seed, epoch) and a sample of (seed, epoch, index). Neither depends on
the number of workers, of processes, or on where an interrupted epoch is taken up again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.dataset import Decoded, EvaluationExamples, Example, chw
from unetpp_cli.errors import UserError
from unetpp_cli.parallel import World


class Batch(NamedTuple):
    """images (N, C, H, W) and masks (N, H, W) with `VOID` = 255, both uint8; the samples' `indices`."""

    images: Tensor
    masks: Tensor
    indices: list[int]


class Sample(NamedTuple):
    """One augmented sample: image (C, H, W) and mask (H, W), both uint8, and its number in the split."""

    image: Tensor
    mask: Tensor
    number: int


class TrainingSamples(torch.utils.data.Dataset[Sample]):
    """Augmented samples. Its keys are (epoch, index), so a sample depends on nothing else."""

    def __init__(self, decoded: Decoded, augmentation: Augmentation) -> None:
        self.decoded, self.augmentation = decoded, augmentation

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        image, mask = self.augmentation(*self.decoded[index], epoch, index)
        return Sample(chw(image), torch.from_numpy(np.ascontiguousarray(mask)), index)


class TrainingBatches(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """The keys of one epoch's batches, shuffled by (seed, epoch): this process's share of each.

    Args:
        count: number of samples.
        batch_size: samples a batch, over all processes; a multiple of their number.
        seed: the training's seed.
        drop_last: leave out the last batch when it is smaller (kept when it is the only one).
        rank, processes: process `rank` of so many takes the `rank`-th part of every batch.

    Attributes:
        epoch: counted from 1.
        start: samples of the epoch, over all processes, that were used before it was interrupted.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, drop_last: bool, rank: int = 0, processes: int = 1
    ) -> None:
        self.batch_size, self.seed, self.rank, self.processes = batch_size, seed, rank, processes
        self.count = count
        # A smaller last batch must still give every process the same number of samples.
        drop = drop_last and count >= batch_size
        self.used = count // batch_size * batch_size if drop else count // processes * processes
        self.epoch, self.start = 1, 0

    @property
    def per_epoch(self) -> int:
        """Batches in a whole epoch."""
        return -(-self.used // self.batch_size)

    def __len__(self) -> int:
        """Batches that are left of the epoch."""
        return max(0, -(-(self.used - self.start) // self.batch_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)[: self.used]
        epoch = self.epoch
        for first in range(self.start, self.used, self.batch_size):
            batch = order[first : first + self.batch_size]
            share = len(batch) // self.processes
            if share:  # what is left of an epoch that began with other processes need not divide
                yield [(epoch, int(index)) for index in batch[self.rank * share : (self.rank + 1) * share]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples of one size.

    Raises:
        UserError: their sizes differ.
    """
    sizes = {tuple(sample.image.shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(
            f"The images of one batch differ in size ({shown}).",
            "End the recipe's augment list with a RandomCrop, or stretch all to one size: --size 480x360.",
        )
    images, masks, indices = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), list(indices))


def training_loader(
    decoded: Decoded, augmentation: Augmentation, batches: TrainingBatches, config: TrainConfig, world: World
) -> DataLoader[Batch]:
    """Loads this process's share of the batches."""
    workers = worker_count(config.workers, world, cached=decoded.is_kept)
    return DataLoader(
        TrainingSamples(decoded, augmentation),  # type: ignore[arg-type] # samples in, batches out
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=world.device.type == "cuda",
        generator=_unused(),
    )


def validation_loader(examples: EvaluationExamples, config: TrainConfig, world: World) -> DataLoader[Example]:
    """Loads this process's share of a split, in order and unaugmented."""
    workers = worker_count(config.workers, world, cached=examples.is_kept)
    on_gpu = world.device.type == "cuda"
    return DataLoader(
        examples,
        # Masks at native size may be large; on the CPU one at a time is as fast as several.
        batch_size=8 if on_gpu else 1,
        sampler=range(world.rank, len(examples), world.size),
        collate_fn=list,
        num_workers=workers if on_gpu else min(1, workers),
        persistent_workers=workers > 0,
        generator=_unused(),
    )


def _unused() -> torch.Generator:
    """What a loader draws its workers' seeds from, which nobody uses; the global one stays where it is."""
    return torch.Generator()


def worker_count(wish: int, world: World, cached: bool) -> int:
    """How many processes decode: none when a cached picture is faster at hand than from a process."""
    if wish >= 0:
        return wish
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if world.device.type == "cuda":
        return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))
    return 0 if cached else 1
