"""What a training needs, built out of its settings: network, trainer, loaders. Called by `jobs.train`."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.classes import ClassSet
from unetpp_cli.data.dataset import Decoded, EvaluationExamples, decoded_bytes
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset
from unetpp_cli.data.loading import Batch, Sample, TrainingBatches, TrainingSamples, collate
from unetpp_cli.data.progression import Progression
from unetpp_cli.devices import check_compile, place
from unetpp_cli.errors import UserError
from unetpp_cli.memory import memory_left
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import architecture_of, build
from unetpp_cli.parallel import World
from unetpp_cli.training.loop import AllHeads, EpochSums, Trainer, train_epoch
from unetpp_cli.training.losses import Criterion, criterion
from unetpp_cli.training.memory import largest_batch, trial
from unetpp_cli.training.optimization import AveragedWeights, build_optimizer, gradient_scaler
from unetpp_cli.training.teacher import Teacher

CACHE_LIMIT = 2 << 30  # bytes of decoded pictures that `cache: auto` keeps
LARGEST_BATCH = 256  # that `batch_size: auto` tries


_CACHE = "unetpp-cache-"


def remove_leftovers() -> None:
    """Removes the decoded pictures of trainings on this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_CACHE}*-*"):
        process = folder.name.removeprefix(_CACHE).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's; or a system that does not tell
        return True
    return True


class DecodedSplits:
    """The decoded pictures of a training; a context manager, since what it keeps is removed at the end.

    Attributes:
        train: the training split at the network's size.
        val: the validation split with masks at their own size, or None where there is none.
    """

    def __init__(self, data: Dataset, config: TrainConfig, world: World) -> None:
        geometry, channels = Geometry.parse(config.size), config.channels
        pairs, val = data.splits["train"], data.splits.get("val", ())
        size = decoded_bytes(data, pairs, geometry, channels)
        size += decoded_bytes(data, val, geometry, channels, native_masks=True)
        small = size <= min(CACHE_LIMIT, shutil.disk_usage(tempfile.gettempdir()).free // 2)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        folder = None
        if config.cache == "on" or (config.cache == "auto" and small):
            # The processes of one machine share it; the one that made it removes it.
            folder = world.once_per_machine("decoded", self._make_folder)
        self.train = Decoded(data, pairs, geometry, channels, folder)
        self.val = EvaluationExamples(data, val, geometry, channels, folder) if val else None

    def _make_folder(self) -> str:
        remove_leftovers()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_CACHE}{os.getpid()}-")
        return self._folder.name

    def __enter__(self) -> DecodedSplits:
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def build_network(config: TrainConfig, num_classes: int, world: World) -> UNetPlusPlus:
    """The network that the settings describe, freshly initialised from the seed, on the world's device."""
    torch.manual_seed(config.seed)
    heads = None if config.deep_supervision else (config.depth,)
    network = UNetPlusPlus(num_classes, config.channels, width=config.width, depth=config.depth, heads=heads)
    if world.size > 1 and world.device.type == "cuda":
        # Statistics over all GPUs: a batch that is spread thin has none worth keeping. (Not on the CPU:
        # torch has no such thing there.)
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return place(network, world.device)


def build_trainer(
    config: TrainConfig,
    network: UNetPlusPlus,
    loss: Criterion,
    world: World,
    precision: str,
    name: Callable[[int], str],
    teacher: Teacher | None = None,
) -> Trainer:
    """A trainer at step 0; `steps_per_epoch` is set when the batch size is known."""
    heads: nn.Module = AllHeads(network)
    if config.compile:
        check_compile(world.device)
        heads = torch.compile(heads)  # type: ignore[assignment]
    if world.size > 1:
        on_gpu = world.device.type == "cuda"
        heads = DistributedDataParallel(heads, device_ids=[world.device.index] if on_gpu else None)
    return Trainer(
        config=config,
        network=network,
        heads=heads,
        optimizer=build_optimizer(network, config),
        criterion=loss,
        average=AveragedWeights(network, config.ema) if config.ema else None,
        scaler=gradient_scaler(world.device, precision),
        world=world,
        precision=precision,
        steps_per_epoch=1,
        name=name,
        teacher=teacher,
    )


