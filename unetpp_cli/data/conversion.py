"""From the class set that masks were made in to the one asked for, where that cannot be misunderstood.

Called by `data.layouts` when `--classes` or a model's header asks for a class set.
"""

from __future__ import annotations

from unetpp_cli.data.classes import CAMVID11, CAMVID32, CAMVID32_TO_11, CAMVID33, VOID, ClassSet
from unetpp_cli.data.meaning import similar
from unetpp_cli.errors import UserError, listed


def convert(own: ClassSet, wanted: ClassSet, label: str) -> dict[int, int]:
    """For each class of `own`, its index in `wanted`, or `VOID`.

    Possible are: the same names, in any order; CamVid's 32 or 33 classes to the 11, by SegNet's map; and the
    32 and the 33 to each other.

    Args:
        label: how messages name the data.

    Raises:
        UserError: neither; the message shows both lists of names.
    """
    if {own.name, wanted.name} <= {"camvid32", "camvid33"} and len(own) != len(wanted):
        return {index: index if index < len(wanted) else VOID for index in range(len(own))}
    theirs = [similar(name) for name in wanted.names]
    to_11 = own in (CAMVID32, CAMVID33) and sorted(theirs) == sorted(map(similar, CAMVID11.names))
    ours = [similar(name) for name in (CAMVID11 if to_11 else own).names]
    if len(set(theirs)) == len(theirs) and sorted(ours) == sorted(theirs):
        positions = {index: theirs.index(name) for index, name in enumerate(ours)} | {VOID: VOID}
        reached = (*CAMVID32_TO_11, VOID) if to_11 else range(len(own))
        return {index: positions[reached[index]] for index in range(len(own))}
    raise UserError(
        f"{label} has {len(own)} classes ({listed(own.names, 12)}), which cannot be read as the "
        f"{len(wanted)} of {wanted.name} ({listed(wanted.names, 12)}).",
        "Take data or a model with the same class names.",
    )
