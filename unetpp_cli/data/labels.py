"""The file beside a data set that names its classes, in each of the forms in circulation.

`classes.txt` is this program's own: one class a line in index order, `name` or `name r g b`, `#` comments.
Called by `data.layouts`; what the names then mean is settled in `data.meaning`.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from unetpp_cli.data.classes import Color
from unetpp_cli.data.source import Source
from unetpp_cli.errors import UserError

LABEL_FILES = (
    "classes.txt",
    "label_colors.txt",
    "class_dict.csv",
    "class_palette.csv",
    "labelmap.txt",
    "_classes.csv",
    "codes.txt",
)
"""Names of label files, the user's own first; of several the first is read."""

VOID_NAMES = frozenset(
    {"void", "unlabelled", "unlabeled", "unlabel", "ignore", "ignored", "unknown", "unk", "dontcare"}
)
"""Canonical names (see `canonical`) of classes that are never scored."""


@dataclass(frozen=True)
class Label:
    """One class of a label file: its name, its colour if the file has one, and the value it has in masks."""

    name: str
    color: Color | None
    value: int

    @property
    def void(self) -> bool:
        """Whether its name says that it is never scored."""
        return canonical(self.name) in VOID_NAMES


@dataclass(frozen=True)
class Labels:
    """A label file: `file` as messages name it, and its classes in file order."""

    file: str
    rows: tuple[Label, ...]

    @property
    def colored(self) -> bool:
        """Whether every class has a colour."""
        return all(row.color is not None for row in self.rows)


def canonical(name: str) -> str:
    """A class name without case, spaces and punctuation: `Column_Pole` and `column pole` are one."""
    return re.sub(r"[^\w]|_", "", name.lower())


def find_labels(source: Source) -> Labels | None:
    """The label file of the data set, the one nearest to the top; None when there is none.

    Raises:
        UserError: there is one, but it makes no sense.
    """
    for wanted in LABEL_FILES:
        found = [name for name in source.files if name.rpartition("/")[2].lower() == wanted]
        if found:
            nearest = min(found, key=lambda name: (name.count("/"), name))
            return parse_labels(source.text(nearest), source.where(nearest), wanted)
    return None


def parse_labels(text: str, file: str, form: str) -> Labels:
    """Reads a label file.

    Args:
        text: its content.
        file: how messages name it.
        form: which of `LABEL_FILES` it is: `labelmap.txt` has its own form, and `_classes.csv` gives values
            and no colours. In all others a line is a name, or a name and three numbers in either order,
            separated by blanks, tabs or commas.

    Raises:
        UserError: it lists nothing, a line makes no sense, or a name or a value occurs twice.
    """
    rows: list[Label] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if form == "labelmap.txt":
            name, _, rest = line.partition(":")
            fields = [name, *rest.split(":")[0].split(",")]
        else:
            fields = [field.strip() for field in next(csv.reader([line]))]
        if not rows and _is_heading(fields):
            continue
        try:
            rows.append(_pixel_value(fields) if form == "_classes.csv" else _label(fields, len(rows)))
        except ValueError as error:
            raise UserError(
                f"{file}, line {number}, makes no sense: '{line}' ({error}).",
                "A line is a name, or a name and its colour: road 128 64 128.",
            ) from error
    if not rows:
        raise UserError(f"{file} lists no class.", "Write one class a line, or remove the file.")
    names, values = [row.name for row in rows], [str(row.value) for row in rows]
    for what, entries in (("name", names), ("value", values)):
        twice = [entry for entry in entries if entries.count(entry) > 1]
        if twice:
            raise UserError(f"{file} has the {what} {twice[0]} more than once.", "Keep one of them.")
    return Labels(file, tuple(rows))


def _label(fields: list[str], value: int) -> Label:
    """A line of a list of names: `name`, `name r g b` or `r g b name`, its value being its position."""
    words = " ".join(fields).split()
    if len(words) >= 4 and all(map(_is_number, words[:3])):
        return Label(" ".join(words[3:]), _color(words[:3]), value)
    if len(words) >= 4 and all(map(_is_number, words[-3:])):
        return Label(" ".join(words[:-3]), _color(words[-3:]), value)
    if all(map(_is_number, words)):
        raise ValueError("no name")
    return Label(" ".join(words), None, value)


def _pixel_value(fields: list[str]) -> Label:
    """A line of `_classes.csv`: pixel value, class name."""
    if len(fields) != 2 or not _is_number(fields[0]) or not fields[1] or int(fields[0]) > 254:
        raise ValueError("not a pixel value (0..254) and a name")
    return Label(fields[1], None, int(fields[0]))


def _color(words: list[str]) -> Color:
    red, green, blue = (int(word) for word in words)
    if max(red, green, blue) > 255:
        raise ValueError("colours run from 0 to 255")
    return red, green, blue


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _is_heading(fields: list[str]) -> bool:
    """`name,r,g,b`, `Pixel Value, Class`, and so on: a first line with the names of columns."""
    columns = {canonical(field) for field in fields}
    return (
        len(fields) > 1
        and bool(columns & {"name", "class", "classname", "label"})
        and not any(map(_is_number, fields))
    )
