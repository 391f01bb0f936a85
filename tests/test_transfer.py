"""Starting from another model: which numbers go over, which stay, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import header_for, trained
from safetensors.torch import load_file, save_file

from unetpp_cli.data.classes import CAMVID11, ClassSet, palette
from unetpp_cli.errors import UserError
from unetpp_cli.network.header import METADATA_KEY
from unetpp_cli.network.pruning import prune
from unetpp_cli.network.transfer import transfer
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, load_model, save_model

MINE = ClassSet("custom", ("Bench", "road", "Sky", "Cat"), palette(4))
"""Two of CamVid's classes, one of them written differently, at other places."""


def saved(tmp_path: Path, **options: object) -> Model:
    """A model that was written and read back."""
    network = trained(**{"width": 4, "depth": 3, **options})
    save_model(tmp_path / "model.safetensors", network, header_for(network))
    return load_model(tmp_path / "model.safetensors")


def fresh(classes: int = 11, channels: int = 3, **options: object) -> UNetPlusPlus:
    torch.manual_seed(99)
    return UNetPlusPlus(classes, channels, **{"width": 4, "depth": 3, **options})


def changed(network: UNetPlusPlus, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def copy_of(network: UNetPlusPlus) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_same_network_answers_the_same(tmp_path: Path) -> None:
    model, network = saved(tmp_path), fresh()
    report = transfer(network, model, CAMVID11)
    image = torch.randn(1, 3, 16, 16)
    for ours, theirs in zip(network.eval().heads(image), model.network.heads(image), strict=True):
        assert torch.equal(ours, theirs)
    assert report.copied == report.tensors == len(network.state_dict())
    assert report.parameters == report.total == sum(p.numel() for p in network.parameters())
    assert (report.kept, report.unused, report.by_name) == ((), (), ())
    assert len(report.lines()) == 1
    assert str(model.path) in report.lines()[0]


def test_the_memory_format_stays(tmp_path: Path) -> None:
    network = fresh().to(memory_format=torch.channels_last)
    transfer(network, saved(tmp_path), CAMVID11)
    assert network.nodes[0][0].conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_new_classes_get_the_filters_of_their_names(tmp_path: Path) -> None:
    model, network = saved(tmp_path), fresh(4)
    before = copy_of(network)
    report = transfer(network, model, MINE)
    for depth in "123":
        ours, theirs = network.head[depth], model.network.head[depth]
        assert torch.equal(ours.norm.running_var, theirs.norm.running_var)
        for here, there in ((1, CAMVID11.names.index("Road")), (2, CAMVID11.names.index("Sky"))):
            assert torch.equal(ours.conv.weight[here], theirs.conv.weight[there])
            assert torch.equal(ours.conv.bias[here], theirs.conv.bias[there])
        for here in (0, 3):
            assert torch.equal(ours.conv.weight[here], before[f"head.{depth}.conv.weight"][here])
            assert torch.equal(ours.conv.bias[here], before[f"head.{depth}.conv.bias"][here])
    assert report.by_name == ("road", "Sky")
    assert report.kept == ("heads 1-3, outputs Bench, Cat: 4 classes here, 11 there",)
    # 3 heads, 2 fresh classes, each a filter of 4x3x3 and a bias
    assert report.total - report.parameters == 3 * 2 * (4 * 9 + 1)
    assert any("road, Sky" in line for line in report.lines())


def test_as_many_classes_of_other_names_are_other_classes(tmp_path: Path) -> None:
    """The shapes fit, the meanings do not."""
    strangers = ClassSet("custom", tuple(f"thing {k}" for k in range(11)), palette(11))
    network = fresh()
    before = copy_of(network)
    report = transfer(network, saved(tmp_path), strangers)
    answers = {f"head.{depth}.conv.{part}" for depth in "123" for part in ("weight", "bias")}
    assert not changed(network, before) & answers
    assert report.copied == report.tensors - len(answers)
    assert report.by_name == ()


def test_reordered_classes_go_to_their_places(tmp_path: Path) -> None:
    names = tuple(reversed(CAMVID11.names))
    model, network = saved(tmp_path), fresh()
    report = transfer(network, model, replace(CAMVID11, names=names))
    image = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(network.eval()(image), model.network(image).flip(1))
    assert report.kept == ()
    assert set(report.by_name) == set(CAMVID11.names)


def test_a_deeper_network_keeps_its_new_nodes_and_heads(tmp_path: Path) -> None:
    model, network = saved(tmp_path, depth=2), fresh(depth=3)
    before = copy_of(network)
    report = transfer(network, model, CAMVID11)
    assert report.kept == (
        "X(0,3), X(1,2), X(2,1), X(3,0): not in a depth-2 model",
        "head 3: not in the model, which has heads 1, 2",
    )
    untouched = set(before) - changed(network, before)
    assert {name for name in before if name.startswith(("nodes.3", "nodes.0.3", "head.3"))} <= untouched
    image = torch.randn(1, 3, 32, 32)
    for depth in (1, 2):
        assert torch.equal(network.eval()(image, depth), model.network(image, depth))


def test_a_shallower_network_takes_what_it_has_a_place_for(tmp_path: Path) -> None:
    model, network = saved(tmp_path), fresh(depth=1)
    report = transfer(network, model, CAMVID11)
    assert report.kept == ()
    assert report.unused == (
        "X(0,2), X(0,3), X(1,1), X(1,2), X(2,0), X(2,1) and 1 more: not in a depth-1 network",
        "heads 2, 3: not in this network",
    )
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(network.eval()(image), model.network(image, 1))


def test_a_pruned_model_with_one_head_fills_what_it_has(tmp_path: Path) -> None:
    full, network = saved(tmp_path), fresh()
    pruned, header = prune(full, 2, single_head=True)
    save_model(tmp_path / "pruned.safetensors", pruned, header)
    report = transfer(network, load_model(tmp_path / "pruned.safetensors"), CAMVID11)
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(network.eval()(image, 2), full.network(image, 2))
    assert report.kept[1] == "heads 1, 3: not in the model, which has head 2"


def test_other_channels_leave_only_the_first_convolution_fresh(tmp_path: Path) -> None:
    model, network = saved(tmp_path), fresh(11, 1)
    before = copy_of(network)
    report = transfer(network, model, CAMVID11)
    assert torch.equal(network.nodes[0][0].conv1.weight, before["nodes.0.0.conv1.weight"])
    assert torch.equal(network.nodes[0][0].conv1.bias, before["nodes.0.0.conv1.bias"])
    assert torch.equal(network.nodes[0][0].conv2.weight, model.network.nodes[0][0].conv2.weight)
    assert report.kept == ("the first convolution of X(0,0): 1 channel here, 3 there",)
    assert report.copied == report.tensors - 2


def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    model = saved(tmp_path)
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in load_file(model.path).items()
    }
    save_file(halves, tmp_path / "half.safetensors", metadata={METADATA_KEY: model.header.dumps()})
    network = fresh()
    transfer(network, load_model(tmp_path / "half.safetensors"), CAMVID11)
    weight = network.nodes[1][1].up.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.network.nodes[1][1].up.weight.half().float())


def test_another_width_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    network = fresh(width=8)
    before = copy_of(network)
    with pytest.raises(UserError, match="its width is 4, here it is 8") as caught:
        transfer(network, saved(tmp_path), CAMVID11)
    assert "--width 4" in caught.value.cure
    assert changed(network, before) == set()


def test_a_transferred_network_can_be_trained(tmp_path: Path) -> None:
    """The copies are leaves that learn: no graph, no shared memory with the model."""
    model, network = saved(tmp_path), fresh()
    transfer(network, model, CAMVID11)
    source = copy_of(model.network)
    network.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert changed(model.network, source) == set()
    assert changed(network, source)
