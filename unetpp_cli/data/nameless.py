"""The meaning of masks without a label file: CamVid's conventions, or the class set that was asked for.

Where that means assuming an order of classes, the pictures must bear it out (`data.order`). Called by
`data.examine`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unetpp_cli.data.classes import BUILT_IN, CAMVID11, CAMVID32, VOID, ClassSet, palette
from unetpp_cli.data.encoding import MaskFacts, pack, unpack
from unetpp_cli.data.findings import Findings
from unetpp_cli.data.meaning import (
    BLACK,
    COLORS11,
    COLORS32,
    NAME_THEM,
    SEGNET_DISPLAY_PAVEMENT,
    SKY_AND_ROAD,
    Context,
    Meaning,
    meaning,
    refuse_binary,
    values_of,
)
from unetpp_cli.data.order import Order, check_order, likeliest_order
from unetpp_cli.errors import UserError, listed

NATIVE_32 = frozenset({"original CamVid", "CamSeq01", "Kaggle CamVid", "fast.ai", "CVAT"})
"""Layouts whose masks, as published, have the 32 classes."""

CAMVID_LAYOUTS = NATIVE_32 | {"SegNet", "blog", "PIDNet"}
"""Layouts that CamVid circulates in: nameless masks in them are looked at as CamVid's."""

FEW_MASKS = 10
"""From so many masks on, 32-class masks always show a colour that is not among the 11."""

_MOST = 0.9
"""The share of all pixels that must have a palette's colours for it to be taken for the masks' palette."""


def nameless_colors(
    facts: Sequence[MaskFacts], context: Context, fallback: ClassSet | None, findings: Findings
) -> Meaning:
    """The meaning of colour masks: CamVid's colours, or those of the class set asked for.

    Raises:
        UserError: the colours are neither.
    """
    used: dict[int, int] = {}
    for mask in facts:
        for color, count in mask.colors().items():
            used[color] = used.get(color, 0) + count
    total = sum(used.values())

    def mostly(known: Iterable[int]) -> bool:
        return sum(used.get(color, 0) for color in known) > _MOST * total

    if (context.camvid or set(used) >= SKY_AND_ROAD) and mostly({*COLORS32, *COLORS11}):
        if _has_eleven(set(used), len(facts), context, findings):
            return meaning(CAMVID11, {**COLORS11, BLACK: VOID}, ["black"], colored=True)
        return meaning(CAMVID32, COLORS32, [], colored=True)
    if fallback is not None and len(set(fallback.colors)) == len(fallback):
        table = {pack(color): index for index, color in enumerate(fallback.colors)}
        void = [] if BLACK in table else ["black"]
        table.setdefault(BLACK, VOID)
        if mostly(table):
            return meaning(fallback, table, void, colored=True)
    often = sorted(used, key=lambda color: -used[color])
    shown = listed((str(unpack(color)) for color in often), 6)
    raise UserError(
        f"No file says what the {len(used)} colours of the masks mean: {shown} (as {facts[0].name}).",
        "Put a classes.txt beside the data, one 'name r g b' a line.",
    )


def nameless_values(
    facts: Sequence[MaskFacts], context: Context, fallback: ClassSet | None, findings: Findings
) -> Meaning:
    """The meaning of index masks: an order of CamVid's classes, that of the class set asked for, or numbers.

    Raises:
        UserError: the masks are empty, binary or no class indices, or no order fits that may be assumed.
    """
    refuse_binary(facts)
    _refuse_greys_of_colors(facts)
    seen = values_of(facts)
    if seen == {0}:
        raise UserError(
            f"The masks hold nothing but 0 (as {facts[0].name}): there is nothing to tell apart.",
            "Look at how they were saved, or name the classes in a classes.txt beside the data.",
        )
    void_values = {255, 11} if fallback == CAMVID11 else {255}
    fits = fallback is not None and seen <= {*range(len(fallback)), *void_values}
    own_words = fallback is not None and fallback.name not in BUILT_IN
    if context.camvid or not (fits and own_words):
        expected = context.layout in CAMVID_LAYOUTS
        order = likeliest_order(facts, seen, expected, certain=context.camvid)
        if order is not None:
            return _in_order(order, seen, context)
    if fallback is not None and fits:
        table = {index: index for index in range(len(fallback))}
        order = Order(fallback, table, f"the order of {fallback.name}")
        if {"Sky", "Road"} <= set(fallback.names):
            check_order(order, facts)
        return _in_order(order, seen, context)
    count = max(seen - {255}, default=0) + 1
    findings.warn(
        f"The masks hold the values 0..{count - 1} and no file names them: the classes are called class_0 to "
        f"class_{count - 1}. {NAME_THEM}"
    )
    classes = ClassSet("custom", tuple(f"class_{index}" for index in range(count)), palette(count))
    table = {index: index for index in range(count)}
    return meaning(classes, table, ["255"] if 255 in seen else [], colored=False, named=False)


def _has_eleven(used: set[int], masks: int, context: Context, findings: Findings) -> bool:
    """Whether masks in CamVid's colours have the 11 classes, rather than the 32."""
    if used & (COLORS32.keys() - COLORS11.keys() - {BLACK}):
        return False
    if masks >= FEW_MASKS or pack(SEGNET_DISPLAY_PAVEMENT) in used:
        return True
    eleven = context.layout not in NATIVE_32
    findings.warn(
        f"{masks} masks are too few to tell the 11 classes from the 32 by their colours: taken for the "
        f"{11 if eleven else 32} by the layout. A label file beside the data settles it."
    )
    return eleven


def _in_order(order: Order, seen: set[int], context: Context) -> Meaning:
    """The meaning of index masks whose order of classes is known."""
    table = dict(order.table)
    void = [str(value) for value, index in order.table.items() if index == VOID and value in seen]
    if order.classes == CAMVID11:
        table[11] = VOID
        if 11 in seen or (context.layout == "SegNet" and 255 not in seen):
            void.append("11")
    if 255 in seen:
        void.append("255")
    return meaning(order.classes, table, void, colored=False)


def _refuse_greys_of_colors(facts: Sequence[MaskFacts]) -> None:
    """Refuses values that are no class indices: one channel, or the greys, of colour masks."""
    seen = values_of(facts) - {255}
    one_channel = seen <= {0, 60, 64, 128, 192}
    scattered = max(seen, default=0) > 33 and 2 * len(seen) < max(seen)
    if len(seen) > 1 and (one_channel or scattered):
        raise UserError(
            f"The masks hold the values {listed(map(str, sorted(seen)), 8)} (as {facts[0].name}): greys, or "
            "one channel, of colours, and no class indices.",
            "Give the masks as they were before. If these are the values you mean: " + NAME_THEM,
        )
