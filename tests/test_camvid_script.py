"""examples/camvid-gpu.sh without a training: what it asks the program for, and benchmarks/results.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import unetpp

from unetpp_cli.network.header import read_header
from unetpp_cli.network.weights import load_model, stores_half

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "examples/camvid-gpu.sh"
RESULTS = ROOT / "benchmarks/results.py"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

STUB = """
import json, pathlib, shutil, sys
args = sys.argv[1:]
with open("asked.jsonl", "a") as log:
    log.write(json.dumps(args) + "\\n")
if args[0] == "train":
    run = pathlib.Path(args[args.index("--out") + 1])
    (run / "weights").mkdir(parents=True, exist_ok=True)
    shutil.copy("model.safetensors", run / "weights/last.safetensors")
    slices = len(list(run.glob("slice*")))
    (run / f"slice{slices}").touch()
    ending = "finished" if slices else "time limit"
    (run / "run.json").write_text(json.dumps({"starts": [{"ending": ending}]}, indent=2))
elif args[0] == "eval":
    good = 0.6 if "search-ce/" in args[args.index("--json") + 1] else 0.5
    rows = {str(depth): {"miou": good - 0.1 * (2 - depth), "interval": [0.4, 0.7]} for depth in (1, 2)}
    print(json.dumps({"depths": rows, "ensemble": {"miou": good, "interval": None}}))
elif args[0] == "check":
    print(json.dumps({"splits": {"train": {"pairs": 1}, "test": {"pairs": 1}}}, indent=2))
