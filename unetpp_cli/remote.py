"""Files from afar: fetched once into a cache, resumed where a fetch broke off, checked.

Called by `jobs.afar`, which shows the progress. An address may end in `#sha256=HEX`; the file is then refused
when its bytes are others.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetpp_cli.errors import UserError
from unetpp_cli.version import __version__

CACHE_VARIABLE = "UNETPP_CACHE"

OnBytes = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be, if the server says so."""

_PIECE = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # that bring nothing new


def is_url(text: str) -> bool:
    """Whether this is the address of a file on the web."""
    return text.startswith(("http://", "https://"))


def cache_folder() -> Path:
    """Where files from afar are kept: $UNETPP_CACHE, else `unetpp` in the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE, ""):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    return Path(base).expanduser() / "unetpp"


@dataclass(frozen=True)
class Address:
    """Where a file is, and what it must be.

    Attributes:
        url: without the fragment.
        sha256: of its bytes, in hexadecimal; empty when nobody said.
    """

    url: str
    sha256: str = ""

    @staticmethod
    def parse(text: str) -> Address:
        """Reads `https://...` or `https://...#sha256=HEX`.

        Raises:
            UserError: it is no address, or the fragment is something else.
        """
        url, _, fragment = text.partition("#")
        try:
            parts = urllib.parse.urlsplit(url)
            is_address = bool(parts.hostname) and parts.port != 0 and not re.search(r"[\s\x00-\x1f]", url)
        except ValueError:
            is_address = False
        if not is_address:
            raise UserError(f"{url} is no address.", "Write https://host/path/file.zip.")
        if not fragment:
            return Address(url)
        match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
        if match is None:
            raise UserError(
                f"{text}: '#{fragment}' is no checksum.",
                "Write #sha256= and 64 hexadecimal digits, or nothing.",
            )
        return Address(url, match[1].lower())

    @property
    def file(self) -> Path:
        """Where it lies in the cache: in a folder of its own, under its own name."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path).rpartition("/")[2]
        name = re.sub(r"[^\w.-]+", "-", name).strip("-.")[-100:] or "file"
        return cache_folder() / hashlib.sha256(self.url.encode()).hexdigest()[:16] / name


def cached(address: Address) -> Path | None:
    """The file in the cache, if it is there whole and is what it must be.

    With a checksum the bytes themselves are read, without one the size is compared.
    """
    file = address.file
    try:
        note = json.loads(_note(file).read_text(encoding="utf-8"))
        whole = file.stat().st_size == note["bytes"]
        if not whole or (address.sha256 and _sha256(file) != address.sha256):
            return None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return file


def fetch(address: Address, on_bytes: OnBytes = lambda done, total: None) -> Path:
    """The file in the cache, fetched if it is not there. Two processes fetch it once.

    Raises:
        UserError: it cannot be fetched, or is not what it must be. What was fetched stays, to go on from.
    """
    file = address.file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file.parent):
            if found := cached(address):
                return found
            part = _Part(file.with_name(f"{file.name}.part"))
            _fill(address.url, part, on_bytes)
            digest = _sha256(part.path)
            if address.sha256 not in ("", digest):
                part.remove()
                raise UserError(
                    f"{address.url} has the SHA-256 {digest}, not {address.sha256}.",
                    "It is another file than was meant, or damaged on its way; nothing was kept.",
                )
            note = {"url": address.url, "bytes": part.size, "sha256": digest}
            part.path.replace(file)
            _note(file).write_text(json.dumps(note), encoding="utf-8")
            part.remove()
    except OSError as error:
        raise UserError(
            f"Cannot keep {address.url} in {file.parent}: {error.strerror or error}.",
            f"Set ${CACHE_VARIABLE} to a folder with room.",
        ) from error
    return file


@dataclass(frozen=True)
class _Part:
    """A file that is being fetched, and what is known of it, which stands beside it."""

    path: Path

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def _state(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def note(self, validator: str, total: int | None) -> None:
        """Remembers which version this is, and how long it will be."""
        self._state.write_text(json.dumps({"validator": validator, "total": total}), encoding="utf-8")

    @property
    def validator(self) -> str:
        """The ETag or the date of the version that is being fetched; empty where nothing tells it."""
        return str(self._known().get("validator") or "")

    @property
    def is_whole(self) -> bool:
        """Whether no byte is missing, as far as the server said how many there are."""
        total = self._known().get("total")
        return self.size > 0 and self.size == total

    def remove(self) -> None:
        """Both files."""
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _known(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def _fill(url: str, part: _Part, on_bytes: OnBytes) -> None:
    """Fetches what `part` lacks, again and again as long as it grows."""
    idle, best = 0, part.size
    while not part.is_whole:
        reason = _attempt(url, part, on_bytes)
        if not reason:
            return
        idle = idle + 1 if part.size <= best else 0
        best = max(best, part.size)
        if idle >= _ATTEMPTS:
            raise UserError(
                f"Cannot fetch {url}: {reason}.",
                "Check the address and the connection; the same command goes on where it broke off.",
            )
        time.sleep(min(8.0, 0.25 * 2**idle))


def _attempt(url: str, part: _Part, on_bytes: OnBytes) -> str:
    """One request for the rest; why it ended early, or the empty string.

    Raises:
        UserError: the server refused for good.
    """
    done, known = part.size, part.validator
    headers = {"User-Agent": f"unetpp/{__version__}", "Accept-Encoding": "identity"}
    if done and known:
        headers |= {"Range": f"bytes={done}-", "If-Range": known}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is no rest: begin anew
            part.remove()
            return "the server has another file now"
        if error.code in (408, 425, 429) or error.code >= 500:
            return f"the server says {error.code} {error.reason}"
        raise UserError(
            f"Cannot fetch {url}: the server says {error.code} {error.reason}.", "Check the address."
        ) from error
    except (http.client.HTTPException, OSError) as error:
        return _reason(error)
    with answer:
        validator = _validator(answer.headers)
        if answer.status != 206:  # the whole file: it is another one now, or the server cannot resume
            done = 0
        elif not _goes_on(answer.headers, done, known, validator):
            part.remove()
            return "the server has another file now"
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        part.note(validator or known if done else validator, total)
        with part.path.open("ab" if done else "wb") as stream:
            while True:
                try:
                    piece = answer.read(_PIECE)
                except (http.client.HTTPException, OSError) as error:
                    return _reason(error)
                if not piece:
                    break
                stream.write(piece)
                done += len(piece)
                on_bytes(done, total)
    if total is not None and done < total:
        return f"the connection ended after {done:,} of {total:,} bytes"
    return ""


def _validator(headers: Any) -> str:
    """What tells this version of the file from others; weak tags do not."""
    tag = str(headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _goes_on(headers: Any, done: int, known: str, validator: str) -> bool:
    """Whether an answer is the rest of what is there: some servers ignore If-Range."""
    begins = str(headers.get("Content-Range", "")).startswith(f"bytes {done}-")
    return begins and validator in ("", known)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause).rstrip(".") or type(error).__name__


def _note(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process fetches into `folder`."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes then fetch the same file twice
        yield
        return
    with (folder / ".lock").open("a") as stream:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.lockf(stream, fcntl.LOCK_EX)
        yield
