"""The weights file: what goes in comes out, equal content is equal bytes, nothing damaged is let in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import class_set, header_for, trained
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unetpp_cli.errors import UserError
from unetpp_cli.network import weights
from unetpp_cli.network.halving import compare, rounded
from unetpp_cli.network.header import Header, file_hash, read_header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import (
    architecture_of,
    assemble,
    build,
    derived_from,
    load_model,
    predicted_bytes,
    save_model,
    tensor_bytes,
)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, UNetPlusPlus, Header]:
    network = trained(width=4, depth=3)
    header = header_for(network, recipe={"epochs": 3})
    file = tmp_path / "model.safetensors"
    save_model(file, network, header)
    return file, network, header


def rewrite(file: Path, change: Any, header: str | None = None) -> None:
    """Replaces the tensors of a weights file by `change(tensors)`, and the text of its header."""
    with safe_open(file, framework="pt") as stored:
        text = stored.metadata()["unetpp"]
    tensors = {name: value.clone() for name, value in load_file(file).items()}
    save_file(change(tensors), file, metadata={"unetpp": header or text})


def same_state(one: UNetPlusPlus, other: UNetPlusPlus) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 1, "in_channels": 1, "depth": 1},
        {"num_classes": 33, "heads": (4,)},
        {"depth": 5, "width": 2, "heads": (2, 5)},
        {"depth": 2, "pad_multiple": 16},
    ],
)
def test_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    network = trained(**{"width": 4, **options})
    header = header_for(network, metrics={"val": {"1": {"miou": 0.5}}})
    file = tmp_path / "model.safetensors"
    save_model(file, network, header)
    model = load_model(file)
    assert model.header == header == read_header(file)[0]
    assert (model.path, model.hash) == (file, file_hash(file))
    assert architecture_of(model.network) == header.architecture
    assert same_state(model.network, network)
    image = torch.randn(2, network.in_channels, 19, 24)
    with torch.inference_mode():
        for one, other in zip(model.network.heads(image), network.heads(image), strict=True):
            assert torch.equal(one, other)


def test_a_loaded_network_is_whole(saved: tuple[Path, UNetPlusPlus, Header]) -> None:
    """In eval mode, on the CPU, trainable, with memory of its own that is aligned as torch aligns it."""
    file, network, _ = saved
    loaded = load_model(file).network
    assert not any(module.training for module in loaded.modules())
    assert all(value.device.type == "cpu" for value in loaded.state_dict().values())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.parameters())
    assert all(value.data_ptr() % 64 == 0 for value in loaded.state_dict().values())
    assert loaded.nodes[0][0].norm1.num_batches_tracked == 1
    os.truncate(file, 100)
    assert same_state(loaded, network)


def test_loaded_networks_train_on(saved: tuple[Path, UNetPlusPlus, Header]) -> None:
    file, network, _ = saved
    loaded = load_model(file).network.train()
    before = loaded.head["3"].conv.weight.detach().clone()
    loaded(torch.randn(2, 3, 16, 16)).square().mean().backward()
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert not torch.equal(before, loaded.head["3"].conv.weight)
    assert loaded.nodes[0][0].norm1.num_batches_tracked == 2
    assert same_state(load_model(file).network, network)


def test_channels_last_and_training_mode_leave_no_trace_in_the_file(
    saved: tuple[Path, UNetPlusPlus, Header], tmp_path: Path
) -> None:
    file, network, header = saved
    other = tmp_path / "other.safetensors"
    save_model(other, network.train().to(memory_format=torch.channels_last), header)
    assert other.read_bytes() == file.read_bytes()


RUN = """
import sys; sys.path.insert(0, sys.argv[1])
from networks import trained, header_for
from unetpp_cli.network.weights import save_model
network = trained(width=4, depth=2)
recipe = {key: len(key) for key in {"lr", "epochs", "seed", "loss"}}
save_model(sys.argv[2], network, header_for(network, recipe=recipe))
"""


def test_equal_runs_give_equal_bytes_in_any_process(tmp_path: Path) -> None:
    here, there = tmp_path / "here.safetensors", tmp_path / "there.safetensors"
    script = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(there)]
    subprocess.run(script, check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    network = trained(width=4, depth=2)
    recipe = {"loss": 4, "seed": 4, "epochs": 6, "lr": 2}
    save_model(here, network, header_for(network, recipe=recipe))
    assert here.read_bytes() == there.read_bytes()


def test_the_metadata_has_one_key(saved: tuple[Path, UNetPlusPlus, Header]) -> None:
    file, _, header = saved
    with safe_open(file, framework="pt") as stored:
        assert stored.metadata() == {"unetpp": header.dumps()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accepted_and_becomes_float32(
    saved: tuple[Path, UNetPlusPlus, Header], dtype: torch.dtype
) -> None:
    file, network, _ = saved

    def halve(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(dtype) if value.dim() == 4 else value for name, value in tensors.items()}

    rewrite(file, halve)
    loaded = load_model(file).network
    for name, value in loaded.state_dict().items():
        expected = network.state_dict()[name]
        assert value.dtype == expected.dtype
        if expected.dim() == 4:
            expected = expected.to(dtype).float()
        assert torch.equal(value, expected), name
    loaded(torch.randn(1, 3, 16, 16))


def is_convolution(name: str) -> bool:
    """By its name, as test and program must not share a list."""
    return name.split(".")[-2] in ("conv1", "conv2", "conv", "up")


def test_half_storage_concerns_convolutions_only(
    saved: tuple[Path, UNetPlusPlus, Header], tmp_path: Path
) -> None:
    file, network, header = saved
    half = tmp_path / "half.safetensors"
    save_model(half, network, header, half=True)
    before, after = load_file(file), load_file(half)
    assert sorted(before) == sorted(after)
    for name, value in after.items():
        expected = before[name].to(torch.float16) if is_convolution(name) else before[name]
        assert value.dtype == expected.dtype, name
        assert torch.equal(value, expected), name
    assert {value.dtype for name, value in after.items() if "norm" in name} == {torch.float32, torch.int64}
    again = tmp_path / "again.safetensors"
    save_model(again, network, header, half=True)
    assert again.read_bytes() == half.read_bytes()


def test_rounded_is_what_a_file_of_half_precision_gives_back(
    saved: tuple[Path, UNetPlusPlus, Header], tmp_path: Path
) -> None:
    _, network, header = saved
    half = tmp_path / "half.safetensors"
    save_model(half, network, header, half=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    known = rounded(network, header, "the model")
    assert not any(module.training for module in known.modules())
    assert same_state(load_model(half).network, known)
    assert not same_state(known, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("value", [65_520.0, -1e6, 1e30])
def test_values_beyond_the_range_of_half_precision_are_refused(
    saved: tuple[Path, UNetPlusPlus, Header], value: float
) -> None:
    _, network, header = saved
    with torch.no_grad():
        network.nodes[1][1].up.bias[2] = 65_504.0  # the largest there is
        network.nodes[0][0].norm1.running_mean[0] = value  # stays float32
        rounded(network, header, "best.safetensors")
        network.head["2"].conv.weight[0, 0, 0, 0] = value
    with pytest.raises(UserError, match=r"best\.safetensors .* in head\.2\.conv\.weight\. Leave --half"):
        rounded(network, header, "best.safetensors")


def test_compare_measures_logits_and_classes() -> None:
    """Head 2 gets a bias that makes every pixel class 0: known without the function under test."""
    network, image = trained(width=4, depth=2), torch.randn(2, 3, 16, 24)
    other = assemble(architecture_of(network), {k: v.clone() for k, v in network.state_dict().items()})
    assert compare(network, other, [image]).to_json() == {"logits": 0.0, "pixels": 0.0}
    with torch.no_grad():
        other.head["2"].conv.bias[0] += 1000
        first, second = (head.double() for head in network.heads(image))
    change = compare(network, other, [image, image])
    largest = max(first.abs().max(), second.abs().max())
    assert change.logits == pytest.approx(float(1000 / largest), rel=1e-4)
    elsewhere = int((second.argmax(1) != 0).sum())
    assert elsewhere > 0
    assert change.pixels == pytest.approx(elsewhere / (2 * 2 * 16 * 24))
    assert change.to_json()["pixels"] == float(f"{change.pixels:.3g}")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_classes": 1, "in_channels": 1, "depth": 1, "width": 1}, {"depth": 5, "heads": (2, 5)}],
)
def test_a_file_is_weighed_before_it_is_written(tmp_path: Path, options: dict[str, Any], half: bool) -> None:
    network = trained(**{"width": 4, **options})
    for metrics in ({}, {"name": 'Straße "quoted" \\ \x01 \n', "more": "x" * 3}):
        header = header_for(network, metrics=metrics)
        file = tmp_path / "model.safetensors"
        save_model(file, network, header, half=half)
        assert predicted_bytes(header, half=half) == file.stat().st_size
        stored = sum(value.numel() * value.element_size() for value in load_file(file).values())
        assert tensor_bytes(header.architecture, half=half) == stored


def without(name: str) -> Any:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def changed(name: str, value: Tensor) -> Any:
    return lambda tensors: {**tensors, name: value}


BIAS = "nodes.0.0.conv1.bias"  # of 4 channels
COUNTER = "nodes.0.0.norm1.num_batches_tracked"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(BIAS), f"missing tensors {BIAS}"),
        (lambda _: {"a": torch.zeros(9)}, "depth 3, its 1 tensors do not"),
        (
            lambda _: {f"x{index}": torch.zeros(1) for index in range(9)},
            "unknown tensors x0, x1, x2 and 6 more",
        ),
        (changed("head.9.conv.bias", torch.zeros(11)), r"unknown tensors head\.9\.conv\.bias"),
        (changed(BIAS, torch.zeros(5)), f"wrong shapes of {BIAS}"),
        (changed(BIAS, torch.zeros(4, 1)), f"wrong shapes of {BIAS}"),
        (changed(BIAS, torch.zeros(4, dtype=torch.int8)), f"wrong types of {BIAS}"),
        (changed(BIAS, torch.zeros(4, dtype=torch.float64)), f"wrong types of {BIAS}"),
        (changed(COUNTER, torch.tensor(1.0)), f"wrong types of {COUNTER}"),
        (changed(BIAS, torch.tensor([0, float("nan"), 0, 0])), f"not finite, in {BIAS}"),
        (changed(BIAS, torch.tensor([0, 0, 0, float("-inf")])), f"not finite, in {BIAS}"),
        (
            changed("nodes.0.0.norm1.running_var", torch.tensor([0, float("inf"), 0, 0]).half()),
            "not finite, in nodes",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    saved: tuple[Path, UNetPlusPlus, Header], change: Any, problem: str
) -> None:
    file = saved[0]
    rewrite(file, change)
    with pytest.raises(UserError, match=problem) as caught:
        load_model(file)
    assert str(file) in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"width": 8}, "wrong shapes of"),
        ({"width": 0}, "describes no network"),
        ({"width": 2**60}, "describes no network"),
        ({"depth": 2, "heads": [1, 2]}, "unknown tensors"),
        ({"depth": 4, "heads": [1, 2, 3, 4]}, "more than the trained depth 3"),
        ({"depth": 10**9, "heads": [10**9], "trained_depth": 10**9}, "depth 1000000000, its"),
        ({"heads": [1, 3]}, "unknown tensors"),
        ({"heads": [1, 2]}, "describes no network"),
        ({"heads": []}, "describes no network"),
        ({"pad_multiple": 7}, "describes no network"),
        ({"num_classes": 12}, "11 classes are named, but the network has 12"),
        ({"in_channels": 1}, "mean and std are not of 1 channels"),
    ],
)
def test_a_header_at_odds_with_the_tensors_is_refused(
    saved: tuple[Path, UNetPlusPlus, Header], fields: dict[str, Any], problem: str
) -> None:
    file, _, header = saved
    text = header.to_json()
    text["architecture"].update(fields)
    rewrite(file, lambda tensors: tensors, json.dumps(text))
    with pytest.raises(UserError, match=problem) as caught:
        load_model(file)
    assert str(file) in caught.value.problem


@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    network = trained(1, 1, width=1, depth=1)
    save_model(folder / "whole.safetensors", network, header_for(network))
    data = (folder / "whole.safetensors").read_bytes()
    file = folder / "cut.safetensors"
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        load_model(file)


def test_a_file_with_something_behind_its_end_is_refused(saved: tuple[Path, UNetPlusPlus, Header]) -> None:
    file = saved[0]
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(UserError, match="damaged"):
        load_model(file)


def test_a_file_replaced_while_it_is_read_is_noticed(
    saved: tuple[Path, UNetPlusPlus, Header], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training does that to its best weights: hash, header and tensors must be of one file."""
    file, _, header = saved

    def replaced_before_hashing(path: Path) -> str:
        save_model(path, trained(width=4, depth=3, seed=1), header)
        return file_hash(path)

    monkeypatch.setattr(weights, "file_hash", replaced_before_hashing)
    with pytest.raises(UserError, match="was replaced while it was being read"):
        load_model(file)


