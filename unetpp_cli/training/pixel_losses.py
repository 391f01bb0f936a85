"""The losses of one head: from log-probabilities and labels to a scalar. Called by `losses.Criterion`.

Pixel-wise losses (cross entropy, focal) are sums over the labelled pixels, which the caller divides. The
others (Dice, Lovasz-softmax, hard pixels) look at a set of pixels at once. All use only what torch can
compute deterministically on CUDA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.data.classes import VOID

SMALL = 1e-12
"""Keeps a division by nothing at zero; far below any number of pixels or any probability that matters."""


def log_probabilities(logits: Tensor) -> Tensor:
    """(N, C, H, W) of any dtype to log-softmax over the classes, in float32 (float64 stays).

    On CUDA the result is (pixels, C): torch's cross entropy for images has no deterministic form there. The
    CPU keeps (N, C, H, W), where log-softmax and cross entropy took a third of the time of (pixels, C)
    (measured with 11 classes). Either way classes are axis 1.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if wide.is_cuda:
        wide = wide.permute(0, 2, 3, 1).flatten(0, 2)
    return wide.log_softmax(1)


@dataclass(frozen=True)
class Labels:
    """A target, and what the losses of all heads need to know of it, each worked out at most once.

    Attributes:
        target: int64, `VOID` where nothing is known; (N, H, W), or (pixels,) on CUDA.
        classes: number of classes C.
        class_weights: (C,) or None.
    """

    target: Tensor
    classes: int
    class_weights: Tensor | None = None

    @cached_property
    def valid(self) -> Tensor:
        """Which pixels are labelled; bool, shaped like the target."""
        return self.target != VOID

    @cached_property
    def labelled(self) -> int:
        """The number of labelled pixels."""
        return int(self.valid.sum())

    @cached_property
    def weights(self) -> Tensor:
        """Each pixel's weight, that of its class; zero where it is void. Float32, shaped like the target."""
        return pixel_weights(self.target, self.class_weights)

    @cached_property
    def truth(self) -> Tensor:
        """Which pixels belong to which class; bool, shaped like the logits. Void belongs to none."""
        index = torch.arange(self.classes, device=self.target.device)
        return self.target.unsqueeze(1) == index.view(-1, *[1] * (self.target.ndim - 1))

    @cached_property
    def counts(self) -> Tensor:
        """Labelled pixels of each class; (C,) int64."""
        return _per_class(self.truth)


def pixel_weights(target: Tensor, class_weights: Tensor | None) -> Tensor:
    """Each pixel's weight: its class's, or 1; zero where the target is `VOID`. Float32, shaped like it."""
    if class_weights is None:
        return (target != VOID).float()
    return F.pad(class_weights.float(), (0, VOID + 1 - len(class_weights)))[target]


def cross_entropy(log_probs: Tensor, labels: Labels, smoothing: float = 0.0) -> Tensor:
    """Cross entropy, each pixel counted by its class's weight, summed over the labelled pixels.

    With label smoothing (arXiv 1512.00567, section 7) a share of every target is spread evenly over all
    classes; as in torch, what falls to a class is counted by that class's weight.

    Args:
        log_probs: as `log_probabilities` returns them.
        smoothing: the share, 0..1.

    Returns:
        A scalar; zero, with zero gradient, when no pixel is labelled. So do all losses here.
    """
    weight = None if labels.class_weights is None else labels.class_weights.to(log_probs.dtype)
    total = _nll(log_probs, labels, weight).sum()
    if not smoothing:
        return total
    everywhere = -_per_class(log_probs * labels.valid.unsqueeze(1))  # (C,)
    spread = everywhere.sum() if weight is None else everywhere @ weight
    return (1 - smoothing) * total + smoothing / labels.classes * spread


def distillation(log_probs: Tensor, teacher: Tensor, labels: Labels, temperature: float = 1.0) -> Tensor:
    """The Kullback-Leibler divergence of a head from its teacher (arXiv 1503.02531, section 2).

    Weighted like the cross entropy and summed over the labelled pixels. Times the temperature squared, so
    that the gradient keeps its size.

    Args:
        log_probs, teacher: as `log_probabilities` returns them; the teacher's without gradient.
    """
    if temperature != 1:  # a softmax of log-probabilities is one of the logits
        log_probs = (log_probs / temperature).log_softmax(1)
        teacher = (teacher / temperature).log_softmax(1)
    per_pixel = (teacher.exp() * (teacher - log_probs)).sum(1)
    return temperature**2 * (labels.weights * per_pixel).sum()


def focal_loss(log_probs: Tensor, labels: Labels, gamma: float) -> Tensor:
    """Cross entropy times (1 - p)^gamma, p the true class's probability (arXiv 1708.02002, equation 5).

    Weighted, summed over the labelled pixels; `gamma` 0 is cross entropy. Args as `cross_entropy`.
    """
    loss = _nll(log_probs, labels)
    # 1 - p without cancellation; kept above zero, where a power below 1 has no finite slope
    missing = (-torch.expm1(-loss)).clamp_min(SMALL)
    return (labels.weights * missing**gamma * loss).sum()


