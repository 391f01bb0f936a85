"""The boundary F1 against its definition, every pixel compared with every other; and cases done by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp_cli.data.classes import VOID, ClassSet, palette
from unetpp_cli.inference.boundary import Contours, reaches

Mask = npt.NDArray[np.uint8]


def classes_of(count: int, void: tuple[int, ...] = ()) -> ClassSet:
    return ClassSet("some", tuple(map(str, range(count))), palette(count), void)


def f1(truth: Mask, prediction: Mask, classes: ClassSet) -> npt.NDArray[np.float64]:
    return Contours(torch.from_numpy(truth), classes).f1(torch.from_numpy(prediction)).numpy()


def boundary(mask: Mask, labelled: npt.NDArray[np.bool_], index: int) -> list[tuple[int, int]]:
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            if mask[y, x] != index or not labelled[y, x]:
                continue
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width and labelled[v, u]]
            if any(mask[place] != index for place in inside):
                found.append((y, x))
    return found


def by_definition(truth: Mask, prediction: Mask, classes: ClassSet) -> npt.NDArray[np.float64]:
    """(C,) of one image, from the text of the definition."""
    labelled = np.isin(truth, classes.scored)
    tolerance = 0.0075 * math.hypot(*truth.shape)
    scores = np.full(len(classes), np.nan)
    for index in classes.scored:
        wanted, given_ = boundary(truth, labelled, index), boundary(prediction, labelled, index)
        if not wanted:
            continue
        scores[index] = 0.0
        met = [[math.dist(one, other) < tolerance - 1e-9 for other in wanted] for one in given_]
        if np.any(met):
            precision, recall = np.mean(np.any(met, axis=1)), np.mean(np.any(met, axis=0))
            scores[index] = 2 * precision * recall / (precision + recall)
    return scores


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Patchy masks; wide and flat, so that the tolerance reaches several pixels where the masks are small."""
    height, width = draw(st.sampled_from([(2, 300), (6, 270), (300, 3), (9, 11), (1, 140), (5, 400)]))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    values = np.array([0, 1, 2, 3, 4, VOID], dtype=np.uint8)
    patch = draw(st.sampled_from([1, 3, 7]))

    def mask() -> Mask:
        coarse = generator.choice(values, (-(-height // patch), -(-width // patch)))
        return np.kron(coarse, np.ones((patch, patch), np.uint8))[:height, :width].astype(np.uint8)

    truth = mask()
    if draw(st.booleans()):
        return truth, np.where(generator.random(truth.shape) < 0.02, mask(), truth).astype(np.uint8)
    return truth, mask()


@given(pairs())
@settings(deadline=None, max_examples=30)
def test_it_follows_its_definition(pair: tuple[Mask, Mask]) -> None:
    classes = classes_of(5, void=(3,))
    truth, prediction = pair
    np.testing.assert_allclose(
        f1(truth[None], prediction[None], classes)[0], by_definition(truth, prediction, classes)
    )


@pytest.mark.parametrize("count", [8, 9, 15, 16, 31, 32, 63, 64, 150, 255])
def test_any_number_of_classes(count: int) -> None:
    """Bits of every width, and more classes than any number has bits; images in a batch stay apart."""
    classes = classes_of(count)
    generator = np.random.default_rng(count)
    truth = generator.integers(0, count, (2, 3, 280), dtype=np.uint8)
    prediction = np.where(generator.random(truth.shape) < 0.3, np.roll(truth, 1, 2), truth).astype(np.uint8)
    expected = [by_definition(one, other, classes) for one, other in zip(truth, prediction, strict=True)]
    np.testing.assert_allclose(f1(truth, prediction, classes), expected)
    assert np.nanmean(expected) > 0.1


def halves(at: int, height: int = 300, width: int = 400) -> Mask:
    """Class 0 left of column `at`, class 1 from there on. The diagonal is 500, the tolerance 3.75 pixels."""
    mask = np.zeros((1, height, width), dtype=np.uint8)
    mask[:, :, at:] = 1
    return mask


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (3, 1.0), (-3, 1.0), (4, 0.0)])
def test_a_shifted_line_is_met_within_the_tolerance(shift: int, score: float) -> None:
    np.testing.assert_array_equal(f1(halves(200), halves(200 + shift), classes_of(2))[0], [score, score])


def test_the_tolerance_itself_is_too_far() -> None:
    """240x320 has a tolerance of exactly 3 pixels; the definition asks for less."""
    for shift, score in ((2, 1.0), (3, 0.0)):
        pair = halves(100, 240, 320), halves(100 + shift, 240, 320)
        np.testing.assert_array_equal(f1(*pair, classes_of(2))[0], [score, score])


def test_precision_and_recall_by_hand() -> None:
    """From row 150 on the line is 10 columns off. Counted for class 0, left of the line."""
    truth, prediction = halves(200), halves(200)
    prediction[:, 150:, 200:210] = 0
    found = f1(truth, prediction, classes_of(2))[0]
    # Predicted: column 199 in rows 0..149, column 209 in rows 150..299, and the jump between them, columns
    # 200..208 of row 150. Of the jump, the three pixels next to the truth's column 199 are met.
    precision = (150 + 3) / (150 + 150 + 9)
    # In the truth, column 199 is met in rows 0..149; below that rows 150..153 are met by the jump's first
    # pixel, the last of them at a distance of (1, 3).
    recall = (150 + 4) / 300
    assert found[0] == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_missing_class_scores_nothing_and_an_invented_one_is_not_scored() -> None:
    truth, prediction = halves(200), np.zeros((1, 300, 400), dtype=np.uint8)
    np.testing.assert_array_equal(f1(truth, prediction, classes_of(2))[0], [0, 0])
    assert np.isnan(f1(prediction, truth, classes_of(2))).all(), "no boundary in the truth, nothing to meet"


def test_void_makes_no_boundary() -> None:
    """A band of void between the classes, wherever the prediction changes inside it."""
    truth = halves(200)
    truth[:, :, 190:210] = VOID
    assert np.isnan(f1(truth, halves(195), classes_of(2))).all()
    truth[:, :2, 190:210] = halves(200)[:, :2, 190:210]  # two rows are labelled: there it counts
    np.testing.assert_array_equal(f1(truth, halves(202), classes_of(2))[0], [1, 1])
    np.testing.assert_array_equal(f1(truth, halves(195), classes_of(2))[0], [0, 0])


def test_pixels_that_a_tool_left_out_bound_the_classes() -> None:
    """A prediction of class 0 up to the line and of nothing beyond meets the outline of 0, not that of 1."""
    prediction = halves(200)
    prediction[prediction == 1] = VOID
    np.testing.assert_array_equal(f1(halves(200), prediction, classes_of(2))[0], [1, 0])


def test_the_neighbourhood_is_a_disc() -> None:
    """360x480: a tolerance of 4.5 pixels, 20.25 when squared."""
    assert reaches(360, 480) == [4, 4, 4, 3, 2]
    assert reaches(1, 1) == [0]
    assert reaches(1, 1000) == [7], "a row has no other rows"
