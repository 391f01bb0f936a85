"""Where the bytes of a data set come from: a folder, a .zip or .tar read in place, or memory.

A source is a read-only tree of files under posix paths. Nothing is ever unpacked, so a member's path, however
hostile, cannot write anywhere. Used by `data.layouts`; the loaders' worker processes get it by pickling or
forking and each opens the archive for itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from PIL import ContainerIO

from unetpp_cli.errors import UserError, listed

ORIGINAL_ZIPS = ("701_StillsRaw_full.zip", "LabeledApproved_full.zip")
"""CamVid's own two downloads. A folder may hold them as they are."""

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {b"Rar!": "RAR", b"7z\xbc\xaf\x27\x1c": "7-Zip"}
_TAR_BLOCK = 512


class Source(ABC):
    """A read-only tree of files.

    Attributes:
        label: what the user calls it, for messages.
        files: every file's posix path relative to the top, sorted; without what operating systems strew in.
    """

    def __init__(self, label: str, files: Iterable[str]) -> None:
        self.label = label
        self.files = tuple(sorted(files))

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of the file `name`, one of `files`.

        Raises:
            UserError: it cannot be read, or the archive is damaged there.
        """

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream over the file: who needs only a header reads only that. Raises as `read`."""
        return io.BytesIO(self.read(name))

    def text(self, name: str) -> str:
        """The content of a text file, whichever of the usual encodings it has."""
        data = self.read(name)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def where(self, name: str) -> str:
        """How messages name a file of this source."""
        return f"{self.label}/{name}"


class MemorySource(Source):
    """Files held in memory: the embedded demo data."""

    def __init__(self, label: str, content: Mapping[str, bytes]) -> None:
        super().__init__(label, content)
        self._content = dict(content)

    def read(self, name: str) -> bytes:
        return self._content[name]


class FolderSource(Source):
    """A folder on disk. Linked folders are followed, each once."""

    def __init__(self, path: Path) -> None:
        self._root = path.resolve()
        super().__init__(str(path), _files_under(self._root))

    def read(self, name: str) -> bytes:
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> IO[bytes]:
        try:
            return (self._root / name).open("rb")
        except OSError as error:
            raise UserError(f"Cannot read {self.where(name)}: {error.strerror or error}.") from error


class ZipSource(Source):
    """A .zip, read without unpacking. Every process has its own open file."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            entries = zipfile.ZipFile(self._path).infolist()
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise _damaged(path, error) from error
        locked = [entry.filename for entry in entries if entry.flag_bits & 1]
        if locked:
            raise UserError(f"{path} is encrypted ({listed(locked, 2)}).", "Unpack it and give the folder.")
        self._members = {
            name: entry.filename
            for entry in entries
            if not entry.is_dir() and (name := _clean(entry.filename)) is not None
        }
        super().__init__(str(path), self._members)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}

    def read(self, name: str) -> bytes:
        with self._reading(name):
            return self._archive().read(self._members[name])

    def open(self, name: str) -> IO[bytes]:
        with self._reading(name):
            return self._archive().open(self._members[name])

    def _archive(self) -> zipfile.ZipFile:
        # A forked worker inherits the open file, and with it one shared position: it needs its own.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self._path))
        return self._open[1]

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
            raise _damaged(self.where(name), error) from error


class TarSource(Source):
    """A plain .tar, read without unpacking: the place of every member is known, so any can be read alone."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._members = _tar_members(path)
        super().__init__(str(path), self._members)

    def read(self, name: str) -> bytes:
        start, size = self._members[name]
        try:
            with self._path.open("rb") as stream:
                stream.seek(start)
                return stream.read(size)
        except OSError as error:
            raise _damaged(self.where(name), error) from error

    def open(self, name: str) -> IO[bytes]:
        try:
            return ContainerIO.ContainerIO(self._path.open("rb"), *self._members[name])
        except OSError as error:
            raise _damaged(self.where(name), error) from error


class MountedSource(Source):
    """Files of several sources as one tree: path -> (source, path in it)."""

    def __init__(self, label: str, places: Mapping[str, tuple[Source, str]]) -> None:
        super().__init__(label, places)
        self._places = dict(places)

    def read(self, name: str) -> bytes:
        part, inner = self._places[name]
        return part.read(inner)

    def open(self, name: str) -> IO[bytes]:
        part, inner = self._places[name]
        return part.open(inner)

    def where(self, name: str) -> str:
        part, inner = self._places[name]
        return part.where(inner)


