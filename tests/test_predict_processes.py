"""Predict in several processes that share the pictures, and under signals: run with `pytest -m slow`."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import layouts
import pytest
from PIL import Image
from test_kills import children, finish, start, wait_for
from test_predict import PICTURES, encoded, pixels, tree, weights

from unetpp_cli.masks import read_mask

__all__ = ["weights"]

pytestmark = pytest.mark.slow

MANY = {f"{number % 3}/{number:03}.png": encoded(Image.fromarray(pixels(number))) for number in range(23)}
FORMATS = ["--format", "palette,overlay,probs", "--confidence"]
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1")


def launched(how: str) -> tuple[tuple[str, ...], list[str]]:
    """What starts two processes: torchrun, or `--gpus`."""
    if how == "gpus":
        return (), ["--gpus", "cpu,cpu"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return (*TORCHRUN, "--master-port", str(port)), []


@pytest.mark.parametrize("how", ["gpus", "torchrun"])
def test_two_processes_do_each_picture_once(how: str, weights: Path, tmp_path: Path) -> None:
    layouts.to_folder(MANY, tmp_path / "in")
    alone = finish(start("predict", "in", "-o", "one", "-m", weights, *FORMATS))
    launcher, gpus = launched(how)
    shared = finish(start("predict", "in", "-o", "two", "-m", weights, *FORMATS, *gpus, launcher=launcher))
    for output, folder in ((alone, "one"), (shared, "two")):
        assert output.count("Model: ") == 1
        assert (
            output.count(f"{len(MANY)} masks in {folder}/ (") == 1
        )  # a picture done twice would count twice
    assert "23 images on 2 processes" in shared
    assert len(tree("one")) == 5 * len(MANY)
    assert tree("one") == tree("two")
    for name in tree("one"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


@pytest.mark.parametrize("how", ["gpus", "torchrun"])
def test_a_broken_picture_fails_all_when_all_is_done(how: str, weights: Path, tmp_path: Path) -> None:
    """It is the only work of its process, which must wait for the other one, whom its end would end."""
    files = {**MANY, "0/000a.png": b"broken"}
    layouts.to_folder(files, tmp_path / "in")
    launcher, gpus = launched(how)
    args = ["predict", "in", "-o", "out", "-m", weights, *gpus]
    output = finish(start(*args, launcher=launcher), 1)
    assert tree("out") == set(MANY)
    assert output.count("1 of 24 images could not be read: in/0/000a.png") == 1
    assert output.count("23 masks in out/ (") == 1
    output = finish(start(*args, "--skip-existing", launcher=launcher), 1)
    assert output.count("23 images skipped") == 1
    assert "masks in" not in output


def test_an_error_in_one_process_ends_both_and_is_told_once(weights: Path, tmp_path: Path) -> None:
    layouts.to_folder({**MANY, "0/000a.png": b"broken"}, tmp_path / "in")
    args = ["predict", "in", "-o", "out", "-m", weights, "--gpus", "cpu,cpu"]
    output = finish(start(*args, "--strict"), 2)
    assert output.count("Error:") == 1
    assert "000a.png" in output
    done = len(tree("out")) if Path("out").exists() else 0
    assert (f"{done} mask" in output) == (done > 0), "those of the process that failed are counted, too"
    assert not list(Path().rglob(".partial*"))
    for name in ("twice.png", "twice.jpg", "twice.jpg.png"):  # what all meet is told once, too
        (tmp_path / "in/0" / name).write_bytes(PICTURES["a.png"])
    output = finish(start(*args), 2)
    assert output.count("would both write") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("gpus", ["cpu", "cpu,cpu"])
def test_a_signal_leaves_whole_files(
    gpus: str, number: signal.Signals, code: int, weights: Path, tmp_path: Path
) -> None:
    names = [f"{number:04}.png" for number in range(2000)]
    layouts.to_folder({"in/0000.png": encoded(Image.fromarray(pixels(0, 96, 128)))}, tmp_path)
    for name in names[1:]:
        os.link("in/0000.png", f"in/{name}")
    args = ["predict", "in", "-o", "out", "-m", weights, "--gpus", gpus, "--format", "palette,probs"]
    process = start(*args)
    wait_for(lambda: len(tree("out")) > 20 if Path("out").exists() else False, process)
    for pid in [process.pid, *(children(process.pid) if "," in gpus else [])]:  # as a terminal does
        os.kill(pid, number)
    output = finish(process, code)
    assert output.count("Interrupted after ") == 1
    assert ("after at least " in output) == ("," in gpus), "the others' are not known"
    assert "Traceback" not in output
    done = tree("out")
    assert 20 < len(done) < 2 * len(names), "it was too fast for this test: more pictures are needed"
    assert not [name for name in done if name.startswith(".")]
    shapes = {read_mask(f"out/{name}")[0].shape for name in done if name.endswith(".png")}
    assert shapes == {(96, 128)}
