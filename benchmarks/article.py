"""The article's training, written anew and plainly: its data set, its loader and its loop.

fp32, NCHW, torch's defaults, no autocast, no workers; `train.py` measures it, with nothing of `unetpp_cli`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.networks import CLASSES, build, logits

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IGNORED = 255


def plain_step(network: nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The usual five lines, for any network: SGD with lr 0.1, cross entropy, the loss read at every step.

    Returns:
        image (N, 3, H, W) float32 and target (N, H, W) int64 on the device -> the loss.
    """
    network.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss_function = nn.CrossEntropyLoss(ignore_index=IGNORED)

    def step(image: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = loss_function(logits(network(image)), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        return loss.detach()

    return step


class ArticleData(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Image and mask out of two folders, decoded and resized again at every visit, normalised on the CPU.

    Args:
        folder: a folder in SegNet's layout.
        images: how many of the training images.
        size: side of the square to which they are stretched.
    """

    def __init__(self, folder: Path, images: int, size: int) -> None:
        import albumentations as A
        from albumentations.pytorch import ToTensorV2

        self.images = sorted((folder / "train").iterdir())[:images]
        self.masks = sorted((folder / "trainannot").iterdir())[:images]
        assert [path.stem for path in self.images] == [path.stem for path in self.masks]
        self.transform = A.Compose(
            [A.Resize(size, size), A.HorizontalFlip(), A.VerticalFlip(), A.Normalize(MEAN, STD), ToTensorV2()]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = np.array(Image.open(self.images[index]).convert("RGB"))
        mask = np.array(Image.open(self.masks[index]))
        mask[mask >= CLASSES] = IGNORED
        out: dict[str, Any] = self.transform(image=image, mask=mask)
        return out["image"], out["mask"].long()


def article_epochs(
    folder: Path, *, images: int, width: int, batch: int, size: int, device: torch.device
) -> Callable[[], int]:
    """The article's network and loop on the first `images` images of `folder`.

    Returns:
        A function that trains one more epoch and returns how many images it met.
    """
    loader = torch.utils.data.DataLoader(
        ArticleData(folder, images, size), batch_size=batch, shuffle=True, drop_last=True
    )
    network = build("article", width).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss_function = nn.CrossEntropyLoss(ignore_index=IGNORED)

    def epoch() -> int:
        count, total, hits = 0, 0.0, 0
        for image, mask in loader:
            assert image.is_contiguous()  # a stack of transposed (H, W, C) arrays would be channels last
            image, mask = image.to(device), mask.to(device)
            optimizer.zero_grad()
            out = network(image)
            loss = loss_function(out, mask)
            loss.backward()
            optimizer.step()
            total += loss.item()
            hits += int((out.max(1).indices == mask).sum())
            count += len(image)
        return count

    return epoch