def build_batches(config: TrainConfig, count: int, world: World) -> TrainingBatches:
    """This process's share of the batches of an epoch.

    Raises:
        UserError: the batch cannot be dealt out evenly, or there are more processes than images.
    """
    if config.batch_size % world.size:
        raise UserError(
            f"--batch-size {config.batch_size} cannot be dealt out evenly to {world.size} processes.",
            f"Take a multiple of {world.size}.",
        )
    if count < world.size:
        raise UserError(f"There are {count} training images for {world.size} processes.", "Use fewer GPUs.")
    return TrainingBatches(count, config.batch_size, config.seed, config.drop_last, world.rank, world.size)


def steps_per_epoch(config: TrainConfig, batches: TrainingBatches) -> int:
    """Optimiser steps in a whole epoch."""
    return math.ceil(batches.per_epoch / config.accumulate)


def build_criterion(
    config: TrainConfig, classes: ClassSet, pixels: Sequence[int] | None, world: World
) -> Criterion:
    """The loss that the settings describe."""
    heads = config.depth if config.deep_supervision else 1
    return criterion(config, classes, pixels, heads, world.device)


def count_pixels(decoded: Decoded, classes: ClassSet) -> list[int]:
    """Labelled pixels per class over all masks of `decoded`."""
    counts = np.zeros(256, dtype=np.int64)
    for index in range(len(decoded)):
        counts += np.bincount(decoded[index][1].ravel(), minlength=256)
    counts[list(classes.void)] = 0
    return [int(count) for count in counts[: len(classes)]]


def trial_batch(decoded: Decoded, augmentation: Augmentation, size: int) -> Batch:
    """A batch of `size` samples as training meets them at full size; one sample, repeated."""
    sample: Sample = TrainingSamples(decoded, augmentation)[augmentation.progression.full, 0]
    return collate([sample] * size)


def throwaway(trainer: Trainer) -> Trainer:
    """A trainer like this one, alone in the world, whose steps change nothing that is kept."""
    network = copy.deepcopy(trainer.network)
    return dataclasses.replace(
        trainer,
        network=network,
        heads=AllHeads(network),
        optimizer=build_optimizer(network, trainer.config),
        average=None,
        scaler=gradient_scaler(trainer.device, trainer.precision),
        world=World(trainer.device),
    )


def find_batch_size(trainer: Trainer, decoded: Decoded, augmentation: Augmentation) -> int:
    """The largest batch of which a training step fits into memory; never over an eighth of the images.

    0 when not even one image fits. Nothing of a failed step may be held any more, not even by an exception.
    """
    limit, world = min(LARGEST_BATCH, max(1, len(decoded) // 8)), trainer.world
    network, reserve = trainer.network, 0
    if world.size > 1:
        # SyncBatchNorm would wait for the others, who may be trying another size.
        network = place(build(architecture_of(network)), world.device)
        if world.device.type == "cpu":  # they take their shares of the same memory
            reserve = (memory_left(world.device) or 0) * (world.size - 1) // world.size
    height, width = trial_batch(decoded, augmentation, 1).masks.shape[-2:]

    def attempt(size: int) -> None:
        trial(
            network,
            trainer.criterion,
            trainer.config,
            size,
            height,
            width,
            trainer.device,
            trainer.precision,
            trainer.teacher,
        )

    return largest_batch(attempt, limit, trainer.device, reserve=reserve)


def estimate(trainer: Trainer, batch: Batch, batches: int, progression: Progression) -> float:
    """Seconds that the whole training will take, from two steps on a copy that is thrown away.

    Args:
        batch: at full size.
        batches: in an epoch.
    """
    epochs = trainer.config.epochs
    trial = throwaway(trainer)
    train_epoch(trial, [batch], EpochSums.empty(trial.world))
    start = time.perf_counter()
    train_epoch(trial, [batch], EpochSums.empty(trial.world))
    # Validation and writing come on top; a quarter is what they take on CamVid and on the demo.
    return 1.25 * (time.perf_counter() - start) * batches * epochs * progression.cost(epochs)
