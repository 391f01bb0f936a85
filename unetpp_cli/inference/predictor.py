"""From an image to logits, probabilities and a mask, at its own size. Used by predict, eval and training.

The network knows no images and the jobs know no logits; what lies between is here: normalisation, the
geometry, the way back to the original size, depth and ensemble.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.data.dataset import chw
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.devices import autocast, place
from unetpp_cli.errors import UserError
from unetpp_cli.network.weights import Model


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """(N, C, H, W) uint8 -> float32 on `device`, channels last: pixel values 0..1, less mean, over std."""
    x = images.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return (x - _on_device(tuple(mean), device)) / _on_device(tuple(std), device)


@functools.lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Of pixel values 0..255, per channel: (1, C, 1, 1). Kept, since to copy it there waits for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor([255.0 * value for value in values], device=device).view(1, -1, 1, 1)


def restore(logits: Tensor, height: int, width: int) -> Tensor:
    """Brings logits (N, C, h, w) to (N, C, height, width), bilinearly, in float32."""
    logits = logits.float()
    if logits.shape[-2:] == (height, width):
        return logits
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)


def ensemble(logits: Sequence[Tensor]) -> Tensor:
    """The mean of the softmax probabilities of several heads: the paper's accurate mode. (N, C, H, W)."""
    total = logits[0].softmax(1)
    for head in logits[1:]:
        total = total + head.softmax(1)
    return total / len(logits)


def labels(scores: Tensor) -> Tensor:
    """(N, C, H, W) logits or probabilities -> (N, H, W) uint8 class indices."""
    # max().indices is several times faster than argmax() on the CPU, and the same
    return scores.max(1).indices.to(torch.uint8)


class Predictor:
    """A model that takes images as they come.

    Args:
        model: what to use.
        device: where; the network is moved there.
        precision: as `devices.resolve_precision` gives it.
        depth: the head to use, the deepest by default.
        use_ensemble: average all heads up to `depth` instead.
        size: overrides the geometry in the model's header.

    Raises:
        UserError: the model has no head at `depth`.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        *,
        precision: str = "fp32",
        depth: int | None = None,
        use_ensemble: bool = False,
        size: Geometry | None = None,
    ) -> None:
        self.header, self.hash = model.header, model.hash
        self.device = torch.device(device)
        self.network = place(model.network.eval(), self.device)
        self.precision, self.use_ensemble = precision, use_ensemble
        self.geometry = size or model.header.geometry
        self.depth = check_depth(depth, self.network.head_depths)

    @property
    def channels(self) -> int:
        """Channels of the images it takes: 3 (RGB) or 1 (grey)."""
        return self.network.in_channels

    @torch.inference_mode()
    def scores(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """Logits, or with the ensemble probabilities, at the image's own size: (C, H, W) float32.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) for a network of one channel.
        """
        height, width = image.shape[:2]
        x = normalize(chw(self.geometry.image(image))[None], self.header.mean, self.header.std, self.device)
        with autocast(self.device, self.precision):
            heads = self.network.heads(x, self.depth) if self.use_ensemble else [self.network(x, self.depth)]
        restored = [restore(head, height, width) for head in heads]
        return (ensemble(restored) if self.use_ensemble else restored[0])[0]

    def mask(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The class index of each pixel: (H, W) uint8, of the image's own size."""
        result: npt.NDArray[np.uint8] = labels(self.scores(image)[None])[0].cpu().numpy()
        return result


def check_depth(depth: int | None, heads: Sequence[int]) -> int:
    """`depth`, or the deepest of `heads` when none is given.

    Raises:
        UserError: there is no such head.
    """
    if depth is None:
        return heads[-1]
    if depth not in heads:
        there = ", ".join(map(str, heads))
        raise UserError(f"--depth {depth}: this model has no head at that depth.", f"It has {there}.")
    return depth
