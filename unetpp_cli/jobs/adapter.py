"""Stands in for the predictor that is on its way: its signatures over today's `Predictor`. To be deleted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unetpp_cli.data.dataset import chw
from unetpp_cli.errors import UserError
from unetpp_cli.inference import predictor as now


@dataclass(frozen=True)
class Tiling:
    size: int
    overlap: int | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    mask: npt.NDArray[np.uint8]
    entropy: npt.NDArray[np.uint8] | None = None
    disagreement: npt.NDArray[np.uint8] | None = None


def parse_tta(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if unknown := [word for word in words if word not in ("flip", "scales")]:
        raise UserError(f"--tta {text}: there is no '{unknown[0]}'.", "Choose flip, scales or flip,scales.")
    return words


class Predictor(now.Predictor):
    def __init__(self, model: Any, device: Any, *, tta: Any = (), tiling: Any = None, **options: Any) -> None:
        super().__init__(model, device, **options)
        self.tiling = tiling

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        return self.geometry.size(height, width)

    def is_tiled(self, height: int, width: int) -> bool:
        return self.tiling is not None and max(self.network_size(height, width)) > self.tiling.size

    @torch.inference_mode()
    def predict(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        *,
        uncertainty: bool = False,
        on_probabilities: Callable[[int, int, npt.NDArray[np.float16]], None] | None = None,
    ) -> list[Prediction]:
        return [
            self._one(number, image, uncertainty, on_probabilities) for number, image in enumerate(images)
        ]

    def _one(self, number: int, image: Any, uncertainty: bool, on: Any) -> Prediction:
        scores = self.scores(image)
        mask = now.labels(scores[None])[0].cpu().numpy()
        shares = scores if self.use_ensemble else scores.softmax(0)
        if on is not None:
            strips = shares.permute(1, 2, 0).to(torch.float16).numpy()
            for top in range(0, len(strips), 16):
                on(number, top, strips[top : top + 16])
        if not uncertainty:
            return Prediction(mask)
        x = now.normalize(
            chw(self.geometry.image(image))[None], self.header.mean, self.header.std, self.device
        )
        each = [now.restore(head, *mask.shape)[0].softmax(0) for head in self.network.heads(x, self.depth)]
        mean = torch.stack(each).mean(0)
        split = _entropy(mean) - torch.stack([_entropy(share) for share in each]).mean(0)
        most = min(math.log(len(each)), math.log(len(mean))) or 1
        return Prediction(
            mask,
            _byte(_entropy(shares) / math.log(len(mean))),
            _byte(split / most) if len(each) > 1 else None,
        )


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    return -(shares * shares.clamp_min(1e-12).log()).sum(0)


def _byte(values: torch.Tensor) -> npt.NDArray[np.uint8]:
    result: npt.NDArray[np.uint8] = (255 * values.clamp(0, 1)).round().to(torch.uint8).numpy()
    return result
