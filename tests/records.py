"""Epochs, scores and pictures that the tests of the reports share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.metrics import Cost, DepthResult, Difference, Interval, Scores
from unetpp_cli.report.history import EpochRecord, HeadScore

NAN = math.nan


def record(epoch: int, miou: float = 0.5, heads: Sequence[int] = (1, 2, 3, 4)) -> EpochRecord:
    val = {depth: HeadScore(2 / epoch + 0.1 * depth, 0.9, miou + 0.01 * depth) for depth in heads}
    losses = dict.fromkeys(heads, 1.0 / epoch)
    return EpochRecord(epoch, 0.1 / epoch, 1.5 / epoch, 0.8, losses, val, 62, 12.5)


def training(epochs: int) -> list[EpochRecord]:
    return [record(epoch, 0.6 * epoch / epochs) for epoch in range(1, epochs + 1)]


def unscored(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    return [dataclasses.replace(each, val={}) for each in records]


TWO = ClassSet("custom", ("grass", "[sky]", "never"), ((10, 200, 30), (0, 90, 250), (250, 0, 250)))


def two_classes(hit: int = 60) -> Scores:
    """100 pixels of grass, `hit` of them found and the rest called sky; 50 pixels of sky, all found."""
    return Scores(np.array([[hit, 100 - hit, 0], [0, 50, 0], [0, 0, 0]]), TWO)


def two_results() -> list[DepthResult]:
    return [
        DepthResult(1, two_classes(40), Cost(33_723, 2.956, 140_000, 22.14)),
        DepthResult(2, two_classes(80), Cost(2_956_619, 23.102, 11_900_000, 144.2)),
        DepthResult(None, two_classes(70), Cost(2_958_100, 23.3, 11_950_000)),
    ]


def full_results() -> list[DepthResult]:
    """The same with everything that can be measured."""
    boundary = np.array([0.5, 0.25, NAN])
    return [
        dataclasses.replace(
            result,
            cost=dataclasses.replace(result.cost, milliseconds=20.0 * row, peak_bytes=300_000_000 * row),
            boundary=boundary + 0.1 * row,
            interval=Interval(result.scores.miou - 0.02, result.scores.miou + 0.01 * row),
        )
        for row, result in enumerate(two_results(), start=1)
        if result.cost is not None
    ]


def two_differences(low: float = 0.004, high: float = 0.019) -> Difference:
    """b against a: grass better, sky open, the third class nowhere; the interval of the mean as given."""
    intervals = np.array([[0.0002, 0.05], [-0.031, 0.012], [NAN, NAN]])
    return Difference(
        "a[1].safetensors",
        "b.safetensors",
        0.0123,
        Interval(low, high),
        np.array([0.03, -0.0054, NAN]),
        intervals,
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def spots(picture: np.ndarray, color: str) -> np.ndarray:
    """(rows, columns) of the pixels of a `#rrggbb` colour."""
    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return np.argwhere((np.abs(picture - rgb) <= 2).all(axis=2))
