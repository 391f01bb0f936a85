"""`unetpp train` and its options, through the command line: what each changes in the run it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import pytest
import torch
from conftest import TINY, unetpp
from PIL import Image
from safetensors.torch import load_file

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.network.header import read_header
from unetpp_cli.report.history import read_history
from unetpp_cli.training.losses import LOSSES

LAST = Path("run/weights/last.safetensors")


def trained(*args: object) -> str:
    result = unetpp("train", "--out", "run", *TINY, "--epochs", "1", *args)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss: str, camvid: Path) -> None:
    weights = "none" if loss == "lovasz" else "enet"
    trained("--data", camvid, "--loss", loss, "--class-weights", weights)
    (record,) = read_history("run/history.csv")
    assert set(record.train_heads) == {1, 2}
    assert 0 < record.train_loss < 10
    assert read_header(LAST)[0].recipe["loss"] == loss


@pytest.mark.parametrize(
    "args",
    [
        ["--accumulate", "2"],
        ["--clip", "0.01"],
        ["--label-smoothing", "0.2"],
        ["--head-weights", "1,5"],
        ["--set", "weight_decay=0.5"],
        ["--schedule", "one-cycle"],
        ["--optimizer", "sgd", "--set", "nesterov=true"],
    ],
)
def test_every_option_of_the_optimisation_reaches_it(args: list[str], camvid: Path, run: Path) -> None:
    """`run` was trained without it, for two epochs: the first one's record would be the same."""
    trained("--data", camvid, *args)
    (here,), (there, _) = read_history("run/history.csv"), read_history(run / "history.csv")
    assert here.val != there.val or here.lr != there.lr


def test_the_preference_of_class_weights_can_be_left_to_the_training(camvid: Path) -> None:
    losses = {}
    for share in ("0", "1"):
        trained(
            "--data", camvid, "--class-weights", "enet", "--set", f"logit_adjustment={share}", "--out", share
        )
        losses[share] = read_history(f"{share}/history.csv")[0].train_loss
    assert losses["0"] != losses["1"]


def test_deterministic_costs_nothing_on_a_cpu(camvid: Path, tmp_path: Path) -> None:
    trained("--data", camvid, "--deterministic")
    first = load_file(LAST)
    try:
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert unetpp("train", "--data", camvid, "--out", "again", *TINY, "--epochs", "1").exit_code == 0
    again = load_file("again/weights/last.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_init_from_takes_over_what_fits(run: Path, tmp_path: Path) -> None:
    """From 11 classes to 32: the network goes over, and of the heads the classes of the same name."""
    files, _ = layouts.original()
    data = layouts.to_folder(files, tmp_path / "data")
    output = trained("--data", data, "--init-from", run, "--lr", "1e-12", "--set", "ema=0")
    assert f"Starts from {run}/weights/best.safetensors" in output
    assert "heads, by the classes' names: " in output
    assert "fresh: " in output
    source, here = load_file(run / "weights/best.safetensors"), load_file(LAST)
    torch.testing.assert_close(here["nodes.0.0.conv1.weight"], source["nodes.0.0.conv1.weight"])
    sky = read_header(LAST)[0].classes.names.index("Sky"), CAMVID11.names.index("Sky")
    torch.testing.assert_close(here["head.2.conv.weight"][sky[0]], source["head.2.conv.weight"][sky[1]])


def test_init_from_another_width_is_refused(run: Path, camvid: Path) -> None:
    result = unetpp("train", "--data", camvid, *TINY, "--width", "8", "--init-from", run)
    assert result.exit_code == 2
    assert "its width is 4, here it is 8" in result.output
    assert not Path("runs").exists()


def test_batch_size_auto_is_written_down(camvid: Path) -> None:
    output = trained("--data", camvid, "--batch-size", "auto")
    assert "Batch size: 1 is the largest that fits" in output, "an eighth of five images"
    assert "batch_size: 1\n" in Path("run/config.yaml").read_text("utf-8")


def test_a_preview_trains_nothing(camvid: Path) -> None:
    crop = "augment=[{RandomCrop: {height: 24, width: 32}}, {HorizontalFlip: {p: 0.5}}]"
    result = unetpp("train", "--data", camvid, *TINY, "--set", crop, "--preview", "sheet.png")
    assert result.exit_code == 0, result.output
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 1000
    assert {path.name for path in Path().iterdir()} == {"sheet.png"}


def test_a_training_that_diverges_names_step_and_images_and_keeps_the_last_good_state(camvid: Path) -> None:
    """A learning rate of 1e30: after a step or two nothing is finite any more."""
    result = unetpp("train", "--data", camvid, "--out", "run", *TINY, "--epochs", "9", "--lr", "1e30")
    assert result.exit_code == 2
    assert "at step" in result.output
    assert "0001TP_" in result.output or "diverged" in result.output
    assert "Traceback" not in result.output
    state = load_file("run/state.safetensors")
    assert all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())
    ending = json.loads(Path("run/run.json").read_text("utf-8"))["starts"][-1]["ending"]
    assert ending.startswith("error: The")


def test_run_json_tells_how_it_was_made(camvid: Path) -> None:
    trained("--data", camvid)
    told = json.loads(Path("run/run.json").read_text("utf-8"))
    assert told["recipe"] == "quick"
    assert told["data"]["fingerprint"] == read_header(LAST)[0].data["fingerprint"]
    (start,) = told["starts"]
    assert start["ending"] == "finished"
    assert start["to_step"] == 2
    assert start["versions"]["torch"] == torch.__version__
    assert set(start["timings"]) == {"train", "validation", "writing"}


def test_history_jsonl_names_the_classes(camvid: Path) -> None:
    trained("--data", camvid)
    (line,) = Path("run/history.jsonl").read_text("utf-8").splitlines()
    (record,) = read_history("run/history.csv")
    val = json.loads(line)["val"]["2"]
    assert val["miou"] == record.val[2].miou
    assert set(val["iou"]) == set(CAMVID11.names)


def test_tensorboard_is_an_extra(camvid: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        result = unetpp("train", "--data", camvid, *TINY, "--tensorboard")
        assert result.exit_code == 2
        assert "pip install 'unetpp[tensorboard]'" in result.output
    else:
        trained("--data", camvid, "--tensorboard")
        assert list(Path("run/tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--time-limit", "soon"], "time_limit cannot be 'soon'"),
        (["--compile", "--deterministic"], "compile and deterministic exclude each other"),
        (["--precision", "fp16"], "--precision fp16 is for GPUs"),
        (["--precision", "tf32"], "--precision tf32: this hardware has no TF32"),
        (["--loss", "lovasz"], "class_weights has no meaning"),
        (["--loss", "hinge"], "loss cannot be 'hinge'"),
        (["--batch-size", "many"], "batch_size must be a whole number"),
        (["--patience", "-1"], "patience is -1"),
        (["--init-from", "nowhere"], "there is no such weights file"),
        (["--gpus", "cpu,0"], "no choice of GPUs"),
    ],
)
def test_refusals(args: list[str], message: str, camvid: Path) -> None:
    result = unetpp("train", "--data", camvid, *TINY, *args)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not Path("runs").exists(), "nothing is begun"
