"""Tiles, flips and scales against what they stand for, computed without them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import trained
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.errors import Stopped, UserError
from unetpp_cli.inference.logits import restore, restored_strips
from unetpp_cli.inference.passes import Passes, parse_tta
from unetpp_cli.inference.tiles import Tiling
from unetpp_cli.network.unetpp import DecoderNode, EncoderNode, Head


def noise(height: int, width: int, count: int = 1, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(count, channels, height, width, generator=generator)


def assert_equal_logits(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, whole in zip(found, expected, strict=True):
        assert ours.shape == whole.shape
        assert (ours - whole).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize(
    ("depth", "options", "size", "tile"),
    [
        (4, {}, (300, 321), 272),  # the smallest tile: 3 x 5 of them, and padding on both sides
        (4, {}, (301, 290), 290),  # a tile that is no multiple of 16
        (3, {}, (211, 333), 160),
        (2, {"pad_multiple": 16}, (133, 150), 90),
        (1, {"depth": 1}, (61, 47), 28),
        (1, {"depth": 1, "in_channels": 1, "pad_multiple": 16}, (61, 79), 48),
    ],
)
def test_tiles_give_the_logits_of_the_whole_image(
    depth: int, options: dict[str, int], size: tuple[int, int], tile: int
) -> None:
    network = trained(5, width=4, **options)
    x = noise(*size, channels=network.in_channels)
    depths = [d for d in network.head_depths if d <= depth]
    with torch.no_grad():
        expected = [network(x, d) for d in depths]
    passes = Passes(network, tiling=Tiling(tile))
    assert passes.is_cut(*size, depths)
    assert_equal_logits(passes.heads(x, depths), expected)


def test_a_rim_that_is_too_narrow_would_be_noticed() -> None:
    """The test above tells exact tiles from others: with rims of half the radius the logits differ."""
    network = trained(5, width=4)
    x = noise(301, 290)
    whole = Passes(network).heads(x, (4,))[0]
    blended = Passes(network, tiling=Tiling(272, 120)).heads(x, (4,))[0]
    assert (blended - whole).abs().max() > 1e-3 * whole.abs().max()


def test_bands_come_top_to_bottom_and_never_ask_for_more_than_a_tile() -> None:
    network = trained(5, width=4, depth=2)
    x = noise(150, 90)
    asked: list[tuple[int, int]] = []

    def window(rows: slice, columns: slice) -> Tensor:
        part = x[:, :, rows, columns]
        asked.append((part.shape[2], part.shape[3]))
        return part

    passes = Passes(network, tiling=Tiling(80))
    bands = list(passes.bands(window, 150, 90))
    assert len(bands) > 1
    assert [first for first, _ in bands] == [
        sum(band[0].shape[2] for _, band in bands[:index]) for index in range(len(bands))
    ]
    assert max(high for high, _ in asked) <= 80
    assert max(wide for _, wide in asked) <= 80
    assert_equal_logits(
        [torch.cat([band[head] for _, band in bands], 2) for head in (0, 1)], Passes(network).heads(x)
    )
    alone = list(Passes(network).bands(window, 150, 90))
    assert [(first, band[0].shape[2]) for first, band in alone] == [(0, 150)]


def test_bands_are_given_up_between_tiles() -> None:
    network, image = trained(width=4, depth=2), noise(240, 240)
    asked: list[None] = []
    seen: list[tuple[slice, slice]] = []

    def window(rows: slice, columns: slice) -> Tensor:
        seen.append((rows, columns))
        return image[..., rows, columns]

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 5

    with pytest.raises(Stopped):
        list(Passes(network, tiling=Tiling(80)).bands(window, 240, 240, stop=stop))
    assert len(seen) == 4


def test_several_images_at_once() -> None:
    network = trained(5, width=4, depth=2)
    x = noise(150, 90, count=3)
    assert_equal_logits(Passes(network, tiling=Tiling(80)).heads(x), Passes(network).heads(x))


@pytest.mark.parametrize("overlap", [0, 8, 24])
def test_blended_tiles_are_the_weighted_mean_of_their_logits(overlap: int) -> None:
    """Written out: every tile's logits, times a Gaussian, over the sum of the Gaussians."""
    network = trained(5, width=4, depth=2)
    side, step = 48, 48 - overlap
    height, width = 48 + 2 * step, 48 + step
    x = noise(height, width)
    place = torch.arange(48.0) - 23.5
    gaussian = torch.exp(-0.5 * (place / (48 / 8)) ** 2)
    window = gaussian[:, None] * gaussian
    above, below = torch.zeros(1, 5, height, width), torch.zeros(height, width)
    for top, left in itertools.product((0, step, 2 * step), (0, step)):
        with torch.no_grad():
            logits = network(x[..., top : top + side, left : left + side])
        above[..., top : top + side, left : left + side] += window * logits
        below[top : top + side, left : left + side] += window
    found = Passes(network, tiling=Tiling(48, overlap)).heads(x, (2,))
    torch.testing.assert_close(found[0], above / below, rtol=1e-4, atol=1e-4)


