"""What the values or colours of masks mean: a class set, and the table that leads there.

The two ways to find out are `data.named` (a label file says it) and `data.nameless` (CamVid's conventions, or
the class set that was asked for); `data.examine` chooses between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unetpp_cli.data.classes import CAMVID11, CAMVID32, VOID, ClassSet, Color
from unetpp_cli.data.encoding import Encoding, MaskFacts, pack
from unetpp_cli.data.labels import canonical
from unetpp_cli.errors import UserError

BLACK = pack((0, 0, 0))
"""Void in all of CamVid's colour masks, listed or not."""

SEGNET_DISPLAY_PAVEMENT: Color = (60, 40, 222)
"""SegNet's own display script paints Pavement so; masks made with it circulate."""

COLORS11: Mapping[int, int] = {pack(color): index for index, color in enumerate(CAMVID11.colors)} | {
    pack(SEGNET_DISPLAY_PAVEMENT): CAMVID11.names.index("Pavement")
}
"""Packed colour -> class of `CAMVID11`."""

COLORS32: Mapping[int, int] = {pack(color): index for index, color in enumerate(CAMVID32.colors)}
"""Packed colour -> class of `CAMVID32`."""

SKY_AND_ROAD = frozenset(pack(CAMVID11.colors[CAMVID11.names.index(name)]) for name in ("Sky", "Road"))
"""Packed colours that every CamVid frame shows, in the 11 classes as in the 32."""

NAME_THEM = (
    "Put a classes.txt beside the data: one class a line in index order, 'name' or 'name r g b', "
    "'Void' for what is never scored."
)

_SIMILAR = {"columnpole": "pole", "sidewalk": "pavement", "motorcycyclescooter": "motorcyclescooter"}


@dataclass(frozen=True)
class Context:
    """What is known beside the masks: the layout, and whether the frames have CamVid's names."""

    layout: str
    camvid: bool


@dataclass(frozen=True)
class Meaning:
    """What the masks mean.

    Attributes:
        classes: the class set that they are decoded to.
        encoding: how.
        void: what is never scored, in words.
        named: whether the classes have names; else these were made up from the values that occur.
    """

    classes: ClassSet
    encoding: Encoding
    void: str
    named: bool = True


def meaning(
    classes: ClassSet, table: Mapping[int, int], void: Sequence[str], colored: bool, named: bool = True
) -> Meaning:
    """A `Meaning` from a table of values or colours; 255 is void in index masks unless it is a class.

    Args:
        void: what is void beside the class set's void outputs, each in a word or two.
    """
    full = table if colored else {255: VOID, **table}
    words = [f"{classes.names[index]} ({index})" for index in classes.void] + list(dict.fromkeys(void))
    return Meaning(
        classes=classes,
        encoding=Encoding(colored, tuple(sorted(full.items()))),
        void=f"void {', '.join(words)}" if words else "no void",
        named=named,
    )


def similar(name: str) -> str:
    """`canonical`, with the names that CamVid's class sets have for the same thing made one."""
    return _SIMILAR.get(canonical(name), canonical(name))


def values_of(facts: Iterable[MaskFacts]) -> set[int]:
    """The values that occur in any of the masks."""
    return {value for mask in facts for value in mask.counts}


def refuse_binary(facts: Sequence[MaskFacts]) -> None:
    """Refuses masks of 0 and 255 alone: 255 may be the object or void, and a wrong guess teaches nothing.

    Raises:
        UserError: they are.
    """
    if values_of(facts) in ({0, 255}, {255}):
        raise UserError(
            f"The masks hold nothing but 0 and 255 (as {facts[0].name}): binary masks.",
            "Say what the two are in a classes.txt beside the data, in two lines such as "
            "'background 0 0 0' and 'object 255 255 255'.",
        )
