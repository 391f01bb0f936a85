"""run.json: what a training run was made with, and how each of its starts went.

The training job keeps it up to date. It names no user, machine or folder beyond what the user typed.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from unetpp_cli.devices import processor_name
from unetpp_cli.errors import listed
from unetpp_cli.files import write_text
from unetpp_cli.version import __version__

NAME = "run.json"
_DAMAGED = "run.json.damaged"
_PACKAGES = ("torch", "numpy", "albumentations", "safetensors", "pillow")


class Receipt:
    """The file run.json of a run folder; one entry under `starts` for each time the run was started.

    `open` it, `begin` a start, `update` it as often as anything is worth keeping, `end` it; from `begin` on
    each of them writes the file. A start that never came to its `end` is marked `killed` by the next one.

    Attributes:
        warning: a sentence for the user when an earlier run.json could not be read, else empty.
    """

    def __init__(self, path: Path, facts: dict[str, Any], warning: str, clock: Callable[[], float]) -> None:
        self.warning = warning
        self._path, self._facts, self._clock = path, facts, clock
        self._start: dict[str, Any] = {}  # the entry of the start that is running
        self._began, self._images = clock(), 0

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        arguments: Sequence[str],
        recipe: str,
        data: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> Receipt:
        """The receipt of a run folder, taken up where there is one.

        A run.json that cannot be read is set aside as run.json.damaged, and a new one is begun.

        Args:
            arguments: what stood behind `unetpp` on the command line. Of a run that is taken up, the first
                start's arguments stay at the top; so do its recipe and its data.
            data: what was trained on, as plain JSON values, with its fingerprint.
            clock: seconds, monotonic.

        Raises:
            UserError: the file cannot be written.
        """
        path = Path(folder) / NAME
        facts, warning = _read(path)
        if facts is None:
            facts = {"command": ["unetpp", *arguments], "recipe": recipe, "data": dict(data), "starts": []}
        for start in facts["starts"]:
            if start["ending"] == "running":
                start["ending"] = "killed"
        return cls(path, facts, warning, clock)

    def begin(
        self,
        *,
        arguments: Sequence[str],
        step: int,
        precision: str,
        device: str,
        world_size: int = 1,
        **more: Any,
    ) -> None:
        """The training starts, or goes on, at optimiser step `step`.

        Args:
            arguments: what stood behind `unetpp` on the command line.
            device: in words, with the names of all GPUs that are used.
            world_size: processes that train together.
            more: further facts, as plain JSON values.
        """
        self._began, self._images = self._clock(), 0
        self._start = {
            "began": _now(),
            "ended": None,
            "ending": "running",
            "command": ["unetpp", *arguments],
            "from_step": step,
            "to_step": step,
            "epochs": 0,
            "seconds": 0.0,
            "images_per_second": None,
            "timings": {},
            "precision": precision,
            "world_size": world_size,
            **more,
            "versions": versions(),
            "hardware": hardware(device),
        }
        self._facts["starts"].append(self._start)
        self._write()

    def update(self, *, step: int, epochs: int = 0, images: int = 0, **seconds: float) -> None:
        """Something was done since the last update, and the training is at optimiser step `step` now.

        Args:
            epochs: how many epochs were finished.
            images: how many images were trained on, in the seconds given as `train`.
            seconds: what took how long: `update(step=90, epochs=1, images=367, train=30.5, validation=4.0)`.
        """
        start = self._start
        start["to_step"] = step
        start["epochs"] += epochs
        self._images += images
        for name, value in seconds.items():
            start["timings"][name] = round(start["timings"].get(name, 0.0) + value, 3)
        if self._images and start["timings"].get("train"):
            start["images_per_second"] = round(self._images / start["timings"]["train"], 3)
        self._write()

    def end(self, ending: str) -> None:
        """The start is over: `finished`, `interrupted`, `time limit`, `early stop`, `error: ...`."""
        self._start.update(ended=_now(), ending=ending)
        self._write()

    def _write(self) -> None:
        self._start["seconds"] = round(self._clock() - self._began, 3)
        starts = self._facts["starts"]
        totals: dict[str, float] = {"seconds": sum(start["seconds"] for start in starts)}
        for start in starts:
            for name, value in start["timings"].items():
                totals[name] = totals.get(name, 0.0) + value
        self._facts["timings"] = {name: round(value, 3) for name, value in totals.items()}
        write_text(self._path, json.dumps(self._facts, indent=2, ensure_ascii=False) + "\n")


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """What stands in the file, and a warning; None where there is no file, or none to make sense of."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if missing := {"command", "recipe", "data", "starts"} - set(facts):
            raise ValueError(f"it lacks {listed(sorted(missing))}")
        for start in facts["starts"]:  # what will be read of it
            sum([start["seconds"], *start["timings"].values()], 0.0)
            str(start["ending"])
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_name(_DAMAGED)
        reason = f"{path} could not be read ({type(error).__name__}: {error})"
        try:
            path.replace(aside)
        except OSError:
            return None, f"{reason}; a new one is begun."
        return None, f"{reason}; it is kept as {aside.name}, and a new one is begun."
    return facts, ""


def hardware(device: str) -> dict[str, Any]:
    """What the training runs on; None for what the system does not tell.

    Args:
        device: in words, with the names of all GPUs that are used.

    Returns:
        `device`, `cpu` (its model), `cores` that this process may use, `memory_gib` of the whole machine, and
        `platform` (operating system, architecture, C library).
    """
    return {
        "device": device,
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "platform": platform.platform(),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python, of this program and of the packages that decide the numbers; None if missing.

    Nothing is imported to find them out.
    """
    found: dict[str, str | None] = {"python": platform.python_version(), "unetpp": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _now() -> str:
    """The time in UTC, as ISO 8601 with whole seconds: it gives away no place."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
