"""One epoch of training, readable from the first line to the last. Called by the training job."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.classes import VOID
from unetpp_cli.devices import autocast
from unetpp_cli.errors import UserError
from unetpp_cli.inference.predictor import normalize
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.training.losses import Criterion
from unetpp_cli.training.optimization import AveragedWeights, learning_rate


@dataclass
class Trainer:
    """What a training changes from step to step, and what it needs for a step.

    Attributes:
        network: in training mode, on `device`, channels last.
        average: the averaged weights, or None.
        step: optimiser steps taken so far.
        steps_per_epoch: optimiser steps in an epoch.
    """

    config: TrainConfig
    network: UNetPlusPlus
    optimizer: torch.optim.Optimizer
    criterion: Criterion
    average: AveragedWeights | None
    device: torch.device
    precision: str
    steps_per_epoch: int
    step: int = 0


@dataclass(frozen=True)
class Step:
    """What is known after a batch: 1-based `number` of `total`, `loss`, `lr`, `images_per_second`."""

    number: int
    total: int
    loss: float
    lr: float
    images_per_second: float


@dataclass(frozen=True)
class TrainingResult:
    """Means over the epoch: `loss`, `heads` (loss per head), pixel `accuracy` of the deepest head (0..1).

    `finished` is False when `stop` asked for an end before the last batch.
    """

    loss: float
    heads: tuple[float, ...]
    accuracy: float
    lr: float
    images_per_second: float
    finished: bool


def train_epoch(
    trainer: Trainer,
    batches: Iterable[tuple[Tensor, Tensor]],
    on_step: Callable[[Step], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Trains on every batch once.

    Args:
        batches: image (N, C, H, W) uint8 and mask (N, H, W) uint8.
        on_step: told after every batch.
        stop: asked after every optimiser step; true ends the epoch there.

    Raises:
        UserError: the loss is no longer finite; the weights are those before the offending step.
    """
    config, network, device = trainer.config, trainer.network, trainer.device
    total = len(batches)  # type: ignore[arg-type]
    network.train()
    losses: list[float] = []
    heads: list[Tensor] = []
    hits = torch.zeros((), dtype=torch.int64, device=device)
    labelled = torch.zeros((), dtype=torch.int64, device=device)
    images_seen, lr, began = 0, 0.0, time.perf_counter()
    finished = True
    for number, (images, masks) in enumerate(batches, start=1):
        pixels = normalize(images, config.mean, config.std, device)
        target = masks.to(device, non_blocking=True).long()
        with autocast(device, trainer.precision):
            logits = network.heads(pixels)
        loss, per_head = trainer.criterion(logits, target)

        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"The loss is {value} at step {trainer.step + 1}, batch {number} of the epoch.",
                "Lower --lr, add warm-up or --set clip=5, or use --precision fp32.",
            )
        # The last group of an epoch may be smaller; its gradients are averaged over what it has.
        group = min(config.accumulate, total - (number - 1) // config.accumulate * config.accumulate)
        (loss / group).backward()  # type: ignore[no-untyped-call]
        boundary = number % config.accumulate == 0 or number == total
        if boundary:
            lr = learning_rate(config, trainer.step, trainer.steps_per_epoch)
            for parameters in trainer.optimizer.param_groups:
                parameters["lr"] = lr
            if config.clip:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.step += 1
            if trainer.average is not None:
                trainer.average.update(network)

        losses.append(value)
        heads.append(torch.stack(per_head))
        with torch.no_grad():
            valid = target != VOID
            hits += ((logits[-1].max(1).indices == target) & valid).sum()
            labelled += valid.sum()
        images_seen += len(images)
        speed = images_seen / (time.perf_counter() - began)
        on_step(Step(number, total, value, lr, speed))
        if boundary and number < total and stop():
            finished = False
            break
    return TrainingResult(
        loss=sum(losses) / len(losses),
        heads=tuple(torch.stack(heads).mean(0).tolist()),
        accuracy=float(hits) / max(1, int(labelled)),
        lr=lr,
        images_per_second=images_seen / (time.perf_counter() - began),
        finished=finished,
    )
