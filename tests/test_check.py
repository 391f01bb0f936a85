"""`unetpp check` reads everything, adds it up rightly, and reports all that is wrong in one go."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import TRAIN, VAL, encode, photo

from unetpp_cli.data.classes import CAMVID11, VOID
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.check import Report, check, show


def checked(files: layouts.Files, place: Path, **options: str) -> Report:
    return check(layouts.to_folder(files, place / "data"), **options)


def test_shares_sizes_and_void_are_those_of_the_masks(tmp_path: Path) -> None:
    report = checked(layouts.segnet()[0], tmp_path)
    assert report.ok
    assert report.data is not None
    for split, stems in layouts.ALL.items():
        masks = np.stack([layouts.truth11(stem) for stem in stems])
        found = report.splits[split]
        assert found.pairs == len(stems)
        assert found.sizes == {(layouts.WIDTH, layouts.HEIGHT): len(stems)}
        assert found.void == (masks == VOID).sum()
        assert found.void_share == pytest.approx((masks == VOID).mean())
        for index in range(11):
            assert found.pixels[index] == (masks == index).sum()
            assert found.masks[index] == (masks == index).any(axis=(1, 2)).sum()
            assert found.share(index) == pytest.approx((masks[masks != VOID] == index).mean())


@pytest.mark.parametrize("name", ["original", "kaggle", "blog", "plain", "cvat_colors"])
def test_every_encoding_is_added_up(name: str, tmp_path: Path) -> None:
    files, expected = layouts.LAYOUTS[name]()
    report = checked(files, tmp_path)
    assert report.ok, report.problems
    for split, stems in expected.splits.items():
        masks = np.stack([expected.mask(stem) for stem in stems])
        assert sum(report.splits[split].pixels) == (masks != VOID).sum()
        assert report.splits[split].pixels[0] == (masks == 0).sum()


def test_classes_can_be_asked_for(tmp_path: Path) -> None:
    report = checked(layouts.original()[0], tmp_path, classes="camvid11", split_by="random")
    assert report.data is not None
    assert report.data.classes == CAMVID11
    assert report.data.split_by.startswith("a random")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    files, _ = layouts.segnet_folders()
    where = "CamVid/train"
    files[f"{where}/{TRAIN[0]}.png"] = files[f"{where}/{TRAIN[0]}.png"][:400]  # cut, but with a whole header
    files[f"{where}annot/{TRAIN[1]}.png"] = encode(np.full((48, 64), 13, np.uint8))
    files[f"{where}annot/{TRAIN[2]}.png"] = encode(np.zeros((24, 32), np.uint8))
    files[f"{where}annot/{TRAIN[3]}.png"] = b"no picture"
    files[f"{where}/lonely.png"] = encode(photo("lonely"))
    files["codes.txt"] = "\n".join(CAMVID11.names).encode()
    report = checked(files, tmp_path)
    assert not report.ok
    for part in (
        f"Cannot read the picture {tmp_path}/data/{where}/{TRAIN[0]}.png",
        f"{where}annot/{TRAIN[1]}.png holds the value 13 (3,072 pixels)",
        f"{where}annot/{TRAIN[2]}.png 32x24",
        f"{where}annot/{TRAIN[3]}.png is no picture",
        f"1 image without mask ({where}/lonely.png)",
    ):
        assert [error for error in report.problems if part in error.problem], part
    assert len(report.problems) == 5
    assert report.splits["val"].pairs == len(VAL)


def test_off_list_colours_of_all_masks_are_counted(tmp_path: Path) -> None:
    files, _ = layouts.original()
    for stem in (VAL[0], TRAIN[0]):
        mask = layouts.colors32(stem)
        mask[1, 1] = (1, 2, 3)
        files[f"LabeledApproved_full/{stem}_L.png"] = encode(mask)
    report = checked(files, tmp_path)
    assert report.ok
    found = [text for text in report.warnings if "Colours on no list count as void in 2 masks" in text]
    assert len(found) == 1
    assert f"{VAL[0]}_L.png (1 pixel)" in found[0]


def test_copies_across_splits_are_found_under_other_names(tmp_path: Path) -> None:
    files, _ = layouts.segnet_folders()
    files["CamVid/val/copy.png"] = files[f"CamVid/train/{TRAIN[0]}.png"]
    files["CamVid/valannot/copy.png"] = files[f"CamVid/trainannot/{TRAIN[0]}.png"]
    files["CamVid/test/twin.png"] = files[f"CamVid/test/{layouts.TEST[0]}.png"]
    files["CamVid/testannot/twin.png"] = files[f"CamVid/testannot/{layouts.TEST[0]}.png"]
    report = checked(files, tmp_path)
    across = f"1 image, CamVid/train/{TRAIN[0]}.png (train) = CamVid/val/copy.png (val)"
    assert [text for text in report.warnings if "in two splits" in text and across in text]
    assert [text for text in report.warnings if "under two names" in text and "test/twin.png" in text]


def test_sequences_on_both_sides_and_absent_classes_are_noted(tmp_path: Path) -> None:
    report = checked(layouts.original()[0], tmp_path)
    assert any("val frames of 0016E5" in note for note in report.notes)
    assert any("test frames of 0001TP" in note for note in report.notes)
    files, _ = layouts.plain()
    files["classes.txt"] += b"unicorn\n"
    assert any(note == "In no val mask: unicorn." for note in checked(files, tmp_path / "2").notes)


def test_data_refused_as_a_whole_is_reported_and_nothing_there_is_an_error(tmp_path: Path) -> None:
    report = checked({"photos/a.png": encode(photo("a"))}, tmp_path)
    assert not report.ok
    assert report.data is None
    assert report.to_json()["layout"] is None
    with pytest.raises(UserError, match="no folder or archive"):
        check(tmp_path / "nothing")


def test_json_and_tables_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(layouts.segnet()[0], tmp_path)
    show(report, json=True)
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is True
    assert data["summary"] == "SegNet layout, 11 classes + void 11, 5 train / 2 val / 3 test"
    assert data["splits"]["train"]["sizes"] == {"64x48": 5}
    shares = {name: entry["share"] for name, entry in data["splits"]["train"]["classes"].items()}
    assert list(shares) == list(CAMVID11.names)
    assert sum(shares.values()) == pytest.approx(1)
    show(report)
    text = capsys.readouterr().out
    assert data["summary"] in text
    assert "No problems" in text
    for name, share in shares.items():
        row = next(line for line in text.splitlines() if f" {name} " in line)
        assert f"{100 * share:.2f}" in row


def test_problems_are_printed_with_their_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, _ = layouts.segnet_folders()
    files["CamVid/train/[lonely].png"] = encode(photo("lonely"))
    show(checked(files, tmp_path))
    text = capsys.readouterr().out
    assert "CamVid/train/[lonely].png" in text  # no markup
    assert "Add what is missing" in text
    assert "1 problem to be mended" in text
    show(checked({"photos/a.png": encode(photo("a"))}, tmp_path / "2"))
    assert "not understood" in capsys.readouterr().out
