"""From files to a mask with no code, on data that are not CamVid: the three kinds that people have most."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import unetpp
from PIL import Image

from unetpp_cli.masks import read_mask
from unetpp_cli.network.header import read_header

TINY = ["--recipe", "quick", "--epochs", "30", "--width", "4", "--depth", "2", "--batch-size", "4"]
TINY += ["--set", "augment=[HorizontalFlip]", "--set", "warmup_epochs=0", "--lr", "0.02", "--size", "native"]
TINY += ["--gpus", "cpu", "--precision", "fp32", "--ema", "0"]
FIVE = ("soil", "wheat", "weed", "stone", "water")
COLORS = ((120, 90, 60), (210, 190, 80), (60, 130, 50), (140, 140, 150), (60, 90, 200))


def shapes(number: int, kinds: int) -> np.ndarray:
    """(48, 64) uint8: discs of classes 1.. on class 0."""
    rng = np.random.default_rng([number, kinds])
    mask = np.zeros((48, 64), np.uint8)
    y, x = np.mgrid[:48, :64]
    for kind in range(1, kinds):
        cy, cx, radius = rng.integers(8, 40), rng.integers(8, 56), rng.integers(6, 12)
        mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = kind
    return mask


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]


def microscope(folder: Path) -> list[str]:
    """Grey 16-bit TIFF images, masks of 0 and 255."""
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("background 0 0 0\ncell 255 255 255\n", encoding="utf-8")
    for number in range(16):
        mask = shapes(number, 2)
        noise = np.random.default_rng(number).normal(0, 2000, mask.shape)
        save(
            folder / "images" / f"cell_{number:03d}.tif",
            (12_000 + 30_000 * mask.astype(float) + noise).astype(np.uint16),
        )
        save(folder / "masks" / f"cell_{number:03d}.png", mask * np.uint8(255))
    return ["--set", "channels=1", "--set", "mean=[0.4]", "--set", "std=[0.2]"]


def fields(folder: Path) -> list[str]:
    """JPEG images, masks of class numbers, a folder per split, classes.txt without colours."""
    (folder / "train").mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(FIVE), encoding="utf-8")
    for number in range(16):
        mask, split = shapes(number, 5), "train" if number < 12 else "val"
        photo = np.asarray(COLORS)[mask] + np.random.default_rng(number).normal(0, 12, (*mask.shape, 3))
        save(folder / split / "images" / f"{number}.jpg", np.clip(photo, 0, 255).astype(np.uint8), quality=95)
        save(folder / split / "masks" / f"{number}.png", mask)
    return []


def colours(folder: Path) -> list[str]:
    """PNG images, masks in colours, a class list with colours of which one is void, lists of names."""
    folder.mkdir(parents=True)
    rows = [f"{name} {r} {g} {b}" for name, (r, g, b) in zip(FIVE[:3], COLORS[:3], strict=True)]
    (folder / "classes.txt").write_text("\n".join([*rows, "ignore 255 255 255"]), encoding="utf-8")
    table = np.array([*COLORS[:3], (255, 255, 255)], np.uint8)
    for number in range(16):
        mask = shapes(number, 3)
        photo = np.asarray(COLORS)[mask] + np.random.default_rng(number).normal(0, 12, (*mask.shape, 3))
        mask[:3] = 3
        save(folder / "images" / f"p{number}.png", np.clip(photo, 0, 255).astype(np.uint8))
        save(folder / "masks" / f"p{number}.png", table[mask])
    (folder / "train.txt").write_text("\n".join(f"p{number}" for number in range(12)), encoding="utf-8")
    (folder / "val.txt").write_text("\n".join(f"p{number}" for number in range(12, 16)), encoding="utf-8")
    return []


@pytest.mark.parametrize(("make", "classes"), [(microscope, 2), (fields, 5), (colours, 3)])
def test_from_files_to_a_mask(make: object, classes: int, tmp_path: Path) -> None:
    data = tmp_path / "mine"
    settings = make(data)  # type: ignore[operator]

    def run(*args: object) -> str:
        result = unetpp(*args)
        assert result.exit_code == 0, result.output
        return result.stdout

    run("check", data)
    run("train", "--data", data, "--out", "run", *TINY, *settings)
    report = json.loads(run("eval", "run", "--split", "val", "--json", "--no-timing"))
    assert report["depths"]["2"]["miou"] > 0.6  # discs of their own brightness are learnt in seconds
    assert len(report["depths"]["2"]["iou"]) == classes
    image = sorted((data / "val/images" if (data / "val").is_dir() else data / "images").iterdir())[-1]
    run("predict", image, "-o", "mask.png", "-m", "run")
    mask, text = read_mask("mask.png")
    assert mask.shape == (48, 64)
    assert set(np.unique(mask)) <= set(range(classes))
    assert len(np.unique(mask)) > 1
    names = json.loads(text["classes"])
    assert names[:classes] == list(read_header("run/weights/best.safetensors")[0].classes.names)[:classes]
    run("prune", "run", "--depth", "1", "-o", "small.safetensors", "--no-timing")
    run("predict", image, "-o", "flat.png", "-m", "small.safetensors")
