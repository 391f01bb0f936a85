"""Scores of a segmentation: one confusion matrix over a whole split, and everything that follows from it.

Needs numpy only. Void pixels never enter the matrix. Used by training (validation), eval and the reports.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.classes import ClassSet

Confusion = npt.NDArray[np.int64]
"""(C, C) pixel counts: rows are the truth, columns the prediction."""


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says. All values are fractions 0..1; NaN where a class does not occur.

    A class that no labelled pixel belongs to has no score and is left out of every mean.

    Attributes:
        confusion: counts of pixels; void outputs have an empty row, but a pixel taken for one is wrong.
        missed: (C,) pixels of each class to which the prediction gave no class: they belong to its truth and
            are never right. A network has none; masks made by other tools may.
    """

    confusion: Confusion
    classes: ClassSet
    missed: npt.NDArray[np.int64] | None = None

    @property
    def truth(self) -> npt.NDArray[np.int64]:
        """(C,) labelled pixels of each class."""
        rows: npt.NDArray[np.int64] = self.confusion.sum(axis=1)
        return rows if self.missed is None else rows + self.missed

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(C,) whether the class occurs in the truth and is scored."""
        there: npt.NDArray[np.bool_] = self.truth > 0
        there[list(self.classes.void)] = False
        return there

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """(C,) intersection over union per class."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.truth - hits
        return self._per_class(hits, union)

    @property
    def dice(self) -> npt.NDArray[np.float64]:
        """(C,) Dice coefficient (F1) per class."""
        hits = np.diag(self.confusion)
        return self._per_class(2 * hits, self.confusion.sum(axis=0) + self.truth)

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """(C,) recall per class: the share of its pixels that were found."""
        return self._per_class(np.diag(self.confusion), self.truth)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return self._mean(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur."""
        return self._mean(self.dice)

    @property
    def mean_accuracy(self) -> float:
        """Mean of the per-class recalls."""
        return self._mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """The share of labelled pixels that are right."""
        total = int(self.truth.sum())
        return float(np.trace(self.confusion) / total) if total else float("nan")

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by how often each class occurs."""
        share = self.truth / max(int(self.truth.sum()), 1)
        there = self.present
        return float((share[there] * self.iou[there]).sum()) if there.any() else float("nan")

    def _per_class(
        self, above: npt.NDArray[np.int64], below: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        values = np.full(len(self.classes), np.nan)
        there = self.present
        values[there] = above[there] / below[there]
        return values

    def _mean(self, values: npt.NDArray[np.float64]) -> float:
        there = self.present
        return float(values[there].mean()) if there.any() else float("nan")


@dataclass(frozen=True)
class Interval:
    """A 95 % interval. NaN where it cannot be told."""

    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What a network asks for, cut at a depth with this one head (all heads for the ensemble).

    Attributes:
        parameters: learnt numbers.
        gmac: multiply-accumulates of one image at the timed size, in 1e9.
        file_bytes: of the weights file that pruning at this depth leaves, lower heads included.
        milliseconds: median time of one forward pass at batch 1, or None when it was not timed.
        peak_bytes: the most memory that pass took on a GPU, weights included; None on the CPU.
    """

    parameters: int
    gmac: float
    file_bytes: int
    milliseconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class DepthResult:
    """One row of the depth table.

    Attributes:
        depth: the head's depth; None for the ensemble of all heads, and for masks.
        scores: over the whole split.
        cost: None for masks.
        boundary: (C,) boundary F1 per class, 0..1, NaN where it does not occur; None when not measured.
        interval: of the mean IoU; None when it was not asked for or cannot be told.
        name: of the row, instead of what `label` makes of the depth.
    """

    depth: int | None
    scores: Scores
    cost: Cost | None = None
    boundary: npt.NDArray[np.float64] | None = None
    interval: Interval | None = None
    name: str = ""

    @property
    def label(self) -> str:
        """`L1`, `L2`, ... or `ensemble`."""
        return self.name or ("ensemble" if self.depth is None else f"L{self.depth}")

    @property
    def mean_boundary(self) -> float | None:
        """The mean boundary F1 over the classes that have one; None when it was not measured."""
        if self.boundary is None:
            return None
        there = ~np.isnan(self.boundary)
        return float(self.boundary[there].mean()) if there.any() else float("nan")


@dataclass(frozen=True, eq=False)
class Difference:
    """How one row differs from another on the same images: mean IoU and per class, in fractions.

    Attributes:
        first, second: the names of the two.
        miou: second less first.
        interval: of `miou`, from a paired bootstrap.
        iou: (C,) second less first per class; NaN where the class does not occur.
        intervals: (C, 2) low and high of `iou`.
    """

    first: str
    second: str
    miou: float
    interval: Interval
    iou: npt.NDArray[np.float64]
    intervals: npt.NDArray[np.float64]
