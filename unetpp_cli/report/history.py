"""What each epoch of a training came to: the records, and the files of them in the run folder.

The training job writes history.csv and history.jsonl after every epoch, and keeps the records in its state to
go on from; `report.curves` draws them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.files import write_text


@dataclass(frozen=True)
class HeadScore:
    """One head on the validation split: mean loss per pixel; pixel accuracy and mean IoU as fractions.

    `iou` holds a fraction for each class, in class order, NaN where the class does not occur; or nothing.
    """

    loss: float
    accuracy: float
    miou: float
    iou: tuple[float, ...] = ()


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch.

    Attributes:
        epoch: counted from 1.
        lr: learning rate at the end of the epoch.
        train_loss: the loss that was minimised, averaged over the epoch's steps.
        train_accuracy: pixel accuracy of the deepest head on the training crops, 0..1.
        train_heads: the training loss of each head, by depth.
        val: the scores of each head, by depth; empty when there is no validation split.
        seconds: wall clock of the epoch, validation included.
        images_per_second: of its training part.
        steps: optimiser steps since the beginning of the training.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    train_heads: Mapping[int, float] = field(default_factory=dict)
    val: Mapping[int, HeadScore] = field(default_factory=dict)
    seconds: float = 0.0
    images_per_second: float = 0.0
    steps: int = 0

    @property
    def miou(self) -> float:
        """Validation mIoU of the deepest head, by which `best` is chosen; NaN without validation."""
        return self.val[max(self.val)].miou if self.val else float("nan")


_FIRST = ("epoch", "lr", "train_loss", "train_accuracy")
_LAST = ("steps", "seconds", "images_per_second")
_WHOLE = ("epoch", "steps")
_PER_HEAD = ("val_loss", "val_accuracy", "val_miou")


def best_epoch(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """The record with the highest `miou`, the earliest of equals; None where no record has any."""
    scored = [record for record in records if not math.isnan(record.miou)]
    return max(scored, key=lambda record: record.miou, default=None)


def write_history(path: str | os.PathLike[str], records: Sequence[EpochRecord]) -> None:
    """Writes all records as CSV in one step; every number is spelled so that it reads back exactly.

    Columns: epoch, lr, train_loss, train_accuracy, train_loss_L1 .., then val_loss_L1, val_accuracy_L1,
    val_miou_L1 .. for each head, steps, seconds, images_per_second. A field is empty where a record has no
    figure. The IoU of single classes stands in history.jsonl only.
    """
    trained = sorted({depth for record in records for depth in record.train_heads})
    scored = sorted({depth for record in records for depth in record.val})
    columns = [
        *_FIRST,
        *(f"train_loss_L{depth}" for depth in trained),
        *(f"{name}_L{depth}" for depth in scored for name in _PER_HEAD),
        *_LAST,
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        row: dict[str, float] = {name: getattr(record, name) for name in (*_FIRST, *_LAST)}
        row.update({f"train_loss_L{depth}": loss for depth, loss in record.train_heads.items()})
        for depth, score in record.val.items():
            values = (score.loss, score.accuracy, score.miou)
            row.update({f"{name}_L{depth}": value for name, value in zip(_PER_HEAD, values, strict=True)})
        # csv spells a float by its repr, which reads back exactly; float() also takes numpy's numbers.
        whole = {name: getattr(record, name) for name in _WHOLE}
        writer.writerow({name: float(value) for name, value in row.items()} | whole)
    write_text(path, text.getvalue())


def read_history(path: str | os.PathLike[str]) -> list[EpochRecord]:
    """Reads what `write_history` wrote.

    Raises:
        UserError: there is no such file, or it is not a history.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(Path(path).read_text("utf-8"))))
        return [_record(row) for row in rows]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Check the path given.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no training history ({error!r}).", "Give a history.csv.") from error


