"""Stopping and resuming: the run that was interrupted ends as the one that was not."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, unetpp
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from unetpp_cli.errors import UserError
from unetpp_cli.network.header import read_header
from unetpp_cli.report.history import read_history
from unetpp_cli.training.state import Environment, State, load_state, save_state

LONG = [*TINY, "--epochs", "4", "--ema", "0.9", "--set", "val_every=2", "--set", "drop_last=false"]
"""Three steps an epoch: stops fall into the middle of epochs, and between them."""


def trained(*args: object) -> str:
    result = unetpp("train", *args)
    assert result.exit_code == 0, result.output
    return result.output


def rows(folder: Path) -> list[dict[str, str]]:
    """The history without what no two runs share: how long it took."""
    timed = ("seconds", "images_per_second")
    with (folder / "history.csv").open(encoding="utf-8") as stream:
        return [
            {key: value for key, value in row.items() if key not in timed} for row in csv.DictReader(stream)
        ]


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        file = f"weights/{name}.safetensors"
        assert (one / file).read_bytes() == (other / file).read_bytes(), name
    assert rows(one) == rows(other)
    left, right = (
        # `best.*` is there while it waits for its own file, which is a matter of time
        {name: value for name, value in load_file(run / "state.safetensors").items() if name[:5] != "best."}
        for run in (one, other)
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def whole(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    trained("--data", camvid, "--out", folder, *LONG)
    return folder


@pytest.mark.parametrize(
    "extra", [[], pytest.param(["--workers", "2", "--cache", "off"], marks=pytest.mark.slow)]
)
def test_in_slices_it_ends_as_the_whole(extra: list[str], whole: Path, camvid: Path) -> None:
    """A limit that has passed before the first step: every start makes one step, the least there can be."""
    output = trained("--data", camvid, "--out", "cut", "--time-limit", "0.001s", *LONG, *extra)
    assert "The time limit was reached in epoch 1 at step 1" in output
    assert "unetpp train --resume cut" in output
    assert not Path("cut/history.csv").exists()
    starts = 1
    while "Trained" not in output and "trained to its end" not in output:
        output = trained("--resume", "cut", "--time-limit", "0.001s")
        starts += 1
        assert starts < 30
    assert starts >= 12, "twelve steps, and a stop after each"
    assert_same_run(whole, Path("cut"))


def test_resume_last_takes_the_newest_run_and_says_where_it_stands(camvid: Path) -> None:
    for _ in range(2):
        trained("--data", camvid, "--time-limit", "0.001s", *LONG)
    output = trained("--resume", "last")
    assert "Resuming runs/camvid-quick-2: epoch 1, batch 2 of 3, step 1" in output
    assert "Trained 4 epochs" in output
    assert "Warning" not in output


def test_resume_auto_begins_or_goes_on(whole: Path, camvid: Path) -> None:
    again = ["--data", camvid, "--out", "slurm/run", "--resume", "auto", *LONG]
    assert "Resuming" not in trained(*again, "--time-limit", "0.001s")
    assert "Resuming slurm/run" in trained(*again)
    assert_same_run(whole, Path("slurm/run"))


def test_a_finished_run_says_so_and_can_be_made_longer(camvid: Path) -> None:
    trained("--data", camvid, "--out", "run", *TINY)
    before = Path("run/weights/last.safetensors").read_bytes()
    Path("run/weights/last.safetensors").unlink()  # as if killed between the state and what follows from it
    assert "trained to its end, 2 epochs" in trained("--resume", "run")
    assert Path("run/weights/last.safetensors").read_bytes() == before
    output = trained("--resume", "run", "--epochs", "3")
    assert "changed: epochs: 2 -> 3 (the new value wins)" in output
    assert [record.epoch for record in read_history("run/history.csv")] == [1, 2, 3]
    assert yaml.safe_load(Path("run/config.yaml").read_text("utf-8"))["epochs"] == 3


def test_history_is_cut_back_to_the_state(camvid: Path) -> None:
    """A kill after the history was written and before the next state: those epochs come again."""
    trained("--data", camvid, "--out", "run", *LONG, "--epochs", "1")
    early = Path("run/state.safetensors").read_bytes()
    trained("--resume", "run", "--epochs", "3")
    Path("run/state.safetensors").write_bytes(early)
    output = trained("--resume", "run", "--time-limit", "0.001s")
    assert "Resuming run: epoch 2" in output
    assert [record.epoch for record in read_history("run/history.csv")] == [1]


def test_another_batch_size_goes_on_at_the_same_sample(camvid: Path) -> None:
    trained("--data", camvid, "--out", "run", "--time-limit", "0.001s", *LONG)
    output = trained("--resume", "run", "--batch-size", "3", "--epochs", "1")
    assert "changed: batch_size: 2 -> 3" in output
    # 2 of the 5 images had been used: one more step makes the epoch whole.
    assert read_header("run/weights/last.safetensors")[0].metrics["steps"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--width", "8"], "width is 8, but the run in run has 4"),
        (["--depth", "3"], "depth is 3"),
        (["--optimizer", "sgd"], "optimizer is 'sgd'"),
        (["--out", "other"], "a resumed run stays in run"),
        (["--recipe", "camvid"], "began with 'quick'"),
        (["--init-from", "run"], "init_from is 'run'"),
    ],
)
def test_what_a_state_cannot_follow_is_refused(
    args: list[str], message: str, camvid: Path, whole: Path
) -> None:
    Path("run").symlink_to(whole)
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    result = unetpp("train", "--resume", "run", *args)
    assert result.exit_code == 2
    assert message in result.output
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("last", "no run under ./runs"),
        ("nowhere", "--resume nowhere: this is no folder"),
        (".", "has no state.safetensors"),
        ("auto", "--resume auto needs --out"),
    ],
)
def test_nothing_to_resume(wish: str, message: str) -> None:
    result = unetpp("train", "--resume", wish)
    assert result.exit_code == 2
    assert message in result.output


def test_a_damaged_state_is_named(camvid: Path) -> None:
    trained("--data", camvid, "--out", "run", *TINY, "--epochs", "1")
    state = Path("run/state.safetensors")
    state.write_bytes(state.read_bytes()[:-100])
    result = unetpp("train", "--resume", "run")
    assert result.exit_code == 2
    assert "run/state.safetensors is damaged" in result.output


def test_what_differs_from_the_first_start_is_said(camvid: Path) -> None:
    trained("--data", camvid, "--out", "run", "--time-limit", "0.001s", *LONG)
    state = load_state("run/state.safetensors")
    elsewhere = dataclasses.replace(state.environment, torch_version="2.11.0", threads=64)
    save_state("run/state.safetensors", dataclasses.replace(state, environment=elsewhere, data="other"))
    output = trained("--resume", "run")
    assert re.search(r"Not bit for bit .*torch_version: 2\.11\.0 -> \S+; threads: 64 -> 1", output)
    assert "their fingerprints differ" in output


def test_patience_ends_a_training(camvid: Path) -> None:
    """With a learning rate of nearly nothing only the norms' statistics still move, and soon they do not."""
    output = trained(
        "--data", camvid, "--out", "run", *TINY, "--epochs", "40", "--lr", "1e-12", "--patience", "2"
    )
    assert "Stopped early: no better val mIoU for 2 epochs" in output
    records = read_history("run/history.csv")
    best = max(records, key=lambda record: record.miou)
    assert len(records) == best.epoch + 2 < 40
    assert f"trained to its end, {len(records)} epochs" in trained("--resume", "run")
    assert "Trained 1 epochs" in trained("--resume", "run", "--patience", "3")


