"""The network itself: its size, its grid, its heads, any input size, and the ways out of eager mode."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from networks import trained
from torch import Tensor, nn

from unetpp_cli.network.unetpp import DecoderNode, EncoderNode, Head, UNetPlusPlus

COUNTS = {  # (width, depth) -> parameters with one head and 11 classes
    (64, 1): 509_643,
    (64, 2): 2_642_955,
    (64, 3): 11_485_643,
    (64, 4): 47_194_379,
    (32, 1): 129_899,
    (32, 2): 664_075,
    (32, 3): 2_876_651,
    (32, 4): 11_807_883,
    (16, 1): 33_723,
    (16, 2): 167_691,
    (16, 3): 721_787,
    (16, 4): 2_956_619,
    (8, 1): 9_059,
    (8, 2): 42_763,
    (8, 3): 181_763,
    (8, 4): 741_483,
}


def on_meta(*args: int, **options: object) -> UNetPlusPlus:
    with torch.device("meta"):
        return UNetPlusPlus(*args, **options)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("size", "expected"), COUNTS.items())
def test_parameter_counts(size: tuple[int, int], expected: int) -> None:
    width, depth = size
    assert count(on_meta(11, width=width, depth=depth, heads=(depth,))) == expected


def test_deep_supervision_adds_three_heads_of_6475_parameters() -> None:
    network = on_meta()
    assert network.width == 64
    assert count(network) == 47_213_804 == COUNTS[64, 4] + 3 * 6_475
    assert [count(head) for head in network.head.values()] == [6_475] * 4


def test_channels_of_the_rows() -> None:
    network = on_meta()
    assert [row[0].conv2.out_channels for row in network.nodes] == [64, 128, 256, 512, 1024]
    assert [len(row) for row in network.nodes] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("size", [(32, 48), (31, 33), (1, 1), (17, 90)])
@pytest.mark.parametrize(
    "options", [{}, {"depth": 2}, {"depth": 3, "heads": (1, 3)}, {"depth": 5, "width": 2}]
)
def test_forward_is_the_head_at_its_depth_bit_for_bit(size: tuple[int, int], options: dict[str, int]) -> None:
    network = trained(num_classes=5, **options)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        heads = network.heads(image)
        assert len(heads) == len(network.head_depths)
        for depth, logits in zip(network.head_depths, heads, strict=True):
            assert logits.shape == (2, 5, *size)
            assert torch.equal(logits, network(image, depth))
        assert torch.equal(heads[-1], network(image))
        for upto in network.head_depths:
            wanted = heads[: network.head_depths.index(upto) + 1]
            for one, other in zip(network.heads(image, upto), wanted, strict=True):
                assert torch.equal(one, other)


def test_the_heads_differ() -> None:
    """Otherwise the equalities above would say nothing."""
    network = trained()
    heads = network.heads(torch.randn(1, 3, 32, 32))
    for index, one in enumerate(heads):
        for other in heads[index + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_forward_computes_each_node_it_needs_once_and_no_other(depth: int) -> None:
    network = trained(width=2)
    calls: Counter[str] = Counter()
    for name, module in network.named_modules():
        if isinstance(module, (EncoderNode, DecoderNode, Head)):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    network(torch.randn(1, 3, 32, 32), depth)
    needed = {f"nodes.{i}.{j}" for i in range(depth + 1) for j in range(depth + 1 - i)} | {f"head.{depth}"}
    assert calls == dict.fromkeys(needed, 1)

    calls.clear()
    network.heads(torch.randn(1, 3, 32, 32), depth)
    assert calls == dict.fromkeys(needed | {f"head.{d}" for d in range(1, depth + 1)}, 1)


def test_padding_is_zeros_below_and_to_the_right_cropped_again() -> None:
    network = trained()
    image = torch.randn(2, 3, 21, 35)
    padded = torch.zeros(2, 3, 32, 48)
    padded[..., :21, :35] = image
    with torch.inference_mode():
        assert torch.equal(network(image), network(padded)[..., :21, :35])


def test_the_padding_multiple_is_the_trained_depths_at_every_depth() -> None:
    """24 rows are a multiple of 8 but not of 16: a 4-deep network pads them at depth 3 all the same."""
    network = trained()
    seen: list[torch.Size] = []
    network.nodes[0][0].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    for depth in (1, 2, 3, 4):
        network(torch.randn(1, 3, 24, 16), depth)
    assert [tuple(shape[-2:]) for shape in seen] == [(32, 16)] * 4
    wider = trained(depth=2, pad_multiple=16)
    assert wider.heads(torch.randn(1, 3, 24, 16))[0].shape[-2:] == (24, 16)


@pytest.mark.parametrize(("num_classes", "in_channels"), [(1, 1), (33, 3), (2, 6)])
def test_any_number_of_classes_and_channels(num_classes: int, in_channels: int) -> None:
    network = trained(num_classes, in_channels, width=3)
    assert network(torch.randn(1, in_channels, 20, 20)).shape == (1, num_classes, 20, 20)


def test_without_deep_supervision_there_is_one_head() -> None:
    network = trained(heads=(4,))
    image = torch.randn(1, 3, 32, 32)
    assert len(network.heads(image)) == 1
    with pytest.raises(ValueError, match="no head at depth 2"):
        network(image, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "at least 1"),
        ({"in_channels": 0}, "at least 1"),
        ({"width": 0}, "at least 1"),
        ({"depth": 0}, "at least 1"),
        ({"heads": (1, 2, 3)}, "end with depth 4"),
        ({"heads": (4, 3)}, "must ascend"),
        ({"heads": (2, 2, 4)}, "must ascend"),
        ({"heads": (0, 4)}, "at least 1"),
        ({"heads": (3, 5)}, "end with depth 4"),
        ({"pad_multiple": 8}, "no multiple"),
        ({"pad_multiple": 24}, "no multiple"),
        ({"pad_multiple": 0}, "no multiple"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_meta(**options)


@pytest.mark.parametrize("depth", [0, 5, -1])
def test_a_depth_without_a_head_is_refused(depth: int) -> None:
    image = torch.randn(1, 3, 16, 16)
    for call in (trained(width=2).forward, trained(width=2).heads):
        with pytest.raises(ValueError, match=f"no head at depth {depth}"):
            call(image, depth)


def test_every_parameter_gets_a_gradient_from_all_heads_together() -> None:
    network = trained(width=2).train()
    logits = network.heads(torch.randn(2, 3, 32, 32))
    sum(one.square().mean() for one in logits).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_exported_and_traced_networks_answer_as_the_network_does() -> None:
    network = trained(width=4, depth=2)
    image = torch.randn(1, 3, 22, 18)

    class AtDepth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.network(image, 1)
            return logits

    with torch.no_grad():
        for module in (network, AtDepth().eval()):
            expected = module(image)
            torch.testing.assert_close(torch.export.export(module, (image,)).module()(image), expected)
            torch.testing.assert_close(torch.jit.trace(module, (image,))(image), expected)
