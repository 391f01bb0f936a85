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
from unetpp_cli.files import write_text
from unetpp_cli.version import __version__

CACHE_VARIABLE = "UNETPP_CACHE"

OnBytes = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be, if the server says so."""

_PIECE = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # that bring nothing new


def is_url(text: str) -> bool:
    """Whether this is the address of a file on the web."""
    return text.lower().startswith(("http://", "https://"))


def cache_folder() -> Path:
    """Where files from afar are kept: $UNETPP_CACHE, else `unetpp` in the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE, ""):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache"
    return Path(base) / "unetpp"


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
            UserError: the fragment is something else.
        """
        url, _, fragment = text.partition("#")
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
        name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "file"
        return cache_folder() / hashlib.sha256(self.url.encode()).hexdigest()[:16] / name


def cached(address: Address) -> Path | None:
    """The file in the cache, if it is there whole and is what it must be."""
    file = address.file
    try:
        note = json.loads(_note(file).read_text(encoding="utf-8"))
        whole = file.stat().st_size == note["bytes"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return file if whole and address.sha256 in ("", note["sha256"]) else None


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
            part = file.with_name(f"{file.name}.part")
            _fill(address, part, on_bytes)
            digest = _sha256(part)
            if address.sha256 not in ("", digest):
                part.unlink()
                _state(part).unlink(missing_ok=True)
                raise UserError(
                    f"{address.url} has the SHA-256 {digest}, not {address.sha256}.",
                    "It is another file than was meant, or damaged on its way; nothing was kept.",
                )
            size = part.stat().st_size
            part.replace(file)
            write_text(_note(file), json.dumps({"url": address.url, "bytes": size, "sha256": digest}))
            _state(part).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot keep {address.url} in {file.parent}: {error.strerror or error}.",
            f"Set ${CACHE_VARIABLE} to a folder with room.",
        ) from error
    return file


def _fill(address: Address, part: Path, on_bytes: OnBytes) -> None:
    """Fetches what `part` lacks, again and again as long as each attempt brings something."""
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        reason = _attempt(address.url, part, on_bytes)
        if not reason:
            return
        idle = idle + 1 if (part.stat().st_size if part.exists() else 0) <= before else 0
        if idle >= _ATTEMPTS:
            raise UserError(
                f"Cannot fetch {address.url}: {reason}.",
                "Check the address and the connection; the same command goes on where it broke off.",
            )
        time.sleep(min(8.0, 0.25 * 2**idle))


def _attempt(url: str, part: Path, on_bytes: OnBytes) -> str:
    """One request for the rest; why it ended early, or the empty string.

    Raises:
        UserError: the server refused for good.
    """
    done = part.stat().st_size if part.exists() else 0
    known = _read_state(part)
    headers = {"User-Agent": f"unetpp/{__version__}", "Accept-Encoding": "identity"}
    if done and known.get("validator"):
        headers |= {"Range": f"bytes={done}-", "If-Range": known["validator"]}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as answer:
            if (
                answer.status != 206
            ):  # the whole file: another one than before, or a server that cannot resume
                done = 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else None
            validator = answer.headers.get("ETag", "")
            if validator.startswith("W/") or not validator:
                validator = answer.headers.get("Last-Modified", "")
            write_text(_state(part), json.dumps({"validator": validator}))
            with part.open("ab" if done else "wb") as stream:
                while piece := answer.read(_PIECE):
                    stream.write(piece)
                    done += len(piece)
                    on_bytes(done, total)
            if total is not None and done < total:
                return f"the connection ended after {done:,} of {total:,} bytes"
            return ""
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is no rest: begin anew
            part.unlink(missing_ok=True)
            return "the server has another file now"
        if error.code in (408, 425, 429) or error.code >= 500:
            return f"the server says {error.code} {error.reason}"
        raise UserError(
            f"Cannot fetch {url}: the server says {error.code} {error.reason}.", "Check the address."
        ) from error
    except urllib.error.URLError as error:
        return str(error.reason)
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        return str(error) or type(error).__name__
    except ValueError as error:
        raise UserError(f"{url} is no address: {error}.", "Write https://host/path/file.zip.") from error


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


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
        fcntl.lockf(stream, fcntl.LOCK_EX)
        yield
