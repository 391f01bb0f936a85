"""Processes of their own for what is timed: the allocator's settings hold for a whole process.

A script starts itself with `--worker TASK`, one process at a time. Used by `train.py` and `predict.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks import CANDIDATES
from unetpp_cli.allocator import SWITCH

KERNELS = "65536"

Report = dict[str, Any]
Work = Callable[[Report, Callable[[str], None]], Report]
"""A task, and whom to tell how it goes -> what was measured."""


def say(text: str) -> None:
    """Tells how it goes, on standard error."""
    print(text, file=sys.stderr, flush=True)


def split(text: str) -> list[str]:
    """`a,b` -> its parts, without empty ones."""
    return [part for part in text.split(",") if part]


def installed(key: str) -> bool:
    """Whether the package of the network in `NETWORK/SETTINGS` is there."""
    package = CANDIDATES[key.split("/")[0]].package
    return not package or importlib.util.find_spec(package) is not None


def run_task(script: str, task: Mapping[str, Any]) -> Report:
    """Runs a task in a process of its own and returns its report.

    Args:
        script: path of the script, which answers `--worker` with `answer`.

    Raises:
        SystemExit: the process died.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = {**task, "out": str(Path(folder) / "report.json")}
        line = [sys.executable, str(Path(script).resolve()), "--worker", json.dumps(task)]
        done = subprocess.run(line, env=surroundings(), check=False)
        if done.returncode:
            raise SystemExit(f"the process for {', '.join(task['variants'])} ended with {done.returncode}")
        report: Report = json.loads(Path(task["out"]).read_text(encoding="utf-8"))
        return report


def surroundings() -> dict[str, str]:
    """The environment of a process that is timed."""
    # The switch that leaves the allocator alone would make the rows say what is not so.
    env = {name: value for name, value in os.environ.items() if name != SWITCH}
    # oneDNN keeps 1024 compiled kernels. A process with all variants needs more, and would, turn by turn,
    # compile each anew at every step: three times the time at small sizes, for most rows but not all.
    env["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = KERNELS
    return env


def answer(task: Report, work: Work) -> int:
    """Does a task that `run_task` gave to this process, and writes the report where it is awaited."""
    report = work(task, say)
    for entry in report["variants"].values():
        if "seconds" in entry:
            entry["median_seconds"] = statistics.median(entry["seconds"])
    Path(task["out"]).write_text(json.dumps(report), encoding="utf-8")
    return 0


def in_turn(
    script: str, variants: Sequence[str], repeats: int, task: Callable[[str, str], Report]
) -> dict[str, list[Report]]:
    """Whole processes in turn: baselines with the allocator as it comes, ours as our command line sets it.

    Args:
        variants: the baselines `NETWORK/plain` and our own among them are run.
        repeats: processes of each.
        task: the task of (allocator, variant).

    Returns:
        Per variant one report for each repeat.
    """
    chosen = [key for key in variants if key.endswith("/plain") or key.startswith("ours/")]
    reports: dict[str, list[Report]] = {key: [] for key in chosen}
    for number in range(1, repeats + 1):
        for key in chosen:
            say(f"process {number}/{repeats} of {key}")
            done = run_task(script, task("kept" if key.startswith("ours/") else "system", key))
            reports[key].append({"allocator": done["allocator"], **done["variants"][key]})
    return reports
