"""Counts predictions against the truth, on the device. Called by `evaluation`, and by eval for masks.

A `Counter` is fed batch by batch and waits for nothing; a `Tally` is what it has counted, as numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.inference.boundary import Contours
from unetpp_cli.inference.metrics import Confusion, Scores
from unetpp_cli.parallel import World


@dataclass(frozen=True, eq=False)
class Tally:
    """What was counted over a split. Pixels that the truth does not label are in none of it.

    A confusion matrix per block would be what a bootstrap sums, but 150 classes and some thousand blocks of
    one image each would fill a gigabyte. Every IoU follows from three numbers a class, which add up like
    the matrices do; so these are kept.

    Attributes:
        confusion: (C, C) pixels: rows are the truth, columns the prediction.
        missed: (C,) pixels of each class to which the prediction gave no class at all (`VOID`).
        blocks: (B, 3, C) for each block of images, pixels per class: hit, in the truth, in the prediction.
        images: mean IoU of each image over the classes in its truth, by index; without those that have no
            labelled pixel. Empty without blocks.
        boundary: (C,) boundary F1 per class, the mean over the images whose truth has the class's boundary;
            NaN without any. None when it was not asked for.
    """

    confusion: Confusion
    missed: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    images: dict[int, float]
    boundary: npt.NDArray[np.float64] | None

    def scores(self, classes: ClassSet) -> Scores:
        """What follows from the confusion matrix."""
        return Scores(self.confusion, classes, self.missed if self.missed.any() else None)


class Counter:
    """Counts the predictions of one head, or those of another tool.

    Args:
        blocks: the block of each image of the split, 0 .. B - 1, by index; None takes all as one, and then no
            image is looked at by itself, which is what a validation during training needs.
        boundary: count the boundary F1, too.
    """

    def __init__(
        self,
        classes: ClassSet,
        device: torch.device,
        blocks: Sequence[int] | None = None,
        *,
        boundary: bool = False,
    ) -> None:
        self._classes, count = classes, len(classes)
        # One row more for the pixels that do not count, one column more for those that were given no class.
        rows = torch.full((256,), count * (count + 1), dtype=torch.int64)
        for index in classes.scored:
            rows[index] = index * (count + 1)
        self._rows = rows.to(device)
        self._counts = torch.zeros(count + 1, count + 1, dtype=torch.int64, device=device)
        self._sums = [self._counts]
        self._of_images: tuple[Tensor, ...] | None = None
        if blocks is not None:
            self._block_of = torch.tensor(blocks, dtype=torch.int64, device=device)
            self._blocks = torch.zeros(
                max(blocks, default=-1) + 1, 3, count, dtype=torch.int64, device=device
            )
            self._image_scores = torch.zeros(len(blocks), dtype=torch.float64, device=device)
            self._seen = torch.zeros(len(blocks), dtype=torch.int64, device=device)
            self._sums += [self._blocks, self._image_scores, self._seen]
        self._has_blocks, self._has_boundary = blocks is not None, boundary
        if boundary:
            self._f1 = torch.zeros(count, dtype=torch.float64, device=device)
            self._outlined = torch.zeros(count, dtype=torch.int64, device=device)
            self._sums += [self._f1, self._outlined]

    def add(
        self,
        indices: Sequence[int],
        truth: Tensor,
        prediction: Tensor,
        contours: Contours | None = None,
    ) -> None:
        """Counts a batch.

        Args:
            indices: of the images, each of which is counted once.
            truth: (N, H, W) uint8 class indices or `VOID`.
            prediction: the same. Where it holds no class, the pixel is missed: in the truth, and never hit.
            contours: of `truth`, where several counters share them.
        """
        count, images = len(self._classes), len(truth)
        pairs = self._rows[truth.int()] + prediction.clamp(max=count)
        cells = (count + 1) ** 2
        if self._has_blocks:
            pairs += torch.arange(images, device=pairs.device).view(-1, 1, 1) * cells
            matrices = torch.bincount(pairs.flatten(), minlength=images * cells)
            matrices = matrices.view(images, count + 1, count + 1)
            self._counts += matrices.sum(0)
            self._add_images(indices, matrices[:, :count])
        else:
            self._counts += torch.bincount(pairs.flatten(), minlength=cells).view(count + 1, count + 1)
        if self._has_boundary:
            f1 = (contours or Contours(truth, self._classes)).f1(prediction)
            self._f1 += f1.nansum(0)
            self._outlined += (~f1.isnan()).sum(0)

    def _add_images(self, indices: Sequence[int], matrices: Tensor) -> None:
        """matrices: (N, C, C + 1), of one image each."""
        where = torch.tensor(indices, device=matrices.device)
        hits, truth = matrices.diagonal(dim1=1, dim2=2), matrices.sum(2)  # (N, C)
        predicted = matrices[..., :-1].sum(1)
        self._blocks.index_add_(0, self._block_of[where], torch.stack([hits, truth, predicted], 1))
        there = truth > 0
        iou = hits.double() / (truth + predicted - hits).clamp(min=1)
        self._image_scores.index_add_(0, where, torch.where(there, iou, 0.0).sum(1) / there.sum(1))
        self._seen.index_add_(0, where, torch.ones_like(where))

    def add_up(self, world: World) -> None:
        """Sums what all processes have counted; all must call it."""
        for tensor in self._sums:
            world.add_up(tensor)

    def tally(self) -> Tally:
        """What was counted so far."""
        count = len(self._classes)
        counts: npt.NDArray[np.int64] = self._counts.cpu().numpy()
        confusion, missed = counts[:count, :count].copy(), counts[:count, count].copy()
        images: dict[int, float] = {}
        if self._has_blocks:
            blocks: npt.NDArray[np.int64] = self._blocks.cpu().numpy().copy()
            seen, scores = self._seen.tolist(), self._image_scores.tolist()
            images = {
                index: score / times
                for index, (score, times) in enumerate(zip(scores, seen, strict=True))
                if times and not math.isnan(score)
            }
        else:
            rows = confusion.sum(1) + missed
            blocks = np.stack([np.diag(confusion), rows, confusion.sum(0)])[None]
        boundary: npt.NDArray[np.float64] | None = None
        if self._has_boundary:
            boundary = torch.where(self._outlined > 0, self._f1 / self._outlined, torch.nan).cpu().numpy()
        return Tally(confusion, missed, blocks, images, boundary)
