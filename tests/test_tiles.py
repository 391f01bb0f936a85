"""The tiles cover the image as promised, and a halo is as wide as the network really looks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unetpp_cli.errors import UserError
from unetpp_cli.inference.tiles import (
    LARGEST_AUTOMATIC,
    Tiling,
    automatic_tiling,
    check_tiling,
    halo,
    pass_bytes,
    radius,
    smallest_size,
    spans,
)
from unetpp_cli.network.unetpp import UNetPlusPlus


def transparent(depth: int) -> UNetPlusPlus:
    """A network in which nothing is lost: with positive weights no ReLU and no pool hides a pixel."""
    network = UNetPlusPlus(1, 1, width=1, depth=depth).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            nn.init.zeros_(module.bias)
    return network


@pytest.mark.parametrize(("depth", "expected"), [(1, 11), (2, 27), (3, 59), (4, 123)])
def test_the_radius_is_how_far_a_pixel_reaches(depth: int, expected: int) -> None:
    """One bright pixel in a dark image, in every place relative to the pooling: what lights up?"""
    network, middle = transparent(4), 160
    farthest = 0
    for place in range(middle, middle + 2**depth):
        image = torch.zeros(1, 1, 16, 336, dtype=torch.float64)
        image[..., 8, place] = 1
        with torch.no_grad():
            changed = network(image, depth)[0, 0] != 0
        columns = changed.any(0).nonzero()[:, 0]
        farthest = max(farthest, place - int(columns.min()), int(columns.max()) - place)
    assert farthest == expected == radius(depth)


lengths = st.tuples(
    st.integers(1, 4),
    st.sampled_from([1, 2]),
    st.integers(1, 120),
    st.integers(0, 40),
    st.one_of(st.none(), st.integers(0, 300)),
)


@given(lengths)
@settings(deadline=None)
def test_spans_cover_the_axis(case: tuple[int, int, int, int, int | None]) -> None:
    depth, factor, multiples, more, overlap = case
    multiple = factor * 2**depth
    length = multiples * multiple
    smallest = smallest_size(Tiling(1, overlap), multiple, depth)
    tiling = Tiling(smallest + more * multiple // 2, overlap)
    found = spans(length, multiple, depth, tiling)

    assert len({span.stop - span.start for span in found}) == 1, "tiles of one shape make a batch"
    assert found[0].start == found[0].first == 0
    assert found[-1].stop == found[-1].last == length
    total = [0.0] * length
    for span in found:
        assert span.start % multiple == 0
        assert span.stop - span.start <= tiling.size or len(found) == 1
        assert 0 <= span.start <= span.first < span.last <= span.stop <= length
        for place in range(span.first, span.last):
            total[place] += span.weights[place - span.first] if span.weights else 1
    assert total == pytest.approx([1.0] * length), "each pixel once, or weights that add up to one"
    if overlap is None or overlap >= 2 * halo(depth, multiple):
        for span in found:
            assert span.weights is None
            assert span.start == 0 or span.first - span.start >= radius(depth)
            assert span.stop == length or span.stop - span.last >= radius(depth)
    else:
        for one, following in itertools.pairwise(found):
            assert one.stop - following.start >= overlap


def test_no_more_is_computed_than_that_many_tiles_need() -> None:
    # 1,040 px in tiles of 512 with rims of 128: 4 tiles keep (1,040 - 256) / 4 = 196 each, rounded up to 208.
    found = spans(1040, 16, 4, Tiling(512))
    assert [(span.start, span.stop) for span in found] == [(0, 464), (208, 672), (416, 880), (576, 1040)]
    assert [span.first for span in found] == [0, 336, 544, 752]


def test_blended_tiles_weigh_their_middle_most() -> None:
    first, second = spans(80, 16, 4, Tiling(48, 16))
    assert (first.start, first.stop, second.start, second.stop) == (0, 48, 32, 80)
    assert first.weights is not None
    assert second.weights is not None
    assert first.weights[:32] == (1.0,) * 32, "nobody else has these pixels"
    # Pixel 35 is 11.5 from the middle of the first and 20.5 from that of the second; a deviation is 6.
    near, far = math.exp(-((11.5 / 6) ** 2) / 2), math.exp(-((20.5 / 6) ** 2) / 2)
    assert first.weights[35] == pytest.approx(near / (near + far))
    assert second.weights[3] == pytest.approx(far / (near + far))


@pytest.mark.parametrize(
    ("tiling", "depth", "multiple", "smallest"),
    [
        (Tiling(271), 4, 16, 272),  # twice 128, and 16 to move on by
        (Tiling(143), 3, 16, 144),  # a pruned network keeps its multiple: twice 64, and 16
        (Tiling(25), 1, 2, 26),
        (Tiling(100, 100), 4, 16, 128),
    ],
)
def test_too_small_tiles_are_refused_with_the_smallest_that_work(
    tiling: Tiling, depth: int, multiple: int, smallest: int
) -> None:
    with pytest.raises(UserError, match=rf"--tile {tiling.size} is too small.*Use --tile {smallest} or more"):
        check_tiling(tiling, multiple, depth)
    check_tiling(Tiling(smallest, tiling.overlap), multiple, depth)
    assert len(spans(40 * multiple + smallest, multiple, depth, Tiling(smallest, tiling.overlap))) == 41
    with pytest.raises(UserError, match="--overlap -1"):
        check_tiling(Tiling(512, -1), multiple, depth)


def test_what_a_pass_takes() -> None:
    # Depth 1: X(0,0), X(1,0) (twice the channels, a quarter of the pixels), and what is joined, twice.
    assert pass_bytes(100, 8, 1, 0) == 2 * 4 * 100 * 8 * (1 + 2 / 4 + 2 * 2)
    assert pass_bytes(100, 8, 1, 0, half=True) == pass_bytes(100, 8, 1, 0) / 2
    assert pass_bytes(100, 8, 1, 11) - pass_bytes(100, 8, 1, 0) == 100 * 11 * 4


def test_tiles_come_by_themselves_when_memory_would_not_do() -> None:
    each = 1000.0
    assert automatic_tiling(1000, 1000, 16, 4, 1e9, each, 11) is None
    # 1 % more than the budget: the largest multiple of 16 whose square, with its band of logits, is within.
    tiling = automatic_tiling(1010, 1000, 16, 4, 1e9, each, 11)
    assert tiling == Tiling(976)
    assert 976 * (each * 976 + 4 * 11 * 1000) <= 1e9 < 992 * (each * 992 + 4 * 11 * 1000)
    assert automatic_tiling(20_000, 20_000, 16, 4, 1e11, each, 11) == Tiling(LARGEST_AUTOMATIC)
    assert automatic_tiling(20_000, 20_000, 16, 4, 1.0, each, 11) == Tiling(272), "the smallest there is"