# --- the file


def a_state(**fields: object) -> State:
    defaults: dict[str, object] = {
        "epoch": 2,
        "samples": 4,
        "step": 5,
        "sums": {"loss": 0.1},
        "records": [],
        "best": None,
        "best_epoch": 0,
        "pixels": [1, 2],
        "data": "abc",
        "environment": Environment("2.13.0", "CPU", 2, 1, "fp32"),
        "seconds": 1.5,
        "numbers": {"optimizer": {"lr": [0.1]}},
        "tensors": {"network.w": torch.arange(6.0).reshape(2, 3)},
    }
    return State(**{**defaults, **fields})  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(
    loss=st.floats(allow_nan=False, allow_infinity=False),
    best=st.none() | st.floats(0, 1),
    seconds=st.floats(0, 1e9),
)
def test_a_state_reads_back_exactly(
    loss: float, best: float | None, seconds: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    state = a_state(sums={"loss": loss}, best=best, seconds=seconds)
    save_state(path, state)
    again = load_state(path)
    assert dataclasses.replace(again, tensors={}) == dataclasses.replace(state, tensors={})
    assert all(torch.equal(again.tensors[name], value) for name, value in state.tensors.items())


def test_a_state_that_diverged_never_replaces_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, a_state())
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"diverged: at step 6 values are not finite in network\.w"):
        save_state(path, a_state(step=6, tensors={"network.w": torch.tensor([1.0, float("nan")])}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


def test_stages_and_teachers_are_resumed_exactly(model: Path, camvid: Path) -> None:
    """Small samples first, a teacher, and a stop after each step."""
    more = [*LONG, "--progressive", "0.5:0.5", "--distill", "0.5", "--teacher", model, "--accumulate", "2"]
    trained("--data", camvid, "--out", "once", *more)
    output = trained("--data", camvid, "--out", "cut", "--time-limit", "0.001s", *more)
    while "Trained" not in output and "trained to its end" not in output:
        output = trained("--resume", "cut", "--time-limit", "0.001s")
        assert "teacher is not" not in output
    assert_same_run(Path("once"), Path("cut"))
    plain = [*LONG, "--distill", "0.5", "--teacher", model, "--accumulate", "2"]
    trained("--data", camvid, "--out", "full", *plain)
    assert rows(Path("full"))[0] != rows(Path("once"))[0]


def test_another_teacher_and_other_stages_are_told(model: Path, run: Path, camvid: Path) -> None:
    Path("t.safetensors").write_bytes(model.read_bytes())
    options = ["--distill", "0.5", "--teacher", "t.safetensors", "--progressive", "0.5:0.5"]
    trained("--data", camvid, "--out", "mine", *LONG, *options, "--time-limit", "0.001s")
    Path("t.safetensors").write_bytes((run / "weights/epoch-0001.safetensors").read_bytes())
    output = trained("--resume", "mine", "--epochs", "8")
    assert "The teacher is not the one that the run began with" in output
    assert "samples are at full size from epoch 5 on, not 3" in output
    Path("t.safetensors").unlink()
    result = unetpp("train", "--resume", "mine", "--epochs", "9")
    assert result.exit_code == 2
    assert "--teacher t.safetensors" in result.output


def test_patience_waits_for_scores_at_full_size(camvid: Path) -> None:
    options = [*TINY, "--epochs", "60", "--lr", "1e-12", "--patience", "2", "--set", "val_every=2"]
    trained("--data", camvid, "--out", "plain", *options)
    trained("--data", camvid, "--out", "small", *options, "--progressive", "0.5:0.6")
    plain, small = (len(read_history(f"{name}/history.csv")) for name in ("plain", "small"))
    assert plain < 36 < small < 60
    assert plain % 2 == small % 2 == 0  # judged where there is a new score


def test_auto_takes_over_a_start_that_was_killed_before_its_first_state(camvid: Path) -> None:
    trained("--data", camvid, "--out", "run", "--resume", "auto", *LONG, "--time-limit", "0.001s")
    for name in ("state.safetensors", "weights", "samples"):  # as after a kill while the pictures were drawn
        for path in sorted(Path("run").glob(f"{name}*"), reverse=True):
            for inner in path.iterdir() if path.is_dir() else ():
                inner.unlink()
            path.rmdir() if path.is_dir() else path.unlink()
    assert Path("run/config.yaml").exists()
    refused = unetpp("train", "--data", camvid, "--out", "run", *LONG)
    assert refused.exit_code == 2
    assert "exists already" in refused.output
    output = trained("--data", camvid, "--out", "run", "--resume", "auto", *LONG)
    assert "Trained 4 epochs" in output
    Path("other").mkdir()
    Path("other/thesis.txt").write_text("mine", encoding="utf-8")
    refused = unetpp("train", "--data", camvid, "--out", "other", "--resume", "auto", *LONG)
    assert refused.exit_code == 2
    assert Path("other/thesis.txt").read_text(encoding="utf-8") == "mine"