def open_source(path: str | os.PathLike[str]) -> Source:
    """The tree of files at `path`: a folder, a .zip, a plain .tar, or a folder with CamVid's original zips.

    Raises:
        UserError: there is nothing, it is empty or damaged, or an archive that allows no random access.
    """
    place = Path(path)
    try:
        if not place.exists():
            raise UserError(f"There is no folder or archive {place}.", "Check the path.")
        source = _folder(place) if place.is_dir() else _archive(place)
    except OSError as error:
        raise UserError(f"Cannot read {place}: {error.strerror or error}.") from error
    if not source.files:
        raise UserError(f"{place} is empty.", "Give the folder or archive that holds the pictures.")
    return source


def _folder(place: Path) -> Source:
    folder = FolderSource(place)
    places: dict[str, tuple[Source, str]] = {name: (folder, name) for name in folder.files}
    for zip_name in ORIGINAL_ZIPS:
        top = zip_name.removesuffix(".zip") + "/"
        if zip_name in folder.files and not any(name.startswith(top) for name in folder.files):
            part = ZipSource(place / zip_name)
            for name in part.files:  # the images' zip has a folder of its own, the labels' has none
                places[name if name.startswith(top) else top + name] = (part, name)
    return MountedSource(str(place), places) if len(places) > len(folder.files) else folder


def _archive(place: Path) -> Source:
    with place.open("rb") as stream:
        head = stream.read(8)
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise UserError(
                f"{place} is compressed as a whole ({name}): no picture in it can be read on its own.",
                "Unpack it and give the folder, or repack it as .zip or plain .tar.",
            )
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise UserError(f"{place} is a {name} archive.", "Unpack it and give the folder.")
    if zipfile.is_zipfile(place):
        return ZipSource(place)
    if place.suffix.lower() == ".zip" or head.startswith(b"PK"):
        raise _damaged(place, "no end of the archive is found")
    return TarSource(place)


def _tar_members(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> (first byte, size) of every file of a plain tar."""
    members: dict[str, tuple[int, int]] = {}
    links: dict[str, str | None] = {}
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                end = member.offset_data
                name = _clean(member.name)
                if member.isreg():
                    end += -(-member.size // _TAR_BLOCK) * _TAR_BLOCK
                    if name is not None:
                        members[name] = (member.offset_data, member.size)
                elif (member.islnk() or member.issym()) and name is not None:
                    base = posixpath.dirname(member.name) if member.issym() else ""
                    links[name] = _clean(posixpath.normpath(posixpath.join(base, member.linkname)))
        # tarfile takes a broken header or a cut for the end; a whole archive ends in blocks of zeros.
        with path.open("rb") as stream:
            stream.seek(end)
            if stream.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
                raise tarfile.ReadError("it ends, or breaks, in the middle")
    except tarfile.TarError as error:
        if not members and path.suffix.lower() != ".tar":
            raise UserError(
                f"{path} is neither a folder nor a .zip or .tar archive.",
                "Give the folder or archive that holds images and masks.",
            ) from error
        raise _damaged(path, error) from error
    return members | {name: members[target] for name, target in links.items() if target in members}


def _files_under(root: Path) -> Iterator[str]:
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise UserError(f"Cannot read {error.filename}: {error.strerror}.") from error

    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _litter(name))
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in files:
            if not _litter(name):
                yield name if inner == "." else f"{inner}/{name}"


def _clean(name: str) -> str | None:
    """A member's path as posix, relative and plain; None for litter and for paths that leave the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts or ".." in parts or any(_litter(part) for part in parts):
        return None
    return "/".join(parts)


def _litter(part: str) -> bool:
    """Whether a file or folder of this name is an operating system's, not the data set's."""
    return part.startswith(".") or part in {"__MACOSX", "Thumbs.db", "desktop.ini"}


def _damaged(what: object, error: object) -> UserError:
    return UserError(f"{what} is damaged ({error}).", "Download or pack it again.")
