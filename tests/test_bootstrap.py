"""Blocks out of names; intervals against all draws enumerated, and against repeated surveys."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from unetpp_cli.data.classes import ClassSet, palette
from unetpp_cli.inference.bootstrap import blocks_of, difference, interval, sequences_of
from unetpp_cli.inference.counting import Tally

TWO = ClassSet("two", ("a", "b"), palette(2))
THREE = ClassSet("three", ("a", "b", "void"), palette(3), void=(2,))
Counts = npt.NDArray[np.int64]


def tally(matrices: Counts) -> Tally:
    """Of confusion matrices per block, (B, C, C)."""
    matrices = np.asarray(matrices, dtype=np.int64)
    blocks = np.stack([np.einsum("bii->bi", matrices), matrices.sum(2), matrices.sum(1)], 1)
    return Tally(matrices.sum(0), np.zeros(matrices.shape[1], np.int64), blocks, {}, None)


def ious(matrix: Counts) -> list[float]:
    """Class by class; NaN where the truth has none of it."""
    return [
        matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) if matrix[k].sum() else np.nan
        for k in range(len(matrix))
    ]


def all_draws(matrices: Counts) -> list[Counts]:
    """The sum of every draw of as many blocks, each draw as likely as the other."""
    draws = np.array(list(itertools.product(range(len(matrices)), repeat=len(matrices))))
    return list(matrices[draws].sum(1))


def among(value: float, values: list[float], share: float) -> bool:
    """Whether `value` lies about at the `share`-quantile of equally likely values."""
    ordered = sorted(value for value in values if not np.isnan(value))
    near = [min(max(share * factor, 0), 1) for factor in (0.6, 1.5)]
    if share > 0.5:
        near = [1 - (1 - share) * factor for factor in (1.5, 0.6)]
    low, high = (ordered[min(int(np.ceil(part * len(ordered))), len(ordered)) - 1] for part in near)
    return bool(low <= value <= high)


# Of six blocks 95 % are as much as 99.5 % of many: Student's t with 5 degrees of freedom is 2.571, times
# the root of 6/5 it is 2.816, and so many deviations leave out 0.243 % of a normal distribution on each side.
OUTER = 0.00243

# In the second block, class b does not occur; so there are draws without it.
BLOCKS = np.array(
    [
        *([[50, 10], [5, 20]], [[80, 3], [0, 0]], [[30, 30], [10, 40]]),
        *([[44, 16], [9, 16]], [[70, 8], [2, 9]], [[52, 20], [3, 60]]),
    ]
)
BETTER = np.array(
    [
        *([[55, 5], [5, 20]], [[70, 13], [0, 0]], [[45, 15], [0, 50]]),
        *([[40, 20], [6, 19]], [[72, 6], [1, 10]], [[60, 12], [9, 54]]),
    ]
)


def test_the_interval_is_that_of_all_draws() -> None:
    means = [float(np.nanmean(ious(matrix))) for matrix in all_draws(BLOCKS)]
    found = interval(tally(BLOCKS), TWO, draws=20_000)
    assert among(found.low, means, OUTER)
    assert among(found.high, means, 1 - OUTER)


def test_the_difference_is_that_of_all_paired_draws() -> None:
    found = difference(tally(BLOCKS), tally(BETTER), ("one", "two"), TWO, draws=20_000)
    first, second = ious(BLOCKS.sum(0)), ious(BETTER.sum(0))
    assert (found.first, found.second) == ("one", "two")
    assert found.iou == pytest.approx(np.subtract(second, first))
    assert found.miou == pytest.approx(np.mean(second) - np.mean(first))
    pairs = list(zip(all_draws(BLOCKS), all_draws(BETTER), strict=True))
    means = [float(np.nanmean(ious(other)) - np.nanmean(ious(one))) for one, other in pairs]
    assert among(found.interval.low, means, OUTER)
    assert among(found.interval.high, means, 1 - OUTER)
    for k in range(2):
        values = [ious(other)[k] - ious(one)[k] for one, other in pairs]
        assert among(found.intervals[k][0], values, OUTER)
        assert among(found.intervals[k][1], values, 1 - OUTER)


def test_equal_counts_do_not_differ() -> None:
    found = difference(tally(BLOCKS), tally(BLOCKS), ("one", "two"), TWO)
    assert (found.miou, found.interval.low, found.interval.high) == (0, 0, 0)
    assert not found.iou.any()
    assert not found.intervals.any()


def test_pairing_sees_what_two_intervals_hide() -> None:
    """Blocks differ a lot from each other, the models by a little and always the same way."""
    generator = np.random.default_rng(0)
    hits = generator.integers(200, 900, 40)
    first, second = (np.array([[[h, 1000 - h], [0, 1000]] for h in some]) for some in (hits, hits + 10))
    one, other = (interval(tally(some), TWO) for some in (first, second))
    assert one.high > other.low, "the intervals overlap"
    assert difference(tally(first), tally(second), ("a", "b"), TWO).interval.low > 0


def test_a_seed_repeats_and_another_one_differs() -> None:
    matrices = np.random.default_rng(1).integers(1, 100, (30, 2, 2))
    assert interval(tally(matrices), TWO, seed=3) == interval(tally(matrices), TWO, seed=3)
    assert interval(tally(matrices), TWO, seed=3) != interval(tally(matrices), TWO, seed=4)


def test_draws_in_parts_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = np.random.default_rng(1).integers(1, 100, (30, 2, 2))
    whole = interval(tally(matrices), TWO)
    monkeypatch.setattr("unetpp_cli.inference.bootstrap._AT_ONCE", 500)
    assert interval(tally(matrices), TWO) == whole


def test_few_blocks_are_not_taken_for_many() -> None:
    """Two models that do not differ: of five blocks each, about one pair in twenty seems to."""
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        one, other = generator.normal(800, 20, (2, 5)).round().astype(np.int64)
        first, second = (tally(np.array([[[h, 1000 - h], [0, 1000]] for h in some])) for some in (one, other))
        bounds = difference(first, second, ("a", "b"), TWO, draws=1000).interval
        wrong += bounds.low > 0 or bounds.high < 0
    assert wrong < 0.12 * 200, "plain percentiles: 17 %"


@pytest.mark.parametrize("count", [1, 4])
def test_very_few_blocks_tell_no_interval(count: int) -> None:
    one = tally(BLOCKS[:count])
    assert np.isnan([interval(one, TWO).low, interval(one, TWO).high]).all()
    found = difference(one, tally(BETTER[:count]), ("a", "b"), TWO)
    assert np.isnan(found.interval.low)
    assert np.isnan(found.intervals).all()
    assert found.iou == pytest.approx(np.subtract(ious(BETTER[:count].sum(0)), ious(BLOCKS[:count].sum(0))))


def test_void_classes_and_absent_ones_are_left_out() -> None:
    matrices = np.zeros((8, 3, 3), dtype=np.int64)
    matrices[:, 0, 0] = [3, 4, 5, 6] * 2
    matrices[:, 0, 2] = 6  # taken for the void output
    found = difference(tally(matrices), tally(matrices), ("a", "b"), THREE)
    assert np.isnan(found.iou[1:]).all()
    assert np.isnan(found.intervals[1:]).all()
    assert found.intervals[0].tolist() == [0, 0]
    whole = interval(tally(matrices), THREE)
    assert 3 / 9 <= whole.low < 36 / 84 < whole.high <= 6 / 12


def test_unequal_blocks_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(tally(BLOCKS), tally(BLOCKS[:2]), ("a", "b"), TWO)


def film(generator: np.random.Generator, frames: int = 1200) -> tuple[Counts, float]:
    """Confusion matrices of a film's frames, whose difficulty changes slowly, and the IoU of such films."""
    scene = np.zeros(frames)
    noise = generator.normal(size=frames)
    for index in range(1, frames):
        scene[index] = 0.9 * scene[index - 1] + np.sqrt(1 - 0.9**2) * noise[index]
    hits = np.round(700 + 80 * np.clip(scene, -3, 3)).astype(np.int64)
    zero = np.zeros_like(hits)
    # Class a: so many of 1000 hit, the rest taken for b, which is always found. IoU of a: hits / 1000.
    matrices = np.stack([np.stack([hits, 1000 - hits], 1), np.stack([zero, zero + 1000], 1)], 1)
    return matrices, (0.7 + 1000 / 1300) / 2


