"""What the processes of `test_processes` do. A module of its own: spawned processes import it by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unetpp_cli.config import resolve
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.data.loading import Batch
from unetpp_cli.jobs.learning.setup import build_network, build_trainer
from unetpp_cli.parallel import World, join
from unetpp_cli.training.loop import train_step
from unetpp_cli.training.losses import criterion

IMAGES = 4


class Recorder(torch.optim.SGD):
    """Keeps the gradients of the one step it is asked for."""

    gradients: list[torch.Tensor]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.gradients = [p.grad.clone() for group in self.param_groups for p in group["params"]]


def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A 16x16 image and its mask; the number of labelled pixels differs a lot from one to the next."""
    generator = torch.Generator().manual_seed(index)
    image = torch.randint(0, 256, (3, 16, 16), generator=generator, dtype=torch.uint8)
    mask = torch.randint(0, 11, (16, 16), generator=generator, dtype=torch.uint8)
    mask[: 4 * index] = 255
    return image, mask


def batch(indices: list[int]) -> Batch:
    images, masks = zip(*(sample(index) for index in indices), strict=True)
    return Batch(torch.stack(images), torch.stack(masks), indices)


def first_gradients(cases: Sequence[dict[str, Any]], frozen_norms: bool) -> list[list[torch.Tensor]]:
    """The gradients of the first step: this process's share of the images, in `accumulate` micro-batches."""
    torch.set_num_threads(1)
    with join("cpu") as world:
        return [_first_gradients(world, keys, frozen_norms) for keys in cases]


def _first_gradients(world: World, keys: dict[str, Any], frozen_norms: bool) -> list[torch.Tensor]:
    config = resolve(("", {"width": 4, "depth": 2, "batch_size": IMAGES, **keys}))
    network = build_network(config, 11, world)
    loss = criterion(config, CAMVID11, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110], 2, world.device)
    trainer = build_trainer(config, network, loss, world, "fp32", str)
    trainer.optimizer = Recorder(network.parameters(), lr=1.0)
    network.train(not frozen_norms)
    share = IMAGES // world.size // config.accumulate
    firsts = range(world.rank * share, IMAGES, world.size * share)
    group = [batch(list(range(first, first + share))) for first in firsts]
    train_step(trainer, group, 1.0)
    return trainer.optimizer.gradients


def agreement() -> dict[str, Any]:
    """What the processes tell one another."""
    with join("cpu") as world:
        return {
            "rank": world.rank,
            "sum": world.add_up(torch.tensor([world.rank + 1.0])).tolist(),
            "any": world.any([world.rank == 1, False]),
            "from_main": world.from_main(lambda: f"rank {world.rank}"),
            "collected": world.collect(world.rank),
            "once": world.once_per_machine("folder", lambda: f"made by {world.rank}"),
            "said": world.collect(world.says_it_first("the same error")).count(True),
        }
