"""Augmentation and the order of samples: functions of (seed, epoch, index) and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from unetpp_cli.config import read_recipe
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.loading import Sample, TrainingBatches, collate
from unetpp_cli.data.progression import Progression
from unetpp_cli.errors import UserError


def scene(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is the mask, so that the two cannot drift apart unnoticed."""
    mask = np.add.outer(np.arange(size), np.arange(size)).astype(np.uint8) // 12
    noise = np.random.default_rng(0).integers(0, 255, (size, size, 2), dtype=np.uint8)
    return np.dstack([mask * 20, noise]), mask


def test_a_sample_depends_on_seed_epoch_and_index_only() -> None:
    image, mask = scene()
    spec = read_recipe("camvid")["augment"]
    one, other = Augmentation(spec, 1), Augmentation(spec, 1)
    for _ in range(3):  # a worker that has seen other samples before
        other(image, mask, 9, 9)
    for epoch, index in [(1, 0), (1, 1), (2, 0)]:
        left, right = one(image, mask, epoch, index), other(image, mask, epoch, index)
        assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    drawn = [one(image, mask, *key)[0].tobytes() for key in [(1, 0), (1, 1), (2, 0)]]
    drawn.append(Augmentation(spec, 2)(image, mask, 1, 0)[0].tobytes())
    assert len(set(drawn)) == 4


def test_draws_of_different_transforms_are_uncorrelated() -> None:
    """`Compose.set_random_seed` seeds every transform alike: both flips would always agree."""
    image, mask = scene(8)
    augmentation = Augmentation(["HorizontalFlip", "VerticalFlip"], 0)
    marked = np.zeros_like(image)
    marked[0, 0] = 255
    flips = []
    for index in range(400):
        out, _ = augmentation(marked, mask, 1, index)
        row, column = np.argwhere(out[..., 0] == 255)[0]
        flips.append((row != 0, column != 0))
    vertical, horizontal = np.array(flips, dtype=float).T
    assert 0.4 < vertical.mean() < 0.6
    assert 0.4 < horizontal.mean() < 0.6
    assert abs(np.corrcoef(vertical, horizontal)[0, 1]) < 0.15


def test_mask_follows_the_image() -> None:
    image, mask = scene()
    spec = [{"RandomCrop": {"height": 40, "width": 40}}, "HorizontalFlip", "VerticalFlip"]
    augmentation = Augmentation(spec, 0)
    for index in range(10):
        out, labels = augmentation(image, mask, 1, index)
        assert out.shape == (40, 40, 3)
        assert np.array_equal(out[..., 0], labels * 20)


def test_padding_is_void() -> None:
    image, mask = scene(40)
    spec = [
        {
            "RandomCrop": {
                "height": 64,
                "width": 64,
                "pad_if_needed": True,
                "fill": [9, 8, 7],
                "fill_mask": 255,
            }
        }
    ]
    out, labels = Augmentation(spec, 0)(image, mask, 1, 0)
    assert labels.shape == (64, 64)
    assert (labels == 255).sum() == 64 * 64 - 40 * 40
    assert np.array_equal(np.unique(out[labels == 255], axis=0), [[9, 8, 7]])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["HorizontalFlipp"], "Did you mean 'HorizontalFlip'"),
        ([{"RandomCrop": {"height": 3}}], "width: Field required"),
        ([{"RandomCrop": {"hight": 3, "height": 4, "width": 4}}], "hight"),
        ([{"HorizontalFlip": {"p": 2}}], "p:"),
        ([3], "is no transform"),
        ([{"HorizontalFlip": {}, "VerticalFlip": {}}], "is no transform"),
        ([{"HorizontalFlip": "often"}], "is no transform"),
    ],
)
def test_bad_transforms_are_refused(spec: list[object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Augmentation(spec, 0)
    assert message in str(caught.value)


def test_batches_cover_every_sample_once_and_differ_by_epoch() -> None:
    batches = TrainingBatches(10, 4, seed=3, drop_last=False)
    first = list(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(index for batch in first for _, index in batch) == list(range(10))
    assert list(batches) == first
    batches.epoch = 2
    second = list(batches)
    assert {epoch for batch in second for epoch, _ in batch} == {2}
    assert [i for b in second for _, i in b] != [i for b in first for _, i in b]
    assert list(TrainingBatches(10, 4, seed=3, drop_last=True)) == first[:2]
    assert len(TrainingBatches(3, 4, seed=3, drop_last=True)) == 1, "a small set is never dropped whole"


def test_images_of_different_sizes_do_not_stack() -> None:
    import torch

    samples = [Sample(torch.zeros(3, s, s), torch.zeros(s, s), s) for s in (4, 5)]
    with pytest.raises(UserError, match="4x4, 5x5"):
        collate(samples)


def test_low_resolution_comes_first_and_shows_the_same_picture() -> None:
    image, mask = scene()
    spec = [{"RandomCrop": {"height": 48, "width": 40}}, "HorizontalFlip"]
    full = Augmentation(spec, 1)
    progressive = Augmentation(spec, 1, Progression.parse("0.5:0.5,0.75:0.25", 8))
    for epoch, size in [
        (1, (24, 20)),
        (4, (24, 20)),
        (5, (36, 30)),
        (6, (36, 30)),
        (7, (48, 40)),
        (9, (48, 40)),
    ]:
        out, labels = progressive(image, mask, epoch, 3)
        whole, their_labels = full(image, mask, epoch, 3)
        assert out.shape == (*size, 3)
        assert labels.shape == size
        assert set(np.unique(labels)) <= set(np.unique(their_labels))
        assert abs(out.mean() - whole.mean()) < 2
        inner = np.abs(out[..., 0].astype(float) - 20.0 * labels)  # the image follows its mask but at edges
        assert np.mean(inner > 0) < 0.3


@pytest.mark.parametrize(
    ("text", "epochs", "stages", "full"),
    [
        ("", 10, (), 1),
        ("0.5:0.6,0.75:0.2", 10, ((6, 0.5), (8, 0.75)), 9),
        ("0.5:1", 3, ((3, 0.5),), 4),
        ("0.3:0.05,0.5:0.55,0.6:0.3,0.7:0.1", 20, ((1, 0.3), (12, 0.5), (18, 0.6), (20, 0.7)), 21),
        ("0.5:0.1", 3, ((0, 0.5),), 1),  # too short a share to be an epoch
    ],
)
def test_stages_of_a_progression(
    text: str, epochs: int, stages: tuple[tuple[int, float], ...], full: int
) -> None:
    progression = Progression.parse(text, epochs)
    assert progression.stages == stages
    assert progression.full == full


def test_what_a_progression_costs() -> None:
    assert Progression.parse("0.5:0.5", 4).cost(4) == pytest.approx((0.25 * 2 + 2) / 4)
    assert Progression().cost(4) == 1


@pytest.mark.parametrize(
    "text", ["0.5", "0.5:", "a:b", "0:0.5", "1.5:0.5", "0.5:1.5", "0.5:0.6;0.7:0.2", "0.5:0.6,0.75:0.5"]
)
def test_bad_progressions_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="progressive cannot be"):
        Progression.parse(text, 10)