def test_blocks_cover_the_truth_where_single_images_do_not() -> None:
    """60 films: the truth is inside about 95 % of the block intervals, but of few of the single-image ones.

    Frames correlate by 0.9 from one to the next, which makes the spread of a mean (1 + 0.9) / (1 - 0.9) = 19
    times that of independent frames, its square root 4.4 times as wide an interval.
    """
    generator = np.random.default_rng(5)
    names = [f"film_{frame:05}" for frame in range(1200)]
    covered, widths = {1: 0, 40: 0}, {1: 0.0, 40: 0.0}
    for _ in range(60):
        frames, truth = film(generator)
        for length in covered:
            blocks = blocks_of(names, length)
            matrices = np.zeros((max(blocks) + 1, 2, 2), dtype=np.int64)
            np.add.at(matrices, blocks, frames)
            found = interval(tally(matrices), TWO, draws=200)
            covered[length] += found.low <= truth <= found.high
            widths[length] += found.high - found.low
    assert covered[40] / 60 > 0.85
    assert covered[1] / 60 < 0.6
    assert 3 < widths[40] / widths[1] < 4.6


CAMVID = [f"0016E5_{number:05}" for number in range(7959, 8161, 2)]  # 101 frames, as in its val


def test_frames_of_a_film_make_blocks() -> None:
    assert sequences_of(CAMVID) == 1
    blocks = blocks_of(CAMVID)
    assert [blocks.count(block) for block in range(5)] == [20, 20, 20, 20, 21], "a rest of one joins"
    assert blocks == sorted(blocks)
    assert [blocks_of(CAMVID[:90]).count(block) for block in range(5)] == [20, 20, 20, 20, 10]
    assert [blocks_of(CAMVID[:89]).count(block) for block in range(4)] == [20, 20, 20, 29]
    assert set(blocks_of(CAMVID[:7])) == {0}


