"""From the logits of all heads and a mask to one number. Called by the training loop.

Deep supervision (arXiv 1807.10165, section 3.2): every head has its own loss; the sum is weighted per head.
A step may be spread over micro-batches and ranks; `Criterion` returns parts that add up to the step's loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from unetpp_cli.config import TrainConfig
from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.training.pixel_losses import (
    SMALL,
    Labels,
    cross_entropy,
    dice_loss,
    distillation,
    focal_loss,
    hard_pixel_loss,
    log_probabilities,
    lovasz_softmax,
    pixel_weights,
)
from unetpp_cli.values import numbers

LOSSES: tuple[str, ...] = ("ce", "ce+dice", "focal", "lovasz", "ce+lovasz", "ohem")
"""What the key `loss` can be."""


@dataclass(frozen=True)
class Criterion:
    """The loss of a training.

    Attributes:
        loss: one of `LOSSES`.
        class_weights: (C,) or None.
        head_weights: one per head, summing to 1.
        smoothing: share of the target spread over all classes, in the cross entropy of `ce` and `ce+...`.
        gamma: for `focal`.
        threshold: for `ohem`, the probability of the true class below which a pixel is hard.
        keep: for `ohem`, the share of the labelled pixels that is kept at least.
        void: classes whose pixels are never trained, besides `VOID`.
        distill: the share of a student's loss that is its distance from the teacher.
        temperature: of the distillation.
        adjustment: (C,), added to the logits before any loss sees them, or None. The network learns logits
            without it.
    """

    loss: str
    class_weights: Tensor | None
    head_weights: tuple[float, ...]
    smoothing: float
    gamma: float = 2.0
    threshold: float = 0.7
    keep: float = 0.0625
    void: tuple[int, ...] = ()
    distill: float = 0.0
    temperature: float = 1.0
    adjustment: Tensor | None = None

    def norm(self, target: Tensor) -> Tensor:
        """What the pixel-wise losses of this micro-batch are divided by when it is alone.

        That is the number of its labelled pixels, each counted by its class's weight. A step's norm is the
        sum over its micro-batches and ranks.

        Args:
            target: (N, H, W) int64.

        Returns:
            A float32 scalar on the target's device.
        """
        return pixel_weights(self._known(target), self.class_weights).sum()

    def __call__(
        self,
        logits: Sequence[Tensor],
        target: Tensor,
        norm: Tensor | None = None,
        share: float = 1.0,
        teacher: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """This micro-batch's part of the step's loss; all micro-batches' and ranks' parts add up to it.

        Cross entropy, focal loss and distillation are sums over pixels divided by `norm`: the parts add up to
        exactly the loss of the whole batch. Dice, Lovasz and OHEM look at a set of pixels at once; they are
        computed over this micro-batch of this rank alone and multiplied by `share`: the parts add up to their
        mean, which is not the loss of the whole batch.

        Args:
            logits: per head (N, C, H, W) of any floating dtype, shallowest first.
            target: (N, H, W) int64, `VOID` where nothing is known.
            norm: the sum of `norm` over the whole step; this micro-batch's own when None.
            share: 1 / (micro-batches x ranks).
            teacher: (N, C, H, W), the logits that all heads learn from, if the criterion distils; None: the
                shallower heads learn from the deepest.

        Returns:
            The weighted sum over the heads, and each head's own part, (heads,), detached.
        """
        known = self._known(target)
        if norm is None:
            norm = pixel_weights(known, self.class_weights).sum()
        norm = norm.clamp_min(SMALL)
        flat = known.flatten() if logits[0].is_cuda else known
        labels = Labels(flat, logits[0].shape[1], self.class_weights)
        log_probs = [log_probabilities(self._adjusted(head)) for head in logits]
        losses = [self._head(one, labels, norm, share) for one in log_probs]
        if self.distill:
            losses = self._taught(losses, log_probs, labels, norm, teacher)
        total = sum((w * loss for w, loss in zip(self.head_weights, losses, strict=True)), losses[0] * 0.0)
        return total, torch.stack(losses).detach()

    def _known(self, target: Tensor) -> Tensor:
        for index in self.void:
            target = target.masked_fill(target == index, VOID)
        return target

    def _adjusted(self, logits: Tensor) -> Tensor:
        return logits if self.adjustment is None else logits + self.adjustment.view(1, -1, 1, 1)

    def _taught(
        self,
        losses: Sequence[Tensor],
        log_probs: Sequence[Tensor],
        labels: Labels,
        norm: Tensor,
        teacher: Tensor | None,
    ) -> list[Tensor]:
        """The heads' losses with a share of each student's replaced by its distance from the teacher."""
        outer = None if teacher is None else log_probabilities(self._adjusted(teacher)).detach()
        source = log_probs[-1].detach() if outer is None else outer
        students = log_probs[:-1] if outer is None else log_probs
        taught = [
            (1 - self.distill) * loss
            + self.distill * distillation(student, source, labels, self.temperature) / norm
            for loss, student in zip(losses, students, strict=False)
        ]
        return [*taught, *losses[len(taught) :]]

    def _head(self, log_probs: Tensor, labels: Labels, norm: Tensor, share: float) -> Tensor:
        if self.loss == "focal":
            return focal_loss(log_probs, labels, self.gamma) / norm
        if self.loss == "lovasz":
            return lovasz_softmax(log_probs, labels) * share
        if self.loss == "ohem":
            return hard_pixel_loss(log_probs, labels, self.threshold, self.keep) * share
        loss = cross_entropy(log_probs, labels, self.smoothing) / norm
        if self.loss == "ce+dice":
            loss = loss + dice_loss(log_probs, labels) * share
        elif self.loss == "ce+lovasz":
            loss = loss + lovasz_softmax(log_probs, labels) * share
        return loss


def criterion(
    config: TrainConfig, classes: ClassSet, pixels: Sequence[int] | None, heads: int, device: torch.device
) -> Criterion:
    """The loss that `config` describes.

    Args:
        pixels: labelled pixels per class in the training split; needed for `enet` and `median-frequency`.
        heads: number of heads.

    Raises:
        UserError: bad class weights, or one of zero that the logits cannot be adjusted to.
    """
    weights = class_weights(config.class_weights, classes, pixels)
    adjustment = None
    if weights is not None and config.logit_adjustment:
        adjustment = logit_adjustment(weights, config.logit_adjustment).to(device)
    return Criterion(
        loss=config.loss,
        class_weights=None if weights is None else torch.tensor(weights, device=device),
        head_weights=head_weights(config.head_weights, heads),
        smoothing=config.label_smoothing,
        gamma=config.focal_gamma,
        threshold=config.ohem_threshold,
        keep=config.ohem_keep,
        void=classes.void,
        distill=config.distill,
        temperature=config.distill_temperature,
        adjustment=adjustment,
    )


def logit_adjustment(weights: Sequence[float], share: float) -> Tensor:
    """What is added to the logits in training so that the network's own are freed of the class weights.

    A network trained with class weights w gives class c about w_c times the odds that it has: rare classes
    are found, but also where they are not. The weighted loss of logits + log w is at its least where the
    logits are those of the unweighted classes (after the logit-adjusted loss of arXiv 2007.07314, which
    shifts by class frequencies).

    Args:
        weights: (C,), above zero.
        share: of log w that is added; 0..2.

    Returns:
        (C,) float32 with mean zero.

    Raises:
        UserError: a weight is zero.
    """
    if min(weights) <= 0:
        raise UserError(
            "logit_adjustment needs class weights above 0, and one of them is 0.",
            "Give that class a small weight, or leave logit_adjustment at 0.",
        )
    logs = torch.tensor(weights, dtype=torch.float32).log()
    return share * (logs - logs.mean())


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

    Args:
        rule: `none`, `enet`, `median-frequency` or a list `a,b,c,...`.
        pixels: labelled pixels per class in the training split; read by `enet` and `median-frequency` only.

    Raises:
        UserError: a list of weights of the wrong length, or with none above zero; or nothing is labelled.
    """
    if rule == "none":
        return None
    if rule not in {"enet", "median-frequency"}:
        given = numbers(rule) or []
        if (
            len(given) != len(classes)
            or not all(math.isfinite(weight) and weight >= 0 for weight in given)
            or not any(given)
        ):
            raise UserError(
                f"class_weights has {len(given)} numbers for {len(classes)} classes."
                if len(given) != len(classes)
                else f"class_weights cannot be '{rule}'.",
                f"Give one, not negative, for each of {', '.join(classes.names)}.",
            )
        return given
    if pixels is None or not sum(pixels):
        raise UserError("No training mask has a labelled pixel.", "Look at the masks: unetpp check DATA.")
    shares = [count / sum(pixels) for count in pixels]
    if rule == "enet":
        return [1 / math.log(1.02 + share) if share else 1.0 for share in shares]
    middle = median(share for share in shares if share)
    return [middle / share if share else 1.0 for share in shares]
