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
) -> Evaluation:
    """Scores `network` at the masks' native size, void ignored.

    Args:
        network: in evaluation mode, on `device`.
        examples: batches of images, of any sizes.
        on_images: told after every batch how many images it had.
    """
    counters = {depth: _Counter(classes, device) for depth in network.head_depths}
    together = _Counter(classes, device)
    losses = {depth: torch.zeros((), dtype=torch.float64, device=device) for depth in network.head_depths}
    labelled = 0
    for batch in examples:
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
                    losses[depth] += F.cross_entropy(full, target.long(), ignore_index=VOID, reduction="sum")
                if with_ensemble:
                    restored.append(full)
            if with_ensemble:
                together.add(target, labels(ensemble(restored)))
            labelled += int((target != VOID).sum())
        on_images(len(batch))
    return Evaluation(
        heads={depth: counter.scores() for depth, counter in counters.items()},
        losses={depth: float(loss) / labelled if labelled else math.nan for depth, loss in losses.items()},
        ensemble=together.scores() if with_ensemble else None,
    )


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
