"""The boundary F1 score: how well the outlines of the classes are met. Called by `counting`, for eval.

As Csurka, Larlus and Perronnin define it ("What is a good evaluation measure for semantic segmentation?",
BMVC 2013) and users of CamVid know it as the BF score: per image and class, precision and recall of the
boundary pixels, of which one counts as met when the other mask has a boundary pixel of the class closer than
0.75 % of the image's diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetpp_cli.data.classes import ClassSet

_KINDS = ((8, torch.uint8), (15, torch.int16), (31, torch.int32), (63, torch.int64))
"""How many classes fit into one number of each type, a bit for each."""


class Contours:
    """The outlines in the truth of some images; made once, and compared with the outlines of any prediction.

    A pixel of a class is on its boundary when one of its four neighbours belongs to another class. Pixels
    that the truth does not label are in nobody's way: they are taken out of the prediction too, and neither
    they nor the edge of the image make a boundary.

    All classes are compared at once: a class is a bit, a boundary pixel is a number with its class's bit set,
    and the neighbourhood within the tolerance is an "or" over shifted copies. That is exact, works on any
    device, and costs a fraction of a distance transform per class.

    Args:
        truth: (N, H, W) uint8 class indices or `VOID`; outputs of `classes` that are void count as void.
    """

    def __init__(self, truth: Tensor, classes: ClassSet) -> None:
        scored = torch.zeros(256, dtype=torch.bool)
        scored[list(classes.scored)] = True
        self._count = len(classes)
        self._scored = scored.to(truth.device)
        self._labelled = self._scored[truth.int()]
        self._reaches = reaches(*truth.shape[-2:])
        many = len(classes.scored)
        size, self._kind = next((kind for kind in _KINDS if kind[0] >= many), _KINDS[-1])
        self._tables = [self._table(classes.scored[start : start + size]) for start in range(0, many, size)]
        self._places, self._classes = self._boundary(truth)
        self._near = self._neighbourhoods(self._places, self._classes)

    def f1(self, prediction: Tensor) -> Tensor:
        """The score of every class in every image: (N, C) float64, 0..1.

        NaN where the class has no boundary in the truth, 0 where it has one there and none in the prediction.

        Args:
            prediction: (N, H, W) uint8; values that are no scored class belong to none, but do bound others.
        """
        places, classes = self._boundary(prediction)
        found, predicted = self._met(places, classes, self._near)
        met, there = self._met(self._places, self._classes, self._neighbourhoods(places, classes))
        # 2 P R / (P + R) with P = found / predicted and R = met / there, without a division by zero
        above = 2 * found * met
        below = found * there + met * predicted
        score = torch.where(below > 0, above / below.clamp(min=1), 0.0)
        return torch.where(there > 0, score, torch.nan)

    def _boundary(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Where the boundary pixels of all scored classes are in the flat (N, H, W), and their classes."""
        labelled = self._labelled
        edge = torch.zeros_like(labelled)
        for one, other in (
            ((..., slice(1, None)), (..., slice(None, -1))),
            ((..., slice(1, None), slice(None)), (..., slice(None, -1), slice(None))),
        ):
            differ = (mask[one] != mask[other]) & labelled[one] & labelled[other]
            edge[one].logical_or_(differ)
            edge[other].logical_or_(differ)
        places = edge.flatten().nonzero()[:, 0]
        classes = mask.flatten()[places].long()
        wanted = self._scored[classes]
        return places[wanted], classes[wanted]

    def _neighbourhoods(self, places: Tensor, classes: Tensor) -> list[Tensor]:
        """For each group of classes, which of them have a boundary pixel close by: (N, H, W), a bit each."""
        near = []
        for table in self._tables:
            plane = torch.zeros(self._labelled.numel(), dtype=self._kind, device=self._labelled.device)
            plane[places] = table[classes]
            near.append(_grow(plane.view(self._labelled.shape), self._reaches))
        return near

    def _met(self, places: Tensor, classes: Tensor, near: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """How many of these boundary pixels are met, and how many there are: (N, C) float64 each."""
        images, height, width = self._labelled.shape
        keys = places // (height * width) * self._count + classes
        hits = torch.zeros_like(places, dtype=torch.bool)
        for plane, table in zip(near, self._tables, strict=True):
            hits |= (plane.flatten()[places] & table[classes]) != 0
        counts = [torch.bincount(some, minlength=images * self._count) for some in (keys[hits], keys)]
        met, there = (count.view(images, self._count).double() for count in counts)
        return met, there

    def _table(self, group: Sequence[int]) -> Tensor:
        """(256,): the bit of each class of the group, 0 for all others."""
        table = torch.zeros(256, dtype=torch.int64)
        for bit, index in enumerate(group):
            table[index] = 1 << bit
        return table.to(device=self._labelled.device, dtype=self._kind)


def reaches(height: int, width: int) -> list[int]:
    """The neighbourhood within the tolerance: how far it reaches sideways, for every row from the middle one.

    A pixel (dx, dy) away is inside when dx² + dy² < (0.0075 diagonal)², which is told in whole numbers.
    """
    limit = 9 * (height * height + width * width)  # 0.0075 = 3 / 400

    def is_inside(dx: int, dy: int) -> bool:
        return 160_000 * (dx * dx + dy * dy) < limit

    rows: list[int] = []
    while is_inside(0, len(rows)) and len(rows) < max(height, 1):
        dx = rows[-1] if rows else width
        while not is_inside(dx, len(rows)):
            dx -= 1
        rows.append(dx)
    return rows


def _grow(plane: Tensor, reaches: Sequence[int]) -> Tensor:
    """The "or" over the neighbourhood of every pixel. plane: (N, H, W) of whole numbers."""
    height = plane.shape[-2]
    grown, run, reach = torch.zeros_like(plane), plane.clone(), 0
    for dy in range(len(reaches) - 1, -1, -1):  # the outermost rows reach least, so one run grows for all
        while reach < reaches[dy]:
            reach += 1
            run[..., reach:].bitwise_or_(plane[..., :-reach])
            run[..., :-reach].bitwise_or_(plane[..., reach:])
        grown[:, dy:].bitwise_or_(run[:, : height - dy])
        grown[:, : height - dy].bitwise_or_(run[:, dy:])
    return grown
