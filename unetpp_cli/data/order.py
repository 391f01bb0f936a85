"""The orders in which CamVid's classes are numbered, and how to tell them apart: sky is above road.

The same 11 classes circulate in SegNet's order and in the alphabet's, the 32 with Void at 30 or at 0, and the
values alone cannot tell which. Used by `data.meaning` where no label file says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unetpp_cli.data.classes import CAMVID11, CAMVID32, CAMVID33, VOID, ClassSet
from unetpp_cli.data.encoding import MaskFacts
from unetpp_cli.errors import UserError

SKY_ABOVE_ROAD = 0.3
"""By how much of the picture's height, on average, road must lie below sky. In CamVid it is 0.66."""


@dataclass(frozen=True)
class Order:
    """A numbering of classes.

    Attributes:
        classes: the class set.
        table: value in the masks -> class index or `VOID`.
        name: how messages call it.
    """

    classes: ClassSet
    table: Mapping[int, int]
    name: str

    def drop(self, facts: Sequence[MaskFacts]) -> float | None:
        """How far road lies below sky, in heights of the picture; None when one of them never occurs."""
        sky, road = (self._row(name, facts) for name in ("Sky", "Road"))
        return None if sky is None or road is None else road - sky

    def fits(self, facts: Sequence[MaskFacts]) -> bool:
        """Whether sky is above road as it must be."""
        return (self.drop(facts) or 0) > SKY_ABOVE_ROAD

    def _row(self, name: str, facts: Sequence[MaskFacts]) -> float | None:
        """Mean row of the class's pixels over all masks, 0 (top) to 1."""
        index = self.classes.names.index(name)
        value = next(value for value, target in self.table.items() if target == index)
        pixels = sum(mask.counts.get(value, 0) for mask in facts)
        if not pixels:
            return None
        return sum(mask.rows[value] * mask.counts[value] for mask in facts if value in mask.counts) / pixels


def _numbered(classes: ClassSet) -> dict[int, int]:
    return {index: index for index in range(len(classes))}


_USUAL_TOPS = frozenset({11, 30, 31, 32})
_ALPHABET = ("Bicyclist", "Building", "Car", "Pole", "Fence", "Pedestrian", "Road", "Pavement", "SignSymbol")
_VOID_FIRST = {0: 30} | {index + 1: index for index in range(30)} | {31: 31}

SEGNET = Order(CAMVID11, _numbered(CAMVID11), "SegNet's order")
ALPHABETICAL = Order(
    CAMVID11,
    {value: CAMVID11.names.index(name) for value, name in enumerate((*_ALPHABET, "Sky", "Tree"))},
    "the alphabetical order",
)
FILE_ORDER = Order(CAMVID32, _numbered(CAMVID32), "the order of label_colors.txt")
VOID_FIRST = Order(CAMVID32, _VOID_FIRST, "CVAT's order, Void first")
WITH_UNK = Order(CAMVID33, _numbered(CAMVID33) | {33: 32}, "the order of label_colors.txt, and 'unk'")
FROM_ONE = Order(
    CAMVID32, {0: VOID} | {index + 1: index for index in range(32)}, "the order of label_colors.txt from 1 on"
)


def likeliest_order(
    facts: Sequence[MaskFacts], seen: set[int], expected: bool, certain: bool
) -> Order | None:
    """The order in which nameless index masks number CamVid's classes; None when they are not CamVid's.

    Args:
        facts: of the masks.
        seen: the values that occur.
        expected: whether the layout is one that CamVid circulates in; else only its usual numbers of classes
            are looked at.
        certain: whether the frames have CamVid's names.

    Raises:
        UserError: the values are CamVid's, but in no order that can be assumed is sky above road.
    """
    top = max(seen - {255}, default=0)
    if not (expected or certain or top in {10, *_USUAL_TOPS}):
        return None
    if top <= 11:
        orders = [SEGNET]
    elif top <= 31:
        orders = [FILE_ORDER, VOID_FIRST]
    elif top == 32:
        orders = [WITH_UNK, FROM_ONE]
    elif top == 33 and 32 not in seen:
        orders = [WITH_UNK]
    else:
        return None
    best = max(orders, key=lambda order: order.drop(facts) or 0)
    if best.fits(facts):
        return best
    if certain or (expected and top in _USUAL_TOPS):
        check_order(orders[0], facts)
    return None


def check_order(order: Order, facts: Sequence[MaskFacts]) -> None:
    """Refuses masks in which an assumed order puts the sky beside or below the road.

    Raises:
        UserError: names the order assumed, the likelier one if there is one, and the cure.
    """
    if order.fits(facts):
        return
    drop = order.drop(facts)
    found = "sky or road never occurs" if drop is None else f"road lies {drop:+.2f} heights below sky"
    likelier = order.classes == CAMVID11 and order != ALPHABETICAL and ALPHABETICAL.fits(facts)
    names = [*_ALPHABET, "Sky", "Tree"] if likelier else []
    raise UserError(
        f"The masks hold class indices without names, and {order.name} does not fit them: {found} (as "
        f"{facts[0].name}; {SKY_ABOVE_ROAD} or more is expected)."
        + (f" They fit {ALPHABETICAL.name}." if likelier else ""),
        "Put a classes.txt beside the data with the names in index order, one a line"
        + (f": {', '.join(names)}." if likelier else "."),
    )