def _record(row: Mapping[str, str]) -> EpochRecord:
    losses: dict[int, float] = {}
    scores: dict[int, dict[str, float]] = {}
    for column, value in row.items():
        if value and (match := re.fullmatch(r"train_loss_L(\d+)", column)):
            losses[int(match[1])] = float(value)
        elif value and (match := re.fullmatch(r"val_(loss|accuracy|miou)_L(\d+)", column)):
            scores.setdefault(int(match[2]), {})[match[1]] = float(value)
    return EpochRecord(
        epoch=int(row["epoch"]),
        lr=float(row["lr"]),
        train_loss=float(row["train_loss"]),
        train_accuracy=float(row["train_accuracy"]),
        train_heads=losses,
        val={
            depth: HeadScore(score["loss"], score["accuracy"], score["miou"])
            for depth, score in scores.items()
        },
        steps=int(row.get("steps") or 0),  # earlier versions wrote none
        seconds=float(row["seconds"]),
        images_per_second=float(row["images_per_second"]),
    )


def write_history_lines(
    path: str | os.PathLike[str], records: Sequence[EpochRecord], classes: ClassSet
) -> None:
    """Writes history.jsonl in one step: a JSON object a line and epoch, null for what is no finite number.

    Beside what history.csv holds, each head has its IoU for every scored class, by the class's name:
    `{"epoch": 1, "steps": 45, "lr": ..., "train": {"loss": ..., "accuracy": ..., "heads": {"1": ...}},
    "val": {"1": {"loss": ..., "accuracy": ..., "miou": ..., "iou": {"Sky": ...}}}, "seconds": ..., ...}`.
    """
    lines = (json.dumps(_line(record, classes), ensure_ascii=False, allow_nan=False) for record in records)
    write_text(path, "".join(line + "\n" for line in lines))


def _line(record: EpochRecord, classes: ClassSet) -> dict[str, Any]:
    return {
        "epoch": record.epoch,
        "steps": record.steps,
        "lr": _finite(record.lr),
        "train": {
            "loss": _finite(record.train_loss),
            "accuracy": _finite(record.train_accuracy),
            "heads": {str(depth): _finite(loss) for depth, loss in sorted(record.train_heads.items())},
        },
        "val": {
            str(depth): {
                "loss": _finite(score.loss),
                "accuracy": _finite(score.accuracy),
                "miou": _finite(score.miou),
                "iou": {classes.names[i]: _finite(score.iou[i]) for i in classes.scored if score.iou},
            }
            for depth, score in sorted(record.val.items())
        },
        "seconds": _finite(record.seconds),
        "images_per_second": _finite(record.images_per_second),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


_PLAIN = ("lr", "train_loss", "train_accuracy", "seconds", "images_per_second")


def record_to_json(record: EpochRecord) -> dict[str, Any]:
    """The record as plain JSON values, all of it and exactly: what the training's state keeps.

    NaN is None and the infinities are "inf" and "-inf", so any JSON parser takes it.
    """
    return {
        "epoch": record.epoch,
        "steps": record.steps,
        **{name: _encode(getattr(record, name)) for name in _PLAIN},
        "train_heads": {str(depth): _encode(loss) for depth, loss in record.train_heads.items()},
        "val": {
            str(depth): {
                "loss": _encode(score.loss),
                "accuracy": _encode(score.accuracy),
                "miou": _encode(score.miou),
                "iou": [_encode(value) for value in score.iou],
            }
            for depth, score in record.val.items()
        },
    }


def record_from_json(data: Mapping[str, Any]) -> EpochRecord:
    """The inverse of `record_to_json`: the same record, number for number.

    Raises:
        KeyError, TypeError, ValueError: this is no record.
    """
    return EpochRecord(
        epoch=int(data["epoch"]),
        steps=int(data["steps"]),
        **{name: _decode(data[name]) for name in _PLAIN},
        train_heads={int(depth): _decode(loss) for depth, loss in data["train_heads"].items()},
        val={
            int(depth): HeadScore(
                loss=_decode(score["loss"]),
                accuracy=_decode(score["accuracy"]),
                miou=_decode(score["miou"]),
                iou=tuple(_decode(value) for value in score["iou"]),
            )
            for depth, score in data["val"].items()
        },
    )


def _encode(value: float) -> float | str | None:
    number = float(value)  # numpy's numbers, too
    return None if math.isnan(number) else str(number) if math.isinf(number) else number


def _decode(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
