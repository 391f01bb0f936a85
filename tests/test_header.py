"""What a weights file says about itself, read without its tensors and printed without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp_cli.data.classes import CAMVID11, CAMVID33, ClassSet
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.info import info
from unetpp_cli.network.header import Architecture, Header, TensorInfo, file_hash, read_header

HEADER = Header(
    architecture=Architecture(11, 3, width=16, depth=3, heads=(1, 2, 3), pad_multiple=16, trained_depth=4),
    classes=CAMVID11,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    geometry=Geometry("fit", 360, 360),
    recipe={"epochs": 12, "lr": 0.1, "optimizer": "sgd"},
    data={"layout": "SegNet", "train": 367},
    metrics={
        "epoch": 9,
        "val": {"1": {"miou": 0.5, "loss": 0.75}, "3": {"miou": 0.625, "loss": float("nan")}},
    },
    origin={"pruned_from": "ab" * 32, "from_depth": 4, "to_depth": 3},
)

texts = st.text(max_size=12)
numbers = st.integers(1, 4096)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, plain, max_size=4)
colors = st.tuples(*[st.integers(0, 255)] * 3)
fractions = st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple)


@st.composite
def class_sets(draw: st.DrawFn) -> ClassSet:
    names = tuple(draw(st.lists(texts, min_size=1, max_size=20, unique=True)))
    void = draw(st.sets(st.integers(0, len(names) - 1), max_size=2))
    count = len(names)
    return ClassSet(
        draw(texts),
        names,
        tuple(draw(st.lists(colors, min_size=count, max_size=count))),
        tuple(sorted(void)),
    )


geometries = st.one_of(
    st.just(Geometry("native")),
    st.builds(lambda side: Geometry("fit", side, side), numbers),
    st.builds(lambda width, height: Geometry("stretch", width, height), numbers, numbers),
)
architectures = st.builds(
    Architecture,
    numbers,
    numbers,
    numbers,
    numbers,
    st.lists(numbers, min_size=1).map(tuple),
    numbers,
    numbers,
)
headers = st.builds(
    Header,
    architectures,
    class_sets(),
    fractions,
    fractions,
    geometries,
    objects,
    objects,
    objects,
    objects,
    texts,
)


def file_bytes(text: str | None, tensors: dict[str, Any] | None = None, data: bytes = b"") -> bytes:
    """A safetensors file, spelled out: 8 bytes of length, a JSON header, the data."""
    raw: dict[str, Any] = {} if text is None else {"__metadata__": {"unetpp": text}}
    start = json.dumps({**raw, **(tensors or {})}).encode()
    return len(start).to_bytes(8, "little") + start + data


TENSOR = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
WHOLE = file_bytes(HEADER.dumps(), TENSOR, bytes(24))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    file.write_bytes(WHOLE)
    return file


@settings(deadline=None, max_examples=60)
@given(headers)
def test_json_round_trip(header: Header) -> None:
    text = header.dumps()
    again = Header.from_json(json.loads(text))
    assert again == header
    assert again.dumps() == text


@settings(deadline=None, max_examples=40)
@given(objects)
def test_equal_headers_are_equal_text_whatever_the_order_of_their_keys(recipe: dict[str, Any]) -> None:
    backwards = dict(reversed(recipe.items()))
    assert replace(HEADER, recipe=recipe).dumps() == replace(HEADER, recipe=backwards).dumps()


def test_the_text_carries_neither_a_clock_nor_a_name() -> None:
    assert set(json.loads(HEADER.dumps())) == {
        *("format", "version", "architecture", "classes", "mean", "std"),
        *("geometry", "recipe", "data", "metrics", "origin"),
    }


def test_read_header(weights: Path) -> None:
    header, tensors = read_header(weights)
    assert header.dumps() == HEADER.dumps()
    assert header.architecture == HEADER.architecture
    assert tensors == {"a": TensorInfo("F32", (2, 3))}
    assert tensors["a"].count == 6
    assert TensorInfo("I64", ()).count == 1


@settings(deadline=None, max_examples=60)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_off_anywhere_is_refused_by_name(
    length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    file.write_bytes(WHOLE[:length])
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        read_header(file)


def header_or_problem(file: Path) -> Header | str:
    try:
        return read_header(file)[0]
    except UserError as error:
        return error.problem


@settings(deadline=None, max_examples=150)
@given(place=st.integers(0, len(WHOLE) - 25), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(
    place: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("bit") / "bit.safetensors"
    file.write_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    outcome = header_or_problem(file)
    assert isinstance(outcome, Header) or "bit.safetensors" in outcome


def damaged(**fields: Any) -> str:
    """The header's text with some fields replaced."""
    return json.dumps({**json.loads(HEADER.dumps()), **fields})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no safetensors file"),
        (b"hello", "no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "no safetensors file"),
        (b"\xff" * 64, "no safetensors file"),
        ((2).to_bytes(8, "little") + b"[]", "no safetensors file"),
        (file_bytes(None, TENSOR, bytes(24)), "not one of unetpp's"),
        (file_bytes("not json"), "damaged"),
        (file_bytes("[1]"), "damaged"),
        (file_bytes("{}"), "damaged"),
        (file_bytes(damaged(architecture={"width": 8})), "damaged"),
        (file_bytes(damaged(classes={"name": "x", "names": ["a"], "colors": [], "void": []})), "damaged"),
        (file_bytes(damaged(mean="abc")), "damaged"),
        (file_bytes(damaged(geometry="huge")), "damaged"),
        (file_bytes(HEADER.dumps(), {"a": {"dtype": "F32"}}), "damaged"),
        (file_bytes(HEADER.dumps(), {"a": 1}), "damaged"),
        (file_bytes(damaged(format=2)), "format 2; this version reads 1"),
        (file_bytes(HEADER.dumps(), TENSOR, bytes(23)), "cut off"),
    ],
)
def test_files_that_are_none_of_ours_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=problem) as caught:
        read_header(file)
    assert str(file) in caught.value.problem
    assert caught.value.cure


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (file_bytes(damaged(architecture=3)), "damaged"),
        (file_bytes(damaged(geometry=3)), "damaged"),
        (file_bytes(damaged(recipe=[1])), "damaged"),
        (file_bytes(damaged(metrics=3)), "damaged"),
        (file_bytes(HEADER.dumps(), {"a": {**TENSOR["a"], "data_offsets": [0, "x"]}}), "damaged"),
        (file_bytes(None, {"__metadata__": None}), "not one of unetpp's"),
    ],
)
def test_fields_of_another_type_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=problem) as caught:
        read_header(file)
    assert str(file) in caught.value.problem


