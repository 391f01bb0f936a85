"""Looking into a data set's files before anything is trained on them: sizes, and what the masks mean.

Called by `data.layouts` once images and masks are paired and split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.data.encoding import Encoding, MaskFacts
from unetpp_cli.data.findings import Findings, counted
from unetpp_cli.data.labels import Labels
from unetpp_cli.data.meaning import BLACK, COLORS11, COLORS32, SKY_AND_ROAD, Context, Meaning, values_of
from unetpp_cli.data.named import label_colors, listed_colors, listed_values
from unetpp_cli.data.nameless import nameless_colors, nameless_values
from unetpp_cli.errors import UserError, listed

if TYPE_CHECKING:
    from unetpp_cli.data.layouts import Dataset, Pair

SAMPLE = 50
"""Masks that are looked into to find out what they mean; the others are judged when they are read."""


def check_sizes(data: Dataset, findings: Findings) -> None:
    """Refuses masks that are not of their image's size, by the headers of all files.

    Raises:
        UserError: some are, or a file cannot be read (unless `findings` collects that).
    """
    wrong: list[str] = []
    for pair in data.pairs():
        try:
            image, mask = data.image_size(pair), data.mask_size(pair)
        except UserError as error:
            findings.add(error)
            continue
        if image != mask:
            wrong.append(f"{pair.mask} {mask[1]}x{mask[0]} for {pair.image} {image[1]}x{image[0]}")
    if wrong:
        findings.refuse(
            f"Not of the image's size: {counted(len(wrong), 'mask')} ({listed(wrong, 3)}).",
            "Bring image and mask to one size (masks without interpolation), or take the originals.",
        )


def look_into_masks(
    data: Dataset, labels: Labels | None, context: Context, wanted: ClassSet | None, findings: Findings
) -> Meaning:
    """What the masks mean, by a sample spread over all splits, or by all where no file names the classes.

    Args:
        labels: the label file, if there is one.
        context: what else is known.
        wanted: the class set asked for (a model's, say): the meaning of masks that have no names.
        findings: takes warnings, and refusals of single masks.

    Raises:
        UserError: it cannot be told, or what can be told contradicts itself.
    """
    pairs = list(data.pairs())
    sample = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).astype(int)]
    facts = _survey(data, sample, findings)
    if not find_meaning(facts, labels, context, wanted, Findings()).named and len(sample) < len(pairs):
        facts = _survey(data, pairs, findings)
    found = find_meaning(facts, labels, context, wanted, findings)
    if not findings.collect:  # who collects will look into all masks
        judge(found.encoding, facts, findings)
    return found


def find_meaning(
    facts: Sequence[MaskFacts],
    labels: Labels | None,
    context: Context,
    wanted: ClassSet | None,
    findings: Findings,
) -> Meaning:
    """`look_into_masks` for masks that have been looked into."""
    if _by_color(facts, labels, context):
        if labels is not None:
            return listed_colors(labels, context)
        return nameless_colors(facts, context, wanted, findings)
    if labels is not None:
        return listed_values(facts, labels)
    return nameless_values(facts, context, wanted, findings)


def judge(encoding: Encoding, facts: Sequence[MaskFacts], findings: Findings) -> None:
    """Refuses masks with strays, and warns once of all that stay within the budget.

    Raises:
        UserError: there are such masks (unless `findings` collects that).
    """
    few: dict[str, int] = {}
    for mask in facts:
        try:
            strays = encoding.strays(mask)
            encoding.judge(strays, mask.pixels, mask.name)
        except UserError as error:
            findings.add(error)
            continue
        if strays:
            few[mask.name] = sum(strays.values())
    if few:
        shown = listed(f"{name} ({counted(count, 'pixel')})" for name, count in few.items())
        findings.warn(f"Colours on no list count as void in {counted(len(few), 'mask')}: {shown}.")


def _survey(data: Dataset, pairs: Sequence[Pair], findings: Findings) -> list[MaskFacts]:
    facts: list[MaskFacts] = []
    for pair in pairs:
        try:
            facts.append(data.survey_mask(pair))
        except UserError as error:
            findings.add(error)
    if not facts:
        raise UserError(f"None of the masks of {data.source.label} can be read.", "Look at one of them.")
    return facts


def _by_color(facts: Sequence[MaskFacts], labels: Labels | None, context: Context) -> bool:
    """Whether classes are told by colour: RGB masks, palettes of class colours, greys listed as colours."""
    if any(mask.colored for mask in facts):
        return True
    colors = {*COLORS32, *COLORS11, BLACK} if labels is None else set(label_colors(labels) or ())
    used = {color for mask in facts for color in mask.colors()}
    if not used <= colors:
        return False
    if all(mask.palette is not None for mask in facts):
        # A program that saves space may have numbered the colours anew in each file. Where it has not, the
        # colours say the same as the indices.
        return labels is not None or context.camvid or used >= SKY_AND_ROAD
    return labels is not None and max(values_of(facts)) >= len(labels.rows)
