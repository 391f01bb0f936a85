"""That an exported file answers as the network does. Called by the exporters before a file gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetpp_cli.errors import UserError
from unetpp_cli.export.graph import Exported, example

TOLERANCE = 1e-4
"""How far a logit may be from torch's, as a share of the largest logit: other kernels add in other orders."""

VERSIONS = "Try other versions of onnx, onnxscript and onnxruntime, or of torch."
"""The cure when the exporters are at odds."""

_SIZES = ((96, 128), (75, 101), (24, 40))
"""Probes (height, width) where any size will do: whole multiples and odd ones."""


@dataclass(frozen=True)
class Check:
    """How the exported file compares with torch.

    Attributes:
        difference: the largest difference of two logits, over the largest logit; for masks the share of the
            pixels that differ although torch's two best classes are further apart than `TOLERANCE`.
        pixels: share of the pixels whose class differs.
        shapes: of the inputs tried.
    """

    difference: float
    pixels: float
    shapes: tuple[tuple[int, ...], ...]


def check(
    exported: Exported, run: Callable[[Tensor], Sequence[Tensor]], tolerance: float = TOLERANCE
) -> Check:
    """Compares the file, which `run` asks, with the network on smooth noise of several sizes.

    Raises:
        UserError: they differ by more than `tolerance`.
    """
    worst = differing = total = 0.0
    shapes = []
    for image in _probes(exported):
        shapes.append(tuple(image.shape))
        with torch.inference_mode():
            logits = exported.logits(image)
        for mine, theirs in zip(logits, run(image), strict=True):
            scale = max(float(mine.abs().max()), 1e-12)
            labels = theirs.long() if exported.interface.argmax else theirs.argmax(1)
            wrong = labels != mine.argmax(1)
            differing += float(wrong.sum())
            total += wrong.numel()
            if exported.interface.argmax:
                best = mine.topk(2, dim=1).values
                sure = best[:, 0] - best[:, 1] > tolerance * scale
                away, allowed = float((wrong & sure).float().mean()), 0.0
            else:
                away, allowed = float((mine - theirs).abs().max()) / scale, tolerance
            if not away <= allowed:  # a NaN is no agreement
                raise UserError(
                    f"The exported network differs from torch's by {away:.2g} (allowed: {allowed:g}); "
                    "nothing was written.",
                    VERSIONS,
                )
            worst = max(worst, away)
    return Check(worst, differing / total, tuple(shapes))


def _probes(exported: Exported) -> Iterator[Tensor]:
    interface, channels = exported.interface, exported.network.in_channels
    sizes = _SIZES if interface.size is None else (interface.size,) * 2
    for seed, (height, width) in enumerate(sizes):
        batch = 1 + seed % 2 if interface.size is None else 1
        yield example(interface, channels, height, width, batch, seed)
