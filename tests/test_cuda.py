"""What only a CUDA GPU can show; skipped without one. `pytest tests/test_cuda.py` where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, unetpp
from test_resume import assert_same_run

from unetpp_cli.network.header import read_header
from unetpp_cli.report.history import read_history

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU = [*TINY, "--epochs", "4", "--gpus", "0", "--set", "drop_last=false"]


def trained(*args: object) -> str:
    result = unetpp("train", *args)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("loss", ["ce", "ce+dice", "focal", "ce+lovasz", "ohem"])
def test_deterministic_slices_end_as_the_whole(loss: str, precision: str, camvid: Path) -> None:
    args = [
        "--data",
        camvid,
        *GPU,
        "--deterministic",
        "--precision",
        precision,
        "--loss",
        loss,
        "--ema",
        "0.9",
    ]
    trained(*args, "--out", "whole")
    output = trained(*args, "--out", "cut", "--time-limit", "0.001s")
    while "Trained" not in output and "trained to its end" not in output:
        output = trained("--resume", "cut", "--time-limit", "0.001s")
    assert_same_run(Path("whole"), Path("cut"))


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--compile"],
        ["--precision", "fp16"],
        ["--batch-size", "auto"],
        ["--distill", "0.5"],
        ["--progressive", "0.5:0.5"],
    ],
)
def test_it_trains_on_the_gpu(extra: list[str], camvid: Path) -> None:
    trained("--data", camvid, *GPU, *extra, "--out", "run")
    records = read_history("run/history.csv")
    assert records[-1].train_loss < records[0].train_loss
    start = json.loads(Path("run/run.json").read_text("utf-8"))["starts"][0]
    assert torch.cuda.get_device_name(0) in start["hardware"]["device"]


def test_a_teacher_on_the_gpu_teaches_as_on_the_cpu(camvid: Path, model: Path) -> None:
    for name, gpus in (("cpu", "cpu"), ("gpu", "0")):
        trained(
            *("--data", camvid, *GPU, "--gpus", gpus, "--precision", "fp32", "--epochs", "1", "--out", name),
            *("--distill", "0.5", "--teacher", model, "--batch-size", "auto" if gpus == "0" else "2"),
        )
    (one,), (other,) = (read_history(f"{name}/history.csv") for name in ("cpu", "gpu"))
    assert one.train_heads.keys() == other.train_heads.keys()


def test_the_gpu_learns_what_the_cpu_learns(camvid: Path) -> None:
    """The first epoch of the same training, in fp32 on both."""
    for name, gpus in (("cpu", "cpu"), ("gpu", "0")):
        trained("--data", camvid, *GPU, "--epochs", "1", "--gpus", gpus, "--out", name)
    losses = [read_history(f"{name}/history.csv")[0].train_loss for name in ("cpu", "gpu")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert read_header("gpu/weights/last.safetensors")[0].metrics["steps"] == 3


def test_out_of_memory_says_what_fits(camvid: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        size = [
            "--set",
            "augment=[{Resize: {height: 1024, width: 1024, p: 1}}]",
            "--width",
            "64",
            "--depth",
            "4",
        ]
        result = unetpp("train", "--data", camvid, *GPU, *size, "--batch-size", "5", "--out", "run")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.exit_code == 2
    assert "Out of memory with --batch-size 5" in result.output
