"""From the class set that masks were made in to the one asked for, by name, where that is unambiguous.

Called by `data.layouts` when `--classes` or a model's header asks for a class set, and by `data.predictions`
for masks that name their classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unetpp_cli.data.classes import (
    BUILT_IN,
    CAMVID11,
    CAMVID32,
    CAMVID32_TO_11,
    CAMVID33,
    VOID,
    ClassSet,
)
from unetpp_cli.data.labels import canonical
from unetpp_cli.data.meaning import similar
from unetpp_cli.errors import UserError, listed

_ELEVEN = tuple(similar(name) for name in CAMVID11.names)
_MERGED: Mapping[str, str] = {
    similar(name): _ELEVEN[target]
    for name, target in zip(CAMVID32.names, CAMVID32_TO_11, strict=True)
    if target != VOID
}
"""`similar` name of each of CamVid's 32 classes that SegNet's map keeps -> that of its class among the 11."""

_THIRTY_TWO = frozenset(map(similar, CAMVID33.names))


@dataclass(frozen=True)
class Partners:
    """Which class of one set is which of another.

    Attributes:
        mapping: for each class of the first, its index in the second, or `VOID`.
        alone: classes of the first that the second has no class for; `VOID` in `mapping`.
        unclear: what could be read in two ways, in words; `mapping` is of no use then.
    """

    mapping: Mapping[int, int]
    alone: tuple[int, ...]
    unclear: tuple[str, ...]


@dataclass(frozen=True)
class Conversion:
    """How masks of one class set are read in another.

    Attributes:
        mapping: for each class of the masks, its index in the set asked for, or `VOID`.
        note: what the user should know about it, in a sentence; empty when the two sets say the same.
    """

    mapping: Mapping[int, int]
    note: str


def convert(own: ClassSet, wanted: ClassSet, label: str) -> Conversion:
    """How masks of the classes `own` are read as `wanted`.

    Every class is matched by its name (see `partners`). `wanted` may have classes that `own` lacks: they
    never occur in the masks. `own` may have none that `wanted` lacks, unless it is void: its pixels could
    only ever be wrong. Void classes of either side are `VOID`.

    Args:
        label: how messages name the data.

    Raises:
        UserError: a class has no partner or more than one, or none is left that could be scored; the message
            shows both lists of names.
    """
    found = partners(own, wanted)
    reasons = list(found.unclear)
    if found.alone:
        reasons.append(f"no class there is called {listed((own.names[index] for index in found.alone), 12)}")
    if not reasons and all(index == VOID for index in found.mapping.values()):
        reasons.append("none of them would ever be scored")
    if reasons:
        raise UserError(
            f"{label} has {len(own)} classes ({listed(own.names, 12)}), which cannot be read as the "
            f"{len(wanted)} of {wanted.name} ({listed(wanted.names, 12)}): {'; '.join(reasons)}.",
            "Take data or a model with the same class names; a classes.txt beside the data names them anew.",
        )
    return Conversion(found.mapping, _note(own, wanted, found.mapping))


def partners(own: ClassSet, wanted: ClassSet) -> Partners:
    """Finds for each class of `own` the one of `wanted` with the same name.

    The first of these that finds a partner decides: the same spelling; the same letters, whatever their case,
    blanks, underscores and hyphens; CamVid's two names for one thing (Sidewalk is Pavement, Column_Pole is
    Pole); the same word with and without a plural s. Where `wanted` has CamVid's 11 classes and all names of
    `own` are among its 32, those that are not among the 11 go by SegNet's map.
    """
    eleven = sorted(map(similar, wanted.names)) == sorted(_ELEVEN)
    camvid = eleven and {similar(name) for name in own.names} <= _THIRTY_TWO
    mapping: dict[int, int] = {}
    alone: list[int] = []
    unclear = ["some of CamVid's 11 are several of its 32 in one"] if _are_merged(own, wanted) else []
    first: dict[int, int] = {}  # class of `wanted` -> the class of `own` that found it by its name
    for index, name in enumerate(own.names):
        mapping[index] = VOID
        if index in own.void:
            continue
        found = _namesakes(name, wanted)
        if len(found) > 1:
            unclear.append(f"{name} may be {' or '.join(wanted.names[other] for other in found)}")
        elif found:
            twin = first.setdefault(found[0], index)
            if twin != index:
                both = f"{own.names[twin]} and {name}"
                unclear.append(f"both {both} would be {wanted.names[found[0]]}")
            mapping[index] = VOID if found[0] in wanted.void else found[0]
        elif not camvid:
            alone.append(index)
        elif similar(name) in _MERGED:
            mapping[index] = [similar(other) for other in wanted.names].index(_MERGED[similar(name)])
    return Partners(mapping, tuple(alone), tuple(unclear))


def _namesakes(name: str, wanted: ClassSet) -> list[int]:
    """The classes of `wanted` that have the name, by the strictest comparison that finds any."""
    for key in (str, canonical, similar, _singular):
        found = [index for index, other in enumerate(wanted.names) if key(other) == key(name)]
        if found:
            return found
    return []


def _singular(name: str) -> str:
    """`similar` without a plural s: Cars is Car."""
    return similar(canonical(name).removesuffix("s"))


def _are_merged(own: ClassSet, wanted: ClassSet) -> bool:
    """Whether masks of CamVid's 11 classes are to be read with more of the 32: Car there holds Truck_Bus."""
    if sorted(map(similar, own.names)) != sorted(_ELEVEN):
        return False
    return any(similar(name) in _MERGED.keys() - set(_ELEVEN) for name in wanted.names)


def _note(own: ClassSet, wanted: ClassSet, mapping: Mapping[int, int]) -> str:
    """`Conversion.note`."""
    reached = {index for index in mapping.values() if index != VOID}
    missing = [wanted.names[index] for index in wanted.scored if index not in reached]
    void = [own.names[index] for index in own.scored if mapping[index] == VOID]
    kept = [(index, mapping[index]) for index in own.scored if mapping[index] != VOID]
    moved = any(index != other for index, other in kept)
    if not (missing or void or moved):
        return ""
    if own in (CAMVID32, CAMVID33) and not missing and len(wanted) == len(CAMVID11):
        return f"CamVid's {len(own)} classes are merged into its 11 by SegNet's map."
    whose = f"{wanted.name}'s" if wanted.name in BUILT_IN else "the model's"
    if missing:
        text = f"the data have {len(reached)} of {whose} {len(wanted.scored)}, not {listed(missing, 12)}"
    else:
        order = ", in another order" if moved and len(kept) == len(reached) else ""
        text = f"the data have all of {whose} {len(wanted.scored)}{order}"
    renamed = [
        f"{own.names[index]} is {wanted.names[other]}"
        for index, other in kept
        if canonical(own.names[index]) != canonical(wanted.names[other])
    ]
    parts = [text, *([listed(renamed)] if renamed else []), *([f"void: {listed(void)}"] if void else [])]
    return f"Classes are matched by name: {'; '.join(parts)}."