def test_flip_is_the_mean_of_both_ways_round() -> None:
    network = trained(5, width=4, depth=2)
    x = noise(40, 56)
    found = Passes(network, tta=("flip",)).heads(x)
    for depth, logits in zip((1, 2), found, strict=True):
        with torch.no_grad():
            one, other = network(x, depth), network(x.flip(3), depth).flip(3)
        mean = (one.softmax(1) + other.softmax(1)) / 2
        torch.testing.assert_close(logits.softmax(1), mean)
        torch.testing.assert_close(logits.exp(), mean, msg="they are log-probabilities")


def test_flipped_tiles_are_exact_at_odd_sizes() -> None:
    network = trained(5, width=4, depth=2)
    x = noise(151, 93)
    assert_equal_logits(
        Passes(network, tta=("flip",), tiling=Tiling(80)).heads(x), Passes(network, tta=("flip",)).heads(x)
    )


def test_scales_are_the_mean_of_three_sizes_and_of_six_with_flips() -> None:
    network = trained(5, width=4, depth=2)
    x = noise(40, 48)
    total = torch.zeros(1, 5, 40, 48)
    both = torch.zeros(1, 5, 40, 48)
    for size in ((32, 36), (40, 48), (48, 60)):  # 30 and 50 to the next even number of multiples
        smaller = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        with torch.no_grad():
            ways = network(smaller), network(smaller.flip(3)).flip(3)
        for count, logits in enumerate(ways):
            back = F.interpolate(logits, size=(40, 48), mode="bilinear", align_corners=False).softmax(1)
            both += back / 6
            if count == 0:
                total += back / 3
    torch.testing.assert_close(Passes(network, tta=("scales",)).heads(x, (2,))[0].softmax(1), total)
    torch.testing.assert_close(Passes(network, tta=("flip", "scales")).heads(x, (2,))[0].softmax(1), both)


def test_a_probability_of_zero_is_no_trouble() -> None:
    """Logits hundreds apart: the mean of the two probabilities underflows, its logarithm must not."""
    network = trained(2, width=4, depth=1)
    with torch.no_grad():
        network.head["1"].conv.bias.copy_(torch.tensor([500.0, -500.0]))
    logits = Passes(network, tta=("flip", "scales")).heads(noise(16, 16))[0]
    assert torch.isfinite(logits).all()
    assert (logits[:, 1] < -900).all()


def test_only_the_nodes_that_the_deepest_wanted_head_needs_are_computed() -> None:
    network = trained(5, width=4, depth=3)
    seen: list[str] = []
    for name, module in network.named_modules():
        if isinstance(module, EncoderNode | DecoderNode | Head):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    heads = Passes(network).heads(noise(32, 32), (1, 2))
    assert len(heads) == 2
    assert sorted(seen) == sorted(
        ["nodes.0.0", "nodes.0.1", "nodes.0.2", "nodes.1.0", "nodes.1.1", "nodes.2.0", "head.1", "head.2"]
    )
    seen.clear()
    Passes(network).heads(noise(32, 32), (2,))
    assert "head.1" not in seen
    with pytest.raises(ValueError, match="no heads at depths"):
        Passes(network).heads(noise(32, 32), (4,))


def test_a_shallow_head_needs_a_narrower_rim() -> None:
    passes = Passes(trained(5, width=4), tiling=Tiling(64))
    assert passes.is_cut(100, 64, (1,))
    with pytest.raises(UserError, match="Use --tile 272"):
        passes.is_cut(100, 64)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", ()), ("flip", ("flip",)), ("scales, flip", ("flip", "scales")), ("FLIP,flip", ("flip",))],
)
def test_tta_is_read(text: str, words: tuple[str, ...]) -> None:
    assert parse_tta(text) == words


def test_other_words_are_refused() -> None:
    with pytest.raises(UserError, match=r"--tta cannot be 'flips'. Use flip or scales.* Did you mean 'flip'"):
        parse_tta("flips")


sizes = st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 60), st.integers(1, 20))


@given(sizes, st.lists(st.integers(1, 15), max_size=5), st.integers(1, 900))
@example((40, 2, 35, 2), [], 1)
@settings(deadline=None)
def test_strips_are_what_restoring_the_whole_gives(
    case: tuple[int, int, int, int], cuts: list[int], most: int
) -> None:
    rows, columns, height, width = case
    generator = torch.Generator().manual_seed(0)
    # Within -1..1: float32 rounds a row's place to some 4e-6 of the way to the next row, at most 2 away.
    logits = 2 * torch.rand(2, 3, rows, columns, generator=generator) - 1
    edges = [0]
    for cut in cuts:
        edges.append(min(rows, edges[-1] + cut))
    edges.append(rows)
    bands = [(a, [logits[:, :, a:b], 2 * logits[:, :, a:b]]) for a, b in itertools.pairwise(edges) if a < b]
    expected = restore(logits, height, width)
    done = 0
    for first, (strip, twice) in restored_strips(bands, (rows, columns), height, width, most):
        assert first == done
        done += strip.shape[2]
        assert strip.numel() <= max(most, 2 * 3 * width)
        torch.testing.assert_close(strip, expected[:, :, first:done], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(twice, 2 * strip, rtol=1e-5, atol=1e-5)
    assert done == height
