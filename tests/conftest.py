"""A small data set in SegNet's layout and a short run on it, made once and shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import layouts
import pytest
import torch
from typer.testing import CliRunner, Result

# A run takes seconds: two levels, four channels, no augmentation.
TINY = ["--recipe", "quick", "--epochs", "2", "--width", "4", "--depth", "2", "--batch-size", "2"]
TINY += ["--size", "48", "--set", "augment=[]", "--set", "warmup_epochs=0", "--gpus", "cpu"]
# Not auto: then scores would differ between processors with and without bf16.
TINY += ["--precision", "fp32"]


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts in an empty folder of its own, without the environment's model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNETPP_MODEL", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def unetpp(*args: object) -> Result:
    """Runs the command line in this process."""
    from unetpp_cli.cli import app

    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="unetpp")


def exported(*args: object) -> str:
    """What `unetpp export` says when all goes well."""
    result = unetpp("export", *args)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in SegNet's layout: 5 train, 2 val, 3 test frames of 64x48."""
    return layouts.to_folder(layouts.segnet()[0], tmp_path_factory.mktemp("data")) / "CamVid"


@pytest.fixture(scope="session")
def run(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on `camvid`."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    before = Path.cwd()
    os.chdir(folder.parent)
    try:
        result = unetpp("train", "--data", camvid, "--out", folder, "--save-every", 1, *TINY)
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def model(run: Path) -> Path:
    """The best weights of `run`."""
    return run / "weights" / "best.safetensors"
