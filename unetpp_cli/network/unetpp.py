"""UNet++ (Zhou et al., arXiv 1807.10165; TMI 2020, arXiv 1912.05074) on one page.

Node X(i,j) works at 1/2^i of the input resolution with `width * 2^i` channels and has been refined j times:

    X(0,0) ─ X(0,1) ─ X(0,2) ─ X(0,3) ─ X(0,4)      X(i,0) = H(pool(X(i-1,0)))
      X(1,0) ─ X(1,1) ─ X(1,2) ─ X(1,3)             X(i,j) = H([up(X(i+1,j-1)), X(i,0), ..., X(i,j-1)])
        X(2,0) ─ X(2,1) ─ X(2,2)
          X(3,0) ─ X(3,1)                           head d reads X(0,d)
            X(4,0)

Anti-diagonal d is the set of nodes with i + j = d. It needs only the diagonals before it and ends in X(0,d),
so inference at depth d, deep supervision and pruning are one loop, stopped at different places.

The blocks are those of a widely read PyTorch article: post-activation in the encoder, pre-activation in the
decoder, 4x4 transposed convolutions. Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _relu(normalised: Tensor) -> Tensor:
    """ReLU in place: nobody else needs what a BatchNorm gives, so training keeps one tensor, not two."""
    return F.relu(normalised, inplace=True)


class EncoderNode(nn.Module):
    """X(i,0): conv - BN - ReLU - conv - BN - ReLU. (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = _relu(self.norm1(self.conv1(x)))
        return _relu(self.norm2(self.conv2(x)))


class DecoderNode(nn.Module):
    """X(i,j), j > 0: the row so far beside the upsampled node below, then BN - ReLU - conv, twice."""

    def __init__(self, channels: int, column: int) -> None:
        super().__init__()
        joined = channels * (column + 1)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(joined)
        self.conv1 = nn.Conv2d(joined, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, below: Tensor, row: Sequence[Tensor]) -> Tensor:
        x = torch.cat([self.up(below), *row], dim=1)  # (N, C * (j + 1), H, W)
        x = self.conv1(_relu(self.norm1(x)))  # (N, C, H, W)
        out: Tensor = self.conv2(_relu(self.norm2(x)))
        return out


class Head(nn.Module):
    """BN - ReLU - conv to one logit per class. (N, width, H, W) -> (N, num_classes, H, W)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(_relu(self.norm(x)))
        return logits


class UNetPlusPlus(nn.Module):
    """UNet++ with a head per depth.

    Args:
        num_classes: logits per pixel.
        in_channels: channels of the input image.
        width: channels of row 0; row i has `width * 2**i`.
        depth: number of times the image is halved; the deepest head is head `depth`.
        heads: the depths that have a head, ascending, the last one being `depth`. All of 1..depth by
            default (deep supervision); `(depth,)` is the plain network.
        pad_multiple: inputs are padded to a multiple of this, `2**depth` by default. A pruned network keeps
            the multiple it was trained with, so that it sees the very same pixels.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        num_classes: int = 11,
        in_channels: int = 3,
        *,
        width: int = 64,
        depth: int = 4,
        heads: Sequence[int] | None = None,
        pad_multiple: int | None = None,
    ) -> None:
        super().__init__()
        if min(num_classes, in_channels, width, depth) < 1:
            raise ValueError("num_classes, in_channels, width and depth must be at least 1")
        self.num_classes, self.in_channels, self.width, self.depth = num_classes, in_channels, width, depth
        self.head_depths = tuple(range(1, depth + 1)) if heads is None else tuple(heads)
        if list(self.head_depths) != sorted({*self.head_depths, depth}) or self.head_depths[0] < 1:
            raise ValueError(
                f"heads {self.head_depths} must ascend from at least 1 and end with depth {depth}"
            )
        self.pad_multiple = 2**depth if pad_multiple is None else pad_multiple
        if self.pad_multiple < 1 or self.pad_multiple % 2**depth:
            raise ValueError(f"pad_multiple {self.pad_multiple} is no multiple of 2**depth = {2**depth}")

        channels = [width * 2**i for i in range(depth + 1)]
        self.nodes = nn.ModuleList()  # nodes[i][j] is X(i,j)
        for i in range(depth + 1):
            encoder = EncoderNode(channels[i - 1] if i else in_channels, channels[i])
            decoders = [DecoderNode(channels[i], j) for j in range(1, depth - i + 1)]
            self.nodes.append(nn.ModuleList([encoder, *decoders]))
        self.head = nn.ModuleDict({str(d): Head(width, num_classes) for d in self.head_depths})

    def node(self, i: int, j: int) -> nn.Module:
        """X(i,j)."""
        row = cast(nn.ModuleList, self.nodes[i])
        return row[j]

    def diagonals(self, image: Tensor, depth: int) -> Iterator[Tensor]:
        """Yields X(0,1), X(0,2), ..., X(0,depth), computing one anti-diagonal for each.

        Args:
            image: (N, in_channels, H, W), H and W multiples of 2**depth.
        """
        rows: list[list[Tensor]] = []
        for d in range(depth + 1):
            down = F.max_pool2d(rows[d - 1][0], 2) if d else image
            node = self.node(d, 0)(down)  # X(d,0): (N, width * 2^d, H / 2^d, W / 2^d)
            rows.append([node])
            for i in range(d - 1, -1, -1):
                node = self.node(i, d - i)(node, rows[i])  # X(i,d-i): (N, width * 2^i, H / 2^i, W / 2^i)
                rows[i].append(node)
            if d:
                yield node

    def heads(self, image: Tensor, depth: int | None = None) -> list[Tensor]:
        """Logits of every head up to `depth` (all of them by default), shallowest first, in one pass.

        Args:
            image: (N, in_channels, H, W), any H and W.

        Returns:
            A list of (N, num_classes, H, W), one for each of `head_depths` up to `depth`.
        """
        wanted = [d for d in self.head_depths if depth is None or d <= depth]
        padded, (height, width) = self._pad(image)
        logits = []
        for d, top in enumerate(self.diagonals(padded, self._checked(depth)), start=1):
            if d in wanted:
                logits.append(self.head[str(d)](top)[..., :height, :width])
        return logits

    def forward(self, image: Tensor, depth: int | None = None) -> Tensor:
        """Logits of the head at `depth` (the deepest by default); only the nodes it needs are computed.

        Args:
            image: (N, in_channels, H, W), any H and W.

        Returns:
            (N, num_classes, H, W).

        Raises:
            ValueError: the network has no head at `depth`.
        """
        depth = self._checked(depth)
        padded, (height, width) = self._pad(image)
        *_, top = self.diagonals(padded, depth)
        logits: Tensor = self.head[str(depth)](top)[..., :height, :width]
        return logits

    def _checked(self, depth: int | None) -> int:
        if depth is None:
            return self.depth
        if depth not in self.head_depths:
            raise ValueError(f"no head at depth {depth}; this network has heads at {self.head_depths}")
        return depth

    def _pad(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Zeros below and to the right, up to `pad_multiple`; the logits are cropped to the size returned."""
        height, width = image.shape[-2:]
        below, right = -height % self.pad_multiple, -width % self.pad_multiple
        if below or right:
            image = F.pad(image, (0, right, 0, below))
        return image, (height, width)
