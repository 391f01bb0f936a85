"""UNet++ from Python: use a trained one; build, train, save and prune one. Runs in seconds on a CPU.

python examples/python_api.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from unetpp_cli import ClassSet, Geometry, Header, Predictor, UNetPlusPlus, load_model, prune, save_model
from unetpp_cli.network.weights import architecture_of


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark images with one bright disc each, and masks that are 1 on the disc."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    centers = torch.randint(16, 48, (count, 2, 1, 1))
    disc = (y - centers[:, 0]) ** 2 + (x - centers[:, 1]) ** 2 < 12**2
    image = 40 + 150 * disc[:, None] + torch.randint(0, 40, (count, 3, 64, 64))
    return image.to(torch.uint8), disc.long()


def use_a_trained_one(folder: Path) -> None:
    """Five lines: paths, Pillow images and arrays go in, one or a list; several threads may share it."""
    predictor = Predictor.load()  # the built-in CamVid weights; else Predictor.load("model.safetensors")
    street = np.full((360, 480, 3), 90, np.uint8)
    found = predictor(street)
    found.save(folder / "mask.png")
    print(found.mask.shape, found.probabilities.shape, found.overlay(legend=True).shape, found.shares)


def build_train_and_prune_one(folder: Path) -> None:
    """The pieces that the command line is made of."""
    torch.manual_seed(0)
    mean, std = (0.25,) * 3, (0.2,) * 3
    network = UNetPlusPlus(num_classes=2, width=8, depth=3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(30):
        images, masks = pictures(8)
        x = (images / 255 - 0.25) / 0.2
        # Deep supervision: one loss per head, so that the net can be cut at any of them.
        loss = sum(F.cross_entropy(logits, masks) for logits in network.heads(x)) / network.depth
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss.item():.3f}")

    header = Header(
        architecture=architecture_of(network),
        classes=ClassSet("disc", ("background", "disc"), ((0, 0, 0), (255, 255, 0))),
        mean=mean,
        std=std,
        geometry=Geometry.parse("native"),
    )
    path = folder / "disc.safetensors"
    save_model(path, network, header)
    small, small_header = prune(load_model(path), depth=1)
    save_model(folder / "disc-L1.safetensors", small, small_header)

    images, masks = pictures(1)
    image = images[0].permute(1, 2, 0).numpy()
    for name in ("disc", "disc-L1"):
        predictor = Predictor.load(folder / f"{name}.safetensors")
        right = np.mean(predictor(image).mask == masks[0].numpy())
        count = sum(p.numel() for p in predictor.network.parameters())
        print(f"{name}: {count} parameters, {100 * right:.1f} % of the pixels right")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        use_a_trained_one(Path(folder))
        build_train_and_prune_one(Path(folder))


if __name__ == "__main__":
    main()
