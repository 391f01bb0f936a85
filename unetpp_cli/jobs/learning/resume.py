"""What `unetpp train` is asked for: a new run, or which one to resume and what may differ. Imports no torch.

A run can be resumed when its folder holds `state.safetensors` beside `config.yaml`.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetpp_cli.config import TrainConfig, read_config_file, resolve
from unetpp_cli.data.progression import Progression
from unetpp_cli.errors import UserError
from unetpp_cli.files import write_text
from unetpp_cli.jobs.runs import RUNS

STATE = "state.safetensors"
LAUNCH = ".launch"

# What the tensors of a state belong to.
_FIXED = ("classes", "channels", "width", "depth", "deep_supervision", "optimizer")
# Where and how a start runs; says nothing about the training.
_OF_A_START = ("out", "gpus", "workers", "cache", "time_limit", "save_minutes", "save_every", "max_restarts")


@dataclass(frozen=True)
class Request:
    """What `unetpp train` was asked for.

    Attributes:
        config: the resolved settings.
        recipe: the recipe's name, for the run's name.
        note: why this recipe, when it was chosen for the user; said together with the time it will take.
        resume: the run folder to go on in.
        changes: what differs from that run's settings, a line each.
        preview: write a sheet of augmented samples here, and train nothing.
        take_over: `--resume auto` found nothing to go on from: --out may hold a start that was killed.
    """

    config: TrainConfig
    recipe: str
    note: str = ""
    resume: Path | None = None
    changes: tuple[str, ...] = ()
    preview: Path | None = None
    take_over: bool = False


def has_state(folder: Path) -> bool:
    """Whether the run in `folder` can be resumed."""
    return (folder / STATE).is_file() and (folder / "config.yaml").is_file()


def find_run(wish: str, out: str = "") -> Path | None:
    """The run folder that `--resume` means.

    Args:
        wish: `last`, the newest run under ./runs; `auto`, the one in `out` if there is any; else a run folder
            or the state in it.

    Returns:
        None only for `auto`, where there is nothing to resume yet.

    Raises:
        UserError: there is no such run, or it has no state.
    """
    if wish == "auto":
        if not out:
            raise UserError("--resume auto needs --out.", "Name the run's folder: --out runs/mine.")
        return Path(out) if has_state(Path(out)) else None
    if wish == "last":
        found = [folder for folder in (RUNS.iterdir() if RUNS.is_dir() else ()) if has_state(folder)]
        if not found:
            raise UserError(
                "--resume last: there is no run under ./runs that could be resumed.",
                "Name its folder, or start one: unetpp train --data demo.",
            )
        return max(found, key=lambda folder: (folder / STATE).stat().st_mtime_ns)
    folder = Path(wish).parent if Path(wish).name == STATE else Path(wish)
    if not has_state(folder):
        there = f"has no {STATE}" if folder.is_dir() else "is no folder"
        raise UserError(
            f"--resume {wish}: this {there}.", "Name a run's folder, such as runs/demo-quick, or last."
        )
    return folder


def settings_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The recipe's name and the settings of the run in `folder`."""
    settings = read_config_file(folder / "config.yaml")
    settings.pop("time_limit", None)  # was meant for one start
    return str(settings.pop("recipe", "") or "custom"), settings


def compare(folder: Path, settings: dict[str, Any], now: TrainConfig) -> list[str]:
    """What differs between the run and its continuation: `epochs: 40 -> 80`, a line each.

    Raises:
        UserError: something differs that the state cannot follow.
    """
    before = resolve((str(folder / "config.yaml"), settings))
    differing = [
        spec.name
        for spec in dataclasses.fields(TrainConfig)
        if getattr(before, spec.name) != getattr(now, spec.name)
    ]
    if now.out and Path(now.out).resolve() != folder.resolve() and "out" in differing:
        raise UserError(f"--out {now.out}: a resumed run stays in {folder}.", "Leave --out away.")
    for key in (*_FIXED, "init_from"):
        if key in differing:
            was, wish = getattr(before, key), getattr(now, key)
            raise UserError(
                f"{key} is {wish!r}, but the run in {folder} has {was!r}; its state cannot follow.",
                f"Leave {key} as it is, or start a new run from its weights: --init-from {folder}.",
            )
    changes = [
        f"{key}: {getattr(before, key)!r} -> {getattr(now, key)!r}"
        for key in differing
        if key not in _OF_A_START
    ]
    starts = [Progression.parse(one.progressive, one.epochs).full for one in (before, now)]
    if starts[0] != starts[1]:
        changes.append(f"samples are at full size from epoch {starts[1]} on, not {starts[0]}")
    return changes


def command_for(folder: Path) -> str:
    """What to type to resume the run in `folder`."""
    return f"unetpp train --resume {shlex.quote(str(folder))}"


def mark_launch(folder: Path, launch: str) -> None:
    """Notes which launch the run belongs to, and when it began, so that its restart finds it."""
    if launch:
        write_text(folder / LAUNCH, f"{launch}\n{time.time()}\n")


def launched_at(folder: Path) -> float:
    """When the launch noted in `folder` began, in seconds since 1970."""
    return float((folder / LAUNCH).read_text(encoding="utf-8").splitlines()[1])


def run_of_launch(launch: str, out: str) -> Path | None:
    """The run that this launch began before it was restarted, or None if it died before that."""
    folders = [Path(out)] if out else list(RUNS.iterdir()) if RUNS.is_dir() else []
    for folder in folders:
        mark = folder / LAUNCH
        if mark.is_file() and mark.read_text(encoding="utf-8").splitlines()[:1] == [launch]:
            return folder
    return None
