"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import NAN, TWO

from unetpp_cli.errors import UserError
from unetpp_cli.report.history import EpochRecord, HeadScore
from unetpp_cli.report.tensorboard import TensorBoard

CLASSES = dataclasses.replace(TWO, names=("wet grass", "sky", "a/b"))


def record(epoch: int, miou: float) -> EpochRecord:
    val = {1: HeadScore(0.9, 0.8, 0.1, (0.1, 0.1, NAN)), 2: HeadScore(0.7, 0.85, miou, (miou, 0.5, NAN))}
    return EpochRecord(epoch, 0.25 / epoch, 1.5, 0.75, {1: 2.0, 2: 1.0}, val, 60.0, 12.5, 45 * epoch)


def read(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def points(folder: Path, tag: str) -> Sequence[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_every_figure_of_a_record_is_there(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with TensorBoard(tmp_path, CLASSES) as board:
        board.epoch(dataclasses.replace(record(1, 0.5), val={}))
        board.epoch(record(2, 0.25))
    expected = {
        "train_loss/minimised": 1.5,
        "train_loss/L1": 2.0,
        "train_loss/L2": 1.0,
        "train_accuracy": 0.75,
        "learning_rate": 0.125,
        "images_per_second": 12.5,
        "epoch": 2,
        "val_loss/L1": 0.9,
        "val_loss/L2": 0.7,
        "val_accuracy/L1": 0.8,
        "val_accuracy/L2": 0.85,
        "val_miou/L1": 0.1,
        "val_miou/L2": 0.25,
        "class_iou/wet_grass": 0.25,
        "class_iou/sky": 0.5,
    }
    assert set(read(tmp_path).Tags()["scalars"]) == set(expected), "none for a class that does not occur"
    for tag, value in expected.items():
        assert points(tmp_path, tag)[-1] == (90, pytest.approx(value, rel=1e-6))
    assert [step for step, _ in points(tmp_path, "train_loss/L1")] == [45, 90]
    assert [step for step, _ in points(tmp_path, "val_loss/L1")] == [90], "the first was not validated"


def test_a_resumed_training_goes_on_where_its_state_stood(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    killed = TensorBoard(tmp_path, CLASSES)  # it is never closed
    for epoch in (1, 2, 3):
        killed.epoch(record(epoch, epoch / 8))
    with TensorBoard(tmp_path, CLASSES, step=100) as board:  # within the third epoch
        board.epoch(record(3, 0.5))
        board.epoch(record(4, 0.625))
    assert points(tmp_path, "val_miou/L2") == [(45, 0.125), (90, 0.25), (135, 0.5), (180, 0.625)]
    killed.close()


def test_what_stands_at_the_step_of_the_state_stays(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with TensorBoard(tmp_path, CLASSES) as board:
        board.epoch(record(2, 0.25))
    with TensorBoard(tmp_path, CLASSES, step=90) as board:
        board.epoch(record(3, 0.5))
    assert points(tmp_path, "val_miou/L2") == [(90, 0.25), (135, 0.5)]


def test_a_picture_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from io import BytesIO

    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with TensorBoard(tmp_path, CLASSES) as board:
        board.picture("samples", picture, 90)
    (event,) = read(tmp_path).Images("samples")
    assert event.step == 90
    assert (np.asarray(Image.open(BytesIO(event.encoded_image_string)).convert("RGB")) == picture).all()


def test_without_the_package_the_cure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # what import finds where there is no such package
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UserError) as caught:
        TensorBoard(tmp_path, CLASSES)
    assert "pip install 'unetpp[tensorboard]'" in caught.value.cure
    assert not list(tmp_path.iterdir())
