"""`unetpp eval`: models compared, masks of other tools, intervals, and the folder that it leaves."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, unetpp
from PIL import Image

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.data.layouts import open_dataset
from unetpp_cli.masks import read_mask
from unetpp_cli.network.header import read_header


def report(*args: object) -> dict[str, Any]:
    result = unetpp("eval", *args, "--json", "--no-timing")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.fixture(scope="module")
def other(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained otherwise than `run`."""
    folder = tmp_path_factory.mktemp("other") / "longer"
    result = unetpp("train", "--data", camvid, "--out", folder, *TINY, "--epochs", 4, "--seed", 3)
    assert result.exit_code == 0, result.output
    return folder


def test_a_models_own_masks_score_as_the_model_does(model: Path, camvid: Path) -> None:
    """Through files and without a network: the counts are the same."""
    images = camvid / "test"
    assert unetpp("predict", images, "-o", "masks", "--model", model, "--precision", "fp32").exit_code == 0
    scored = report("--pred", "masks", "--data", camvid, "--split", "test")
    deepest = report(model, "--data", camvid, "--split", "test", "--precision", "fp32")["depths"]["2"]
    (row,) = scored["masks"].values()
    assert row["miou"] == pytest.approx(deepest["miou"], abs=1e-12)


def test_masks_are_scored_by_arithmetic_written_out(camvid: Path, tmp_path: Path) -> None:
    data = open_dataset(camvid)
    hits = np.zeros((11, 11), np.int64)
    (tmp_path / "theirs").mkdir()
    for pair in data.splits["val"]:
        truth = data.read_mask(pair)
        guess = np.roll(np.where(truth == 255, 0, truth), 3, axis=1)
        Image.fromarray(guess).save(tmp_path / "theirs" / f"{Path(pair.stem).name}.png")
        np.add.at(hits, (truth[truth != 255], guess[truth != 255]), 1)
    union = hits.sum(0) + hits.sum(1) - hits.diagonal()
    there = hits.sum(1) > 0
    expected = (hits.diagonal()[there] / union[there]).mean()
    result = unetpp("eval", "--pred", tmp_path / "theirs", "--data", camvid, "--split", "val", "--csv")
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert float(row["miou"]) == pytest.approx(expected, abs=1e-6)
    assert row["parameters"] == ""


def test_two_models_are_compared_on_the_same_draws(model: Path, other: Path, camvid: Path) -> None:
    found = report(model, other, "--data", camvid, "--split", "train", "--block", 1)
    (difference,) = found["differences"]
    first, second = found["depths"]["2"]["miou"], found["others"][0]["depths"]["2"]["miou"]
    assert difference["miou"] == pytest.approx(second - first, abs=1e-12)
    low, high = difference["interval"]
    assert low <= difference["miou"] <= high
    assert set(difference["iou"]) == set(CAMVID11.names)

    text = unetpp(
        "eval", model, other, "--data", camvid, "--split", "train", "--block", 1, "--no-timing"
    ).output
    assert "on these sequences" in text
    assert "longer" in text
    assert "significant" not in text


def test_a_model_does_not_differ_from_itself(model: Path, camvid: Path) -> None:
    (difference,) = report(model, model, "--data", camvid, "--split", "train", "--block", 1)["differences"]
    assert difference["miou"] == 0
    assert difference["interval"] == [0, 0]


def test_the_same_weights_twice_are_told(model: Path, camvid: Path) -> None:
    Path("copy.safetensors").write_bytes(model.read_bytes())
    result = unetpp("eval", model, "copy.safetensors", "--data", camvid, "--split", "val", "--no-timing")
    assert result.exit_code == 0, result.output
    assert "copy.safetensors hold the same weights" in " ".join(result.output.split())


