"""Masks that any tool has predicted -> class indices of the data they are to be scored on.

`find_predictions` finds the mask of every pair and how the masks store classes; `Predictions.read` decodes
one. Called by `eval --pred`. A mask that could be another's, or mean something else, is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unetpp_cli.colors import void_color
from unetpp_cli.data.classes import CAMVID11, VOID, ClassSet
from unetpp_cli.data.encoding import Encoding, MaskFacts, pack, survey
from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.data.matching import match
from unetpp_cli.data.meaning import BLACK, COLORS11, values_of
from unetpp_cli.data.named_masks import encoding_by_names, look_at, open_predictions
from unetpp_cli.data.source import Source
from unetpp_cli.errors import UserError, listed

SAMPLE = 50
"""Masks that are looked into to find out how they store classes; the others are judged when they are read."""

SURE = 4
"""So many class colours in the palettes of masks are there on purpose."""

INDICES = "Save grey PNGs whose pixels are class indices."


@dataclass(frozen=True)
class Predictions:
    """A mask for each of some pairs. Can be pickled; every process reads for itself.

    Attributes:
        source: the files.
        files: each pair's mask, a path within `source`.
        classes: those of the data, which `read` gives indices of.
        encoding: how masks store classes that do not name them.
        how: the same in words.
    """

    source: Source
    files: Mapping[Pair, str]
    classes: ClassSet
    encoding: Encoding
    how: str

    def read(self, pair: Pair, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The mask of a pair: (H, W) uint8 indices of `classes`, `VOID` (255) where it names none of them.

        Args:
            size: (height, width) of the mask that it is scored against.

        Raises:
            UserError: it cannot be read, has another size, or holds values or colours of no class.
        """
        file = self.files[pair]
        where = self.source.where(file)
        names, raw = look_at(self.source, file)
        if raw.values.shape != size:
            height, width = raw.values.shape
            raise UserError(
                f"{where} is {width}x{height}, the mask it is scored against {size[1]}x{size[0]}.",
                "Save every prediction at its image's own size; never smooth class indices or colours.",
            )
        encoding = self.encoding if names is None else encoding_by_names(names, self.classes, where)
        try:
            return encoding.decode(raw, where)
        except UserError as error:
            raise UserError(error.problem, _cure(encoding, self.classes)) from error


def find_predictions(place: str | os.PathLike[str], data: Dataset, pairs: Sequence[Pair]) -> Predictions:
    """Finds a mask for each of `pairs` in a folder, a .zip or a plain .tar.

    The mask of NAME.jpg is NAME.png, NAME_mask.png, NAME_pred.png or one with another of
    `matching.ENDINGS`, in a folder of any name; where several images are called NAME, the folders tell them
    apart. Other files do not matter.

    Masks that this program wrote name their classes, and are read by these names; a class that the data lack
    is `VOID`. In other tools' masks, colours are the colours of the data's classes (black is void unless it
    is a class) and values are the values of the data's own masks, or class indices where those hold colours.

    Raises:
        UserError: the place cannot be read, masks are missing, one pair has several or several have one, or
            none can be told how to be read.
    """
    source = open_predictions(place)
    files = match(source, data, pairs)
    facts: list[MaskFacts] = []
    sample = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).astype(int)]
    for pair in sample:
        names, raw = look_at(source, files[pair])
        if names is None:
            facts.append(survey(raw, source.where(files[pair])))
    colors, values = _colors(data), _values(data)
    if _by_color(facts, colors, values, data.classes):
        if len(set(data.classes.colors)) < len(data.classes):
            raise UserError(
                f"The masks of {source.label} hold colours, but two of the data's classes have one colour.",
                INDICES,
            )
        return Predictions(source, files, data.classes, colors, "by the classes' colours")
    how = "by class index" if data.encoding.colored else "by the values of the data's masks"
    if not facts:
        how = "by the class names in the files"
    return Predictions(source, files, data.classes, values, how)


def _colors(data: Dataset) -> Encoding:
    """How colour masks are read: in the colours of the data's masks and of its classes."""
    classes = data.classes
    table: dict[int, int] = dict(COLORS11) if classes == CAMVID11 else {}
    for index, color in enumerate(classes.colors):
        table.setdefault(pack(color), VOID if index in classes.void else index)
    if data.encoding.colored:
        table |= dict(data.encoding.table)
    table.setdefault(BLACK, VOID)
    table.setdefault(pack(void_color(classes)), VOID)
    return Encoding(True, tuple(sorted(table.items())))


def _values(data: Dataset) -> Encoding:
    """How index masks without names are read: by the values of the data's masks, or else by class index."""
    if not data.encoding.colored:
        return data.encoding
    table = {11: VOID} if data.classes == CAMVID11 else {}
    table |= {255: VOID} | {index: index for index in range(len(data.classes))}
    return Encoding(False, tuple(sorted(table.items()))).mapped(
        {index: VOID if index in data.classes.void else index for index in range(len(data.classes))}
    )


def _by_color(facts: Sequence[MaskFacts], colors: Encoding, values: Encoding, classes: ClassSet) -> bool:
    """Whether classes are told by colour: in RGB, in greys beyond the classes, in palettes of class colours.

    A palette whose colours and values say the same is read by its values. Where they differ, a program may
    have numbered the colours anew; or the palette is a general one, and some of its colours are these
    classes' by chance: Pascal VOC's has three of CamVid's.

    Raises:
        UserError: the palettes' colours and values differ, and the colours are too few to be sure.
    """
    if any(mask.colored for mask in facts):
        return True
    known, indices = dict(colors.table), dict(values.table)
    used = {color for mask in facts for color in mask.colors()}
    if not facts or not used <= known.keys():
        return False
    if any(mask.palette is None for mask in facts):
        return max(values_of(facts)) >= len(classes)
    if not values_of(facts) <= indices.keys():
        return True
    entries = {(value, color, mask.name) for mask in facts for value, color in (mask.palette or {}).items()}
    torn = sorted(entry for entry in entries if known[entry[1]] not in (VOID, indices[entry[0]]))
    if torn and sum(known[color] != VOID for color in used) < SURE:
        value, color, name = torn[0]
        raise UserError(
            f"{name} holds the value {value} in the colour of {classes.names[known[color]]}: does the value "
            "count, or the colour?",
            INDICES,
        )
    return bool(torn)


def _cure(encoding: Encoding, classes: ClassSet) -> str:
    """What masks should hold, in words."""
    names = {index: name for index, name in enumerate(classes.names) if index not in classes.void}
    if encoding.colored:
        shown = listed(f"{classes.names[index]} {classes.colors[index]}" for index in names)
        return f"Colour masks hold the classes' colours exactly, black for nothing: {shown}."
    shown = listed((f"{key} {names[index]}" for key, index in encoding.table if index in names), 12)
    return f"Index masks hold {shown}; 255 stands for nothing."
