"""Masks that name their classes, as `masks.save_mask` writes them: finding the names, and reading by them.

Called by `data.predictions` and `data.matching` for masks of unknown origin, and by `eval --pred`.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from unetpp_cli.data.classes import BUILT_IN, MAX_CLASSES, VOID, ClassSet, palette
from unetpp_cli.data.conversion import partners
from unetpp_cli.data.encoding import Encoding, RawMask, read_raw, unpack
from unetpp_cli.data.images import is_picture, opened
from unetpp_cli.data.labels import VOID_NAMES, canonical
from unetpp_cli.data.source import Source, open_source
from unetpp_cli.errors import UserError, listed
from unetpp_cli.masks import CLASSES_KEY

LOOKED_INTO = 50
"""Pictures in which `written_classes` looks for names; where masks lie beside images, every other is one."""


def open_predictions(place: str | os.PathLike[str]) -> Source:
    """The files at `--pred`: a folder, a .zip or a plain .tar.

    Raises:
        UserError: there is nothing that can be read.
    """
    if not Path(place).exists():
        raise UserError(f"There is no folder or archive {place}.", "Check the path given with --pred.")
    return open_source(place)


def written_classes(place: str | os.PathLike[str]) -> ClassSet | None:
    """The class set of masks that this program wrote, from the first of them; None for other tools' masks.

    Data opened in it are scored as `eval` scores the model: in the model's classes.

    Raises:
        UserError: the place cannot be read.
    """
    source = open_predictions(place)
    for file in [file for file in source.files if is_picture(file)][:LOOKED_INTO]:
        try:
            names = names_in(source, file)
        except UserError:
            continue  # a broken picture here matters only if it is some image's mask
        if names is not None:
            colors = read_raw(source.read(file), source.where(file)).palette
            return _class_set(names, () if colors is None else [int(color) for color in colors])
    return None


def look_at(source: Source, file: str) -> tuple[tuple[str, ...] | None, RawMask]:
    """The class names that an index mask carries, or None, and what it stores.

    Raises:
        UserError: it cannot be read.
    """
    return names_in(source, file), read_raw(source.read(file), source.where(file))


def names_in(source: Source, file: str) -> tuple[str, ...] | None:
    """The class names that `masks.save_mask` left in a mask of class indices; None for other pictures.

    Raises:
        UserError: it is no picture.
    """
    with source.open(file) as stream, opened(stream, source.where(file)) as picture:
        text = picture.info.get(CLASSES_KEY)
        if picture.format != "PNG" or picture.mode not in {"P", "L"} or not isinstance(text, str):
            return None
    try:
        names = json.loads(text)
    except ValueError:  # another program's text of this name
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if 0 < len(set(names)) == len(names) <= MAX_CLASSES else None


def _class_set(names: tuple[str, ...], colors: Sequence[int] = ()) -> ClassSet:
    """The class set of these names, a built-in one if it has them."""
    for classes in BUILT_IN.values():
        if classes.names == names:
            return classes
    void = tuple(index for index, name in enumerate(names) if canonical(name) in VOID_NAMES)
    painted = tuple(unpack(color) for color in colors[: len(names)]) or palette(len(names))
    return ClassSet("custom", names, painted, void)


@functools.lru_cache(maxsize=16)
def _by_names(names: tuple[str, ...], classes: ClassSet) -> tuple[Encoding, str]:
    """How index masks of classes of these names are read, and why they cannot be."""
    found = partners(_class_set(names), classes)
    reasons = list(found.unclear)
    if found.alone and all(index == VOID for index in found.mapping.values()):
        reasons.append("they have no name in common")
    table = {VOID: VOID, **found.mapping}
    return Encoding(False, tuple(sorted(table.items()))), "; ".join(reasons)


def encoding_by_names(names: tuple[str, ...], classes: ClassSet, where: str) -> Encoding:
    """How an index mask of classes of these names is read in `classes`; names that these lack are `VOID`.

    Args:
        where: how messages name the mask.

    Raises:
        UserError: the names have nothing in common, or may be read in two ways.
    """
    encoding, reason = _by_names(names, classes)
    if reason:
        raise UserError(
            f"{where} was written with {len(names)} classes ({listed(names, 12)}), which are not the data's "
            f"{len(classes)} ({listed(classes.names, 12)}): {reason}.",
            "Score it on data with the same class names.",
        )
    return encoding