def test_a_pth_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    file = tmp_path / "old.pth"
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UserError) as caught:
        read_header(file)
    assert "unetpp convert" in caught.value.cure


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_unreadable_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="Cannot read the weights file"):
        read_header(tmp_path / name)


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    assert file_hash(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# What `unetpp info` prints.


def test_info_prints_what_matters(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info(weights)
    shown = capsys.readouterr().out
    for text in (
        *("model.safetensors", "width 16", "16 32 64 128", "depth 3", "pruned from depth 4", "L1, L2, L3"),
        *("fit 360", "multiples of 16", "camvid11, 11", "0 Sky", "10 Bicyclist", "0.485 0.456 0.406"),
        *(
            "epochs 12",
            "epoch 9",
            "layout SegNet",
            "pruned from depth 4 to 3",
            "abababababab...",
            "mIoU %",
            "50.0",
            "62.5",
        ),
        *("0.7500", file_hash(weights), "unetpp 0."),
    ):
        assert text in shown, text


def test_info_as_json_is_the_header_and_the_file(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info(weights, json=True)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    shown = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert shown.pop("file") == {
        "path": str(weights),
        "bytes": len(WHOLE),
        "sha256": file_hash(weights),
        "tensors": 1,
        "parameters": 6,
        "dtypes": ["F32"],
    }
    assert shown["metrics"]["val"]["3"] == {"miou": 0.625, "loss": None}
    shown["metrics"]["val"]["3"]["loss"] = float("nan")
    assert json.dumps(shown, sort_keys=True) == json.dumps(HEADER.to_json(), sort_keys=True)


def test_info_shows_names_literally(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("[bold]red[/bold]", "\x1b[31mescape", "Straße :car:")
    classes = ClassSet("custom", names, ((1, 2, 3), (4, 5, 6), (7, 8, 9)), void=(2,))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file_bytes(replace(HEADER, classes=classes).dumps()))
    info(file)
    shown = capsys.readouterr().out
    assert "[bold]red[/bold]" in shown
    assert r"\x1b[31mescape" in shown
    assert "\x1b[31m" not in shown
    assert ":car: (void)" in shown


@pytest.mark.parametrize("as_json", [False, True])
def test_info_needs_no_torch_and_any_terminal_will_do(tmp_path: Path, as_json: bool) -> None:
    file = tmp_path / "model.safetensors"
    classes = ClassSet("eigene", ("Straße", "空"), ((1, 2, 3), (4, 5, 6)))
    file.write_bytes(file_bytes(replace(HEADER, classes=classes).dumps()))
    script = (
        "import sys; from pathlib import Path; from unetpp_cli.jobs.info import info\n"
        f"info(Path({str(file)!r}), json={as_json})\n"
        "assert not {'torch', 'albumentations', 'matplotlib', 'safetensors'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )
    assert result.returncode == 0, result.stderr
    assert "eigene" in result.stdout


def test_void_outputs_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(file_bytes(replace(HEADER, classes=CAMVID33).dumps()))
    info(file)
    shown = capsys.readouterr().out
    assert "30 Void (void)" in shown
    assert "31 Wall (void)" not in shown
