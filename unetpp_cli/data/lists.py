"""Text files that list a data set: pairs of paths (SegNet, CVAT, PIDNet) or the names of a split's images.

Called by `data.layouts`. Paths in such lists often begin with a folder of the machine they were made on: only
their ends are compared with what is there.
"""

from __future__ import annotations

import collections
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unetpp_cli.data.findings import Findings, counted
from unetpp_cli.data.images import is_picture
from unetpp_cli.data.labels import LABEL_FILES
from unetpp_cli.data.pairing import Pair, Splits
from unetpp_cli.data.source import Source
from unetpp_cli.errors import listed

LIST_SUFFIXES = (".txt", ".lst", ".csv")

MOST_LISTS = 50
"""More text files than this in one folder are annotations, not lists."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""How folders and lists spell the splits."""


@dataclass(frozen=True)
class PairLists:
    """The pairs that a data set's own lists name.

    Attributes:
        splits: the pairs; `""` for lists whose names tell no split, such as CVAT's default.txt.
        files: the lists they were read from.
    """

    splits: Splits
    files: tuple[str, ...]


def read_pair_lists(source: Source, findings: Findings) -> PairLists | None:
    """The lists whose lines name an image and its mask; None when the data set has none.

    Raises:
        UserError: a list names files that are not there, or two lists of one split differ.
    """
    resolve = _Resolver([name for name in source.files if is_picture(name)])
    splits: dict[str, dict[str, Pair]] = {}
    files: list[str] = []
    listed_in: dict[str, tuple[str, set[Pair]]] = {}
    known: set[str] = set()
    for file in _list_files(source):
        pairs, missing, unmasked = _read_pairs(source.text(file), resolve)
        if not pairs:
            continue
        if missing:
            findings.refuse(
                f"{source.where(file)} lists what is not there: {counted(len(missing), 'file')} "
                f"({listed(missing)}).",
                "Add the files, or take the lines out of the list.",
            )
        if unmasked:
            findings.warn(
                f"Left out for want of a mask: {counted(len(unmasked), 'image')} of {file} "
                f"({listed(unmasked)})."
            )
            known.update(unmasked)
        split = split_of(file) or ("both" if "trainval" in posixpath.basename(file).lower() else "")
        before, found = listed_in.setdefault(split, (file, set(pairs)))
        if split and found != set(pairs):
            findings.refuse(f"{before} and {file} list different pairs for {split}.", "Remove one of them.")
        splits.setdefault(split, {}).update((pair.image, pair) for pair in pairs)
        known |= {path for pair in pairs for path in (pair.image, pair.mask) if path is not None}
        files.append(file)
    both = splits.pop("both", None)  # train and val together: worth reading only where they have no lists
    if both and not splits.keys() & {"train", "val"}:
        splits["train"] = both
    if not splits:
        return None
    if splits.keys() - {""} and (loose := splits.pop("", None)):
        outside = {*loose} - {image for pairs in splits.values() for image in pairs}
        if outside:
            findings.warn(f"On lists of no known split, and unused: {counted(len(outside), 'image')}.")
    _warn_of_unlisted(source, known, findings)
    ordered = {
        name: tuple(sorted(pairs.values(), key=lambda pair: pair.stem)) for name, pairs in splits.items()
    }
    return PairLists(ordered, tuple(files))


def read_name_lists(source: Source, pairs: Sequence[Pair], findings: Findings) -> dict[str, set[str]]:
    """Split -> stems, from lists that name one image a line (by stem, file name or path).

    Raises:
        UserError: a list names images that are not there.
    """
    known: dict[str, str] = {}
    for pair in pairs:
        known[posixpath.basename(pair.stem)] = pair.stem
    known.update((pair.stem, pair.stem) for pair in pairs)
    splits: dict[str, set[str]] = {}
    for file in _list_files(source):
        split = split_of(file)
        if split is None:
            continue
        found: set[str] = set()
        missing: list[str] = []
        for line in source.text(file).splitlines():
            if (fields := _fields(line)) and not line.startswith("#"):
                path = fields[0].replace("\\", "/")
                name = posixpath.splitext(path)[0] if is_picture(path) else path
                stem = known.get(name.lstrip("/"), known.get(posixpath.basename(name)))
                if stem is None:
                    missing.append(fields[0])
                else:
                    found.add(stem)
        if not found:
            if missing:
                findings.warn(f"{file} names none of the images, and is ignored.")
        else:
            if missing:
                findings.refuse(
                    f"{source.where(file)} lists what is not there: {counted(len(missing), 'image')} "
                    f"({listed(missing)}).",
                    "Add the images, or take the lines out of the list.",
                )
            splits.setdefault(split, set()).update(found)
    return splits


