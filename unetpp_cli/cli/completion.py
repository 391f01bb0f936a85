"""What the shell offers when Tab is pressed: recipes, class sets, runs and weights that are there.

Each function takes what was typed so far. Files and folders the shell completes itself, where nothing fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unetpp_cli.config import recipe_names
from unetpp_cli.jobs.runs import RUNS, run_weights
from unetpp_cli.network.built_in import BUILT_IN

CLASS_SETS = ("camvid11", "camvid32", "camvid33")


def recipes(incomplete: str) -> list[str]:
    """Recipes inside the package."""
    return _fitting(recipe_names(), incomplete)


def class_sets(incomplete: str) -> list[str]:
    """Built-in class sets."""
    return _fitting(CLASS_SETS, incomplete)


def data(incomplete: str) -> list[str]:
    """`demo`, and the folders and archives that are here."""
    return _fitting(["demo", *_paths(incomplete, (".zip", ".tar"))], incomplete)


def runs(incomplete: str) -> list[str]:
    """Runs under ./runs, and `last`."""
    there = sorted(folder for folder in (RUNS.iterdir() if RUNS.is_dir() else ()) if folder.is_dir())
    return _fitting(["last", "auto", *map(str, there)], incomplete)


def models(incomplete: str) -> list[str]:
    """Runs with weights, weights files here, and built-in weights."""
    there = sorted(folder for folder in (RUNS.iterdir() if RUNS.is_dir() else ()) if run_weights(folder))
    found = [*map(str, there), *_paths(incomplete, (".safetensors", ".onnx")), *BUILT_IN]
    return _fitting(dict.fromkeys(found), incomplete)


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files of these kinds, and folders to look into, in the folder that is being typed."""
    folder = incomplete.rpartition("/")[0]
    try:
        entries = sorted(Path(folder or ("/" if incomplete.startswith("/") else ".")).iterdir())
    except OSError:
        return []
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    before = f"{folder}/" if "/" in incomplete else ""
    files = [f"{before}{entry.name}" for entry in shown if entry.suffix.lower() in suffixes]
    return files + [f"{before}{entry.name}/" for entry in shown if entry.is_dir()]


def _fitting(found: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in found if name.startswith(incomplete)]
