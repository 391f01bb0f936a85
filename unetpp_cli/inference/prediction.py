"""From bands of logits to what is said of each image, strip by strip. Called by the predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from unetpp_cli.inference.logits import (
    disagreement,
    ensemble,
    entropy,
    labels,
    restored_strips,
    to_bytes,
)

Bytes = npt.NDArray[np.uint8]

OnProbabilities = Callable[[int, int, npt.NDArray[np.float16]], None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one image, at the image's size.

    Attributes:
        mask: (H, W) uint8 class indices.
        entropy: (H, W) uint8 in 1/255: of the answer's probabilities, over log K; None when not asked for.
        disagreement: (H, W) uint8 in 1/255: between the heads up to the depth, over its maximum; None when
            not asked for, or with one head.
    """

    mask: Bytes
    entropy: Bytes | None = None
    disagreement: Bytes | None = None


def predictions(
    bands: Iterable[tuple[int, Sequence[Tensor]]],
    images: Sequence[Bytes],
    size: tuple[int, int],
    strip: int,
    *,
    number: int = 0,
    use_ensemble: bool = False,
    uncertainty: bool = False,
    several_heads: bool = False,
    on_probabilities: OnProbabilities | None = None,
) -> list[Prediction]:
    """What is said of images of one size.

    Args:
        bands: their logits at the network's `size`, in bands of rows from top to bottom: the first row, and
            for each head (N, K, rows, width).
        strip: logits of a head that are brought to the images' size at once.
        number: of the first image, for `on_probabilities`, which is told of each strip.
        use_ensemble: the answer is the heads' mean, not the deepest head's.
        uncertainty: also the entropy, and with `several_heads` their disagreement.
    """
    height, width = images[0].shape[:2]
    shape = (len(images), height, width)
    mask = np.empty(shape, np.uint8)
    doubt = np.empty(shape, np.uint8) if uncertainty else None
    apart = np.empty(shape, np.uint8) if uncertainty and several_heads else None
    for first, heads in restored_strips(bands, size, height, width, strip):
        answer = ensemble(heads) if use_ensemble else heads[-1]  # (N, K, rows, W)
        rows = slice(first, first + answer.shape[2])
        mask[:, rows] = labels(answer).cpu().numpy()
        if doubt is not None or on_probabilities is not None:
            probabilities = answer if use_ensemble else answer.softmax(1)
        if doubt is not None:
            doubt[:, rows] = to_bytes(entropy(probabilities)).cpu().numpy()
        if apart is not None:
            apart[:, rows] = to_bytes(disagreement(heads)).cpu().numpy()
        if on_probabilities is not None:
            strips = probabilities.permute(0, 2, 3, 1).half().cpu().numpy()
            for index, one in enumerate(strips):
                on_probabilities(number + index, first, one)
        del heads, answer  # views of a band, which must be gone when the next is computed
    return [
        Prediction(
            mask[index],
            None if doubt is None else doubt[index],
            None if apart is None else apart[index],
        )
        for index in range(len(images))
    ]
