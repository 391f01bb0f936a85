"""Cutting at a depth: what stays, what it answers, what the header and the command say, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import header_for, randomise, trained

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.prune import PruneRequest
from unetpp_cli.jobs.prune import prune as prune_model
from unetpp_cli.network import cost
from unetpp_cli.network.header import Header, file_hash, read_header
from unetpp_cli.network.pruning import prune, verify
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, architecture_of, load_model, save_model

METRICS = {
    "epoch": 9,
    "val": {
        "steps": 700,
        "1": {"miou": 0.1, "iou": {"4": 0.5}},
        "2": {"miou": 0.2},
        "3": {"miou": 0.3},
        "4": {"miou": 0.4},
        "ensemble": {"miou": 0.5},
    },
    "4": {"loss": 1.0},
    "3": {"loss": 2.0, "4": 1},
    "ensemble": {"loss": 0.5},
}


@pytest.fixture(scope="module")
def full() -> UNetPlusPlus:
    return trained(width=8)


@pytest.fixture
def file(tmp_path: Path, full: UNetPlusPlus) -> Path:
    path = tmp_path / "best.safetensors"
    header = header_for(full, metrics=METRICS, recipe={"epochs": 9}, geometry=Geometry.parse("48x40"))
    save_model(path, full, header)
    return path


def prune_file(model: Path, depth: int, *, timing: bool = False, **options: Any) -> Path:
    written = prune_model(PruneRequest(model, str(depth), timing=timing, gpus="cpu", **options))
    assert written is not None
    return written


def count(network: UNetPlusPlus) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("size", "single_head"),
    [
        ((360, 480), False),
        ((361, 479), True),
        ((33, 47), False),
        ((33, 47), True),
        ((8, 24), False),
        ((1, 1), False),
        ((16, 32), False),
    ],
)
def test_logits_are_the_full_networks_bit_for_bit(
    full: UNetPlusPlus, size: tuple[int, int], single_head: bool
) -> None:
    """360 rows are padded for 16 and not for 8: depth 3 must go on padding them."""
    image = torch.randn(2 if size[0] < 100 else 1, 3, *size)
    with torch.inference_mode():
        expected = dict(zip((1, 2, 3, 4), full.heads(image), strict=True))
        for depth in (1, 2, 3):
            pruned, _ = prune((full, header_for(full)), depth, single_head=single_head)
            assert torch.equal(pruned(image), expected[depth])
            if image.numel() > 100_000:
                continue  # the lower heads, too, but not at any price
            for head, logits in zip(pruned.head_depths, pruned.heads(image), strict=True):
                assert torch.equal(logits, expected[head])


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("single_head", [False, True])
def test_pruning_is_a_pure_selection(full: UNetPlusPlus, depth: int, single_head: bool) -> None:
    header = header_for(full, recipe={"epochs": 9})
    pruned, after = prune((full, header), depth, single_head=single_head)
    heads = (depth,) if single_head else tuple(range(1, depth + 1))

    state = full.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in pruned.state_dict().items())
    assert [len(row) for row in pruned.nodes] == list(range(depth + 1, 0, -1))
    assert pruned.head_depths == tuple(int(name) for name in pruned.head) == heads
    assert not pruned.training

    assert after.architecture == architecture_of(pruned, trained_depth=4)
    assert after.architecture == replace(header.architecture, depth=depth, heads=heads)
    assert after.architecture.pad_multiple == 16
    kept = ("classes", "mean", "std", "geometry", "recipe", "data", "version")
    assert all(getattr(after, name) == getattr(header, name) for name in kept)


def test_the_pruned_network_has_memory_of_its_own(full: UNetPlusPlus) -> None:
    pruned, _ = prune((full, header_for(full)), 2)
    kept = full.nodes[0][0].conv1.weight.detach().clone()
    with torch.no_grad():
        pruned.nodes[0][0].conv1.weight.zero_()
    assert torch.equal(full.nodes[0][0].conv1.weight, kept)


@pytest.mark.parametrize(
    ("depth", "single_head", "expected"),
    [
        (
            3,
            False,
            {
                "epoch": 9,
                "val": {
                    "steps": 700,
                    "1": {"miou": 0.1, "iou": {"4": 0.5}},
                    "2": {"miou": 0.2},
                    "3": {"miou": 0.3},
                },
                "3": {"loss": 2.0, "4": 1},
            },
        ),
        (2, True, {"epoch": 9, "val": {"steps": 700, "2": {"miou": 0.2}}}),
        (4, True, {"epoch": 9, "val": {"steps": 700, "4": {"miou": 0.4}}, "4": {"loss": 1.0}}),
    ],
)
def test_only_metrics_of_the_remaining_heads_stay(
    full: UNetPlusPlus, depth: int, single_head: bool, expected: dict[str, Any]
) -> None:
    _, after = prune((full, header_for(full, metrics=METRICS)), depth, single_head=single_head)
    assert after.metrics == expected


def test_a_pruned_network_can_be_pruned_again(full: UNetPlusPlus) -> None:
    header = header_for(full)
    third, after = prune((full, header), 3)
    second, twice = prune((third, after), 2)
    at_once, once = prune((full, header), 2)
    assert twice.architecture == once.architecture
    assert verify(full, second, 2).heads == (1, 2)
    mine, theirs = second.state_dict(), at_once.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert twice.origin == {"from_depth": 3, "to_depth": 2, "parent": {"from_depth": 4, "to_depth": 3}}


def test_networks_without_every_head_are_pruned_at_those_they_have() -> None:
    network = trained(width=4, heads=(2, 4))
    pruned, header = prune((network, header_for(network)), 2)
    assert header.architecture.heads == (2,)
    assert verify(network, pruned, 2).heads == (2,)


@pytest.mark.parametrize(
    ("options", "depth", "single_head", "problem", "cure"),
    [
        ({}, 5, False, "pruned upwards, to 5", "--depth 1 or 2 or 3"),
        ({}, 4, False, "nothing would change", "--single-head"),
        ({}, 0, False, "heads at depth 1, 2, 3, 4, none at 0", "--depth 1 or 2 or 3"),
        ({}, -1, True, "none at -1", "--depth 1 or 2 or 3"),
        ({"heads": (2, 4)}, 3, False, "heads at depth 2, 4, none at 3", "--depth 2"),
        ({"heads": (4,)}, 2, False, "has one head, at depth 4, none at 2", "deep supervision"),
        ({"heads": (4,)}, 4, True, "nothing would change", "deep supervision"),
        ({"heads": (4,)}, 5, False, "pruned upwards", "deep supervision"),
    ],
)
def test_what_cannot_be_pruned_is_refused(
    tmp_path: Path, options: dict[str, Any], depth: int, single_head: bool, problem: str, cure: str
) -> None:
    network = trained(width=2, **options)
    header = header_for(network)
    file = tmp_path / "model.safetensors"
    save_model(file, network, header)
    for model in ((network, header), load_model(file)):
        with pytest.raises(UserError) as caught:
            prune(model, depth, single_head=single_head)
        assert problem in caught.value.problem
        assert cure in caught.value.cure
    assert str(file) in caught.value.problem


# The proof.


def spoil(network: UNetPlusPlus, name: str, share: float = 0.0) -> None:
    """Changes the first number of a tensor by a share, and at least in its last bit."""
    value = network.state_dict()[name].view(-1)
    value[0] = torch.nextafter(value[0] * (1 + share), torch.tensor(9.0))


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("head.3.conv.bias", 0),
        ("head.1.conv.bias", 0),
        ("nodes.0.2.conv2.bias", 1e-3),
        ("nodes.3.0.conv1.weight", 1e-3),
    ],
)
def test_the_proof_notices_the_last_bit(full: UNetPlusPlus, name: str, share: float) -> None:
    pruned, _ = prune((full, header_for(full)), 3)
    verify(full, pruned, 3)
    spoil(pruned, name, share)
    with pytest.raises(UserError, match="not those of the full network"):
        verify(full, pruned, 3)


def test_the_proof_notices_a_lost_padding_multiple(full: UNetPlusPlus) -> None:
    pruned, _ = prune((full, header_for(full)), 3)
    pruned.pad_multiple = 8
    with pytest.raises(UserError, match="not those of the full network"):
        verify(full, pruned, 3)


def test_the_proof_covers_a_batch_and_sizes_that_need_padding(full: UNetPlusPlus) -> None:
    pruned, _ = prune((full, header_for(full)), 3)
    proof = verify(full, pruned, 3)
    assert proof.heads == (1, 2, 3)
    assert any(shape[0] > 1 for shape in proof.inputs)
    assert any(shape[2] % 16 and shape[3] % 16 for shape in proof.inputs)
    assert any(shape[2] % 16 and not shape[2] % 8 for shape in proof.inputs)
    assert proof == verify(full, pruned, 3)


def test_the_proof_leaves_both_networks_as_they_were(full: UNetPlusPlus) -> None:
    pruned, _ = prune((full, header_for(full)), 2)
    before = {name: value.clone() for name, value in full.state_dict().items()}
    full.train()
    try:
        verify(full, pruned, 2)
        assert full.training
        assert not pruned.training
    finally:
        full.eval()
    assert all(torch.equal(value, before[name]) for name, value in full.state_dict().items())


def test_the_proof_is_asked_of_a_network_cut_at_that_depth(full: UNetPlusPlus) -> None:
    pruned, _ = prune((full, header_for(full)), 2)
    with pytest.raises(ValueError, match="not one cut at depth 3"):
        verify(full, pruned, 3)


# The command.


def test_the_command_writes_a_file_that_says_where_it_comes_from(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = prune_file(file, 3, timing=True)
    assert written == file.with_name("best-L3.safetensors")
    assert sorted(file.parent.iterdir()) == [written, file]

    header, tensors = read_header(written)
    origin = dict(header.origin)
    measured = origin.pop("cost")
    assert 0 < measured.pop("ms") < 10_000
    assert measured == {
        "parameters": count(load_model(written).network),
        "gmac": cost.macs(header.architecture, 40, 48, heads=(3,)) / 1e9,
        "file_bytes": sum({"F32": 4, "I64": 8}[info.dtype] * info.count for info in tensors.values()),
        "size": "48x40",
        "precision": "fp32",
        "device": "CPU",
        "threads": torch.get_num_threads(),
    }
    assert origin == {
        "pruned_from": file_hash(file),
        "from_depth": 4,
        "to_depth": 3,
        "proof": {
            "identical_logits": True,
            "heads": [1, 2, 3],
            "inputs": ["1x3x16x32", "1x3x24x16", "2x3x17x11"],
        },
    }
    image = torch.randn(1, 3, 40, 40)
    assert torch.equal(load_model(written).network(image), load_model(file).network(image, 3))

    shown = capsys.readouterr().out
    for text in (
        *("heads 1, 2, 3 equal", "bit for bit", "48x40 pixels", "before, L4", "after, L3"),
        *("parameters", f"{count(load_model(file).network):,}", f"{count(load_model(written).network):,}"),
        *("file size", "GMAC", "0.08", "0.05", "ms per image", f"Wrote {written}"),
    ):
        assert text in shown, text


def test_the_command_is_deterministic_without_times_and_may_be_repeated(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prune_file(file, 2).read_bytes()
    assert prune_file(file, 2).read_bytes() == first
    elsewhere = tmp_path / "new" / "small.safetensors"
    assert prune_file(file, 2, output=elsewhere).read_bytes() == first
    assert "ms per image" not in capsys.readouterr().out
    assert "ms" not in read_header(elsewhere)[0].origin["cost"]
    prune_file(file, 2, single_head=True)
    assert len(file.with_name("best-L2.safetensors").read_bytes()) < len(first)


def test_the_command_prunes_a_pruned_file(file: Path) -> None:
    third = prune_file(file, 3)
    second = prune_file(third, 1)
    header, _ = read_header(second)
    assert header.origin["pruned_from"] == file_hash(third)
    assert header.origin["parent"]["pruned_from"] == file_hash(file)
    assert header.architecture.trained_depth == 4
    assert verify(load_model(file).network, load_model(second).network, 1).heads == (1,)


def test_the_command_overwrites_neither_the_model_nor_other_peoples_files(
    file: Path, full: UNetPlusPlus
) -> None:
    before = file.read_bytes()
    link = file.with_name("link.safetensors")
    link.symlink_to(file)
    for target in (file, link):
        for overwrite in (False, True):
            with pytest.raises(UserError, match="is the model itself"):
                prune_file(file, 2, output=target, overwrite=overwrite)
    assert file.read_bytes() == before

    other = file.with_name("other.safetensors")
    save_model(other, full, header_for(full))
    notes = file.with_name("notes.safetensors")
    notes.write_text("not weights at all")
    for target in (other, notes):
        with pytest.raises(UserError, match="exists, and was not pruned from"):
            prune_file(file, 2, output=target)
    assert prune_file(file, 2, output=other, overwrite=True) == other
    assert read_header(other)[0].architecture.depth == 2


def test_the_command_writes_nothing_when_it_refuses(file: Path) -> None:
    for depth, output in ((4, None), (7, None), (2, file.with_suffix(".pth"))):
        with pytest.raises(UserError):
            prune_file(file, depth, output=output)
    assert list(file.parent.iterdir()) == [file]


def test_the_command_writes_nothing_when_the_proof_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(*args: Any, **options: Any) -> tuple[UNetPlusPlus, Header]:
        pruned, header = prune(*args, **options)
        spoil(pruned, "head.2.conv.bias")
        return pruned, header

    monkeypatch.setattr("unetpp_cli.network.pruning.prune", spoiled)
    with pytest.raises(UserError, match="The proof failed"):
        prune_file(file, 2)
    assert list(file.parent.iterdir()) == [file]


# The article's size, once through everything.


@pytest.mark.slow
def test_width_64_built_saved_loaded_and_pruned_at_every_depth(tmp_path: Path) -> None:
    network = UNetPlusPlus().eval()
    randomise(network, network.heads, 3)
    file = tmp_path / "model.safetensors"
    save_model(file, network, header_for(network))
    model = load_model(file)
    assert isinstance(model, Model)
    assert count(model.network) == 47_213_804
    counts = {1: 509_643, 2: 2_642_955, 3: 11_485_643, 4: 47_194_379}
    for depth, expected in counts.items():
        single, header = prune(model, depth, single_head=True)
        assert count(single) == expected
        if depth < 4:
            several, header = prune(model, depth)
            assert count(several) == expected + (depth - 1) * 6_475
        cut = tmp_path / f"L{depth}.safetensors"
        save_model(cut, several if depth < 4 else single, header)
        heads = tuple(range(1, depth + 1)) if depth < 4 else (4,)
        assert verify(network, load_model(cut).network, depth).heads == heads
