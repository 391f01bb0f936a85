"""One epoch of training, readable from the first line to the last. Called by the training job."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.classes import VOID
from unetpp_cli.data.loading import Batch
from unetpp_cli.devices import Reading, autocast
from unetpp_cli.errors import UserError
from unetpp_cli.inference.logits import normalize
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.parallel import World
from unetpp_cli.training.losses import Criterion
from unetpp_cli.training.optimization import AveragedWeights, learning_rate
from unetpp_cli.training.teacher import Teacher


class AllHeads(nn.Module):
    """The network as training calls it: an image to the logits of all heads. What DDP and compile wrap."""

    def __init__(self, network: UNetPlusPlus) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.network.heads(image)


@dataclass
class Trainer:
    """What a training changes from step to step, and what it needs for a step.

    Attributes:
        network: in training mode, on the world's device, channels last.
        heads: computes all heads of `network`: `AllHeads`, compiled or distributed as the case may be.
        average: the averaged weights, or None.
        scaler: keeps fp16 gradients from vanishing; idle in every other precision.
        world: the processes that train together.
        steps_per_epoch: optimiser steps in an epoch.
        step: optimiser steps taken so far.
        name: what a training sample is called in messages, by its index.
        teacher: what the heads learn from besides the masks, or None.
    """

    config: TrainConfig
    network: UNetPlusPlus
    heads: nn.Module
    optimizer: torch.optim.Optimizer
    criterion: Criterion
    average: AveragedWeights | None
    scaler: torch.amp.GradScaler
    world: World
    precision: str
    steps_per_epoch: int
    step: int = 0
    name: Callable[[int], str] = str
    teacher: Teacher | None = None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.world.device


@dataclass
class EpochSums:
    """What an epoch has come to so far. Kept in the training state, so a resumed epoch has the same means.

    Attributes:
        samples: used so far, over all processes: the place in the epoch's order.
        steps: optimiser steps; `loss` and `heads` are sums over them.
        loss: the loss that is minimised; `heads`: each head's own.
        hits, labelled: pixels that the deepest head got right, and all that it could, in this process; on
            its device, so that adding them up waits for nothing.
        lr: the learning rate of the last step.
        seconds: of training.
    """

    hits: Tensor
    labelled: Tensor
    samples: int = 0
    steps: int = 0
    loss: float = 0.0
    heads: list[float] = field(default_factory=list)
    lr: float = 0.0
    seconds: float = 0.0

    def to_json(self, world: World) -> dict[str, Any]:
        """Plain numbers, over all processes; all of them must ask."""
        pixels = world.add_up(torch.stack([self.hits, self.labelled])).tolist()
        return {**vars(self), "hits": pixels[0], "labelled": pixels[1]}

    @staticmethod
    def from_json(data: dict[str, Any], world: World) -> EpochSums:
        """The inverse of `to_json`: rank 0 goes on with the pixels counted, the others start at none."""
        counts = {
            key: torch.tensor(data[key] if world.is_main else 0, device=world.device)
            for key in ("hits", "labelled")
        }
        return EpochSums(**{**data, **counts})

    @staticmethod
    def empty(world: World) -> EpochSums:
        """Those of an epoch that begins."""
        return EpochSums.from_json({"hits": 0, "labelled": 0}, world)


@dataclass(frozen=True)
class Step:
    """What is known after a step: `samples` of this epoch used, `loss`, `lr`, `images_per_second`."""

    samples: int
    loss: float
    lr: float
    images_per_second: float


@dataclass(frozen=True)
class Wishes:
    """What somebody wants after a step: `stop` there, or `save` and go on."""

    stop: bool = False
    save: bool = False


def train_epoch(
    trainer: Trainer,
    batches: Iterable[Batch],
    sums: EpochSums,
    epoch: int = 1,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    wishes: Callable[[], Wishes] = Wishes,
    save: Callable[[], None] = lambda: None,
) -> bool:
    """Trains on every batch once, or on those that are left of an epoch that was interrupted.

    Args:
        batches: this process's share of each batch.
        sums: added to; says where the epoch stands.
        epoch: counted from 1; the learning rate depends on it.
        on_step: told after every optimiser step.
        wishes: asked after every optimiser step.
        save: called when any process wished it.

    Returns:
        False when any process wished to stop before the epoch's last batch.

    Raises:
        UserError: the loss is no longer finite; the weights are those before the offending step (BatchNorm's
            statistics have met it).
    """
    config = trainer.config
    trainer.network.train()
    began, seconds_before, samples_before = time.perf_counter(), sums.seconds, sums.samples
    for group in _groups(batches, config.accumulate):
        place = sums.samples // (config.batch_size * config.accumulate)
        sums.lr = learning_rate(
            config, (epoch - 1) * trainer.steps_per_epoch + place, trainer.steps_per_epoch
        )
        loss, heads, pixels = train_step(trainer, group, sums.lr)

        sums.samples += trainer.world.size * sum(len(batch.images) for batch in group)
        sums.steps += 1
        sums.loss += loss
        sums.heads = [old + new for old, new in zip(sums.heads or [0.0] * len(heads), heads, strict=True)]
        sums.hits += pixels[0]
        sums.labelled += pixels[1]
        seconds = time.perf_counter() - began
        sums.seconds = seconds_before + seconds
        on_step(Step(sums.samples, loss, sums.lr, (sums.samples - samples_before) / seconds))
        wish = wishes()
        stop, wants_save = trainer.world.any([wish.stop, wish.save])
        if stop:
            return False
        if wants_save:
            save()
    return True


def train_step(trainer: Trainer, group: Sequence[Batch], lr: float) -> tuple[float, list[float], Tensor]:
    """One optimiser step on a group of micro-batches, accumulated.

    The pixel-wise losses are divided by the labelled pixels of the whole step, over all processes and
    micro-batches: how the pixels are dealt out does not change what a pixel counts.

    Returns:
        The loss of the step and each head's; (2,) int64, the deepest head's right and all labelled pixels.
    """
    config, world, criterion, device = trainer.config, trainer.world, trainer.criterion, trainer.device
    targets = [batch.masks.to(device, non_blocking=True).long() for batch in group]
    norm = world.add_up(torch.stack([criterion.norm(target) for target in targets]).sum())
    parts: list[Tensor] = []
    pixels = torch.zeros(2, dtype=torch.int64, device=device)
    for number, (batch, target) in enumerate(zip(group, targets, strict=True), start=1):
        image = normalize(batch.images, config.mean, config.std, device)
        is_last = number == len(group)
        with _local_gradients(trainer.heads, not is_last):
            # First, while the activations that the backward pass needs are not there yet.
            taught = trainer.teacher(batch.images, trainer.precision) if trainer.teacher else None
            with autocast(device, trainer.precision):
                logits = trainer.heads(image)
            part, heads = criterion(logits, target, norm, 1 / (len(group) * world.size), taught)
            parts.append(torch.cat([part.detach()[None], heads]))
            with torch.no_grad():
                valid = target != VOID
                right = (logits[-1].max(1).indices == target) & valid
                pixels += torch.stack([right.sum(), valid.sum()])
            if is_last:
                losses = Reading(world.add_up(torch.stack(parts).sum(0)))
            # DDP averages the gradients over the processes; ours are to be summed.
            trainer.scaler.scale(part * world.size).backward()  # type: ignore[no-untyped-call]

    total, *each = losses.values()
    if not math.isfinite(total):
        trainer.optimizer.zero_grad(set_to_none=True)
        _refuse_non_finite(trainer, total, parts, group)
    for parameters in trainer.optimizer.param_groups:
        parameters["lr"] = lr
    if config.clip:
        trainer.scaler.unscale_(trainer.optimizer)
        torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), config.clip)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.step += 1
    if trainer.average is not None:
        trainer.average.update(trainer.network)
    return total, each, pixels


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches in groups of `size`; the last group of an epoch may be smaller."""
    rest = iter(batches)
    while group := list(itertools.islice(rest, size)):
        yield group


def _local_gradients(heads: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[object]:
    """While gradients only add up here, processes need not exchange them."""
    if wanted and isinstance(heads, nn.parallel.DistributedDataParallel):
        return heads.no_sync()
    return contextlib.nullcontext()


def _refuse_non_finite(
    trainer: Trainer, loss: float, parts: Sequence[Tensor], group: Sequence[Batch]
) -> None:
    """Names the step and the files of the micro-batches in which the loss is not finite, in any process."""
    guilty = [
        trainer.name(index)
        for part, batch in zip(parts, group, strict=True)
        if not bool(part[0].isfinite())
        for index in batch.indices
    ]
    names = sorted({name for some in trainer.world.collect(guilty) for name in some})
    raise UserError(
        f"The loss is {loss} at step {trainer.step + 1}, in the batch {', '.join(names)}.",
        "The last good state is kept. Lower --lr, add warm-up or --clip 5, or use --precision fp32.",
    )
