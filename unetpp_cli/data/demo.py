"""The embedded data set: procedurally drawn street scenes with CamVid's 11 classes, in SegNet's layout.

`data.layouts` opens it as `--data demo`; `unetpp demo FOLDER` writes it out. Drawing is in `data.scenery`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli.data.classes import CAMVID11, VOID
from unetpp_cli.data.scenery.scene import render
from unetpp_cli.errors import UserError

WIDTH, HEIGHT = 240, 180

SPLITS: dict[str, range] = {"train": range(144), "val": range(144, 168), "test": range(168, 192)}
"""The scenes of each split. A scene's number is its name and its seed."""

_SEGNET_VOID = len(CAMVID11)
"""SegNet's masks say 11 where the program's own say `VOID`."""


def render_scene(
    seed: int, width: int = WIDTH, height: int = HEIGHT
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draws street scene number `seed`; the same number always gives the same scene.

    Returns:
        The image, (height, width, 3) uint8 RGB, and its mask, (height, width) uint8: indices of `CAMVID11`,
        or `VOID` on the camera car's own bonnet and on litter bins. A mask pixel is the class of what was
        painted at its place, never a mixture; railings and wheels are labelled as filled outlines, as
        CamVid's annotators do.

    Raises:
        ValueError: the picture would have fewer than 32 pixels on a side.
    """
    if min(width, height) < 32:
        raise ValueError(f"a scene needs at least 32 x 32 pixels, not {width} x {height}")
    return render(seed, width, height)


@functools.cache
def demo_files() -> dict[str, bytes]:
    """The whole data set as a tree of files: path relative to its root, with `/`, and content.

    SegNet's layout: `train/scene_000.png` (RGB), `trainannot/scene_000.png` (mode L, 0..10 and 11 for void),
    likewise `val` and `test`, and `train.txt`, `val.txt`, `test.txt` with one line of two paths per scene.
    Takes some seconds the first time in a process and nothing after that; do not change the result.
    """
    files: dict[str, bytes] = {}
    for split, seeds in SPLITS.items():
        lines = []
        for seed in seeds:
            image, mask = render_scene(seed)
            mask[mask == VOID] = _SEGNET_VOID
            pair = f"{split}/scene_{seed:03}.png", f"{split}annot/scene_{seed:03}.png"
            files.update(zip(pair, (_png(image), _png(mask)), strict=True))
            lines.append(" ".join(pair) + "\n")
        files[f"{split}.txt"] = "".join(lines).encode("ascii")
    return files


def write_demo(folder: str | os.PathLike[str]) -> list[Path]:
    """Writes the data set to a new folder: all of it, or nothing.

    Returns:
        The files written, sorted.

    Raises:
        UserError: the folder exists and is not empty, is a file, or cannot be written.
    """
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target} exists and is not empty.", "Name a new folder.")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file.", "Name a new folder.")
    files = demo_files()
    try:
        with _new_folder(target) as building:
            for name, content in files.items():
                path = building / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}.", "Choose another place."
        ) from error
    return sorted(target / name for name in files)


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `target`, which becomes `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}-"))
    try:
        yield building
        # mkdtemp makes the folder private; an ordinary folder follows the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        building.chmod(0o777 & ~umask)
        if target.exists():
            target.rmdir()  # it is empty; a full one must not be replaced
        building.rename(target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
