"""Runs a network over a split and counts: one confusion matrix per depth. Called by training and eval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.data.dataset import Example
from unetpp_cli.devices import autocast
from unetpp_cli.inference.metrics import Confusion, Scores
from unetpp_cli.inference.predictor import ensemble, labels, normalize, restore
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.parallel import World


@dataclass(frozen=True)
class Evaluation:
    """Scores of every head, and of their ensemble, over one split.

    Attributes:
        heads: by depth.
        losses: mean cross entropy per labelled pixel, by depth.
        ensemble: None when it was not asked for.
    """

    heads: dict[int, Scores]
    losses: dict[int, float]
    ensemble: Scores | None


class Stopped(Exception):  # noqa: N818 - no error
    """An evaluation was given up before its end, because somebody asked for it."""


@torch.inference_mode()
def evaluate(
    network: UNetPlusPlus,
    examples: Iterable[list[Example]],
    classes: ClassSet,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    precision: str,
    *,
    with_ensemble: bool = False,
    with_losses: bool = False,
    on_images: Callable[[int], None] = lambda count: None,
    world: World | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Scores `network` at the masks' native size, void ignored.

    Args:
        network: in evaluation mode, on `device`.
        examples: batches of images, of any sizes; with several processes, this one's share.
        on_images: told after every batch how many images it had.
        world: the processes over which the counts are summed.
        stop: asked before every batch; true gives up.

    Raises:
        Stopped: `stop` made a process give up; raised in all of them.
    """
    world = world or World(device)
    counters = {depth: _Counter(classes, device) for depth in network.head_depths}
    together = _Counter(classes, device)
    losses = {depth: torch.zeros((), dtype=torch.float64, device=device) for depth in network.head_depths}
    labelled = torch.zeros((), dtype=torch.int64, device=device)
    gave_up = False
    for batch in examples:
        if gave_up := stop():
            break
        for group in _same_size(batch):
            x = normalize(torch.stack([one.image for one in group]), mean, std, device)
            target = torch.stack([one.mask for one in group]).to(device, non_blocking=True)
            with autocast(device, precision):
                heads = network.heads(x)
            height, width = target.shape[-2:]
            restored = []
            for depth, logits in zip(network.head_depths, heads, strict=True):
                full = restore(logits, height, width)
                counters[depth].add(target, labels(full))
                if with_losses:
                    losses[depth] += _cross_entropy(full, target.long())
                if with_ensemble:
                    restored.append(full)
            if with_ensemble:
                together.add(target, labels(ensemble(restored)))
            labelled += (target != VOID).sum()
        on_images(len(batch))
    if any(world.any([gave_up])):
        raise Stopped
    for sums in (*(counter.counts for counter in counters.values()), together.counts, *losses.values()):
        world.add_up(sums)
    pixels = int(world.add_up(labelled))
    return Evaluation(
        heads={depth: counter.scores() for depth, counter in counters.items()},
        losses={depth: float(loss) / pixels if pixels else math.nan for depth, loss in losses.items()},
        ensemble=together.scores() if with_ensemble else None,
    )


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Summed over the labelled pixels. logits: (N, C, H, W) float32; target: (N, H, W) int64."""
    if (
        logits.is_cuda
    ):  # as (pixels, C): the form for images is refused there when training is to be repeatable
        logits, target = logits.permute(0, 2, 3, 1).flatten(0, 2), target.flatten()
        # Summed by torch's reduction, which uses the whole GPU; the loss's own uses one block of it.
        return F.cross_entropy(logits, target, ignore_index=VOID, reduction="none").sum(dtype=torch.float64)
    return F.cross_entropy(logits, target, ignore_index=VOID, reduction="sum")


def _same_size(batch: list[Example]) -> Iterable[list[Example]]:
    """Splits a batch into runs that can be stacked: equal image sizes and equal mask sizes."""
    groups: dict[tuple[torch.Size, torch.Size], list[Example]] = {}
    for one in batch:
        groups.setdefault((one.image.shape, one.mask.shape), []).append(one)
    return groups.values()


class _Counter:
    """A confusion matrix on the device, summed over images."""

    def __init__(self, classes: ClassSet, device: torch.device) -> None:
        self.classes, count = classes, len(classes)
        self.counts = torch.zeros(count * count, dtype=torch.int64, device=device)
        self.scored = torch.zeros(256, dtype=torch.bool, device=device)
        self.scored[list(classes.scored)] = True

    def add(self, truth: Tensor, prediction: Tensor) -> None:
        """truth and prediction: (N, H, W) uint8."""
        count = len(self.classes)
        valid = self.scored[truth.long()]
        pairs = truth[valid].long() * count + prediction[valid]
        self.counts += torch.bincount(pairs, minlength=count * count)

    def scores(self) -> Scores:
        count = len(self.classes)
        matrix: Confusion = self.counts.view(count, count).cpu().numpy()
        return Scores(matrix, self.classes)
