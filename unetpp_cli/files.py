"""Writing files so that a reader, or a crash, never meets half of one. Used by everything that writes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from unetpp_cli.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial-"
_RANDOM = re.compile(r"[a-z0-9_]{8}")  # what `tempfile` puts into a name

ABANDONED = 3600.0
"""Seconds after which a half-written file that nobody has added to is taken for a killed process's."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it over `path` when the block ends well.

    The temporary file keeps the suffix of `path` (libraries choose the format by it). When the block
    raises, the temporary file is removed and whatever stood at `path` is left untouched.

    Raises:
        UserError: the folder does not exist and cannot be made, or cannot be written to.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_partial(target), suffix=target.suffix)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}.", "Choose another place with -o or --out."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        # mkstemp makes the file private; an ordinary file follows the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        try:
            temporary.replace(target)
        except OSError as error:
            raise UserError(f"Cannot write {target}: {error.strerror or error}.") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _partial(target: Path) -> str:
    return f"{_PARTIAL}{target.stem[:40]}-"


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path` in one step (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8 to `path` in one step (see `replacing`)."""
    write_bytes(path, text.encode("utf-8"))


def sweep(folder: Path) -> None:
    """Removes what a killed process has left half-written in `folder`, which no other process is using."""
    for leftover in folder.rglob(f"{_PARTIAL}*"):
        leftover.unlink(missing_ok=True)


def sweep_beside(targets: Iterable[str | os.PathLike[str]]) -> None:
    """Removes what killed processes have left half-written of these files, in a folder that others may use.

    Each folder is listed once. Only what has not changed for `ABANDONED` seconds goes.
    """
    parts: dict[Path, set[tuple[str, str]]] = {}
    for target in map(Path, targets):
        parts.setdefault(target.parent, set()).add((_partial(target), target.suffix))
    before = time.time() - ABANDONED
    for folder, names in parts.items():
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(_PARTIAL):
                    continue
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122
                if (stem[:-8], suffix) in names and _RANDOM.fullmatch(stem[-8:]):
                    with contextlib.suppress(OSError):
                        if entry.stat(follow_symlinks=False).st_mtime < before:
                            os.unlink(entry.path)  # noqa: PTH108


class Hold:
    """A folder that this process alone may change, until it ends or lets go, however it ends.

    Raises:
        BlockingIOError: another process holds it. (Where the system has no such locks nobody is refused.)
    """

    def __init__(self, folder: Path) -> None:
        self._stream = (folder / ".lock").open("a")
        if fcntl is not None:
            try:
                # Of POSIX's locks, which a forked child does not inherit: a killed process's workers may
                # live on for some seconds.
                fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._stream.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise BlockingIOError(str(folder)) from error
                return  # a file system without locks
        self._folder = folder

    def let_go(self) -> None:
        """Others may have it from now on."""
        self._stream.close()
        (self._folder / ".lock").unlink(missing_ok=True)
