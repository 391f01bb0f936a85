"""Our training as `train.py` measures it: one step, and one epoch through the whole pipeline.

Everything that the benchmarks know of `unetpp_cli.training` stands here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unetpp_cli.config import TrainConfig, resolve
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.devices import autocast, place
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.training.losses import criterion
from unetpp_cli.training.optimization import build_optimizer

FLIPS = [{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}]


def our_config(**changes: Any) -> TrainConfig:
    """The article's optimiser and one head, so that both sides do the same work."""
    options = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "deep_supervision": False}
    return resolve(("benchmark", {**options, "schedule": "constant", "augment": FLIPS, **changes}))


def our_step(
    network: nn.Module, device: torch.device, precision: str, compiled: bool = False
) -> Callable[[Tensor, Tensor], Tensor]:
    """A step with our settings, of our network or of a peer's: channels last, our loss and optimiser.

    Returns:
        image (N, 3, H, W) float32 channels last and target (N, H, W) int64 on the device -> the loss.
    """
    place(network, device)  # type: ignore[arg-type]
    config = our_config()
    optimizer = build_optimizer(network, config)
    loss_function = criterion(config, CAMVID11, None, 1, device)
    forward: Any = network.heads if isinstance(network, UNetPlusPlus) else network
    if compiled:
        forward = torch.compile(forward)

    def step(image: Tensor, target: Tensor) -> Tensor:
        with autocast(device, precision):
            output = forward(image)
        loss, _ = loss_function([output] if isinstance(output, Tensor) else output, target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def our_epochs(
    folder: Path,
    *,
    images: int,
    width: int,
    batch: int,
    size: int,
    device: torch.device,
    precision: str,
    workers: int,
) -> Callable[[], int]:
    """Our network's training on the first `images` images of `folder`, as the training job sets it up.

    Returns:
        A function that trains one more epoch and returns how many images it met.
    """
    from unetpp_cli.data.augment import Augmentation
    from unetpp_cli.data.dataset import Decoded
    from unetpp_cli.data.geometry import Geometry
    from unetpp_cli.data.layouts import open_dataset
    from unetpp_cli.data.loading import training_loader
    from unetpp_cli.jobs.learning import setup
    from unetpp_cli.parallel import World
    from unetpp_cli.training.loop import EpochSums, train_epoch

    config, world = (
        our_config(width=width, batch_size=batch, size=f"{size}x{size}", workers=workers),
        World(device),
    )
    data = open_dataset(str(folder))
    cache = tempfile.TemporaryDirectory(prefix="unetpp-benchmark-")
    decoded = Decoded(data, data.splits["train"][:images], Geometry.parse(config.size), 3, cache.name)
    batches = setup.build_batches(config, len(decoded), world)
    loader = training_loader(decoded, Augmentation(config.augment, config.seed), batches, config, world)
    network = setup.build_network(config, len(data.classes), world)
    loss = setup.build_criterion(config, data.classes, None, world)
    trainer = setup.build_trainer(config, network, loss, world, precision, str)
    trainer.steps_per_epoch = setup.steps_per_epoch(config, batches)

    def epoch() -> int:
        train_epoch(trainer, loader, EpochSums.empty(world), batches.epoch)
        batches.epoch += 1
        return batches.used

    epoch.cache = cache  # type: ignore[attr-defined] # removed when the function is
    return epoch
