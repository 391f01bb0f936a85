"""Whole trainings and real signals: run with `pytest -m slow`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import layouts
import pytest
from conftest import TINY, unetpp

from unetpp_cli.network.header import read_header
from unetpp_cli.report.history import read_history

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def command(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own, as a user does."""
    line = [sys.executable, "-m", "unetpp_cli", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_the_readme_from_its_first_command_on(tmp_path: Path) -> None:
    """The demo is learnt, scored, cut and painted with the very commands that the README shows."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ".venv/bin/unetpp train --data demo" in readme
    shown = re.findall(
        r"^unetpp ([a-z].*?)(?:\s+#.*)?$", readme.split("After the first one")[1], re.MULTILINE
    )
    done = command("train", "--data", "demo")
    assert done.returncode == 0, done.stderr
    records = read_history("runs/demo-quick/history.csv")
    losses = [record.train_loss for record in records]
    assert losses[-1] < 0.5 * losses[0]
    for args in shown[:4]:
        done = command(*args.split())
        assert done.returncode == 0, (args, done.stderr)
    report = json.loads(command("eval", "--data", "demo", "--split", "val", "--json").stdout)
    assert report["depths"]["4"]["miou"] > 0.6
    (small,) = Path("runs/demo-quick/weights").glob("best-L*.safetensors")
    cut = json.loads(command("eval", small, "--data", "demo", "--split", "val", "--json").stdout)
    assert 1 <= len(cut["depths"]) < 4
    assert report["depths"]["4"]["miou"] - max(row["miou"] for row in cut["depths"].values()) <= 0.03
    for depth, row in cut["depths"].items():
        assert row["iou"] == report["depths"][depth]["iou"]
    assert Path("mask.png").exists()


def test_two_runs_at_once_take_two_folders(camvid: Path) -> None:
    args = [sys.executable, "-m", "unetpp_cli", "train", "--data", str(camvid), *TINY]
    both = [subprocess.Popen(args, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    weights = [folder / "weights/last.safetensors" for folder in sorted(Path("runs").iterdir())]
    assert len(weights) == 2
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("archive", ["folder", "zip"])
def test_spawned_workers_read_what_forked_ones_do(archive: str, tmp_path: Path) -> None:
    """Processes that share no memory with the one that opened the data (macOS and Windows have no others)."""
    files, expected = layouts.segnet()
    write = {"folder": layouts.to_folder, "zip": layouts.to_zip}[archive]
    path = write(files, tmp_path / f"camvid.{archive}")
    code = (
        "import multiprocessing, sys\n"
        "from unetpp_cli import open_dataset\n"
        "def read(pair):\n"
        "    return data.read_mask(pair).tobytes(), data.read_image(pair).tobytes()\n"
        "data = None\n"
        "def start(given):\n"
        "    global data\n"
        "    data = given\n"
        "if __name__ == '__main__':\n"
        "    opened = open_dataset(sys.argv[1])\n"
        "    pairs = opened.splits['train']\n"
        "    start(opened)\n"
        "    here = [read(pair) for pair in pairs]\n"
        "    with multiprocessing.get_context('spawn').Pool(2, start, (opened,)) as pool:\n"
        "        assert pool.map(read, pairs) == here\n"
        "    print('EQUAL', len(here))\n"
    )
    (tmp_path / "spawn.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "spawn.py", str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == f"EQUAL {len(expected.splits['train'])}", done.stderr


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(example: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_check_exits_with_2_on_bad_data(tmp_path: Path) -> None:
    files, _ = layouts.segnet()
    name = next(name for name in files if "/trainannot/" in name)
    del files[name]
    data = layouts.to_folder(files, tmp_path / "data")
    result = unetpp("check", data)
    assert result.exit_code == 2
    assert Path(name).stem in result.output


def test_the_script_for_a_gpu_trains_scores_and_packs(camvid: Path, tmp_path: Path) -> None:
    """Tiny, on the CPU: from the candidates to the table and the weights, and nothing twice."""
    settings = {
        **os.environ,
        "UNETPP": f"{sys.executable} -m unetpp_cli",
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GPUS": "cpu",
        "SEARCH_WIDTH": "4",
        "SEARCH_EPOCHS": "2",
        "WIDTH": "4",
        "EPOCHS": "2",
        "TEACHER_WIDTH": "6",
        "ONLY": "recipe large-crop",
    }
    script = ["bash", str(ROOT / "examples/camvid-gpu.sh"), str(camvid), "out"]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    table = Path("out/table.md").read_text(encoding="utf-8")
    for row in ("recipe", "large-crop", "val", "test", "test, mirrored, three sizes"):
        assert re.search(rf"^\| {row} (\| [\d.]+( \([\d.]+-[\d.]+\))? ){{5}}\|$", table, re.MULTILINE), table
    header, _ = read_header("out/camvid11.safetensors")
    assert header.recipe["distill"] == 0.5
    assert header.recipe["width"] == 4
    assert header.data["train"] == 5
    assert "0001TP held out (width 4)" in header.metrics
    crops = read_header("out/search-large-crop/weights/last.safetensors")[0]
    assert "320" in str(crops.recipe["augment"])
    assert crops.data["train"] == 3
    runs = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/run.json")}
    assert len(runs) == 4
    again = subprocess.run(script, capture_output=True, text=True, check=False, env=settings)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    longer = {**settings, "EPOCHS": "3"}
    refused = subprocess.run(script, capture_output=True, text=True, check=False, env=longer)
    assert refused.returncode == 2
    assert "was begun with other options" in refused.stderr


def test_the_wheel_carries_recipes_weights_and_their_terms(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(ROOT)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("unetpp-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"unetpp_cli/recipes/{name}.yaml" for name in ("quick", "camvid", "blog")} <= names
    assert {"unetpp_cli/weights/camvid11.safetensors", "unetpp_cli/weights/TERMS.md"} <= names
    assert "unetpp_cli/py.typed" in names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
