"""A folder end to end: read PNGs, infer, write PNGs; the plain loop against the predict job and the command.

`predict.py` asks for it. The masks of both must agree, or the comparison would be of different work.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import contest
from benchmarks.agreement import CPU
from benchmarks.article import MEAN, STD
from benchmarks.contest import Run, Variant
from benchmarks.networks import CLASSES, Article
from benchmarks.passes import padded, settled
from benchmarks.plain_predict import predict_folder
from benchmarks.processes import say
from benchmarks.scenes import write_scenes
from unetpp_cli.allocator import SWITCH
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.data.dataset import chw
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.images import decode_image
from unetpp_cli.devices import autocast, place
from unetpp_cli.inference.logits import labels, normalize, restore
from unetpp_cli.jobs.painting.request import PredictRequest
from unetpp_cli.jobs.predict import predict
from unetpp_cli.masks import save_mask
from unetpp_cli.network.blog import load_blog
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import architecture_of, load_model, save_model

ROOT = Path(__file__).resolve().parent.parent
IMAGES, PLAIN, OURS = "images/train", "article.pth", "ours.safetensors"
STAGES = ("decode", "prepare", "network", "argmax", "encode")


def write_folder(place_: Path, images: int, width: int, size: tuple[int, int]) -> None:
    """Writes below `place_`: images in `IMAGES`, and the same weights as `PLAIN` and as `OURS`.

    Args:
        width: of the network.
        size: width and height of the images.
    """
    write_scenes(place_ / "images", images, *size)
    first = decode_image(sorted((place_ / IMAGES).iterdir())[0])
    torch.manual_seed(0)
    article = settled(Article(CLASSES, width), padded(normalize(chw(first)[None], MEAN, STD, CPU)))
    torch.save(article.state_dict(), place_ / PLAIN)
    ours, _ = load_blog(place_ / PLAIN, CAMVID11)
    save_model(place_ / OURS, ours, header_for(ours))


def header_for(network: UNetPlusPlus) -> Header:
    """Of a network with CamVid's 11 classes that takes images as they are."""
    return Header(architecture_of(network), CAMVID11, MEAN, STD, Geometry("native"))


def work(task: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Does the task `folder` in this process: whole folders in turn, then ours stage by stage.

    Args:
        task: as for `contest.work`; `folder`, made by `write_folder`; `variants` are `article/plain` and
            `ours/PRECISION`.
    """
    report = contest.work(task, say, prepare)
    folder = Path(task["folder"])
    for key, entry in report["variants"].items():
        if key.startswith("ours/") and "note" not in entry:
            entry["changed_share"] = changed(folder / "masks-plain", folder / f"masks-{key.split('/')[1]}")
            entry["stages"] = stages(folder, key.split("/")[1])
    return report


def prepare(variant: Variant, task: dict[str, Any], device: torch.device) -> tuple[Run, dict[str, Any]]:
    """The whole folder once: the plain loop, or the predict job with whatever it prints thrown away."""
    folder = Path(task["folder"])
    masks = folder / f"masks-{variant.settings}"
    facts = {"images": len(list((folder / IMAGES).iterdir()))}
    if variant.network == "article":
        return lambda: predict_folder(folder / PLAIN, folder / IMAGES, masks), facts
    request = PredictRequest(
        inputs=[str(folder / IMAGES)],
        output=str(masks),
        model=str(folder / OURS),
        gpus=device.type,
        precision=variant.precision,
    )

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
            code = predict(request)
        if code:
            raise RuntimeError(told.getvalue())

    return run, facts


def changed(one: Path, other: Path) -> float:
    """Share of the pixels whose colour differs between the PNGs of two folders."""
    pixels, moved = 0, 0
    for path in sorted(one.iterdir()):
        colors = [np.asarray(Image.open(folder / path.name).convert("RGB")) for folder in (one, other)]
        differ = (colors[0] != colors[1]).any(-1)
        pixels, moved = pixels + differ.size, moved + int(differ.sum())
    return moved / pixels


@torch.inference_mode()
def stages(folder: Path, precision: str) -> dict[str, float]:
    """Seconds of each of `STAGES`, one after the other over all images; the job lets them overlap."""
    model = load_model(folder / OURS)
    network = place(model.network, CPU)
    seconds = dict.fromkeys(STAGES, 0.0)
    for number, path in enumerate([None, *sorted((folder / IMAGES).iterdir())]):
        if path is None:  # the first round warms up
            path = next((folder / IMAGES).iterdir())
        clock = [time.perf_counter()]
        image = decode_image(path)
        clock.append(time.perf_counter())
        x = normalize(chw(image)[None], MEAN, STD, CPU)
        clock.append(time.perf_counter())
        with autocast(CPU, precision):
            out = network(x)
        clock.append(time.perf_counter())
        mask = labels(restore(out, *image.shape[:2]))[0].numpy()
        clock.append(time.perf_counter())
        save_mask(folder / "stage.png", mask, model.header.classes)
        clock.append(time.perf_counter())
        for stage, start, end in zip(STAGES, clock[:-1], clock[1:], strict=True):
            seconds[stage] += end - start if number else 0.0
    return seconds


def whole_processes(folder: Path, variants: list[str], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """From the start of Python to its end, in turn; `median_seconds` are per image."""
    images = len(list((folder / IMAGES).iterdir()))
    reports: dict[str, list[dict[str, Any]]] = {key: [] for key in variants}
    for number in range(1, repeats + 1):
        for key in variants:
            say(f"folder, process {number}/{repeats} of {key}")
            line = _line(folder, key)
            start = time.perf_counter()
            done = subprocess.run(line, env=surroundings(), capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - start
            entry: dict[str, Any] = {"allocator": "system" if key.endswith("/plain") else "kept"}
            entry |= {"images": images, "median_seconds": seconds / images}
            if done.returncode:
                entry["note"] = f"failed: {' '.join(done.stderr.split())[-200:]}"
            reports[key].append(entry)
    return reports


def surroundings() -> dict[str, str]:
    """The environment of a command as a user starts it, who has only told Python where the program is."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**{k: v for k, v in os.environ.items() if k != SWITCH}, "PYTHONPATH": os.pathsep.join(paths)}


def _line(folder: Path, key: str) -> list[str]:
    if key.endswith("/plain"):
        script = str(ROOT / "benchmarks" / "plain_predict.py")
        return [sys.executable, script, *(str(folder / name) for name in (PLAIN, IMAGES, "masks-plain"))]
    precision = key.split("/")[1]
    line = [sys.executable, "-m", "unetpp_cli", "predict", str(folder / IMAGES), "--gpus", "cpu"]
    line += ["-o", str(folder / f"masks-{precision}"), "--model", str(folder / OURS)]
    return [*line, "--precision", precision]
