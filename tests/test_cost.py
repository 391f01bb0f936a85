"""Parameters and multiply-accumulates against the published table and against torch's own counting."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from networks import trained
from torch import Tensor, nn

from unetpp_cli.network.cost import macs, milliseconds, parameters, side_by_side
from unetpp_cli.network.header import Architecture
from unetpp_cli.network.pruning import prune
from unetpp_cli.network.weights import architecture_of

# width -> for each depth: parameters with one head, GMAC at 224x224 and at 480x360, as printed.
TABLE = {
    64: [
        (509_643, "12.22", "43.0"),
        (2_642_955, "31.23", "110.0"),
        (11_485_643, "61.14", "215.2"),
        (47_194_379, "103.78", "365.4"),
    ],
    32: [
        (129_899, "3.16", "11.1"),
        (664_075, "7.91", "27.8"),
        (2_876_651, "15.39", "54.2"),
        (11_807_883, "26.05", "91.7"),
    ],
    16: [
        (33_723, "0.84", "3.0"),
        (167_691, "2.03", "7.1"),
        (721_787, "3.90", "13.7"),
        (2_956_619, "6.56", "23.1"),
    ],
    8: [(9_059, "0.24", "0.8"), (42_763, "0.53", "1.9"), (181_763, "1.00", "3.5"), (741_483, "1.67", "5.9")],
}


def architecture(width: int) -> Architecture:
    return Architecture(11, 3, width=width, depth=4, heads=(1, 2, 3, 4), pad_multiple=16, trained_depth=4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("width", TABLE)
def test_the_published_table(width: int, depth: int) -> None:
    net = architecture(width)
    expected, small, large = TABLE[width][depth - 1]
    assert parameters(net, depth, heads=(depth,)) == expected
    assert f"{macs(net, 224, 224, depth, heads=(depth,)) / 1e9:.2f}" == small
    assert f"{macs(net, 360, 480, depth, heads=(depth,)) / 1e9:.1f}" == large
    assert macs(net, 360, 480, depth) == macs(net, 368, 480, depth)


def test_all_heads_are_counted_by_default() -> None:
    net = architecture(64)
    assert parameters(net) == parameters(net, 4, heads=(1, 2, 3, 4)) == 47_213_804
    assert parameters(net, 3) == 11_485_643 + 2 * 6_475
    assert f"{macs(net, 224, 224) / 1e9:.3f}" == "104.735"
    assert macs(net, 224, 224, 2, heads=()) < macs(net, 224, 224, 2, heads=(2,)) < macs(net, 224, 224, 2)


OPTIONS = [
    {},
    {"num_classes": 33, "in_channels": 1, "width": 5},
    {"depth": 2, "heads": (2,), "pad_multiple": 16},
    {"depth": 5, "width": 2, "heads": (1, 5)},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_parameters_are_those_torch_counts(options: dict[str, Any]) -> None:
    network = trained(**{"width": 3, **options})
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert parameters(architecture_of(network)) == counted


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [(32, 64), (33, 40)])
def test_macs_are_those_of_the_convolutions_that_run(options: dict[str, Any], size: tuple[int, int]) -> None:
    network = trained(**{"width": 3, **options})
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        # A transposed convolution spreads each input pixel, a convolution gathers each output pixel.
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += module.weight.numel() * pixels.shape[-2] * pixels.shape[-1]

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(add)
    image = torch.randn(1, network.in_channels, *size)
    for depth in network.head_depths:
        total = 0
        network(image, depth)
        assert macs(architecture_of(network), *size, depth, heads=(depth,)) == total
        total = 0
        network.heads(image, depth)
        assert macs(architecture_of(network), *size, depth) == total


@pytest.mark.parametrize(
    ("depth", "heads"), [(0, None), (5, None), (-1, ()), (2, (3,)), (4, (5,)), (None, (0,))]
)
def test_depths_and_heads_that_are_not_there_are_refused(depth: int | None, heads: Any) -> None:
    for call in (
        lambda: parameters(architecture(8), depth, heads),
        lambda: macs(architecture(8), 9, 9, depth, heads),
    ):
        with pytest.raises(ValueError, match="no "):
            call()


@pytest.mark.parametrize(("batch", "repeats", "passes"), [(1, 4, 5), (3, 1, 4)])
@pytest.mark.parametrize("ensemble", [False, True])
def test_milliseconds_times_the_passes_it_says(batch: int, repeats: int, passes: int, ensemble: bool) -> None:
    network = trained(width=1, depth=2).train()
    seen: list[tuple[tuple[int, ...], bool, bool]] = []
    network.nodes[0][0].register_forward_hook(
        lambda module, inputs, _: seen.append(
            (tuple(inputs[0].shape), module.training, torch.is_inference_mode_enabled())
        )
    )
    heads: list[str] = []
    for name, head in network.head.items():
        head.register_forward_hook(lambda *_, name=name: heads.append(name))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if ensemble:
        took = side_by_side(network, 9, 12, [network.heads], batch=batch, repeats=repeats, budget=1e9)[0]
    else:
        took = milliseconds(network, 9, 12, 2, batch=batch, repeats=repeats, budget=1e9)
    assert took > 0
    assert seen == [((batch, 3, 12, 12), False, True)] * passes
    assert heads == (["1", "2"] if ensemble else ["2"]) * passes
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_milliseconds_stops_when_its_time_is_spent() -> None:
    network = trained(width=1, depth=1)
    calls: list[int] = []
    network.head["1"].register_forward_hook(lambda *_: calls.append(1))
    milliseconds(network, 8, 8, repeats=1000, budget=0.0)
    assert len(calls) == 4


def test_a_pruned_network_costs_what_the_full_one_does_at_that_depth() -> None:
    network = trained()
    from networks import header_for

    _, header = prune((network, header_for(network)), 2)
    full = architecture_of(network)
    assert parameters(header.architecture) == parameters(full, 2)
    assert macs(header.architecture, 360, 480) == macs(full, 360, 480, 2)


def test_counting_needs_no_torch() -> None:
    script = (
        "import sys; from unetpp_cli.network.cost import macs, parameters\n"
        "from unetpp_cli.network.header import Architecture\n"
        "net = Architecture(11, 3, width=64, depth=4, heads=(4,), pad_multiple=16, trained_depth=4)\n"
        "assert parameters(net) == 47194379 and macs(net, 224, 224) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_runs_that_are_timed_take_turns() -> None:
    network, order = trained(width=1, depth=2), []
    runs = [lambda image: order.append("a"), lambda image: order.append("b")]
    warm: list[int] = []
    assert len(side_by_side(network, 8, 8, runs, repeats=3, budget=1e9, on_warm=warm.append)) == 2
    assert order == ["a", "b"] * 4
    assert warm == [0, 1]
