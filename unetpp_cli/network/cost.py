"""What a network costs: parameters and multiply-accumulates by arithmetic, milliseconds by the clock.

Read by eval, prune, info and the training's reports. Imports torch only where it measures time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetpp_cli.network.header import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    from unetpp_cli.network.unetpp import UNetPlusPlus

_MIN_REPEATS = 3


@dataclass(frozen=True)
class _Layer:
    """A (transposed) convolution, together with the BatchNorm that belongs to it, if any.

    Attributes:
        row: the kernel is applied once per pixel of the image halved `row` times.
        kernel: number of its weights, that is, of multiply-accumulates per application.
        biases: one per output channel.
        norm: channels of the BatchNorm; 0 where there is none.
    """

    row: int
    kernel: int
    biases: int
    norm: int = 0


def parameters(
    architecture: Architecture, depth: int | None = None, heads: Sequence[int] | None = None
) -> int:
    """Number of trainable parameters of the network cut at `depth` with these `heads`.

    Args:
        architecture: of the whole network.
        depth: 1..architecture.depth; the whole network by default.
        heads: depths of the heads that are counted; by default all it has up to `depth`.

    Raises:
        ValueError: the network has no such depth or head.
    """
    return sum(_learnt(layer) for layer in _layers(architecture, depth, heads))


def macs(
    architecture: Architecture,
    height: int,
    width: int,
    depth: int | None = None,
    heads: Sequence[int] | None = None,
) -> int:
    """Multiply-accumulates of all (transposed) convolutions for one image; 1e9 of them are a GMAC.

    Biases, BatchNorm, ReLU, pooling and concatenation are not counted, as everywhere in this field.

    Args:
        architecture, depth, heads: as for `parameters`.
        height, width: of the image in pixels; it is padded to `architecture.pad_multiple`, as in `forward`.

    Raises:
        ValueError: the network has no such depth or head.
    """
    multiple = architecture.pad_multiple
    pixels = (height + -height % multiple) * (width + -width % multiple)
    return sum(layer.kernel * (pixels >> 2 * layer.row) for layer in _layers(architecture, depth, heads))


def milliseconds(
    network: UNetPlusPlus,
    height: int,
    width: int,
    depth: int | None = None,
    *,
    batch: int = 1,
    repeats: int = 20,
    budget: float = 1.0,
) -> float:
    """Median time per image of a forward pass at `depth` (the deepest by default); see `side_by_side`."""
    runs = [lambda image: network(image, depth)]
    return side_by_side(network, height, width, runs, batch=batch, repeats=repeats, budget=budget)[0]


def side_by_side(
    network: UNetPlusPlus,
    height: int,
    width: int,
    runs: Sequence[Callable[[Tensor], object]],
    *,
    batch: int = 1,
    repeats: int = 20,
    budget: float = 1.0,
    on_warm: Callable[[int], None] = lambda number: None,
) -> list[float]:
    """Median time per image of each run, in milliseconds, after a warm-up of each.

    The runs take turns, so that a machine that is busy for a while slows them all alike. They run where the
    network is, in its precision, in eval mode, under `torch.inference_mode`.

    Args:
        height, width: of the image in pixels, before padding.
        runs: what is timed; each gets (batch, in_channels, height, width), channels last.
        batch: images per pass.
        repeats: rounds that are timed; at least 3.
        budget: seconds per run after which no further round is begun.
        on_warm: told the number of a run after its warm-up.
    """
    import torch

    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, network.in_channels, height, width, generator=generator).to(parameter)
    image = image.contiguous(memory_format=torch.channels_last)  # as `normalize` makes it

    def now() -> float:
        if parameter.is_cuda:
            torch.cuda.synchronize(parameter.device)
        return time.perf_counter()

    training = network.training
    network.eval()
    times: list[list[float]] = [[] for _ in runs]
    try:
        with torch.inference_mode():
            for number, run in enumerate(runs):
                run(image)  # the first pass allocates, and chooses kernels
                on_warm(number)
            began = now()
            for done in range(max(repeats, _MIN_REPEATS)):
                if done >= _MIN_REPEATS and now() - began > budget * len(runs):
                    break
                for run, taken in zip(runs, times, strict=True):
                    start = now()
                    run(image)
                    taken.append(now() - start)
    finally:
        network.train(training)
    return [1000 * statistics.median(taken) / batch for taken in times]


def _layers(architecture: Architecture, depth: int | None, heads: Sequence[int] | None) -> Iterator[_Layer]:
    """All convolutions of the network, one anti-diagonal after another, as `UNetPlusPlus` runs them."""
    depth = architecture.depth if depth is None else depth
    if not 1 <= depth <= architecture.depth:
        raise ValueError(f"no depth {depth} in a network of depth {architecture.depth}")
    heads = [head for head in architecture.heads if head <= depth] if heads is None else heads
    if missing := [head for head in heads if head not in architecture.heads or head > depth]:
        raise ValueError(f"no heads {missing} among {architecture.heads} up to depth {depth}")

    channels = [architecture.width * 2**i for i in range(depth + 1)]
    for d in range(depth + 1):
        yield _conv(d, channels[d - 1] if d else architecture.in_channels, channels[d], norm=channels[d])
        yield _conv(d, channels[d], channels[d], norm=channels[d])
        for i in range(d - 1, -1, -1):
            joined = channels[i] * (d - i + 1)
            # A transposed convolution applies its 4x4 kernel once per pixel of the row below.
            yield _Layer(i + 1, 16 * channels[i + 1] * channels[i], channels[i])
            yield _conv(i, joined, channels[i], norm=joined)
            yield _conv(i, channels[i], channels[i], norm=channels[i])
    for _ in heads:
        yield _conv(0, architecture.width, architecture.num_classes, norm=architecture.width)


def _conv(row: int, inputs: int, outputs: int, norm: int) -> _Layer:
    """A 3x3 convolution with bias, and a BatchNorm over `norm` channels before or after it."""
    return _Layer(row, 9 * inputs * outputs, outputs, norm)


def _learnt(layer: _Layer) -> int:
    return layer.kernel + layer.biases + 2 * layer.norm
