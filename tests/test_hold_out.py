"""`--hold-out`: sequences, beginnings of names or single frames that are val, in training and after it."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import pytest
from conftest import TINY, unetpp
from layouts import TEST, TRAIN, VAL

from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.errors import UserError
from unetpp_cli.network.header import read_header
from unetpp_cli.values import read_names


def stems(data: Dataset, split: str) -> list[str]:
    return [Path(pair.stem).name for pair in data.splits.get(split, ())]


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        ("0001TP", TRAIN[:2]),  # a sequence
        ("0001TP, 0006R0", TRAIN[:3]),
        ("0001TP_008520", TRAIN[1:2]),  # a frame
        ("0016E5_0", (*TRAIN[3:], *VAL)),  # a beginning; what val has of it stays val
        ("0001TP_006690,0016E5_08", (TRAIN[0], TRAIN[4], VAL[1])),
    ],
)
def test_what_is_held_out_is_val_and_the_rest_of_val_is_nothing(
    held_out: str, expected: tuple[str, ...], camvid: Path
) -> None:
    data = open_dataset(camvid, hold_out=held_out)
    assert stems(data, "val") == list(expected)
    assert stems(data, "train") == [stem for stem in TRAIN if stem not in expected]
    assert stems(data, "test") == list(TEST)
    assert "held out as val" in data.split_by
    aside = len(set(VAL) - set(expected))
    assert (f"{aside} image" in data.split_by) == bool(aside)
    assert data.fingerprint() != open_dataset(camvid).fingerprint()


def test_a_sequence_is_no_beginning_of_another_one(tmp_path: Path) -> None:
    names = [f"seq{number}_{frame:04d}" for number in (1, 10, 11, 2) for frame in (0, 1)]
    files = {f"images/{name}.png": layouts.encode(layouts.photo(name)) for name in names}
    files |= {f"masks/{name}.png": layouts.encode(layouts.five(name)) for name in names}
    folder = layouts.to_folder(files, tmp_path / "own")
    assert stems(open_dataset(folder, hold_out="seq1"), "val") == ["seq1_0000", "seq1_0001"]
    assert stems(open_dataset(folder, hold_out="seq1_,seq2"), "val") == [*names[:2], *names[6:]]
    with pytest.raises(UserError, match="no training image is left"):
        open_dataset(folder, hold_out="seq")  # no sequence: all that begin like that


def test_a_sequence_may_be_a_folder(tmp_path: Path) -> None:
    names = [f"seq{number}/{frame:04d}" for number in (1, 10, 2) for frame in (0, 1)]
    files = {f"images/{name}.png": layouts.encode(layouts.photo(name)) for name in names}
    files |= {f"masks/{name}.png": layouts.encode(layouts.five(name)) for name in names}
    folder = layouts.to_folder(files, tmp_path / "own")
    data = open_dataset(folder, hold_out="seq1")
    assert [pair.stem for pair in data.splits["val"]] == ["seq1/0000", "seq1/0001"]
    with pytest.raises(UserError, match="There are the sequences seq1, seq10, seq2"):
        open_dataset(folder, hold_out="drive")


def test_an_image_of_two_splits_is_held_out_once(tmp_path: Path) -> None:
    files, _ = layouts.plain()
    files["val.txt"] = b"c\nd"
    data = open_dataset(layouts.to_folder(files, tmp_path / "own"), hold_out="c")
    assert stems(data, "val") == ["c"]
    assert not any("In two splits" in text for text in data.warnings)


def test_a_list_may_be_made_by_ls_or_on_windows(camvid: Path) -> None:
    Path("frames.txt").write_text("\ufeff# ours\r\n0001TP_006690.png\r\ndrive/0006R0_f00930.PNG\r\n", "utf-8")
    assert read_names("@frames.txt") == "0001TP_006690,0006R0_f00930"
    result = unetpp("check", camvid, "--hold-out", "@frames.txt")
    assert result.exit_code == 0, result.output
    assert "3 train / 2 val" in result.output


def test_data_without_a_split_have_one_then(tmp_path: Path) -> None:
    files, _ = layouts.plain()
    unsplit = {name: data for name, data in files.items() if name not in {"train.txt", "val.txt", "test.txt"}}
    folder = layouts.to_folder(unsplit, tmp_path / "own")
    every = sorted(stem for split in ("train", "val") for stem in stems(open_dataset(folder), split))
    data = open_dataset(folder, hold_out=every[0])
    assert stems(data, "val") == every[:1]
    assert stems(data, "train") == every[1:]
    assert data.split_by == f"{every[0]} held out as val"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"hold_out": "0099XX"}, "0001TP, 0006R0, 0016E5"),
        ({"hold_out": "0"}, "no training image is left"),
        ({"hold_out": " , "}, "names nothing"),
        ({"hold_out": "Seq05VD"}, "--hold-out Seq05VD"),  # test frames are not to be validated on
        ({"hold_out": "0001TP", "split_by": "random"}, "exclude each other"),
    ],
)
def test_what_cannot_be_held_out(options: dict[str, str], named: str, camvid: Path) -> None:
    with pytest.raises(UserError, match=named):
        open_dataset(camvid, **options)  # type: ignore[arg-type]


def test_a_run_remembers_it_and_eval_and_prune_follow(camvid: Path) -> None:
    Path("frames.txt").write_text("0001TP_006690\n\n0006R0_f00930\n", encoding="utf-8")
    result = unetpp("train", "--data", camvid, "--hold-out", "@frames.txt", "--out", "run", *TINY)
    assert result.exit_code == 0, result.output
    assert "3 train / 2 val" in result.output
    assert "0001TP_006690, 0006R0_f00930 held out as val" in result.output
    Path("frames.txt").unlink()
    weights = Path("run/weights/last.safetensors")
    header = read_header(weights)[0]
    assert header.recipe["hold_out"] == "0001TP_006690,0006R0_f00930"
    assert header.data["train"] == 3

    def held(*args: object) -> dict[str, object]:
        result = unetpp("eval", weights, "--split", "val", "--json", "--no-timing", *args)
        assert result.exit_code == 0, result.output
        report: dict[str, object] = json.loads(result.stdout)
        return report

    own = held()
    assert "held out" in str(own["split_by"])
    same = held("--data", camvid, "--hold-out", "0001TP_006690,0006R0_f00930")
    assert own["depths"] == same["depths"]
    copied = held("--data", f"{camvid}/.")  # by whatever name, and wherever the weights are
    assert own["depths"] == copied["depths"]
    others = held("--data", camvid, "--hold-out", "")
    assert others["depths"] != own["depths"]
    assert "held out" not in str(others["split_by"])
    result = unetpp("prune", "--depth", "auto", "--max-drop", 100, "--no-timing", weights)
    assert result.exit_code == 0, result.output
    assert "3 train / 2 val" in result.output


def test_a_list_that_is_not_there_is_named(camvid: Path) -> None:
    for args in (["train", "--data", camvid], ["check", camvid], ["eval", "--data", camvid]):
        result = unetpp(*args, "--hold-out", "@none.txt")
        assert result.exit_code == 2
        assert "--hold-out @none.txt" in result.output
    Path("empty.txt").write_text("\n", encoding="utf-8")
    assert "empty.txt names nothing" in unetpp("check", camvid, "--hold-out", "@empty.txt").output
    config = Path("config.yaml")
    config.write_text("hold_out: '@none.txt'\n", encoding="utf-8")
    assert "none.txt" in unetpp("train", "--data", camvid, "--config", config).output
    config.write_text("hold_out: 0016\n", encoding="utf-8")  # 14 to YAML
    assert "Put the name into quotes" in unetpp("train", "--data", camvid, "--config", config).output
