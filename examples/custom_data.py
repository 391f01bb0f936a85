"""Your own classes: draws a tiny data set of shapes, then trains on it. Half a minute on a CPU.

    python examples/custom_data.py

The folder it makes is all that unetpp needs; examples/custom-data.md says more about it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unetpp_cli import open_dataset
from unetpp_cli.config import resolve
from unetpp_cli.jobs.learning.resume import Request
from unetpp_cli.jobs.train import train


def draw(folder: Path, count: int) -> None:
    """images/NAME.jpg and masks/NAME.png with one value per class, and classes.txt."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    (folder / "classes.txt").write_text("ground 90 80 70\nball 220 60 60\nbox 60 90 220\n")
    rng = np.random.default_rng(0)
    for number in range(count):
        mask = Image.new("L", (96, 64), 0)
        pen = ImageDraw.Draw(mask)
        for _ in range(3):
            x, y, size = rng.integers(0, 80), rng.integers(0, 50), rng.integers(12, 24)
            shape, value = (pen.ellipse, 1) if rng.random() < 0.5 else (pen.rectangle, 2)
            shape((x, y, x + size, y + size), fill=value)
        values = np.asarray(mask)
        colors = np.array([[90, 80, 70], [220, 60, 60], [60, 90, 220]])[values]
        photo = np.clip(colors + rng.normal(0, 25, colors.shape), 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{number:03d}.jpg", quality=92)
        mask.save(folder / "masks" / f"{number:03d}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shapes"
        folder.mkdir()
        draw(folder, count=40)
        print(open_dataset(folder).summary())
        settings = {
            "data": str(folder),
            "size": "native",
            "width": 4,
            "depth": 2,
            "epochs": 6,
            "lr": 0.01,
            "augment": ["HorizontalFlip", "VerticalFlip"],
            "out": str(Path(name) / "run"),
        }
        outcome = train(Request(resolve(("these settings", settings)), recipe="shapes"))
        print(f"val mIoU {100 * outcome.records[-1].miou:.1f} %")


if __name__ == "__main__":
    main()
