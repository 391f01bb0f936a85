"""Networks for tests: trained-looking ones, so that equal outputs mean something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unetpp_cli.data.classes import CAMVID11, ClassSet, palette
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import architecture_of, save_model

torch.set_num_threads(1)  # tests are small, and share their cores


def randomise(network: nn.Module, run: Callable[[Tensor], object], in_channels: int, seed: int = 0) -> None:
    """Makes a fresh network look trained, and leaves it in eval mode.

    Every BatchNorm gets a scale and a shift, and the statistics of what really passes through it: with
    others most channels would be cut off by their ReLUs, and would hide differences.

    Args:
        run: computes every layer of the network for an image (N, in_channels, H, W).
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data = 0.5 + torch.rand(norm.weight.shape, generator=generator)
        norm.bias.data = 0.2 * torch.randn(norm.bias.shape, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()
        run(torch.randn(2, in_channels, 32, 32, generator=generator))
        network.eval()
    for norm in norms:
        norm.momentum = 0.1


def trained(num_classes: int = 11, in_channels: int = 3, seed: int = 0, **options: Any) -> UNetPlusPlus:
    """A network in eval mode whose weights and statistics depend on nothing but the arguments."""
    torch.manual_seed(seed)
    network = UNetPlusPlus(num_classes, in_channels, **{"width": 8, **options})
    randomise(network, network.heads, in_channels, seed)
    return network


def class_set(count: int) -> ClassSet:
    """CamVid's 11, or as many nameless ones."""
    if count == 11:
        return CAMVID11
    return ClassSet("custom", tuple(f"class_{index}" for index in range(count)), palette(count))


def header_for(network: UNetPlusPlus, **fields: Any) -> Header:
    """A header that fits the network; `fields` replace the rest."""
    channels = network.in_channels
    defaults: dict[str, Any] = {
        "classes": class_set(network.num_classes),
        "mean": (0.4,) * channels,
        "std": (0.2,) * channels,
        "geometry": Geometry.parse("fit 360"),
    }
    return Header(architecture=architecture_of(network), **{**defaults, **fields})


def saved(folder: Path, **options: Any) -> Path:
    """A network with statistics, `trained(**options)`, as a weights file in `folder`."""
    network = trained(**options)
    path = folder / "small.safetensors"
    save_model(path, network, header_for(network))
    return path
