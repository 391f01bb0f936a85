"""What a weights file says about itself. Reads and writes no tensors and never imports torch.

A weights file is a safetensors file whose metadata has the single key `unetpp`, a JSON object with the fields
of `Header`. `network.weights` writes it, every command reads it, `unetpp info` prints it.

There is no clock and no run name in it, so equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.version import __version__

METADATA_KEY = "unetpp"
FORMAT = 1
_HEADER_LIMIT = 100_000_000  # safetensors' own bound on the header's bytes


@dataclass(frozen=True)
class Architecture:
    """The arguments of `UNetPlusPlus`, and `trained_depth`, the depth before any pruning."""

    num_classes: int
    in_channels: int
    width: int
    depth: int
    heads: tuple[int, ...]
    pad_multiple: int
    trained_depth: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {**self.__dict__, "heads": list(self.heads)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_json`."""
        numbers = {key: int(value) for key, value in data.items() if key != "heads"}
        return Architecture(heads=tuple(int(depth) for depth in data["heads"]), **numbers)


@dataclass(frozen=True)
class Header:
    """Everything that predict, eval and prune need to know beside the tensors.

    Attributes:
        architecture: how to build the network.
        classes: what its outputs mean.
        mean, std: per input channel, of pixel values scaled to 0..1.
        geometry: the size at which images meet the network.
        recipe: the resolved training configuration, without paths and names.
        data: layout, split, sizes and fingerprint of the training data.
        metrics: what was measured; depth as text -> {"miou": 0..1, ...}, for example.
        origin: for a pruned or converted file, where it came from.
        version: of the program that wrote it.
    """

    architecture: Architecture
    classes: ClassSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: Geometry
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    def to_json(self) -> dict[str, Any]:
        """The JSON object stored in the file."""
        return {
            "format": FORMAT,
            "version": self.version,
            "architecture": self.architecture.to_json(),
            "classes": self.classes.to_json(),
            "mean": list(self.mean),
            "std": list(self.std),
            "geometry": str(self.geometry),
            "recipe": dict(self.recipe),
            "data": dict(self.data),
            "metrics": dict(self.metrics),
            "origin": dict(self.origin),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Header:
        """The inverse of `to_json`."""
        return Header(
            architecture=Architecture.from_json(data["architecture"]),
            classes=ClassSet.from_json(data["classes"]),
            mean=tuple(float(value) for value in data["mean"]),
            std=tuple(float(value) for value in data["std"]),
            geometry=Geometry.parse(data["geometry"]),
            recipe=dict(data["recipe"]),
            data=dict(data["data"]),
            metrics=dict(data["metrics"]),
            origin=dict(data["origin"]),
            version=str(data["version"]),
        )

    def dumps(self) -> str:
        """The text stored under `METADATA_KEY`: sorted and compact, so equal headers are equal text."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a weights file: `dtype` as safetensors writes it (F32, F16, I64)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        product = 1
        for side in self.shape:
            product *= side
        return product


def read_header(path: str | os.PathLike[str]) -> tuple[Header, dict[str, TensorInfo]]:
    """Reads the header and the list of tensors of a weights file, without the tensors and without torch.

    Raises:
        UserError: there is no such file, it is no safetensors file, it is cut off, or this program did
            not write it.
    """
    file = Path(path)
    raw, end = _raw_header(file)
    size = file.stat().st_size
    metadata = raw.pop("__metadata__", None) or {}
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{file} is a safetensors file, but not one of unetpp's: it says nothing about its architecture.",
            "Weights of the article's network are converted from .pth with 'unetpp convert'.",
        )
    try:
        tensors = {
            name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in sorted(raw.items())
        }
        last = max((int(entry["data_offsets"][1]) for entry in raw.values()), default=0)
        data = json.loads(metadata[METADATA_KEY])
        form = data["format"]
        header = Header.from_json(data) if form == FORMAT else None
    except (AttributeError, LookupError, TypeError, ValueError, UserError) as error:
        raise UserError(f"The header of {file} is damaged ({error!r}).", "Get the file again.") from error
    if header is None:
        raise UserError(f"{file} has header format {form}; this version reads {FORMAT}.", "Upgrade unetpp.")
    if size < end + last:
        raise UserError(f"{file} is cut off ({size} of {end + last} bytes).", "Get the file again.")
    return header, tensors


def _raw_header(file: Path) -> tuple[dict[str, Any], int]:
    """The safetensors header (8 bytes of length, then that many bytes of JSON) and where it ends."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if 2 <= length <= _HEADER_LIMIT else b""
    except OSError as error:
        raise UserError(
            f"Cannot read the weights file {file}: {error.strerror}.", "Check the path given."
        ) from error
    try:
        if len(text) != length or length < 2:
            raise ValueError("no header")
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("no object")
    except ValueError as error:
        cure = "Convert it first: unetpp convert " + str(file)
        raise UserError(
            f"{file} is no safetensors file.",
            cure if file.suffix in {".pth", ".pt"} else "Give a .safetensors file that unetpp wrote.",
        ) from error
    return raw, 8 + length


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file's bytes, in hexadecimal. The first 12 digits name a model in masks and headers."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