def test_what_each_depth_gives_and_costs_stands_in_the_csv(model: Path, camvid: Path) -> None:
    result = unetpp("eval", model, "--data", camvid, "--csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["row"] for row in rows] == ["L1", "L2", "ensemble"]
    numbers = report(model, "--data", camvid)["depths"]
    for row in rows[:2]:
        known = numbers[row["row"][1:]]
        assert float(row["miou"]) == pytest.approx(known["miou"], abs=1e-6)
        assert float(row["boundary_f1"]) == pytest.approx(known["boundary_f1"], abs=1e-6)
        assert float(row["ms"]) > 0
        assert int(row["file_bytes"]) > 4 * int(row["parameters"])


def test_the_folder_holds_plots_sheets_and_tables(model: Path, camvid: Path) -> None:
    result = unetpp("eval", model, "--data", camvid, "--split", "test", "--no-timing", "--out", "found")
    assert result.exit_code == 0, result.output
    for name in ("depth", "confusion", "classes", "best", "worst"):
        with Image.open(f"found/{name}.png") as picture:
            assert min(picture.size) > 100
    numbers = json.loads(Path("found/results.json").read_text())
    assert numbers["depths"]["2"]["miou"] == report(model, "--data", camvid)["depths"]["2"]["miou"]
    lines = list(csv.DictReader(io.StringIO(Path("found/images.csv").read_text())))
    assert len(lines) == 3 * 3
    again = unetpp("eval", model, "--data", camvid, "--split", "test", "--no-timing", "--out", "found")
    assert again.exit_code == 0, "its own folder may be replaced"
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    refused = unetpp("eval", model, "--data", camvid, "--out", "mine")
    assert refused.exit_code == 2
    assert "--out mine" in refused.output


def test_the_score_of_an_image_is_its_own(model: Path, camvid: Path) -> None:
    assert (
        unetpp("eval", model, "--data", camvid, "--split", "test", "--no-timing", "--out", "f").exit_code == 0
    )
    assert (
        unetpp("predict", camvid / "test", "-o", "m", "--model", model, "--precision", "fp32").exit_code == 0
    )
    data = open_dataset(camvid)
    known = {
        line["image"]: float(line["miou"])
        for line in csv.DictReader(io.StringIO(Path("f/images.csv").read_text()))
        if line["row"] == "L2"
    }
    for pair in data.splits["test"]:
        truth = data.read_mask(pair)
        (file,) = Path("m").rglob(f"{Path(pair.stem).name}*.png")
        guess, _ = read_mask(file)
        valid = truth != 255
        ious = [
            ((truth == k) & (guess == k)).sum() / (((truth == k) | (guess == k)) & valid).sum()
            for k in np.unique(truth[valid])
        ]
        assert known[pair.stem] == pytest.approx(np.mean(ious), abs=1e-6)


def test_averaging_over_mirrored_images_changes_scores_and_is_said(model: Path, camvid: Path) -> None:
    plain, flipped = report(model, "--data", camvid), report(model, "--data", camvid, "--tta", "flip")
    assert flipped["tta"] == ["flip"]
    assert flipped["depths"]["2"]["miou"] != plain["depths"]["2"]["miou"]


REFUSED = [
    (["{model}", "--data", "{camvid}", "--tta", "rotate"], "--tta"),
    (["{model}", "--data", "{camvid}", "--overlap", "8"], "--overlap"),
    (["{model}", "--data", "{camvid}", "--json", "--csv"], "--csv"),
    (["--pred", "nowhere", "--data", "{camvid}"], "nowhere"),
    (["--pred", "{camvid}/testannot"], "--data"),
    (["{model}", "--data", "{camvid}", "--block", "0"], "--block"),
]


@pytest.mark.parametrize(("args", "named"), REFUSED)
def test_bad_wishes_are_refused_in_one_line(args: list[str], named: str, model: Path, camvid: Path) -> None:
    result = unetpp("eval", *(arg.format(model=model, camvid=camvid) for arg in args))
    assert result.exit_code == 2, result.output
    assert named in result.output
    assert "Traceback" not in result.output


def test_json_stays_json_beside_a_folder(model: Path, camvid: Path) -> None:
    assert report(model, "--data", camvid, "--out", "found")["blocks"] == 3
    assert json.loads(Path("found/results.json").read_text())["split"] == "test"


def test_masks_here_have_a_name_and_plots_stay_in_their_folder(model: Path, camvid: Path) -> None:
    Path("mine/deep").mkdir(parents=True)
    assert unetpp("predict", camvid / "test", "-o", "mine", "--model", model).exit_code == 0
    monkey = pytest.MonkeyPatch()
    monkey.chdir("mine")
    try:
        result = unetpp("eval", model, "--pred", ".", "--data", camvid, "--no-timing", "--out", "../found")
    finally:
        monkey.undo()
    assert result.exit_code == 0, result.output
    assert "mine against" in result.output
    assert sorted(path.name for path in Path("found").iterdir() if path.is_dir()) == ["1-tiny", "2-mine"]
    assert not list(Path("mine").glob("*confusion*"))


def test_two_formats_of_one_image_are_no_two_masks(model: Path, camvid: Path) -> None:
    wish = ["-o", "both", "--format", "palette,index", "--model", model, "--precision", "fp32"]
    assert unetpp("predict", camvid / "test", *wish).exit_code == 0
    assert unetpp("eval", "--pred", "both", "--data", camvid, "--split", "test").exit_code == 0


def test_a_random_split_is_the_runs_own(camvid: Path) -> None:
    """Without being told, eval and prune meet no image that the run was trained on."""
    trained = unetpp("train", "--data", camvid, "--out", "random", *TINY, "--split-by", "random")
    assert trained.exit_code == 0, trained.output
    assert "random" in report("random", "--split", "val")["split_by"]
    wish = ["--depth", "auto", "--max-drop", "99", "--no-timing", "-o", "p.safetensors"]
    pruned = unetpp("prune", "random", *wish)
    assert pruned.exit_code == 0, pruned.output
    kept = read_header(Path("p.safetensors"))[0].origin["choice"]
    assert kept["images"] == report("random", "--split", "val")["images"]


CLIP = [f"0016E5_{number:05}" for number in range(7959, 8161, 2)]


@pytest.mark.parametrize(
    ("stems", "block", "said"),
    [
        (CLIP, 20, "are one clip of 6.7 seconds"),
        ([f"0001TP_{number:06}" for number in range(6690, 8521, 15)], 20, "one sequence, by their names"),
        ([f"scene_{number}" for number in range(24)], 20, "add --block 1"),
        ([f"{name}_{k}" for name in "abc" for k in range(40)], 20, "6 blocks of 20 consecutive frames."),
    ],
)
def test_what_intervals_mean_is_said(
    stems: list[str], block: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from unetpp_cli.jobs.evaluate import _explain

    _explain("val", stems, block)
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_worst_images_come_from_different_places() -> None:
    from unetpp_cli.jobs.scoring.evaluation_folder import _spread

    assert _spread([5, 4, 9, 1, 0, 2], [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]) == [5, 9, 1, 2]
