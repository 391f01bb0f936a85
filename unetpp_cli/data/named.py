"""The meaning of masks beside which a label file lies. Called by `data.examine`."""

from __future__ import annotations

from collections.abc import Sequence

from unetpp_cli.data.classes import BUILT_IN, CAMVID11, CAMVID32, CAMVID33, VOID, ClassSet, palette
from unetpp_cli.data.encoding import MaskFacts, pack, unpack
from unetpp_cli.data.labels import VOID_NAMES, Labels
from unetpp_cli.data.meaning import (
    BLACK,
    SEGNET_DISPLAY_PAVEMENT,
    Context,
    Meaning,
    meaning,
    refuse_binary,
    similar,
    values_of,
)
from unetpp_cli.data.order import SEGNET
from unetpp_cli.errors import UserError

_KNOWN_COLORS = {
    similar(name): color
    for classes in (CAMVID11, CAMVID33)
    for name, color in zip(classes.names, classes.colors, strict=True)
}


def label_colors(labels: Labels) -> list[int] | None:
    """The packed colour of each row of the label file. Names alone have colours if all of them are CamVid's.

    Returns:
        None when the file has no colours and its names are not CamVid's.
    """
    if labels.colored:
        return [pack(row.color) for row in labels.rows if row.color is not None]
    known = _KNOWN_COLORS | dict.fromkeys(VOID_NAMES, (0, 0, 0))
    names = [similar(row.name) for row in labels.rows]
    return [pack(known[name]) for name in names] if known.keys() >= {*names} else None


def listed_colors(labels: Labels, context: Context) -> Meaning:
    """The meaning of colour masks.

    Raises:
        UserError: the label file has no colours, or one colour for two classes.
    """
    colors = label_colors(labels)
    if colors is None:
        raise UserError(
            f"The masks hold colours, and {labels.file} has names without colours.",
            "Write the colours behind the names, as in: road 128 64 128.",
        )
    classes, indices = _class_set(labels)
    table: dict[int, int] = {}
    for color, index in zip(colors, indices, strict=True):
        if table.setdefault(color, index) != index:
            twins = [row.name for row, other in zip(labels.rows, colors, strict=True) if other == color]
            raise UserError(
                f"{labels.file} gives {' and '.join(twins)} the colour {unpack(color)}.", "Give each its own."
            )
    void = [row.name for row, index in zip(labels.rows, indices, strict=True) if index == VOID]
    if BLACK not in table and (classes.name in BUILT_IN or context.layout == "CVAT"):
        table[BLACK] = VOID  # what nobody labelled
        void.append("black")
    if classes == CAMVID11:
        table.setdefault(pack(SEGNET_DISPLAY_PAVEMENT), CAMVID11.names.index("Pavement"))
    return meaning(classes, table, void, colored=True)


def listed_values(facts: Sequence[MaskFacts], labels: Labels) -> Meaning:
    """The meaning of index masks: the label file's order, or the values it gives.

    Raises:
        UserError: the masks are binary, or SegNet's while the label file lists the 32 classes.
    """
    classes, indices = _class_set(labels)
    table = {row.value: index for row, index in zip(labels.rows, indices, strict=True)}
    void = [f"{row.name} ({row.value})" for row in labels.rows if table[row.value] == VOID]
    seen = values_of(facts)
    if 255 not in table:
        refuse_binary(facts)
        if 255 in seen:
            void.append("255")
    if classes == CAMVID11 and 11 in seen and 11 not in table:
        table[11] = VOID
        void.append("11")
    if classes in (CAMVID32, CAMVID33) and max(seen - {255}, default=0) == 11 and SEGNET.fits(facts):
        raise UserError(
            f"{labels.file} lists {len(labels.rows)} classes, but the masks look like SegNet's 11: their "
            "values end at 11, with sky at 0 and road at 3.",
            f"Remove {labels.file}, or replace it by one that fits the masks.",
        )
    return meaning(classes, table, void, colored=False)


def _class_set(labels: Labels) -> tuple[ClassSet, list[int]]:
    """The class set a label file describes, and for each of its rows the class index or `VOID`.

    CamVid's classes are recognised by their names, in any order; they come in their own order. Void classes
    of any other data need no output of the network: their pixels are `VOID`.
    """
    names = [similar(row.name) for row in labels.rows]
    for built_in in (CAMVID32, CAMVID33):
        order = [similar(name) for name in built_in.names]
        if sorted(names) == sorted(order):
            return built_in, [order.index(name) for name in names]
    scored = [row for row in labels.rows if not row.void]
    order = [similar(name) for name in CAMVID11.names]
    if sorted(similar(row.name) for row in scored) == sorted(order):
        return CAMVID11, [VOID if row.void else order.index(similar(row.name)) for row in labels.rows]
    if not scored:
        raise UserError(f"{labels.file} lists nothing but void classes.", "Name the others, too.")
    spare = palette(len(labels.rows))
    colors = tuple(
        row.color or _KNOWN_COLORS.get(similar(row.name)) or spare[labels.rows.index(row)] for row in scored
    )
    try:
        classes = ClassSet("custom", tuple(row.name for row in scored), colors)
    except UserError as error:
        raise UserError(f"{labels.file}: {error.problem}", error.cure) from error
    return classes, [VOID if row.void else scored.index(row) for row in labels.rows]
