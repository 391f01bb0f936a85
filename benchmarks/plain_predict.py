"""The article's way to predict a folder, written anew and plainly; `predict.py` measures it.

    python benchmarks/plain_predict.py weights.pth images/ masks/

fp32, NCHW, one image after the other: open, normalise, infer, argmax, paint, save. Colour PNGs come out.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.networks import Article
from unetpp_cli.data.classes import CAMVID11

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
COLORS = np.array(CAMVID11.colors, np.uint8)


def predict_folder(weights: Path, images: Path, masks: Path) -> int:
    """Paints a mask for every image.

    Returns:
        How many there were.
    """
    state = torch.load(weights, weights_only=True)
    classes, width = len(state["final_super_0_4.2.bias"]), len(state["stage_0.Conv_forward.0.bias"])
    network = Article(classes, width)
    network.load_state_dict(state)
    network.eval()
    masks.mkdir(exist_ok=True)
    paths = sorted(images.iterdir())
    with torch.inference_mode():
        for path in paths:
            pixels = np.array(Image.open(path).convert("RGB"))
            height, across = pixels.shape[:2]
            normalised = ((pixels / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)
            image = torch.from_numpy(np.ascontiguousarray(normalised))[None]
            image = F.pad(image, (0, -across % 16, 0, -height % 16))
            assert image.is_contiguous()  # otherwise channels last, and faster than its name says
            mask = network(image)[0, :, :height, :across].argmax(0).numpy()
            Image.fromarray(COLORS[mask]).save(masks / f"{path.stem}.png")
    return len(paths)


if __name__ == "__main__":
    predict_folder(*map(Path, sys.argv[1:]))