def dice_loss(log_probs: Tensor, labels: Labels) -> Tensor:
    """1 - soft Dice, averaged over the classes that occur (arXiv 1606.04797; void left out).

    Args as `cross_entropy`.
    """
    probs = log_probs.exp() * labels.valid.unsqueeze(1)
    both = _per_class(probs * labels.truth)
    sizes = _per_class(probs) + labels.counts
    there = labels.counts > 0
    return ((1 - 2 * both / sizes.clamp_min(SMALL)) * there).sum() / there.sum().clamp_min(1)


def lovasz_softmax(log_probs: Tensor, labels: Labels) -> Tensor:
    """The Lovasz extension of the Jaccard losses, averaged over the classes that occur (arXiv 1705.08790).

    A class's errors are 1 - p on its own pixels and p on the others. Its loss is their dot product with the
    extension's slope at them (algorithm 1): the growth of the Jaccard loss as pixels are taken for wrong one
    after the other, the largest error first. The slope depends on the order of the errors alone, so it needs
    no gradient. All labelled pixels of the micro-batch are one set. Args as `cross_entropy`.
    """
    truth = labels.truth.transpose(0, 1).flatten(1)  # (C, pixels)
    probs = log_probs.exp().transpose(0, 1).flatten(1)
    errors = torch.where(truth, 1 - probs, probs)
    with torch.no_grad():
        there = labels.counts.nonzero()[:, 0]
        # void comes last, where the intersection is empty and nothing grows
        order = _descending(errors.detach()[there].masked_fill(~labels.valid.flatten(), -1.0))
        own = truth[there].gather(1, order)
        # integers: exact, and deterministic on CUDA, where a running sum of floats is not
        seen = own.cumsum(1, dtype=torch.int32)
        size = labels.counts[there, None].int()
        intersection = size - seen
        union = size + torch.arange(1, own.shape[1] + 1, dtype=torch.int32, device=own.device) - seen
        # The growth in closed form, where a difference of two nearly equal Jaccard losses would lose digits:
        # a pixel of the class leaves the intersection, any other joins the union.
        growth = torch.where(own, 1 / union, intersection / union / (union - 1).clamp_min(1))
        slope = torch.zeros_like(errors)
        slope[there] = torch.zeros_like(errors[there]).scatter_(1, order, growth.to(errors.dtype))
    return (errors * slope).sum() / max(1, len(there))


def hard_pixel_loss(log_probs: Tensor, labels: Labels, threshold: float, keep: float) -> Tensor:
    """Mean cross entropy over the hard pixels, each counted by its class's weight (arXiv 1604.03540).

    Hard are pixels whose true class has a probability below `threshold`; when they are less than the share
    `keep` of the labelled pixels, the least probable ones make up that share (ties with the last come too).
    Args as `cross_entropy`.
    """
    loss = _nll(log_probs, labels)
    with torch.no_grad():
        rank = loss.detach().masked_fill(~labels.valid, -1.0)
        hard = rank > (-math.log(threshold) if threshold else math.inf)
        if least := math.ceil(keep * labels.labelled - 1e-9):  # 0.07 * 100 is a little above 7
            hard |= rank >= rank.flatten().topk(least, sorted=False).values.min()
        weights = hard * labels.weights
    return (weights * loss).sum() / weights.sum().clamp_min(SMALL)


def _nll(log_probs: Tensor, labels: Labels, weight: Tensor | None = None) -> Tensor:
    """Weighted -log p of the true class per pixel; zero at void."""
    # Summed by the callers: nll_loss's own sum over (pixels, C) runs in a single small block of CUDA threads.
    return F.nll_loss(log_probs, labels.target, weight, ignore_index=VOID, reduction="none")


def _per_class(values: Tensor) -> Tensor:
    """The sum over all axes but 1, the classes."""
    return values.sum([axis for axis in range(values.ndim) if axis != 1])


def _descending(errors: Tensor) -> Tensor:
    """The order of (classes, pixels) errors along each row, largest first, ties by position."""
    if errors.device.type != "cpu":
        return errors.sort(dim=1, descending=True, stable=True).indices
    # numpy sorts plain integers with vector instructions: packing included, 3.6 times as fast as torch's
    # stable sort (measured). Above, the inverted bits of a float32: those of floats from 0 up are ordered
    # like the floats, and a negative one comes last. Below, its position.
    above = (~errors.float().view(torch.int32)).long() << 32
    keys = above | torch.arange(errors.shape[1])
    keys.numpy().sort(axis=1)
    return keys & 0xFFFFFFFF
