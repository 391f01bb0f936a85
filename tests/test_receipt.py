"""run.json: what a run was made with, start by start, whatever ended each of them."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import PIL
import pytest
import safetensors
import torch

import unetpp_cli
from unetpp_cli.errors import UserError
from unetpp_cli.report import receipt
from unetpp_cli.report.receipt import Receipt

FIRST = ["train", "--data", "demo"]
AGAIN = ["train", "--resume", "last"]
DATA = {"layout": "segnet", "train": 367, "fingerprint": "abc"}


class Clock:
    """A clock that stands until it is told to move."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def opened(folder: Path, clock: Clock | None = None, arguments: list[str] = FIRST) -> Receipt:
    return Receipt.open(folder, arguments=arguments, recipe="quick", data=DATA, clock=clock or Clock())


def begun(folder: Path, step: int = 0, clock: Clock | None = None, arguments: list[str] = FIRST) -> Receipt:
    each = opened(folder, clock, arguments)
    each.begin(arguments=arguments, step=step, precision="fp32", device="GPU 0 (NVIDIA H200)", threads=2)
    return each


def facts(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
    return read


def test_a_start_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    clock = Clock()
    run = begun(tmp_path, clock=clock)
    assert run.warning == ""
    assert facts(tmp_path)["starts"][0]["ending"] == "running"
    clock.now += 40
    run.update(step=45, epochs=1, images=360, train=30.0, validation=6.5)
    clock.now += 40
    run.update(step=90, epochs=1, images=360, train=18.0, validation=6.5, drawing=0.25)
    clock.now += 2.5
    run.end("finished")

    found = facts(tmp_path)
    assert list(found) == ["command", "recipe", "data", "starts", "timings"]
    assert found["command"] == ["unetpp", *FIRST]
    assert (found["recipe"], found["data"]) == ("quick", DATA)
    assert found["timings"] == {"seconds": 82.5, "train": 48.0, "validation": 13.0, "drawing": 0.25}
    (start,) = found["starts"]
    began, ended = (datetime.fromisoformat(start.pop(name)) for name in ("began", "ended"))
    assert began.utcoffset() == ended.utcoffset() == timedelta(0)
    assert began <= ended
    assert start.pop("versions") == receipt.versions()
    assert start.pop("hardware") == receipt.hardware("GPU 0 (NVIDIA H200)")
    assert start == {
        "ending": "finished",
        "command": ["unetpp", *FIRST],
        "from_step": 0,
        "to_step": 90,
        "epochs": 2,
        "seconds": 82.5,
        "images_per_second": 15.0,  # 720 images in 48 seconds
        "timings": {"train": 48.0, "validation": 13.0, "drawing": 0.25},
        "precision": "fp32",
        "world_size": 1,
        "threads": 2,
    }


def test_a_resumed_run_has_another_start(tmp_path: Path) -> None:
    clock = Clock()
    run = begun(tmp_path, clock=clock)
    clock.now += 40
    run.update(step=45, epochs=1, images=360, train=30.0)
    run.end("time limit")
    run = begun(tmp_path, step=45, clock=clock, arguments=AGAIN)
    clock.now += 10
    run.update(step=60, images=120, train=8.0, validation=1.0)
    run.end("finished")
    found = facts(tmp_path)
    assert found["command"] == ["unetpp", *FIRST]
    assert [start["command"][1:] for start in found["starts"]] == [FIRST, AGAIN]
    assert [start["ending"] for start in found["starts"]] == ["time limit", "finished"]
    assert [(start["from_step"], start["to_step"]) for start in found["starts"]] == [(0, 45), (45, 60)]
    assert [start["images_per_second"] for start in found["starts"]] == [12.0, 15.0]
    assert found["timings"] == {"seconds": 50.0, "train": 38.0, "validation": 1.0}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9")
def test_a_start_that_was_killed_says_so(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from unetpp_cli.report.receipt import Receipt\n"
        "run = Receipt.open('.', arguments=['train'], recipe='quick', data={})\n"
        "run.begin(arguments=['train'], step=0, precision='fp32', device='CPU')\n"
        "run.update(step=7, images=56, train=4.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(unetpp_cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert facts(tmp_path)["starts"][0]["ending"] == "running"
    begun(tmp_path, step=7).end("finished")
    first, second = facts(tmp_path)["starts"]
    assert (first["ending"], first["ended"], first["to_step"]) == ("killed", None, 7)
    assert second["ending"] == "finished"


DAMAGED = ["", "{", "[]", "3", '{"starts": 3}', '{"starts": [{}]}', '{"starts": [[]]}', "\udcff"]
DAMAGED += ['{"starts": [{"seconds": "x", "timings": {}, "ending": ""}]}', '{"starts": []}']


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_does_not_lose_the_run(tmp_path: Path, text: str) -> None:
    damage = text.encode("utf-8", "surrogateescape")
    (tmp_path / "run.json").write_bytes(damage)
    run = begun(tmp_path, step=45)
    assert str(tmp_path / "run.json") in run.warning
    assert "run.json.damaged" in run.warning
    assert "\n" not in run.warning
    run.end("finished")
    assert [start["from_step"] for start in facts(tmp_path)["starts"]] == [45]
    assert (tmp_path / "run.json.damaged").read_bytes() == damage


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        begun(tmp_path / "file")


def test_versions_are_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert receipt.versions() == {
        "python": platform.python_version(),
        "unetpp": unetpp_cli.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "albumentations": albumentations.__version__,
        "safetensors": safetensors.__version__,
        "pillow": PIL.__version__,
    }
    monkeypatch.setattr(receipt, "_PACKAGES", ("there-is-no-such-package",))
    assert receipt.versions()["there-is-no-such-package"] is None


def test_hardware() -> None:
    found = receipt.hardware("CPU (2 threads)")
    assert list(found) == ["device", "cpu", "cores", "memory_gib", "platform"]
    assert found["device"] == "CPU (2 threads)"
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    information = Path("/proc/cpuinfo")
    if information.is_file() and "model name" in information.read_text():
        assert f": {found['cpu']}\n" in information.read_text()
    memory = Path("/proc/meminfo")
    if memory.is_file():
        kilobytes = int(memory.read_text().split()[1])  # the first line: MemTotal: N kB
        assert found["memory_gib"] == pytest.approx(kilobytes / 2**20, abs=0.1)


def test_it_names_no_place(tmp_path: Path) -> None:
    begun(tmp_path).end("finished")
    text = (tmp_path / "run.json").read_text("utf-8")
    for secret in (
        str(tmp_path),
        str(Path.home()),
        str(Path.cwd()),
        sys.prefix,
        platform.node() or "no name",
    ):
        assert json.dumps(secret)[1:-1] not in text