def test_a_header_of_another_network_is_not_written(tmp_path: Path) -> None:
    network = trained(width=4, depth=2)
    file = tmp_path / "model.safetensors"
    other = header_for(trained(width=4, depth=3))
    for header in (
        other,
        replace(header_for(network), classes=class_set(12)),
        replace(header_for(network), mean=(0.5,)),
    ):
        with pytest.raises(ValueError, match=r"header|classes|mean"):
            save_model(file, network, header)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits the size of files, as POSIX systems can")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    saved: tuple[Path, UNetPlusPlus, Header],
) -> None:
    file, network, _ = saved
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from networks import trained, header_for\n"
        "from unetpp_cli.errors import UserError\n"
        "from unetpp_cli.network.weights import save_model\n"
        "network = trained(width=8, depth=4)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: save_model(sys.argv[2], network, header_for(network))\n"
        "except UserError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(file)], capture_output=True, text=True
    )
    assert result.stdout.startswith(f"Cannot write {file}"), result.stderr
    assert list(file.parent.iterdir()) == [file]
    assert same_state(load_model(file).network, network)


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    network = trained(width=1, depth=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        save_model(tmp_path / "file" / "model.safetensors", network, header_for(network))


def test_build_is_the_inverse_of_architecture_of() -> None:
    network = trained(5, 2, width=3, depth=3, heads=(2, 3), pad_multiple=32)
    architecture = architecture_of(network, trained_depth=5)
    assert architecture.trained_depth == 5
    assert architecture_of(build(architecture), trained_depth=5) == architecture
    assert build(architecture).training
    with pytest.raises(ValueError, match="no multiple"):
        build(replace(architecture, pad_multiple=7))


def test_assemble_takes_exactly_the_tensors_of_the_network() -> None:
    network = trained(width=2, depth=2)
    state = network.state_dict()
    assert same_state(assemble(architecture_of(network), state), network)
    for wrong in ({**state, "more": torch.zeros(1)}, dict(list(state.items())[1:])):
        with pytest.raises(RuntimeError):
            assemble(architecture_of(network), wrong)


def test_derived_from_believes_only_weights_files(saved: tuple[Path, UNetPlusPlus, Header]) -> None:
    file, network, header = saved
    assert not derived_from(file, "ab")
    assert not derived_from(file.with_name("missing"), "ab")
    for key in ("pruned_from", "converted_from"):
        save_model(file, network, replace(header, origin={key: "ab"}))
        assert derived_from(file, "ab")
        assert not derived_from(file, "cd")
