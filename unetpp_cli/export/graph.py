"""The network as other runtimes get it: one module from images to logits or masks. Called by exporters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp_cli.export.interface import Interface
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus


class Exported(nn.Module):
    """What is exported: an image as `interface` says to its outputs, one or several.

    Padding is part of it, so any size gives outputs of that size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: UNetPlusPlus, header: Header, interface: Interface) -> None:
        super().__init__()
        self.network, self.interface = network, interface
        for name, values in (("mean", header.mean), ("std", header.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See `Interface` for shapes and types."""
        outputs = self.logits(image)
        if self.interface.argmax:
            outputs = [logits.argmax(1).to(torch.uint8) for logits in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def logits(self, image: Tensor) -> list[Tensor]:
        """(N, K, H, W) float32 of each head that is an output."""
        if self.interface.normalize:
            image = (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        height, width = image.shape[-2:]
        multiple = self.network.pad_multiple
        # Without an if: what is traced must hold for sizes that need padding and for those that do not.
        below, right = (multiple - height % multiple) % multiple, (multiple - width % multiple) % multiple
        padded = F.pad(image, (0, right, 0, below))
        tops = enumerate(self.network.diagonals(padded, max(self.interface.depths)), start=1)
        return [
            # Cropped by a negative pad: torch.export turns a slice of this kind into a condition on the size.
            F.pad(self.network.head[str(depth)](top), (0, -right, 0, -below))
            for depth, top in tops
            if depth in self.interface.depths
        ]


def example(
    interface: Interface, channels: int, height: int, width: int, batch: int = 1, seed: int = 0
) -> Tensor:
    """An input of `height` x `width`: smooth noise of all values, so that networks give several classes."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(batch, channels, max(1, height // 8), max(1, width // 8), generator=generator)
    smooth = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    pixels = (255 * smooth + 24 * torch.randn(smooth.shape, generator=generator)).clamp(0, 255)
    if interface.normalize:
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return ((pixels / 255 - 0.45) / 0.25).contiguous()
