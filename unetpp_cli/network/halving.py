"""Storing convolutions in half precision: what the file will hold, and what that changes.

Norms and their statistics stay in float32. A loaded network computes in float32 whatever it was stored in, so
half precision makes a file half as long and nothing faster. Called by the prune job.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unetpp_cli.errors import UserError, listed
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import assemble, convolution_names

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Change:
    """What another set of weights does to the answers of a network, over all its heads and some images.

    Attributes:
        logits: the largest difference of a logit, as a share of the largest logit.
        pixels: the share of pixels whose class is another.
    """

    logits: float
    pixels: float

    def to_json(self) -> dict[str, Any]:
        """For the header's `origin`: three significant digits, more would differ between processors."""
        return {"logits": float(f"{self.logits:.3g}"), "pixels": float(f"{self.pixels:.3g}")}


def rounded(network: UNetPlusPlus, header: Header, name: str) -> UNetPlusPlus:
    """The network that `load_model` gives back after `save_model(..., half=True)`, with tensors of its own.

    Args:
        header: of that network.
        name: of the model, for the message.

    Raises:
        UserError: a convolution has values that fp16 cannot hold.
    """
    halved = convolution_names(network)
    state = {
        key: value.detach().half().to(value.dtype) if key in halved else value.detach().clone()
        for key, value in network.state_dict().items()
    }
    if broken := sorted(key for key in halved if not bool(state[key].isfinite().all())):
        raise UserError(
            f"--half: {name} has values beyond fp16's range of +-{_LARGEST:,.0f}, in {listed(broken, 3)}.",
            "Leave --half away.",
        )
    return assemble(header.architecture, state)


@torch.inference_mode()
def compare(before: UNetPlusPlus, after: UNetPlusPlus, images: Iterable[Tensor]) -> Change:
    """How the heads of `after` answer differently from those of `before`. Both are in eval mode.

    Args:
        images: (N, C, H, W) float32, where the networks are.
    """
    difference = largest = 0.0
    changed = pixels = 0
    for image in images:
        for one, other in zip(before.heads(image), after.heads(image), strict=True):  # (N, K, H, W)
            difference = max(difference, float((one - other).abs().max()))
            largest = max(largest, float(one.abs().max()))
            differs = one.argmax(1) != other.argmax(1)  # (N, H, W)
            changed += int(differs.sum())
            pixels += differs.numel()
    return Change(difference / largest if largest else 0.0, changed / pixels)
