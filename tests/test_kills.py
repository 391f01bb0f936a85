"""Real processes, ended in every way at any moment: run with `pytest -m slow`."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY
from test_resume import assert_same_run

from unetpp_cli.network.weights import load_model
from unetpp_cli.report.history import read_history

pytestmark = pytest.mark.slow

LONG = [*TINY, "--epochs", "30", "--ema", "0.9", "--set", "val_every=3", "--set", "drop_last=false"]
OFTEN = ["--set", "save_minutes=0.0001"]  # a state after every step


# Sums are then alike in all processes; and two threads on a busy machine mostly wait for each other.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*args: object, launcher: tuple[str, ...] = (), **variables: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "unetpp_cli", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ONE_THREAD, **{name: str(value) for name, value in variables.items()}},
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start("train", "--data", camvid, "--out", folder, *LONG))
    return folder


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(seed: int, whole: Path, camvid: Path) -> None:
    """kill -9 while it starts, steps, validates, draws or writes; with other workers every time."""
    draw = random.Random(seed)
    state = Path("run/state.safetensors")
    process = start("train", "--data", camvid, "--out", "run", *LONG, *OFTEN)
    kills = 0
    for workers in (0, 2, 0, 2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        wait_for(lambda before=before: state.exists() and state.stat().st_mtime_ns != before, process)  # type: ignore[misc]
        time.sleep(draw.uniform(0, 1))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        process = start("train", "--resume", "run", "--workers", workers)
    finish(process)
    assert kills >= 2, "it was too fast for this test: more epochs are needed"
    assert_same_run(whole, Path("run"))
    assert not list(Path("run").rglob(".partial*")), "nothing half-written is left behind"
    endings = [entry["ending"] for entry in json.loads(Path("run/run.json").read_text("utf-8"))["starts"]]
    assert endings.count("killed") == kills
    assert endings[-1] == "finished"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_well(number: signal.Signals, code: int, whole: Path, camvid: Path) -> None:
    process = start("train", "--data", camvid, "--out", "run", *LONG)
    wait_for(Path("run/history.csv").exists, process)
    process.send_signal(number)
    output = finish(process, code)
    assert "the state is saved" in output
    assert "unetpp train --resume run" in output
    assert load_model("run/weights/last.safetensors").header.metrics["steps"] > 0
    assert "Resuming run: epoch" in finish(start("train", "--resume", "run"))
    assert_same_run(whole, Path("run"))


def test_a_second_signal_ends_it_at_once(camvid: Path) -> None:
    process = start("train", "--data", camvid, "--out", "run", *TINY, "--epochs", "10000")
    wait_for(Path("run/history.csv").exists, process)
    os.kill(process.pid, signal.SIGSTOP)  # both signals wait together, however slow this test is
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    os.kill(process.pid, signal.SIGCONT)
    assert "the state is saved" not in finish(process, 130)


def test_a_run_is_trained_by_one_process_at_a_time(camvid: Path) -> None:
    process = start("train", "--data", camvid, "--out", "run", *TINY, "--epochs", "10000")
    wait_for(Path("run/history.csv").exists, process)
    assert "run is being trained by another process" in finish(start("train", "--resume", "run"), 2)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert "Resuming run" in finish(start("train", "--resume", "run", "--time-limit", "0.001s"))


def test_decoded_pictures_of_a_killed_training_are_removed(camvid: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = start("train", "--data", camvid, "--out", "run", *TINY, "--epochs", "10000", TMPDIR=temporary)
    wait_for(Path("run/history.csv").exists, process)
    process.kill()
    process.communicate()
    assert len(list(temporary.glob("unetpp-cache-*"))) == 1
    finish(start("train", "--resume", "run", "--time-limit", "0.001s", TMPDIR=temporary))
    assert not list(temporary.glob("unetpp-cache-*"))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that train: the launcher also has a resource tracker."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, command in commands.items() if b"spawn_main" in command]


@pytest.fixture(scope="module")
def pair(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two processes that nobody interrupted."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    finish(start("train", "--data", camvid, "--out", folder, *LONG, "--gpus", "cpu,cpu"))
    return folder


def test_a_process_that_dies_is_replaced(pair: Path, camvid: Path) -> None:
    args = ["train", "--data", camvid, "--out", "run", *LONG, *OFTEN]
    process = start(*args, "--gpus", "cpu,cpu", "--max-restarts", "2")
    wait_for(Path("run/history.csv").exists, process)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    assert "Resuming run: epoch" in finish(process)
    assert_same_run(pair, Path("run"))


def test_without_restarts_left_it_fails_and_can_be_resumed(pair: Path, camvid: Path) -> None:
    process = start("train", "--data", camvid, "--out", "run", *LONG, *OFTEN, "--gpus", "cpu,cpu")
    wait_for(Path("run/history.csv").exists, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "A training process was ended by signal 9" in output
    assert "unetpp train --resume run" in output
    assert "Traceback" not in output
    finish(start("train", "--resume", "run", "--gpus", "cpu,cpu"))
    assert_same_run(pair, Path("run"))


def test_ctrl_c_reaches_all_processes(pair: Path, camvid: Path) -> None:
    """A terminal sends its signal to the launcher and to what it has started."""
    process = start("train", "--data", camvid, "--out", "run", *LONG, "--gpus", "cpu,cpu")
    wait_for(Path("run/history.csv").exists, process)
    for pid in [*children(process.pid), process.pid]:
        os.kill(pid, signal.SIGINT)
    assert "the state is saved" in finish(process, 130)
    finish(start("train", "--resume", "run", "--gpus", "cpu,cpu"))
    assert_same_run(pair, Path("run"))


def test_torchrun_on_two_machines_is_the_same(pair: Path, camvid: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    nodes = [
        start("train", "--data", camvid, "--out", "run", *LONG, launcher=(*launch, "--node-rank", str(rank)))
        for rank in range(2)
    ]
    outputs = [finish(node) for node in nodes]
    assert sum("Trained 30 epochs" in output for output in outputs) == 1
    assert_same_run(pair, Path("run"))


def test_two_processes_learn_as_well_as_one() -> None:
    """Two epochs of the demo. Not the same net: each process has its own BatchNorm statistics."""
    finish(start("demo", "scenes"))
    best = []
    for name, gpus in (("one", "cpu"), ("two", "cpu,cpu")):
        args = ["train", "--data", "scenes", "--recipe", "quick", "--epochs", "2", "--precision", "fp32"]
        finish(start(*args, "--gpus", gpus, "--out", name))
        best.append(max(record.miou for record in read_history(f"{name}/history.csv")))
    assert min(best) > 0.15
    assert abs(best[0] - best[1]) < 0.08


def test_out_of_memory_says_what_fits(camvid: Path) -> None:
    """The address space is limited, so that allocations fail here as they do on a GPU."""
    args = ["train", "--data", str(camvid), *TINY, "--width", "8", "--depth", "3", "--epochs", "1"]
    args += ["--set", "augment=[{Resize: {height: 256, width: 256, p: 1}}]"]
    code = f"""
import json, resource
from pathlib import Path
from typer.testing import CliRunner
from unetpp_cli.cli import app

def train(*more):
    result = CliRunner().invoke(app, [*{args!r}, *more])
    return [result.exit_code, result.output]

told = [train("--batch-size", "1")]  # loads all code and starts all threads, which need memory, too
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
told += [train("--batch-size", "5"), train("--batch-size", "1"), train("--batch-size", "auto")]
print(json.dumps(told))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    before, five, one, auto = json.loads(done.stdout)
    assert (before[0], five[0], one[0], auto[0]) == (0, 2, 0, 0), done.stdout
    assert "Out of memory with --batch-size 5." in five[1]
    assert "The largest that fits is 1: --batch-size 1 (--accumulate 5 keeps" in five[1]
    assert "Batch size: 1 is the largest that fits" in auto[1], "an eighth of five images"
