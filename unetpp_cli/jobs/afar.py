"""Data and weights that are not on this machine yet: `https://...`, `hf://user/name`. Says what it fetches.

Imports no torch; huggingface_hub only for `hf://`, with `pip install 'unetpp[hub]'`.
"""

from __future__ import annotations

import re
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from unetpp_cli.errors import UserError
from unetpp_cli.network.header import file_hash
from unetpp_cli.remote import Address, cached, fetch, is_url
from unetpp_cli.report import console

HUB = "hf://"
HUB_FILE = "model.safetensors"

_HUB_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./-]+))?")


def local(path: str) -> str:
    """`path`, or for an address the file that was fetched from there.

    Raises:
        UserError: it cannot be fetched, or is not what its checksum says.
    """
    return str(_fetched(path)) if is_url(path) else path


def local_model(named: str) -> Path:
    """The weights file at an address: `https://...`, or `hf://user/name[@revision][/file]`.

    Raises:
        UserError: it cannot be fetched, or a package is missing.
    """
    return _from_hub(named) if named.startswith(HUB) else _fetched(named)


def _fetched(text: str) -> Path:
    address = Address.parse(text)
    if found := cached(address):
        console.note(f"From the cache: {found}")
        return found
    console.note(f"Fetching {address.url}")
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console.err,
        disable=not console.err.is_interactive,
        transient=True,
        expand=True,
    )
    with bar:
        task = bar.add_task(address.file.name, total=None)
        return fetch(address, lambda done, total: bar.update(task, completed=done, total=total))


def _from_hub(named: str) -> Path:
    match = _HUB_NAME.fullmatch(named)
    if match is None:
        raise UserError(
            f"{named} is no name on the hub.", "Write hf://user/name or hf://user/name/file.safetensors."
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "hf:// needs the package huggingface_hub, which is not installed.", "pip install 'unetpp[hub]'"
        ) from error
    repository, revision, file = match[1], match[2], match[3] or HUB_FILE
    try:
        found = Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # its HTTP library's errors are of no class that could be named here
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"Cannot fetch {named}: {reason}", "Check the name, and the connection.") from error
    # The hub keeps a large file under the name of its SHA-256, and links to it.
    blob = found.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_hash(found) != blob.name:
        blob.unlink()
        raise UserError(
            f"{named} was damaged in the cache, and was removed from it.", "Run the command again."
        )
    return found
