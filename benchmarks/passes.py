"""One forward pass as `predict.py` times it: the baselines plainly, ours as `unetpp predict` runs it.

What is prepared here, `contest.py` times in turn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.contest import Run, Variant, check_formats
from benchmarks.networks import CLASSES, MacCounter, build, logits, parameters
from unetpp_cli import devices
from unetpp_cli.network.unetpp import UNetPlusPlus

MULTIPLES = {"smp": 32}
"""Of the height and width that a network takes, where it is not 16."""


def padded(image: Tensor, multiple: int = 16) -> Tensor:
    """(N, C, H, W), with zeros below and to the right up to multiples of `multiple`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))


def settled(network: nn.Module, image: Tensor) -> nn.Module:
    """In eval mode, its BatchNorms with the statistics of what really passes through them.

    Args:
        image: (N, 3, H, W) that the network takes.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(image)
    return network.eval()


def prepare(variant: Variant, task: dict[str, Any], device: torch.device) -> tuple[Run, dict[str, Any]]:
    """A pass over one batch that is normalised and in place, and what is known of the network.

    The images of the baselines are padded beforehand, to what each network takes; ours pads in the pass.

    Args:
        task: `width` of the network, `batch`, `size` (width and height of the images).
    """
    own = variant.network == "ours"
    network = UNetPlusPlus(CLASSES, 3, width=task["width"]) if own else build(variant.network, task["width"])
    width, height = task["size"]
    image = torch.randn(task["batch"], 3, height, width, generator=torch.Generator().manual_seed(1))
    ready = padded(image, MULTIPLES.get(variant.network, 16))
    network = settled(network, ready[:1])
    if variant.ours:
        devices.place(network, device)  # type: ignore[arg-type]
    network.to(device)
    image, ready = (one.to(device).contiguous(memory_format=variant.memory_format) for one in (image, ready))
    options = {"depth": variant.number or network.depth} if isinstance(network, UNetPlusPlus) else {}
    precision = variant.precision

    def run(x: Tensor = image if own else ready) -> Tensor:
        _set_switches(variant, device)
        with torch.inference_mode(), devices.autocast(device, precision):
            return logits(network(x, **options))

    with MacCounter(network) as counter:
        output = run(ready)
    check_formats(network, ready, output, variant.memory_format)
    facts: dict[str, Any] = {"parameters": parameters(network), "macs": counter.total // task["batch"]}
    if isinstance(network, UNetPlusPlus):
        facts["parameters"] = _parameters_at(network, options["depth"])
    return run, facts


def _parameters_at(network: UNetPlusPlus, depth: int) -> int:
    """Of the nodes that the head at `depth` needs, and of that head."""
    nodes = [network.node(i, j) for i in range(depth + 1) for j in range(depth + 1 - i)]
    return sum(parameters(module) for module in (*nodes, network.head[str(depth)]))


def _set_switches(variant: Variant, device: torch.device) -> None:
    """On a GPU, the process-wide switches: ours as the job sets them, torch's defaults for the others."""
    if device.type != "cuda":
        return
    if variant.ours:
        devices.set_arithmetic(device, variant.precision, deterministic=False, training=False)
    else:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
        torch.backends.cudnn.benchmark = False
