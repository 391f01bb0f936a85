"""What `unetpp predict` is to paint: files, folders, globs, lists and archives, as one sequence of items.

Called by `jobs.predict`. Folders are listed, never opened file by file, so that a million pictures are found
in seconds: whether a picture can be read shows when its turn comes.
"""

# Paths are text here: a Path for each of a million files would take longer than to list them.
# ruff: noqa: PTH100, PTH112, PTH113, PTH114, PTH118, PTH119, PTH120, PTH122, PTH206, PTH207

from __future__ import annotations

import functools
import glob
import os
import posixpath
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.images import decode_image, is_picture
from unetpp_cli.data.source import Source, open_source
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.painting.outputs import ENDINGS

STDIN = "-"
"""The argument that means: a list of pictures on standard input."""

LIST = "@"
_LISTS = {".txt", ".csv", ".lst"}
"""What an argument begins with that names a file of such a list."""

ARCHIVE_ENDING = "_masks"
"""Without -o the masks of drive.zip go to the folder drive_masks beside it."""

_ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
_FOREIGN = "__MACOSX"  # a folder of thumbnails called like the pictures
_MARK = b"\xef\xbb\xbf"  # what Windows puts in front of UTF-8
_ENDINGS = tuple(ending.removesuffix(".png") for ending in ENDINGS.values() if ending.endswith(".png"))


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to paint.

    Attributes:
        name: as messages name it; on disk its path.
        below: its path below the folder, archive or list that named it, with slashes: `-o` mirrors it.
        home: the folder of its outputs when there is no `-o`; an archive has one for its whole tree.
        source: the archive that holds it at `below`; None for a file on disk.
        is_link: whether the file is known to be a symbolic link.
        keeps_suffix: whether its outputs are called after a.jpg, not after a: there is an a.png, too.
    """

    name: str
    below: str
    home: str
    source: Source | None = None
    is_link: bool = False
    keeps_suffix: bool = False

    def decode(self, channels: int, reserve: Callable[[int], None] | None = None) -> npt.NDArray[np.uint8]:
        """The picture, upright: (H, W, 3) uint8, or (H, W) with one channel.

        Args:
            reserve: as `decode_image`.

        Raises:
            UserError: it cannot be read.
        """
        picture = self.name if self.source is None else self.source.read(self.below)
        return decode_image(picture, channels, self.name, reserve)


class Scan:
    """The items that the arguments of the command mean, in their order; folders in the order of names.

    A file that is given twice is taken once. Where files of one folder differ in their suffix alone, each of
    them keeps it in the names of its outputs: so the names do not depend on the order.

    Args:
        inputs: files, folders with all below them, globs, archives, `-` or `@list.txt`.
        output: `-o`; what folders, globs and lists name in or below it is no input, though it may lie in one.

    Attributes:
        left_out: after the iteration, how many files were taken for outputs of an earlier predict.
    """

    def __init__(self, inputs: Sequence[str], output: str | None = None) -> None:
        self.inputs = inputs
        self.left_out = 0
        self._shown = output
        self._output = os.path.realpath(output) if output else ""
        self._real = functools.cache(os.path.realpath)

    def __iter__(self) -> Iterator[Item]:
        """Raises `UserError` for an argument that means no picture, or whose pictures lie where masks go."""
        self.left_out = 0
        kept: list[tuple[Item, str]] = []
        suffixes: dict[str, tuple[str, ...]] = {}
        for item in (item for text in self.inputs for item in self._items(text)):
            folder, name = os.path.split(item.name)
            stem, suffix = os.path.splitext(os.path.join(self._real(folder or "."), name))
            known = suffixes.get(stem, ())
            if suffix not in known:
                suffixes[stem] = (*known, suffix)
                kept.append((item, stem))
        for item, stem in kept:
            yield replace(item, keeps_suffix=True) if len(suffixes[stem]) > 1 else item

    def _items(self, text: str) -> Iterator[Item]:
        if text == STDIN:
            yield from self._outside(_listed(_stdin(), "the list on standard input"), "the list")
        elif text.startswith(LIST) and len(text) > 1:
            yield from self._outside(_listed(_content(text[1:]), text[1:]), f"the list {text[1:]}")
        elif os.path.isdir(text):
            if self._output and self._real(text) == self._output:
                raise self._among(f"of the folder {text}")
            yield from _some(self._folder(text, text, set()), f"The folder {text}")
        elif os.path.lexists(text):
            name = os.path.basename(text)
            if os.path.splitext(name)[1].lower() in _ARCHIVES:
                yield from _some(self._archive(text), f"The archive {text}")
            elif os.path.splitext(name)[1].lower() in _LISTS:
                raise UserError(f"{text} is no picture.", f"For the pictures that it lists write @{text}.")
            else:
                yield Item(text, name, os.path.dirname(text), is_link=os.path.islink(text))
        elif glob.has_magic(text):
            yield from self._matches(text)
        else:
            raise UserError(f"There is no image {text}.", "Check the path; quote a glob: 'drive/*.png'.")

    def _is_output(self, path: str) -> bool:
        """Whether a file is `-o`, or lies in or below it. Folders are resolved, files are not."""
        if not self._output:
            return False
        folder, name = os.path.split(path)
        place = os.path.join(self._real(folder or "."), name)
        return place == self._output or place.startswith(os.path.join(self._output, ""))

    def _outside(self, items: Iterator[Item], shown: str) -> Iterator[Item]:
        """The items but for those in the folder of the masks; not all of them may be there."""
        empty = True
        for item in items:
            if not self._is_output(item.name):
                empty = False
                yield item
        if empty:
            raise self._among(f"that {shown} names")

    def _among(self, images: str) -> UserError:
        return UserError(
            f"-o {self._shown}: the masks would lie among the images {images}.",
            "Choose another folder, or leave out -o: the masks are then called NAME_mask.png.",
        )

    def _folder(self, root: str, folder: str, seen: set[str]) -> Iterator[Item]:
        """All below a folder. Linked folders are followed, each once."""
        real = os.path.realpath(folder)
        if real in seen or (folder != root and real == self._output):
            return
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            folders = {entry.name for entry in entries if entry.is_dir()}
        except OSError as error:
            raise UserError(f"Cannot read the folder {folder}: {error.strerror}.") from error
        names = [entry.name for entry in entries if entry.name not in folders]
        wanted = set(self._inputs(names))
        top = len(os.path.join(root, ""))
        for entry in entries:
            if entry.name in folders:
                if not entry.name.startswith(".") and entry.name != _FOREIGN:
                    yield from self._folder(root, entry.path, seen)
            elif entry.name in wanted:
                below = entry.path[top:].replace(os.sep, "/")
                yield Item(entry.path, below, folder, is_link=entry.is_symlink())

    def _archive(self, text: str) -> Iterator[Item]:
        source = open_source(text)
        home = os.path.splitext(text)[0] + ARCHIVE_ENDING
        folders: dict[str, list[str]] = {}
        for name in source.files:
            folders.setdefault(posixpath.dirname(name), []).append(posixpath.basename(name))
        for folder, names in folders.items():
            for name in self._inputs(names):
                below = posixpath.join(folder, name)
                yield Item(source.where(below), below, home, source)

    def _matches(self, text: str) -> Iterator[Item]:
        """What a glob means: of its matches the pictures; if no name looks like one, all files."""
        found = sorted(glob.glob(text, recursive=True))
        matches = [match for match in found if not self._is_output(match)]
        folders: dict[str, list[str]] = {}
        for match in matches:
            folder, name = os.path.split(match)
            if is_picture(name) and _FOREIGN not in folder.split(os.sep):
                folders.setdefault(folder, []).append(name)
        kept = [
            os.path.join(folder, name) for folder, names in folders.items() for name in self._inputs(names)
        ]
        kept = kept or [match for match in matches if os.path.isfile(match)]
        if not kept and len(matches) < len(found):
            raise self._among(f"that {text} means")
        if not kept:
            raise UserError(
                f"No file matches {text}.", "Check the pattern; a whole folder can be given, too."
            )
        fixed = re.split(r"[*?[]", text, maxsplit=1)[0]
        top = len(os.path.join(os.path.dirname(fixed), "")) if os.path.dirname(fixed) else 0
        for path in kept:
            yield Item(path, path[top:].replace(os.sep, "/"), os.path.dirname(path))

    def _inputs(self, names: Sequence[str]) -> Iterator[str]:
        """Of the files of one folder the pictures, but for what an earlier predict wrote beside them."""
        pictures = [name for name in names if is_picture(name) and not name.startswith(".")]
        stems = {os.path.splitext(name)[0] for name in pictures}.union(pictures)  # a.jpg_mask.png, too
        for name in pictures:
            stem, suffix = os.path.splitext(name)
            if suffix == ".png" and any(
                stem.endswith(ending) and stem.removesuffix(ending) in stems for ending in _ENDINGS
            ):
                self.left_out += 1
            else:
                yield name


def _some(items: Iterator[Item], shown: str) -> Iterator[Item]:
    """The items; a folder or archive without any is refused."""
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise UserError(f"{shown} holds no image.", "Give PNG or JPEG files.")


def _listed(data: bytes, shown: str) -> Iterator[Item]:
    """The pictures of a list; their tree is that below the deepest folder which they all share.

    One path a line, without the blanks around it; blank lines and such that begin with # are skipped. If a
    NUL occurs, paths are separated by NULs and taken as they are.
    """
    entries: Iterable[bytes]
    if b"\0" in data:
        entries = (entry for entry in data.split(b"\0") if entry)
    else:
        lines = (line.strip() for line in data.removeprefix(_MARK).splitlines())
        entries = (line for line in lines if line and not line.startswith(b"#"))
    paths = [os.fsdecode(entry) for entry in entries]
    if not paths:
        raise UserError(f"There is no image in {shown}.", "It should name one file a line.")
    places = [os.path.abspath(path) for path in paths]
    try:
        top = len(os.path.join(os.path.commonpath({os.path.dirname(place) for place in places}), ""))
    except ValueError:  # several drives
        top = 0
    for path, place in zip(paths, places, strict=True):
        below = place[top:] if top else os.path.basename(place)
        yield Item(path, below.replace(os.sep, "/"), os.path.dirname(path))


def _stdin() -> bytes:
    try:
        return sys.stdin.buffer.read()
    except (AttributeError, OSError, ValueError) as error:
        raise UserError("-: there is no standard input to read a list from.", "Use @list.txt.") from error


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"@{path}: cannot read the list {path}: {error.strerror}.",
            f"Check the path; a picture of that name is ./@{os.path.basename(path)}.",
        ) from error