"""


def run(script_args: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    Path("stub.py").write_text(STUB, encoding="utf-8")
    environment = {
        **os.environ,
        "UNETPP": f"{sys.executable} stub.py",
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DEPTH": "2",  # of the model that every training leaves here
        **settings,
    }
    return subprocess.run(
        ["bash", str(SCRIPT), *script_args], capture_output=True, text=True, check=False, env=environment
    )


def asked(command: str) -> list[list[str]]:
    lines = [json.loads(line) for line in Path("asked.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[1:] for line in lines if line[0] == command]


def test_every_candidate_is_a_training_that_can_begin(model: Path, camvid: Path) -> None:
    shutil.copy(model, "model.safetensors")
    done = run(["data set", "out put"], GPUS="0,1")
    assert done.returncode == 0, done.stderr
    trainings = asked("train")
    names = {Path(args[args.index("--out") + 1]).name for args in trainings}
    assert names == {
        *(f"search-{name}" for name in ("recipe", "small-first", "unweighted", "large-crop", "day", "ce")),
        *(f"search-{name}" for name in ("lovasz", "ohem", "linear-heads", "decay", "distill", "blog")),
        "final-ce",  # the best one
    }
    assert len(trainings) == 2 * len(names)  # in two slices each
    seen = set()
    for args in trainings:
        name = Path(args[args.index("--out") + 1]).name
        assert args[args.index("--gpus") + 1] == "0,1"
        assert args[args.index("--data") + 1] == "data set"
        assert ("--hold-out" in args) == name.startswith("search-")
        assert ("--lr 4e-3" in " ".join(args)) == (name != "search-blog")
        if name not in seen:  # the real program takes these options and their values
            seen.add(name)
            begin = args.index("--time-limit") + 2
            result = unetpp("train", "--data", camvid, "--gpus", "cpu", "--preview", "p.png", *args[begin:])
            assert result.exit_code == 0, (args, result.output)
    for args in asked("eval"):
        assert args[args.index("--gpus") + 1] == "0"
    assert any("--split test --tta flip,scales" in " ".join(args) for args in asked("eval"))
    final = next(args for args in trainings if args[args.index("--out") + 1].endswith("final-ce"))
    assert " ".join(final[-2:]) == "--loss ce"
    packed = load_model(Path("out put/camvid11.safetensors"))
    assert stores_half(packed)
    assert packed.header.metrics["val"]["2"] == {"miou": 0.5}
    assert packed.header.metrics["0001TP held out (width 16)"]["2"] == {"miou": 0.6}
    count = len(trainings)
    assert run(["data set", "out put"], GPUS="0,1").returncode == 0
    assert len(asked("train")) == count  # what is done is not done twice


def test_candidates_side_by_side_may_combine_changes(model: Path) -> None:
    shutil.copy(model, "model.safetensors")
    done = run(["data", "out"], ONLY="recipe ce+decay day blog", JOBS="3", EPOCHS="0")
    assert done.returncode == 0, done.stderr
    trainings = asked("train")
    names = {Path(args[args.index("--out") + 1]).name for args in trainings}
    assert names == {"search-recipe", "search-ce+decay", "search-day", "search-blog"}  # and no last training
    combined = next(args for args in trainings if args[args.index("--out") + 1].endswith("ce+decay"))
    assert combined[-4:] == ["--loss", "ce", "--set", "weight_decay=0.05"]
    scored = [args for args in asked("eval") if "--hold-out=" in args]
    assert len(scored) == len(names)  # on the benchmark's validation split too
    rows = Path("out/table.md").read_text(encoding="utf-8").splitlines()
    assert [row.split(" | ")[0] for row in rows if "day" in row] == ["| day", "| day, val"]


def test_a_candidate_that_fails_is_named(model: Path) -> None:
    done = run(["data", "out"], ONLY="recipe ce", JOBS="2")  # there is no model.safetensors to copy
    assert done.returncode == 2
    assert "recipe did not end well: out/search-recipe.log" in done.stderr
    assert "No such file" in Path("out/search-recipe.log").read_text(encoding="utf-8")


def test_a_teacher_is_trained_first(model: Path) -> None:
    shutil.copy(model, "model.safetensors")
    done = run(["data", "out"], TEACHER_WIDTH="32", ONLY="distill ce")
    assert done.returncode == 0, done.stderr
    teacher, student = [args for args in asked("train") if "search-" not in " ".join(args)][::2]
    assert "--distill" not in teacher
    assert teacher[teacher.index("--width") + 1] == "32"
    assert student[student.index("--teacher") + 1] == "out/teacher-ce/weights/last.safetensors"


@pytest.mark.parametrize(
    ("args", "settings", "named"),
    [
        ([], {}, "usage"),
        (["data"], {"ONLY": "distil"}, "no candidate 'distil'"),
        (["data"], {"ONLY": "blog"}, "ONLY names no candidate for the last training"),
        (["data"], {"ONLY": "day+blogs"}, "no candidate 'blogs'"),
        (["data"], {"TEACHER_WIDTH": "wide"}, "TEACHER_WIDTH is wide"),
        (["data"], {"JOBS": "0"}, "JOBS is 0"),
    ],
)
def test_what_makes_no_sense_is_said(
    args: list[str], settings: dict[str, str], named: str, model: Path
) -> None:
    shutil.copy(model, "model.safetensors")
    done = run(args, **settings)
    assert done.returncode != 0
    assert named in done.stderr
    assert not Path("camvid-gpu/table.md").exists()


def test_a_table_has_a_row_per_report_and_a_column_per_depth(tmp_path: Path, model: Path) -> None:
    report = {"depths": {"1": {"miou": 0.25, "interval": None}, "2": {"miou": 0.5, "interval": [0.4, 0.61]}}}
    Path("a.json").write_text(json.dumps({**report, "ensemble": {"miou": 0.45, "interval": None}}))
    Path("b.json").write_text(json.dumps({"depths": {"2": {"miou": 0.75, "interval": None}}}))

    def results(*args: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        line = [sys.executable, str(RESULTS), *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)

    assert results("best", "a.json", "b.json").stdout == "b.json\n"
    assert results("best", "b.json,a.json", "a.json,a.json").stdout == "b.json,a.json\n"
    rows = results("table", "one=a.json", "x=y=b.json").stdout.splitlines()
    assert rows[0] == "|  | L1 | L2 | ensemble |"
    assert rows[2:] == ["| one | 25.0 | 50.0 (40.0-61.0) | 45.0 |", "| x=y |  | 75.0 |  |"]
    assert "the file must be there" in results("table", "none.json").stderr
    for _ in range(2):
        done = results("pack", model, "-o", "p.safetensors", "--depth", 1, "--table", "val=a.json")
        assert done.returncode == 0, done.stderr
    header = read_header("p.safetensors")[0]
    assert header.architecture.depth == 1
    assert header.metrics["val"]["ensemble"] == {"miou": 0.45}
