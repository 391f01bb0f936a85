"""Run folders: a place for a new run, and the weights that a command means. Imports no torch.

A run folder holds weights/{best,last}.safetensors, the state that a resumed run goes on from, the settings,
and what there is to look at; `jobs.learning.run_folder` writes it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import yaml

from unetpp_cli.errors import UserError
from unetpp_cli.network.built_in import BUILT_IN, CAMVID11
from unetpp_cli.values import DEMO

RUNS = Path("runs")
MODEL_VARIABLE = "UNETPP_MODEL"
ADDRESSES = ("https://", "http://", "hf://")


def new_run(out: str, name: str, *, take_over: bool = False) -> Path:
    """Makes the folder of a new run: `out`, or runs/NAME, runs/NAME-2, ... whichever is free.

    Args:
        take_over: `out` may hold what a run leaves that was killed before its first state.

    Raises:
        UserError: `out` exists and is not empty, or cannot be made.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    try:
        if out:
            folder = Path(out)
            if folder.exists() and not (folder.is_dir() and _is_free(folder, take_over)):
                raise UserError(
                    f"--out {folder} exists already; a run never overwrites another.",
                    "Name a new folder, or leave --out away to have one chosen.",
                )
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        for number in range(1, 100_000):
            folder = RUNS / (slug if number == 1 else f"{slug}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(
            f"Cannot make the run folder {folder}: {error.strerror}.", "Choose another place with --out."
        ) from error
    raise UserError(f"There are too many runs called {slug} under {RUNS}.", "Name one with --out.")


_BEFORE_TRAINING = {".lock", ".launch", "config.yaml", "run.json", "classes.png", "augment.png"}
"""What a run writes before its first step, all of it made anew by the next start."""


def _is_free(folder: Path, take_over: bool) -> bool:
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".partial-")}
    return names <= _BEFORE_TRAINING if take_over else not names


def run_weights(folder: Path) -> Path | None:
    """The weights of a run folder: best, else last, else None."""
    for name in ("best", "last"):
        file = folder / "weights" / f"{name}.safetensors"
        if file.is_file():
            return file
    return None


def find_model(named: str | None, data: str | None = None) -> tuple[Path, str]:
    """The weights file that a command means, and in words where it comes from.

    A file; a run folder, meaning its best weights; an address (`jobs.afar`), which is fetched; or the name of
    built-in weights. Without a name:
    $UNETPP_MODEL, else the best weights of the newest run under ./runs, else the built-in CamVid weights.
    Runs on the demo count only where the demo is asked about: nobody means them by a photograph.

    Args:
        data: what the model is for, as `--data` says it.

    Raises:
        UserError: there is no such file.
    """
    if named and named.startswith(ADDRESSES):
        return _from_afar(named), named
    if named:
        return _named(named, named), named
    if variable := os.environ.get(MODEL_VARIABLE, ""):
        if variable.startswith(ADDRESSES):
            return _from_afar(variable), f"${MODEL_VARIABLE}"
        return _named(variable, f"${MODEL_VARIABLE} = {variable}"), f"${MODEL_VARIABLE}"
    found = [
        (weights.stat().st_mtime, weights)
        for folder in (RUNS.iterdir() if RUNS.is_dir() else ())
        if folder.is_dir()
        and (weights := run_weights(folder)) is not None
        and (data == DEMO or data_of_run(weights) != DEMO)
    ]
    if found:
        weights = max(found)[1]
        return weights, "the newest run" + ("" if _is_over(weights) else ", not trained to its end")
    return _built_in(CAMVID11), "the built-in CamVid weights"


def _is_over(weights: Path) -> bool:
    """Whether the training that left them ended by itself; True where that is not known."""
    try:
        starts = json.loads((weights.parent.parent / "run.json").read_text(encoding="utf-8"))["starts"]
        return starts[-1]["ending"] in ("finished", "early stop")
    except (OSError, ValueError, LookupError, TypeError):
        return True


def shown(weights: Path) -> str:
    """A weights file in a message: its path, or its name alone if it lies in the package."""
    return weights.name if weights in BUILT_IN.values() else str(weights)


def _from_afar(address: str) -> Path:
    from unetpp_cli.jobs.afar import local_model  # what fetches is not needed for a help page

    return local_model(address)


def folder_for(weights: Path) -> Path:
    """Where what is made of `weights` goes unless told otherwise: beside them; here if they are built in."""
    return Path() if weights in BUILT_IN.values() else weights.parent


def _named(path: str, shown: str) -> Path:
    file = Path(path)
    if file.is_dir():
        weights = run_weights(file)
        if weights is None:
            raise UserError(f"{shown}: this folder has no weights/best.safetensors.", "Name a weights file.")
        return weights
    if not file.exists() and path in BUILT_IN:
        return _built_in(BUILT_IN[path])
    if not file.exists():
        raise UserError(f"{shown}: there is no such weights file.", "Check the path; runs lie under ./runs.")
    return file


def _built_in(file: Path) -> Path:
    if not file.is_file():
        raise UserError(
            f"No model was named, and the built-in weights are missing ({file}).",
            f"Name a weights file or set ${MODEL_VARIABLE}; install anew to have them back.",
        )
    return file


def data_of_run(weights: Path) -> str | None:
    """The `--data` that the run was trained on, if the weights still lie in their run folder."""
    config = weights.parent.parent / "config.yaml"
    try:
        keys = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    data = keys.get("data") if isinstance(keys, dict) else None
    return data if isinstance(data, str) and data else None
