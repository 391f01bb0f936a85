"""The networks that `train.py` compares: two written here, two out of other people's packages, and ours.

The article's network and the plain nested U-Net are the baselines, in the plain PyTorch in which they are
usually written; nothing of `unetpp_cli` is in them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unetpp_cli.network.unetpp import UNetPlusPlus

CLASSES = 11
NESTED_PARAMETERS = 9_163_659
"""Of the nested U-Net of 32 to 512 channels with 11 classes and one head."""


class _Stage(nn.Module):
    """The article's encoder block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.Conv_forward = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Conv_forward(x)
        return out


class _PreActivated(nn.Module):
    """The article's decoder block, on the concatenation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.Conv_forward = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Conv_forward(x)
        return out


class Article(nn.Module):
    """The network of the article, with its tensors' names; all heads exist, the deepest alone is computed.

    (N, 3, H, W) -> (N, num_classes, H, W), H and W multiples of 16.
    """

    def __init__(self, num_classes: int = CLASSES, width: int = 64) -> None:
        super().__init__()
        channels = [width * 2**i for i in range(5)]
        for i in range(5):
            self.add_module(f"stage_{i}", _Stage(channels[i - 1] if i else 3, channels[i]))
        for j in range(1, 5):
            for i in range(5 - j):
                below, here = channels[i + 1], channels[i]
                self.add_module(f"upsample_{i}_{j}", nn.ConvTranspose2d(below, here, 4, stride=2, padding=1))
                self.add_module(f"CONV{i}_{j}", _PreActivated(here * (j + 1), here))
        for d in range(1, 5):
            self.add_module(
                f"final_super_0_{d}",
                nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, num_classes, 3, padding=1)),
            )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        rows: list[list[Tensor]] = []
        for i in range(5):
            x = getattr(self, f"stage_{i}")(self.pool(x) if i else x)
            rows.append([x])
        for j in range(1, 5):
            for i in range(5 - j):
                up = getattr(self, f"upsample_{i}_{j}")(rows[i + 1][j - 1])
                rows[i].append(getattr(self, f"CONV{i}_{j}")(torch.cat([up, *rows[i]], 1)))
        out: Tensor = self.get_submodule("final_super_0_4")(rows[0][4])
        return out


class _VGG(nn.Module):
    """conv - BN - ReLU, twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.relu(self.norm2(self.conv2(x)))
        return out


class NestedUNet(nn.Module):
    """A plain nested U-Net: the same block everywhere, bilinear upsampling, one 1x1 convolution as its head.

    32 to 512 channels: the size of a much used PyTorch implementation of UNet++.
    (N, 3, H, W) -> (N, num_classes, H, W), H and W multiples of 16.
    """

    def __init__(self, num_classes: int = CLASSES, width: int = 32) -> None:
        super().__init__()
        channels = [width * 2**i for i in range(5)]
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.blocks = nn.ModuleDict()
        for j in range(5):
            for i in range(5 - j):
                before = (channels[i - 1] if i else 3) if j == 0 else channels[i] * j + channels[i + 1]
                self.blocks[f"{i}_{j}"] = _VGG(before, channels[i])
        self.final = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows: list[list[Tensor]] = []
        for i in range(5):
            x = self.blocks[f"{i}_0"](self.pool(x) if i else x)
            rows.append([x])
        for j in range(1, 5):
            for i in range(5 - j):
                rows[i].append(self.blocks[f"{i}_{j}"](torch.cat([*rows[i], self.up(rows[i + 1][j - 1])], 1)))
        out: Tensor = self.final(rows[0][4])
        return out


@dataclass(frozen=True)
class Candidate:
    """A network of the comparison.

    Attributes:
        title: what the tables call it; `{width}` is filled in.
        package: what must be installed for it, or the empty string.
        build: width -> the network; only the article's and ours heed the width.
    """

    title: str
    package: str
    build: Callable[[int], nn.Module]


def _monai(*features: int) -> nn.Module:
    nets: Any = importlib.import_module("monai.networks.nets")
    options = {"features": features} if features else {}
    network: nn.Module = nets.BasicUNetPlusPlus(
        spatial_dims=2, in_channels=3, out_channels=CLASSES, **options
    )
    return network


def _smp() -> nn.Module:
    smp: Any = importlib.import_module("segmentation_models_pytorch")
    network: nn.Module = smp.UnetPlusPlus("resnet34", encoder_weights=None, in_channels=3, classes=CLASSES)
    return network


def _nested() -> nn.Module:
    network = NestedUNet()
    assert parameters(network) == NESTED_PARAMETERS, parameters(network)
    return network


CANDIDATES = {
    "article": Candidate("the article's network, width {width}", "", lambda width: Article(width=width)),
    "nested": Candidate("nested U-Net, 32..512", "", lambda width: _nested()),
    "monai": Candidate("MONAI BasicUNetPlusPlus, its defaults", "monai", lambda width: _monai()),
    "monai-512": Candidate(
        "MONAI BasicUNetPlusPlus, 32..512", "monai", lambda width: _monai(32, 64, 128, 256, 512, 32)
    ),
    "smp": Candidate("smp UnetPlusPlus, resnet34", "segmentation_models_pytorch", lambda width: _smp()),
    "ours": Candidate(
        "ours, width {width}", "", lambda width: UNetPlusPlus(CLASSES, 3, width=width, heads=(4,))
    ),
}
PEERS = ("nested", "monai", "monai-512", "smp")


def build(name: str, width: int) -> nn.Module:
    """A network of `CANDIDATES` with random weights, the same ones every time.

    Raises:
        ImportError: its package is not installed.
    """
    torch.manual_seed(0)
    return CANDIDATES[name].build(width).train()


def logits(output: Any) -> Tensor:
    """The deepest logits of whatever a network returns: a tensor, or a list of them."""
    last: Tensor = output if isinstance(output, Tensor) else output[-1]
    return last


def parameters(network: nn.Module) -> int:
    """Number of trainable parameters; those of the article's three idle heads count, as in its files."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


class MacCounter:
    """Counts the multiply-accumulates of all (transposed) convolutions while it is entered.

    Attributes:
        total: multiply-accumulates of the forward passes so far, over whole batches.
    """

    def __init__(self, network: nn.Module) -> None:
        self.total = 0
        self._network = network

    def __enter__(self) -> MacCounter:
        self._hooks = [
            module.register_forward_hook(self._count)
            for module in self._network.modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        # A kernel is applied once per output pixel of a convolution, per input pixel of a transposed one.
        transposed = isinstance(module, nn.ConvTranspose2d)
        place = inputs[0] if transposed else output
        channels = module.in_channels if transposed else module.out_channels
        self.total += module.weight.numel() // channels * place.numel()
