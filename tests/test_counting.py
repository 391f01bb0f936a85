"""Counters against a count pixel by pixel: void, masks of other tools, blocks, images, two processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp_cli.data.classes import VOID, ClassSet, palette
from unetpp_cli.inference.boundary import Contours
from unetpp_cli.inference.counting import Counter, Tally
from unetpp_cli.parallel import World, join, launch

CPU = torch.device("cpu")
FOUR = ClassSet("four", ("a", "b", "none", "c"), palette(4), void=(2,))
Mask = npt.NDArray[np.uint8]


def masks(count: int, seed: int, values: Sequence[int], shape: tuple[int, int] = (7, 9)) -> Mask:
    return np.random.default_rng(seed).choice(np.array(values, dtype=np.uint8), (count, *shape))


def by_hand(truth: Mask, prediction: Mask, count: int, void: Sequence[int]) -> tuple[Mask, Mask]:
    """Confusion and missed, one pixel after the other."""
    confusion = np.zeros((count, count), dtype=np.int64)
    missed = np.zeros(count, dtype=np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t == VOID or t in void:
            continue
        if p < count:
            confusion[t, p] += 1
        else:
            missed[t] += 1
    return confusion, missed


def miou_by_hand(truth: Mask, prediction: Mask, scored: Sequence[int]) -> float:
    labelled = np.isin(truth, scored)
    ious = []
    for k in scored:
        if (truth == k).any():
            hit = ((truth == k) & (prediction == k)).sum()
            ious.append(hit / (((truth == k) | (prediction == k)) & labelled).sum())
    return float(np.mean(ious))


@given(st.integers(0, 10_000), st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=40)
def test_every_labelled_pixel_is_counted_once(seed: int, images: int, in_blocks: bool) -> None:
    truth = masks(images, seed, [0, 1, 2, 3, VOID])
    prediction = masks(images, seed + 1, [0, 1, 2, 3, 4, 200, VOID])
    counter = Counter(FOUR, CPU, list(range(images)) if in_blocks else None)
    for start in range(0, images, 2):
        indices = list(range(start, min(start + 2, images)))
        counter.add(indices, torch.from_numpy(truth[indices]), torch.from_numpy(prediction[indices]))
    tally = counter.tally()
    confusion, missed = by_hand(truth, prediction, 4, [2])
    np.testing.assert_array_equal(tally.confusion, confusion)
    np.testing.assert_array_equal(tally.missed, missed)
    summed = tally.blocks.sum(0)
    np.testing.assert_array_equal(summed[0], np.diag(confusion))
    np.testing.assert_array_equal(summed[1], confusion.sum(1) + missed)
    np.testing.assert_array_equal(summed[2], confusion.sum(0))
    assert tally.blocks.shape == (images if in_blocks else 1, 3, 4)


def test_a_pixel_without_a_class_is_missed_and_never_hit() -> None:
    """By hand: class 0 has 6 pixels, 2 hit, 2 taken for class 1, 2 left out; class 1 has 2, both hit."""
    truth = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1, VOID]]], dtype=torch.uint8)
    prediction = torch.tensor([[[0, 0, 1, 1, VOID, 77, 1, 1, 0]]], dtype=torch.uint8)
    counter = Counter(FOUR, CPU)
    counter.add([0], truth, prediction)
    scores = counter.tally().scores(FOUR)
    assert scores.truth.tolist() == [6, 2, 0, 0]
    assert scores.iou[:2] == pytest.approx([2 / 6, 2 / 4])
    assert scores.accuracy[:2] == pytest.approx([2 / 6, 1])
    assert scores.dice[:2] == pytest.approx([4 / 8, 4 / 6])
    assert scores.pixel_accuracy == pytest.approx(4 / 8)
    assert scores.frequency_weighted_iou == pytest.approx(6 / 8 * 2 / 6 + 2 / 8 * 2 / 4)
    assert scores.missed is not None
    assert scores.missed.tolist() == [2, 0, 0, 0]


def test_a_void_output_as_the_prediction_is_a_miss_too() -> None:
    truth = torch.tensor([[[0, 0, 0, 2]]], dtype=torch.uint8)
    counter = Counter(FOUR, CPU)
    counter.add([0], truth, torch.tensor([[[0, 2, 2, 0]]], dtype=torch.uint8))
    scores = counter.tally().scores(FOUR)
    assert scores.iou[0] == pytest.approx(1 / 3)
    assert scores.pixel_accuracy == pytest.approx(1 / 3)
    assert np.isnan(scores.iou[2])


def test_blocks_and_images() -> None:
    """Five images in three blocks, fed in another order; the last has no labelled pixel."""
    truth, prediction = masks(5, 1, [0, 1, 3, VOID]), masks(5, 2, [0, 1, 2, 3])
    truth[4] = VOID
    truth[0][truth[0] == 3] = 0  # a class that this image lacks
    blocks = [2, 0, 2, 1, 1]
    counter = Counter(FOUR, CPU, blocks)
    for indices in ([3, 0], [4], [2, 1]):
        counter.add(indices, torch.from_numpy(truth[indices]), torch.from_numpy(prediction[indices]))
    tally = counter.tally()
    for block in range(3):
        mine = [index for index in range(5) if blocks[index] == block]
        confusion, _ = by_hand(truth[mine], prediction[mine], 4, [2])
        expected = [np.diag(confusion), confusion.sum(1), confusion.sum(0)]
        np.testing.assert_array_equal(tally.blocks[block], expected)
    expected = {index: miou_by_hand(truth[index], prediction[index], [0, 1, 3]) for index in range(4)}
    assert tally.images == pytest.approx(expected)


def test_without_blocks_no_image_is_looked_at() -> None:
    counter = Counter(FOUR, CPU)
    counter.add([0], *(torch.from_numpy(masks(1, seed, [0, 1])) for seed in (1, 2)))
    tally = counter.tally()
    assert tally.images == {}
    assert tally.boundary is None


def test_the_boundary_score_is_a_mean_over_the_images_that_have_the_class() -> None:
    truth = np.zeros((3, 8, 8), dtype=np.uint8)
    truth[0, :, 4:] = truth[1, :4] = 1  # the third image is of class 0 all over: it has no boundary
    prediction = truth.copy()
    prediction[1] = 0  # misses class 1 and its boundary
    counter = Counter(FOUR, CPU, boundary=True)
    shared = Counter(FOUR, CPU, boundary=True)
    for indices in ([0, 1], [2]):
        one, other = torch.from_numpy(truth[indices]), torch.from_numpy(prediction[indices])
        counter.add(indices, one, other)
        shared.add(indices, one, other, Contours(one, FOUR))
    for tally in (counter.tally(), shared.tally()):
        assert tally.boundary is not None
        np.testing.assert_array_equal(tally.boundary, [0.5, 0.5, np.nan, np.nan])


def test_255_classes() -> None:
    """As many as a mask can hold: the column for no class lies beyond every class."""
    many = ClassSet("many", tuple(map(str, range(255))), palette(255))
    truth, prediction = masks(2, 1, range(256)), masks(2, 2, range(256))
    counter = Counter(many, CPU, [0, 1])
    counter.add([0, 1], torch.from_numpy(truth), torch.from_numpy(prediction))
    confusion, missed = by_hand(truth, prediction, 255, [])
    np.testing.assert_array_equal(counter.tally().confusion, confusion)
    np.testing.assert_array_equal(counter.tally().missed, missed)


def count_a_share(world: World) -> Tally:
    truth, prediction = masks(5, 1, [0, 1, 3, VOID]), masks(5, 2, [0, 1, 2, 3, VOID])
    counter = Counter(FOUR, world.device, [0, 0, 1, 1, 2], boundary=True)
    for index in range(world.rank, 5, world.size):
        counter.add([index], *(torch.from_numpy(some[index : index + 1]) for some in (truth, prediction)))
    counter.add_up(world)
    return counter.tally()


def work_of_a_process() -> Tally:
    torch.set_num_threads(1)
    with join("cpu") as world:
        return count_a_share(world)


def test_two_processes_count_what_one_counts() -> None:
    together, alone = launch(work_of_a_process, 2, 0), count_a_share(World(CPU))
    for name in ("confusion", "missed", "blocks"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    assert together.images == pytest.approx(alone.images)
    assert len(together.images) == 5
    assert together.boundary == pytest.approx(alone.boundary, nan_ok=True)