def _warn_of_unlisted(source: Source, known: set[str], findings: Findings) -> None:
    """Pictures that no list names: a frame forgotten, another set of masks, a split without its list."""
    others = [name for name in source.files if is_picture(name) and name not in known]
    folders = collections.Counter(posixpath.dirname(name) or "the top folder" for name in others)
    shown = others if len(others) < 6 else [f"{count} in {folder}" for folder, count in folders.items()]
    if others:
        findings.warn(f"On no list, and unused: {counted(len(others), 'picture')} ({listed(shown)}).")


def split_of(path: str) -> str | None:
    """The split that a list's file name tells: `camvid_val_list.txt` -> `val`; None for any other name."""
    words = re.split(r"[^a-z]+", posixpath.splitext(posixpath.basename(path))[0].lower())
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 and "trainval" not in words else None


def _list_files(source: Source) -> list[str]:
    """The files that may be lists: text files that lie about singly, not one for every image."""
    texts = [
        name
        for name in source.files
        if name.lower().endswith(LIST_SUFFIXES) and posixpath.basename(name).lower() not in LABEL_FILES
    ]
    crowd = collections.Counter(map(posixpath.dirname, texts))
    return [name for name in texts if crowd[posixpath.dirname(name)] <= MOST_LISTS]


def _fields(line: str) -> list[str]:
    """The fields of a line: quoted, or separated by tabs, commas or blanks."""
    line = line.strip()
    if '"' in line:
        return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s",]+)', line)]
    for separator in ("\t", ","):
        if separator in line:
            return [field.strip() for field in line.split(separator) if field.strip()]
    return line.split()


def _read_pairs(text: str, resolve: _Resolver) -> tuple[list[Pair], list[str], list[str]]:
    """A list's pairs, the paths that are not there, and the images without mask."""
    found: list[tuple[str, str]] = []
    missing: list[str] = []
    unmasked: list[str] = []
    for line in text.splitlines():
        fields = [field for field in _fields(line) if is_picture(field)]
        if not fields or line.startswith("#"):
            continue
        image = resolve(fields[0])
        mask = resolve(fields[1]) if len(fields) > 1 else None
        if image is None or (len(fields) > 1 and mask is None):
            missing += [fields[0]] if image is None else [fields[1]]
        elif mask is None:
            unmasked.append(image)
        else:
            found.append((image, mask))
    if not found:
        return [], missing, unmasked
    folder = posixpath.commonpath([posixpath.dirname(image) for image, _ in found])
    pairs = [
        Pair(posixpath.splitext(posixpath.relpath(image, folder or "."))[0], image, mask)
        for image, mask in found
    ]
    return pairs, missing, unmasked


class _Resolver:
    """Finds files by the ends of their paths, with the extension given or, if need be, another."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._found: dict[str, str | None] = {}
        for path in paths:
            parts = path.split("/")
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                for key in (tail, posixpath.splitext(tail)[0]):
                    self._found[key] = None if key in self._found else path

    def __call__(self, path: str) -> str | None:
        parts = [part for part in path.replace("\\", "/").split("/") if part not in {"", "."}]
        for kept in range(len(parts), min(2, len(parts)) - 1, -1):
            tail = "/".join(parts[-kept:])
            for key in (tail, posixpath.splitext(tail)[0]):
                if found := self._found.get(key):
                    return found
        return None
