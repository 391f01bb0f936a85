"""The records of a training: as CSV, as JSON lines, and in the state that it is resumed from."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import NAN, TWO, record, unscored

from unetpp_cli.errors import UserError
from unetpp_cli.report.history import (
    EpochRecord,
    HeadScore,
    best_epoch,
    read_history,
    record_from_json,
    record_to_json,
    write_history,
    write_history_lines,
)

floats = st.floats(allow_nan=True, allow_infinity=True)
scores = st.builds(HeadScore, floats, floats, floats, st.lists(floats, max_size=4).map(tuple))
records = st.builds(
    EpochRecord,
    epoch=st.integers(1, 10_000),
    lr=floats,
    train_loss=floats,
    train_accuracy=floats,
    train_heads=st.dictionaries(st.integers(1, 12), floats, max_size=5),
    val=st.dictionaries(st.integers(1, 12), scores, max_size=5),
    seconds=floats,
    images_per_second=floats,
    steps=st.integers(0, 10**9),
)


def exact(each: EpochRecord, with_classes: bool = True) -> tuple[object, ...]:
    """The record, such that NaN equals itself and -0.0 differs from 0.0: `repr` tells."""
    val = each.val
    if not with_classes:
        val = {depth: dataclasses.replace(score, iou=()) for depth, score in val.items()}
    heads = sorted((depth, repr(value)) for depth, value in each.train_heads.items())
    rest = dataclasses.replace(each, train_heads={}, val={})
    return repr(rest), heads, sorted((depth, repr(score)) for depth, score in val.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=4))
def test_history_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[EpochRecord]) -> None:
    path = tmp_path_factory.mktemp("history") / "history.csv"
    write_history(path, written)
    # The IoU of single classes has no column.
    assert [exact(each) for each in read_history(path)] == [exact(each, False) for each in written]


@settings(max_examples=100, deadline=None)
@given(records)
def test_a_record_goes_to_json_and_back(written: EpochRecord) -> None:
    text = json.dumps(record_to_json(written), allow_nan=False)
    assert exact(record_from_json(json.loads(text))) == exact(written)


def test_a_finite_record_comes_back_equal() -> None:
    val = {4: HeadScore(0.1 + 0.2, 1 / 3, 5e-324, (0.1, np.float64(1e308)))}
    written = EpochRecord(7, 1e-3, 0.7, 0.9, {1: 2.5, 4: np.float32(0.1)}, val, 60.5, 12.0, 315)
    assert record_from_json(json.loads(json.dumps(record_to_json(written)))) == written


def test_history_lines_name_the_classes(tmp_path: Path) -> None:
    hidden = dataclasses.replace(TWO, names=("grass", "ciel \u00e9toil\u00e9", "never"), void=(2,))
    val = {
        1: HeadScore(0.4, 0.8, 0.5, (np.float64(0.25), NAN, 0.125)),
        2: HeadScore(math.inf, 0.9, 0.6),
    }
    first = EpochRecord(1, 0.1, NAN, 0.5, {2: 1.0, 1: 2.0}, val, 60.5, 12.0, 45)
    second = EpochRecord(2, 0.1, 1.5, 0.5)
    write_history_lines(tmp_path / "h.jsonl", [first, second], hidden)
    lines = (tmp_path / "h.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "epoch": 1,
        "steps": 45,
        "lr": 0.1,
        "train": {"loss": None, "accuracy": 0.5, "heads": {"1": 2.0, "2": 1.0}},
        "val": {
            "1": {
                "loss": 0.4,
                "accuracy": 0.8,
                "miou": 0.5,
                "iou": {"grass": 0.25, "ciel \u00e9toil\u00e9": None},
            },
            "2": {"loss": None, "accuracy": 0.9, "miou": 0.6, "iou": {}},
        },
        "seconds": 60.5,
        "images_per_second": 12.0,
    }
    assert json.loads(lines[1])["val"] == {}
    assert "NaN" not in lines[0]
    assert len(lines) == 2
    write_history_lines(tmp_path / "h.jsonl", [], hidden)
    assert (tmp_path / "h.jsonl").read_text() == ""


def test_history_columns_and_numpy_numbers(tmp_path: Path) -> None:
    val = {2: HeadScore(0.3, 0.9, np.float64(0.6))}
    first = EpochRecord(1, np.float64(0.1), np.float64(1.5), 0.5, {1: 2.0, 2: 1.0}, val, 60.5, 12.0, 45)
    write_history(tmp_path / "history.csv", [first, dataclasses.replace(first, epoch=2, val={}, steps=90)])
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,lr,train_loss,train_accuracy,train_loss_L1,train_loss_L2,"
        "val_loss_L2,val_accuracy_L2,val_miou_L2,steps,seconds,images_per_second\n"
        "1,0.1,1.5,0.5,2.0,1.0,0.3,0.9,0.6,45,60.5,12.0\n"
        "2,0.1,1.5,0.5,2.0,1.0,,,,90,60.5,12.0\n"
    )


def test_a_history_without_steps_is_read(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text(
        "epoch,lr,train_loss,train_accuracy,seconds,images_per_second\n3,0.1,1.5,0.5,60.5,12.0\n"
    )
    assert read_history(tmp_path / "h.csv") == [EpochRecord(3, 0.1, 1.5, 0.5, {}, {}, 60.5, 12.0, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "epoch,lr,train_loss,train_accuracy,seconds,images_per_second\n1,x,1,1,1,1\n",
        "epoch,lr\n1\n",
    ],
)
def test_what_is_no_history_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "h.csv").write_text(text)
    with pytest.raises(UserError, match=r"h\.csv is no training history"):
        read_history(tmp_path / "h.csv")
    with pytest.raises(UserError, match=r"none\.csv"):
        read_history(tmp_path / "none.csv")


def test_best_epoch_is_the_deepest_heads_and_the_earliest() -> None:
    run = [record(1, 0.2), record(2, 0.5), record(3, 0.5), record(4, NAN)]
    run[0] = dataclasses.replace(run[0], val={1: HeadScore(0, 0, 0.99), 4: HeadScore(0, 0, 0.1)})
    best = best_epoch(run)
    assert best is not None
    assert best.epoch == 2
    assert best_epoch(unscored(run)) is None
