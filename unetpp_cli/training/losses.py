"""From the logits of all heads and a mask to one number. Called by the training loop.

Deep supervision (arXiv 1807.10165, section 3.2): every head has its own loss; the sum is weighted per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.config import TrainConfig, numbers
from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.errors import UserError


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> Tensor:
    """Mean cross entropy over the labelled pixels, each counted by its class's weight.

    Args:
        logits: (N, C, H, W).
        target: (N, H, W) int64, `VOID` where nothing is known.
        weight: (C,) or None.

    Returns:
        A scalar; zero, with zero gradient, when no pixel is labelled.
    """
    if (
        logits.is_cuda
    ):  # as (pixels, C): the form for images is not deterministic there, and on the CPU faster
        logits, target = logits.permute(0, 2, 3, 1).flatten(0, 2), target.flatten()
    total = F.cross_entropy(
        logits, target, weight, ignore_index=VOID, label_smoothing=smoothing, reduction="sum"
    )
    valid = target != VOID
    if weight is None:
        norm = valid.sum()
    else:
        norm = weight[target.where(valid, torch.zeros_like(target))].where(valid, weight.new_zeros(())).sum()
    return total / norm.clamp_min(1e-12)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, averaged over the classes that occur in the batch (arXiv 1606.04797; void left out).

    Args and returns as `cross_entropy`.
    """
    valid = target != VOID
    truth = F.one_hot(target.where(valid, torch.zeros_like(target)), logits.shape[1])  # (N, H, W, C)
    truth = truth * valid[..., None]
    probabilities = logits.softmax(1).permute(0, 2, 3, 1) * valid[..., None]
    both = (probabilities * truth).sum((0, 1, 2))
    sizes = probabilities.sum((0, 1, 2)) + truth.sum((0, 1, 2))
    there = truth.sum((0, 1, 2)) > 0
    dice = (2 * both / sizes.clamp_min(1e-12))[there]
    return 1 - dice.mean() if len(dice) else logits.sum() * 0.0


@dataclass(frozen=True)
class Criterion:
    """The loss of a training.

    Attributes:
        loss: `ce` or `ce+dice`.
        class_weights: (C,) or None.
        head_weights: one per head, summing to 1.
        smoothing: share of the target spread over all classes.
    """

    loss: str
    class_weights: Tensor | None
    head_weights: tuple[float, ...]
    smoothing: float

    def __call__(self, logits: Sequence[Tensor], target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The weighted sum over the heads, and each head's own loss (detached).

        Args:
            logits: per head (N, C, H, W), shallowest first.
            target: (N, H, W) int64.
        """
        losses = [self._one(head.float(), target) for head in logits]
        total = sum((w * loss for w, loss in zip(self.head_weights, losses, strict=True)), losses[0] * 0.0)
        return total, [loss.detach() for loss in losses]

    def _one(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = cross_entropy(logits, target, self.class_weights, self.smoothing)
        return loss + dice_loss(logits, target) if self.loss == "ce+dice" else loss


def criterion(
    config: TrainConfig, classes: ClassSet, pixels: Sequence[int] | None, heads: int, device: torch.device
) -> Criterion:
    """The loss that `config` describes.

    Args:
        pixels: labelled pixels per class in the training split; needed for `enet` and `median-frequency`.
        heads: number of heads.
    """
    weights = class_weights(config.class_weights, classes, pixels)
    return Criterion(
        loss=config.loss,
        class_weights=None if weights is None else torch.tensor(weights, device=device),
        head_weights=head_weights(config.head_weights, heads),
        smoothing=config.label_smoothing,
    )


def head_weights(rule: str, heads: int) -> tuple[float, ...]:
    """Weights of the heads' losses, shallowest first, summing to 1."""
    if rule == "uniform":
        raw = [1.0] * heads
    elif rule == "linear":
        raw = [float(d) for d in range(1, heads + 1)]
    elif rule == "exp":
        raw = [2.0**d for d in range(heads)]
    else:
        raw = numbers(rule) or []
    return tuple(weight / sum(raw) for weight in raw)


def class_weights(rule: str, classes: ClassSet, pixels: Sequence[int] | None) -> list[float] | None:
    """A weight per class, or None.

    `enet`: 1 / ln(1.02 + p) with p the class's share of the labelled pixels (arXiv 1606.02147, section 5).
    `median-frequency`: median(p) / p (arXiv 1411.4734), here with p the share over the whole split.
    A class that does not occur weighs 1: it meets no pixel anyway.

    Raises:
        UserError: a list of weights of the wrong length, or with none above zero.
    """
    if rule == "none":
        return None
    if rule not in {"enet", "median-frequency"}:
        given = numbers(rule) or []
        if len(given) != len(classes) or min(given) < 0 or max(given) <= 0:
            raise UserError(
                f"class_weights has {len(given)} numbers for {len(classes)} classes.",
                f"Give one, not negative, for each of {', '.join(classes.names)}.",
            )
        return given
    if pixels is None or not sum(pixels):
        raise UserError("No training mask has a labelled pixel.", "Look at the masks: unetpp check DATA.")
    import math
    from statistics import median

    shares = [count / sum(pixels) for count in pixels]
    if rule == "enet":
        return [1 / math.log(1.02 + share) if share else 1.0 for share in shares]
    middle = median(share for share in shares if share)
    return [middle / share if share else 1.0 for share in shares]
