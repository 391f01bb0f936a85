"""A trained model on the images of a split, and the mIoU of what comes out.

Counted here with numpy, apart from the package's own evaluation. Used by `predict.py` and `adaptive.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetpp_cli.data.dataset import EvaluationExamples
from unetpp_cli.data.layouts import open_dataset
from unetpp_cli.inference.logits import normalize
from unetpp_cli.network.weights import Model, load_model

Counts = npt.NDArray[np.float64]
"""(..., C, C) pixels: rows are the truth, columns the prediction."""


@dataclass(frozen=True)
class Images:
    """The images of one split and the model that is to look at them."""

    model: Model
    examples: EvaluationExamples
    name: str

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Image (1, C, h, w) float32, normalised, channels last, and its mask (H, W) uint8."""
        header = self.model.header
        for number in range(len(self)):
            example = self.examples[number]
            x = normalize(example.image[None], header.mean, header.std, torch.device("cpu"))
            yield x, example.mask


def open_images(model: str | Path, data: str | Path, split: str) -> Images:
    """The model in the file `model`, and the images of `split` of the data set at `data`.

    Raises:
        UserError: a file is not there, or the classes do not fit.
        SystemExit: there is no such split.
    """
    read = load_model(model)
    recipe = read.header.recipe
    opened = open_dataset(data, classes=read.header.classes, seed=int(recipe.get("seed", 0)))
    if split not in opened.splits:
        raise SystemExit(f"--split {split}: {opened.name} has {', '.join(opened.splits)}")
    pairs = opened.splits[split]
    examples = EvaluationExamples(opened, pairs, read.header.geometry, read.network.in_channels)
    return Images(read, examples, f"{opened.name} {split}")


def confusion(truth: Tensor, prediction: Tensor, count: int, scored: tuple[int, ...]) -> Counts:
    """(count, count) pixels of one image, void and whatever else is not `scored` left out.

    Args:
        truth, prediction: (H, W) uint8.
    """
    true, said = truth.numpy().ravel().astype(np.int64), prediction.numpy().ravel()
    valid = np.isin(true, scored)
    pairs = true[valid] * count + said[valid]
    return np.bincount(pairs, minlength=count * count).reshape(count, count).astype(np.float64)


def miou(counts: Counts) -> float:
    """Mean IoU, 0..1, over the classes that occur in the truth. counts: (C, C)."""
    hits = np.diagonal(counts)
    there = counts.sum(1) > 0
    union = counts.sum(1) + counts.sum(0) - hits
    return float((hits[there] / union[there]).mean()) if there.any() else float("nan")
