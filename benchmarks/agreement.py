"""Do our settings change what comes out: logits and masks against the same weights, run plainly in fp32.

Random weights on drawn scenes; and a trained model on the images of a split, where mIoU means something.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.article import MEAN, STD
from benchmarks.networks import CLASSES, Article
from benchmarks.passes import padded, settled
from benchmarks.quality import confusion, miou, open_images
from unetpp_cli.data.dataset import chw
from unetpp_cli.data.demo import render_scene
from unetpp_cli.devices import autocast, place
from unetpp_cli.inference.logits import labels, normalize, restore
from unetpp_cli.network.blog import load_blog

CPU = torch.device("cpu")
PICTURES = 4


class Comparison:
    """What changes between the logits of a plain pass and other ones, summed over batches."""

    def __init__(self) -> None:
        self.pixels, self.changed = 0, 0
        self.largest, self.difference = 0.0, 0.0
        self.gaps: list[float] = []

    def add(self, plain: Tensor, other: Tensor) -> None:
        """plain and other: (N, C, H, W) logits."""
        other = other.float()
        self.largest = max(self.largest, float(plain.abs().max()))
        self.difference = max(self.difference, float((plain - other).abs().max()))
        moved = labels(plain) != labels(other)
        self.pixels += moved.numel()
        self.changed += int(moved.sum())
        best = plain.topk(2, dim=1).values
        self.gaps += (best[:, 0] - best[:, 1])[moved].tolist()

    def facts(self) -> dict[str, Any]:
        """`relative_difference` is of the largest logit; so is `largest_gap`, between the two best logits of
        the pixels that changed: how near to a tie they were."""
        return {
            "relative_difference": self.difference / self.largest,
            "pixels": self.pixels,
            "changed": self.changed,
            "changed_share": self.changed / self.pixels,
            "largest_gap": max(self.gaps, default=0.0) / self.largest,
        }


def work(task: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Does the task `agreement` in this process.

    Args:
        task: `width`, `size`, `variants` (fp32, bf16); and `model`, `data`, `split`, or None.

    Returns:
        Under `variants` what changed with random weights, under `real` the same with trained ones.
    """
    say("comparing logits")
    report: dict[str, Any] = {"variants": random_weights(task["width"], task["size"], task["variants"])}
    if task["model"] and task["data"]:
        report["real"] = trained_weights(task["model"], task["data"], task["split"], task["variants"], say)
    return report


@torch.inference_mode()
def random_weights(width: int, size: list[int], precisions: list[str]) -> dict[str, Any]:
    """The article's network against ours with the same weights, on drawn scenes of `size` (width, height)."""
    across, height = size
    pictures = [render_scene(seed, across, height)[0] for seed in range(PICTURES)]
    image = normalize(torch.stack([chw(picture) for picture in pictures]), MEAN, STD, CPU)
    plain = padded(image).contiguous()
    torch.manual_seed(0)
    article = settled(Article(CLASSES, width), plain)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(article.state_dict(), Path(folder) / "article.pth")
        ours = place(load_blog(Path(folder) / "article.pth", None)[0], CPU)
    comparisons = {precision: Comparison() for precision in precisions}
    for number in range(PICTURES):
        expected = article(plain[number : number + 1])[..., :height, :across]
        for precision, comparison in comparisons.items():
            with autocast(CPU, precision):
                comparison.add(expected, ours(image[number : number + 1]))
    return {precision: comparison.facts() for precision, comparison in comparisons.items()}


@torch.inference_mode()
def trained_weights(
    model: str, data: str, split: str, precisions: list[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Our network in NCHW and fp32 against our settings, at the masks' size: what changes, and the mIoU.

    Raises:
        UserError: a file is not there, or the classes do not fit.
    """
    images = open_images(model, data, split)
    plain = copy.deepcopy(images.model.network)
    ours = place(images.model.network, CPU)
    classes = images.model.header.classes
    comparisons = {precision: Comparison() for precision in precisions}
    count = len(classes)
    counts = {name: np.zeros((count, count)) for name in ("plain", *precisions)}
    for number, (x, mask) in enumerate(images, start=1):
        expected = restore(plain(x.contiguous()), *mask.shape)
        counts["plain"] += confusion(mask, labels(expected)[0], count, tuple(classes.scored))
        for precision, comparison in comparisons.items():
            with autocast(CPU, precision):
                found = ours(x)
            found = restore(found, *mask.shape)
            comparison.add(expected, found)
            counts[precision] += confusion(mask, labels(found)[0], count, tuple(classes.scored))
        if number % 20 == 0 or number == len(images):
            say(f"{number} of {len(images)} images")
    facts: dict[str, Any] = {
        precision: {**comparison.facts(), "miou": miou(counts[precision])}
        for precision, comparison in comparisons.items()
    }
    return {"name": images.name, "images": len(images), "miou": miou(counts["plain"]), "variants": facts}
