"""Runs a network over a split and counts for every head. Called by training (validation) and by eval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.data.dataset import Example
from unetpp_cli.errors import Stopped
from unetpp_cli.inference.boundary import Contours
from unetpp_cli.inference.counting import Counter, Tally
from unetpp_cli.inference.logits import ensemble, labels, normalize, restore
from unetpp_cli.parallel import World


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The counts of every head, and of their ensemble, over one split.

    Attributes:
        heads: by depth.
        losses: mean cross entropy per labelled pixel, by depth.
        ensemble: None when it was not asked for.
    """

    heads: dict[int, Tally]
    losses: dict[int, float]
    ensemble: Tally | None


@torch.inference_mode()
def evaluate(
    heads: Callable[[Tensor], list[Tensor]],
    depths: Sequence[int],
    examples: Iterable[list[Example]],
    classes: ClassSet,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    *,
    with_ensemble: bool = False,
    with_losses: bool = False,
    blocks: Sequence[int] | None = None,
    boundary: bool = False,
    on_images: Callable[[int], None] = lambda count: None,
    world: World | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Counts what a network gives at the masks' native size, void ignored.

    Args:
        heads: normalised images (N, C, h, w) float32 on `device` -> for each depth the logits, or
            log-probabilities, (N, K, h, w).
        depths: which heads those are.
        examples: batches of images, of any sizes; with several processes, this one's share.
        with_ensemble: count the mean of all heads, too.
        with_losses: sum up the cross entropy of every head.
        blocks: the block of each image of the split, by index: counts blocks and images apart.
        boundary: count the boundary F1, too.
        on_images: told after every batch how many images it had.
        world: the processes over which the counts are summed.
        stop: asked before every batch; true gives up.

    Raises:
        Stopped: `stop` made a process give up; raised in all of them.
    """
    world = world or World(device)
    counters = {depth: Counter(classes, device, blocks, boundary=boundary) for depth in depths}
    together = Counter(classes, device, blocks, boundary=boundary) if with_ensemble else None
    losses = {depth: torch.zeros((), dtype=torch.float64, device=device) for depth in depths}
    labelled = torch.zeros((), dtype=torch.int64, device=device)
    gave_up = False
    for batch in examples:
        if gave_up := stop():
            break
        for group in _same_size(batch):
            x = normalize(torch.stack([one.image for one in group]), mean, std, device)
            target = torch.stack([one.mask for one in group]).to(device, non_blocking=True)
            indices = [one.index for one in group]
            contours = Contours(target, classes) if boundary else None
            height, width = target.shape[-2:]
            restored = []
            for depth, logits in zip(depths, heads(x), strict=True):
                full = restore(logits, height, width)
                counters[depth].add(indices, target, labels(full), contours)
                if with_losses:
                    losses[depth] += _cross_entropy(full, target.long())
                if together is not None:
                    restored.append(full)
            if together is not None:
                together.add(indices, target, labels(ensemble(restored)), contours)
            labelled += (target != VOID).sum()
        on_images(len(batch))
    if any(world.any([gave_up])):
        raise Stopped
    for counter in (*counters.values(), *([together] if together is not None else [])):
        counter.add_up(world)
    for loss in losses.values():
        world.add_up(loss)
    pixels = int(world.add_up(labelled))
    return Evaluation(
        heads={depth: counter.tally() for depth, counter in counters.items()},
        losses={depth: float(loss) / pixels if pixels else math.nan for depth, loss in losses.items()},
        ensemble=None if together is None else together.tally(),
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
