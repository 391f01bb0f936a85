"""How far scores would move on other images like these: a paired block bootstrap. Called by eval.

Neighbouring frames of a film show nearly the same picture, so drawing single frames again would make
intervals far too narrow. Drawn are blocks of consecutive frames; the counts of a draw are summed before any
score is taken, as they are for the split itself.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.counting import Tally
from unetpp_cli.inference.metrics import Difference, Interval

BLOCK = 20
"""Consecutive frames in a block."""

_Floats = npt.NDArray[np.float64]
_AT_ONCE = 4_000_000
"""Weights held at a time: draws times blocks."""


LEAST = 5
"""Blocks below which no interval is told: that all of four lie on one side is nothing rare."""

_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""The 97.5th percentile of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class _Place:
    """Where an image stands: the text before the last number of its name, and that number."""

    sequence: str
    position: int


def blocks_of(stems: Sequence[str], length: int = BLOCK) -> list[int]:
    """The block of each image, 0 .. B - 1.

    The images of a sequence, sorted by position, make blocks of `length`; a rest shorter than half of that
    joins the block before it. Names that carry no order make a block of each image: a name without a number,
    and all names when there are not even two images to a sequence on average.

    Args:
        stems: names without their endings: `0016E5_07959` is number 7959 of the sequence `0016E5_`.
        length: 1 makes a block of each image.

    Raises:
        ValueError: `length` is less than 1.
    """
    if length < 1:
        raise ValueError(f"a block has at least one image, not {length}")
    sequences: dict[str, list[tuple[int, int]]] = {}
    for index, place in enumerate(_places(stems)):
        sequences.setdefault(place.sequence, []).append((place.position, index))
    blocks, first = [0] * len(stems), 0
    for frames in sequences.values():
        count = max(1, len(frames) // length + (2 * (len(frames) % length) >= length))
        for rank, (_, index) in enumerate(sorted(frames)):
            blocks[index] = first + min(rank // length, count - 1)
        first += count
    return blocks


def sequences_of(stems: Sequence[str]) -> int:
    """How many sequences the names tell of; as many as images when they carry no order."""
    return len({place.sequence for place in _places(stems)})


def _places(stems: Sequence[str]) -> list[_Place]:
    """Where each image stands; each in a sequence of its own when the names carry no order."""
    # What all names end in is no number of a frame: the 8 of `aachen_000000_000019_leftImg8bit`.
    mirrored = os.path.commonprefix([stem[::-1] for stem in stems])  # noqa: RUF071 - letter by letter is meant
    ending = mirrored[::-1].lstrip("0123456789")
    places = []
    for stem in stems:
        match = re.fullmatch(r"(.*?)([0-9]+)[^0-9]*", stem.removesuffix(ending), re.DOTALL)
        places.append(_Place(match[1], int(match[2])) if match else _Place(f"{stem} alone", 0))
    if 2 * len({place.sequence for place in places}) > len(places):
        return [_Place(f"{index}", 0) for index in range(len(places))]
    return places


def interval(tally: Tally, classes: ClassSet, draws: int = 4000, seed: int = 0) -> Interval:
    """The 95 % interval of the mean IoU: percentiles over draws of blocks.

    A draw takes as many blocks as there are, each with replacement. Its mean is over the classes that occur
    in it. Few blocks vary less among themselves than they should; the percentiles lie further out for it,
    by as much as Student's t asks for (the expanded percentile interval of Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015). NaN with fewer than `LEAST` blocks.
    """
    if len(tally.blocks) < LEAST:
        return Interval(float("nan"), float("nan"))
    values = _over_draws([tally], draws, seed, lambda ious: _mean(ious[0])[:, None], classes)
    low, high = _percentiles(values, len(tally.blocks))[0]
    return Interval(float(low), float(high))


def difference(
    first: Tally,
    second: Tally,
    names: tuple[str, str],
    classes: ClassSet,
    draws: int = 4000,
    seed: int = 0,
) -> Difference:
    """By how much the second differs from the first on the same images: mean IoU and the IoU of each class.

    Every draw takes the same blocks of both. Classes count that occur in the truth of both.

    Raises:
        ValueError: the two were counted in different blocks.
    """
    if first.blocks.shape != second.blocks.shape:
        raise ValueError(f"blocks of {first.blocks.shape} and {second.blocks.shape} cannot be paired")

    def differences(ious: Sequence[_Floats]) -> _Floats:
        per_class = ious[1] - ious[0]  # NaN where either has none, so both means are over the same classes
        return np.column_stack([_mean(per_class), per_class])

    whole = differences([_iou(tally.blocks.sum(0, keepdims=True), classes) for tally in (first, second)])[0]
    if len(first.blocks) < LEAST:
        percentiles = np.full((len(whole), 2), np.nan)
    else:
        values = _over_draws([first, second], draws, seed, differences, classes)
        percentiles = _percentiles(values, len(first.blocks))
    low, high = percentiles[0]
    return Difference(
        first=names[0],
        second=names[1],
        miou=float(whole[0]),
        interval=Interval(float(low), float(high)),
        iou=whole[1:],
        intervals=percentiles[1:],
    )


def _over_draws(
    tallies: Sequence[Tally],
    draws: int,
    seed: int,
    score: Callable[[Sequence[_Floats]], _Floats],
    classes: ClassSet,
) -> _Floats:
    """What `score` makes of each tally's IoU per class (n, C), for every draw: (draws, ...)."""
    blocks = [tally.blocks.astype(np.float64) for tally in tallies]  # exact, and fast to multiply
    return np.concatenate(
        [
            score([_iou(np.tensordot(weights, one, 1), classes) for one in blocks])
            for weights in _weights(len(blocks[0]), draws, seed)
        ]
    )


def _weights(blocks: int, draws: int, seed: int) -> Iterator[_Floats]:
    """How often each draw takes each block: (n, blocks) at a time, `draws` rows in all."""
    generator, share = np.random.default_rng(seed), np.full(blocks, 1 / blocks)
    at_once = max(1, _AT_ONCE // blocks)
    for start in range(0, draws, at_once):
        counts = generator.multinomial(blocks, share, min(at_once, draws - start))
        yield counts.astype(np.float64)


def _iou(counts: npt.NDArray[np.generic], classes: ClassSet) -> _Floats:
    """(n, 3, C) hit, in the truth, in the prediction -> (n, C); NaN where the truth has none of a class."""
    hits, truth, predicted = np.moveaxis(counts.astype(np.float64), 1, 0)
    there = truth > 0
    there[:, list(classes.void)] = False
    iou = np.full(hits.shape, np.nan)
    np.divide(hits, truth + predicted - hits, out=iou, where=there)
    return iou


def _mean(values: _Floats) -> _Floats:
    """(n, C) -> (n,): the mean over what is no NaN, NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(1)
    total = np.where(there, values, 0.0).sum(1)
    mean = np.full(len(values), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _percentiles(values: _Floats, blocks: int) -> _Floats:
    """(draws, n) -> (n, 2): the bounds of 95 % over the draws that have a value."""
    student = _STUDENT[blocks - 2] if blocks - 2 < len(_STUDENT) else 1.96 + 2.4 / (blocks - 1)
    outer = 100 * NormalDist().cdf(-math.sqrt(blocks / (blocks - 1)) * student)
    result = np.full((values.shape[1], 2), np.nan)
    there = ~np.isnan(values)
    for column in np.flatnonzero(there.any(0)):
        result[column] = np.percentile(values[there[:, column], column], [outer, 100 - outer])
    return result
