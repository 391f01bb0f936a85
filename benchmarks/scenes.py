"""A data set to be timed on: CamVid-sized drawn street scenes in SegNet's layout, written where asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli.data.classes import VOID
from unetpp_cli.data.demo import render_scene

DIFFERENT = 12


def write_scenes(folder: Path, images: int, width: int = 480, height: int = 360) -> Path:
    """Writes `images` PNG pairs for training, and one for validation, under `folder`.

    Only the first few differ: drawing takes longer than decoding, and a decoder does not mind.
    """
    for name in ("train", "trainannot", "val", "valannot"):
        (folder / name).mkdir(parents=True)
    for number in range(min(images, DIFFERENT)):
        image, mask = render_scene(number, width, height)
        mask[mask == VOID] = 11  # SegNet's void
        grain = np.random.default_rng(number).normal(0, 4, image.shape)  # a camera's; PNGs of CamVid have it
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
        _write(folder, "train", number, image, mask)
    for number in range(DIFFERENT, images):
        for part in ("train", "trainannot"):
            original = folder / part / f"{number % DIFFERENT:04}.png"
            (folder / part / f"{number:04}.png").write_bytes(original.read_bytes())
    _write(folder, "val", images, image, mask)
    for split, numbers in (("train", range(images)), ("val", range(images, images + 1))):
        lines = [f"{split}/{number:04}.png {split}annot/{number:04}.png\n" for number in numbers]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="ascii")
    return folder


def _write(
    folder: Path,
    split: str,
    number: int,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
) -> None:
    Image.fromarray(image).save(folder / split / f"{number:04}.png")
    Image.fromarray(mask).save(folder / f"{split}annot" / f"{number:04}.png")