def test_the_order_is_that_of_the_numbers() -> None:
    """9 comes before 10, whatever order the files came in, and a sequence ends where its name does."""
    names = ["b_10", "a_2", "b_9", "a_1", "b_11", "b_8"]
    assert blocks_of(names, 2) == [1, 2, 0, 2, 1, 0]
    assert sequences_of(names) == 2
    assert blocks_of(names, 1) == [2, 5, 1, 4, 3, 0]


@pytest.mark.parametrize(
    "names",
    [
        [f"Seq05VD_f{number:05}" for number in range(0, 5000, 30)],
        [f"frame_{number:04}_L" for number in range(167)],
        [f"{number}" for number in range(167)],
        [f"drive/{number:010}.final" for number in range(167)],
        [f"aachen_{number:06}_leftImg8bit" for number in range(167)],
    ],
)
def test_spellings_of_frames(names: list[str]) -> None:
    assert sequences_of(names) == 1
    assert blocks_of(names) == [min(index // 20, 7) for index in range(167)]


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog", "house"],
        ["4fa1", "7bc2", "9d3e4", "aa17", "b0c9"],
        ["cat_1", "dog_1", "cow_7", "cow_8", "hen_1"],
        ["only_12"],
    ],
)
def test_names_without_order_are_single_images(names: list[str]) -> None:
    assert sorted(blocks_of(names)) == list(range(len(names)))
    assert sequences_of(names) == len(names)


def test_a_name_without_a_number_among_frames_stands_alone() -> None:
    names = ["title", *(f"f_{number}" for number in range(4))]
    assert blocks_of(names, 2) == [0, 1, 1, 2, 2]


def test_no_names_no_blocks() -> None:
    assert blocks_of([]) == []
    assert sequences_of([]) == 0
    with pytest.raises(ValueError, match="at least one image"):
        blocks_of(["a"], 0)
