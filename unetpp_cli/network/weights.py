"""A network and its header <-> one self-describing safetensors file; never a pickle.

Training, prune and convert write through `save_model`; all that needs a network starts from `load_model`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unetpp_cli.errors import UserError, listed
from unetpp_cli.files import replacing
from unetpp_cli.network.header import (
    METADATA_KEY,
    Architecture,
    Header,
    TensorInfo,
    file_hash,
    read_header,
)
from unetpp_cli.network.unetpp import UNetPlusPlus

_FLOATS = ("F32", "F16", "BF16")
"""What a weight may be stored as. Half precision is a way to store: in memory it becomes float32."""


@dataclass(frozen=True)
class Model:
    """A network that was read from a file, and what the file says about it.

    Attributes:
        network: in eval mode, in float32.
        header: classes, normalisation, geometry and all else that inference needs.
        path: of the file.
        hash: SHA-256 of the file's bytes, in hexadecimal.
        is_exported: the file is no weights file but what `unetpp export` made of one; it can only be asked.
    """

    network: UNetPlusPlus
    header: Header
    path: Path
    hash: str
    is_exported: bool = False


def build(architecture: Architecture) -> UNetPlusPlus:
    """A freshly initialised network of that architecture.

    Raises:
        ValueError: the architecture is none.
    """
    return UNetPlusPlus(
        architecture.num_classes,
        architecture.in_channels,
        width=architecture.width,
        depth=architecture.depth,
        heads=architecture.heads,
        pad_multiple=architecture.pad_multiple,
    )


def architecture_of(network: UNetPlusPlus, trained_depth: int | None = None) -> Architecture:
    """The inverse of `build`. A network does not know its depth before pruning: `trained_depth` says it."""
    return Architecture(
        num_classes=network.num_classes,
        in_channels=network.in_channels,
        width=network.width,
        depth=network.depth,
        heads=network.head_depths,
        pad_multiple=network.pad_multiple,
        trained_depth=network.depth if trained_depth is None else trained_depth,
    )


def skeleton(architecture: Architecture) -> UNetPlusPlus:
    """The network without its numbers: names, shapes and dtypes only (on torch's meta device), at no cost."""
    with torch.device("meta"):
        return build(architecture)


def assemble(architecture: Architecture, state: Mapping[str, Tensor]) -> UNetPlusPlus:
    """The network made of exactly these tensors (they are taken over, not copied), in eval mode.

    Raises:
        RuntimeError: a tensor is missing, unexpected or of another shape.
    """
    network = skeleton(architecture)
    network.load_state_dict(state, assign=True)
    return network.eval()


def convolution_names(network: UNetPlusPlus) -> frozenset[str]:
    """The tensors that half storage concerns: weights and biases of all (transposed) convolutions."""
    return frozenset(
        f"{name}.{kind}"
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        for kind in ("weight", "bias")
    )


def save_model(
    path: str | os.PathLike[str], network: UNetPlusPlus, header: Header, *, half: bool = False
) -> None:
    """Writes network and header to `path` in one step. Equal content gives equal bytes.

    The metadata has one key only: safetensors writes several in an order of chance.

    Args:
        half: store the convolutions in fp16; norms and their statistics stay in float32. What is lost is for
            the caller to know: `halving.rounded` says what the file will hold.

    Raises:
        ValueError: the header describes another network.
        UserError: `path` cannot be written.
    """
    if architecture_of(network, header.architecture.trained_depth) != header.architecture:
        raise ValueError(f"the header says {header.architecture}, the network is {architecture_of(network)}")
    if contradiction := _contradiction(header):
        raise ValueError(contradiction)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        tensors.update({name: tensors[name].half() for name in convolution_names(network)})
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={METADATA_KEY: header.dumps()})
        except (SafetensorError, OSError) as error:
            raise UserError(f"Cannot write {Path(path)}: {error}.", "Is the disk full?") from error


def tensor_bytes(architecture: Architecture, *, half: bool = False) -> int:
    """Bytes of the tensors in the weights file of that network with all its heads, without the header."""
    return sum(end - start for _, _, start, end in _places(architecture, half).values())


def predicted_bytes(header: Header, *, half: bool = False) -> int:
    """Bytes of the file that `save_model` would write for a network with this header, without writing it."""
    table: dict[str, Any] = {"__metadata__": {METADATA_KEY: header.dumps()}}
    for name, (dtype, shape, start, end) in _places(header.architecture, half).items():
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = len(json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + text + -text % 8 + tensor_bytes(header.architecture, half=half)


def stores_half(model: Model) -> bool:
    """Whether its file holds every convolution in fp16, so that storing them so again loses nothing."""
    _, tensors = read_header(model.path)
    return all(tensors[name].dtype == "F16" for name in convolution_names(model.network))


def _places(architecture: Architecture, half: bool) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Type, shape, first byte and end of each tensor in the file, as safetensors lays them out."""
    network = skeleton(architecture)
    halved = convolution_names(network) if half else frozenset()
    spelled = {8: "I64", 4: "F32", 2: "F16"}
    places, end = {}, 0
    sizes = {
        name: 2 if name in halved else value.element_size() for name, value in network.state_dict().items()
    }
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):  # wide numbers first, then by name
        start, end = end, end + sizes[name] * math.prod(shapes[name])
        places[name] = (spelled[sizes[name]], shapes[name], start, end)
    return places


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Model:
    """Reads a weights file onto `device`. Weights stored in half precision become float32.

    Tensors are copied out of the mapped file one by one. They are then aligned as any other tensor's memory,
    whatever the length of the header, and the file may be replaced or cut off while the network is in use.

    Raises:
        UserError: no weights file of ours, damaged, cut off, at odds with its own header, or with values
            that are not finite (a training that diverged).
    """
    file = Path(path)
    header, stored = read_header(file)
    before = _identity(file)
    shell = _checked_skeleton(file, header, stored)
    state: dict[str, Tensor] = {}
    try:
        with safe_open(file, framework="pt") as tensors:
            for name, expected in shell.state_dict().items():
                state[name] = tensors.get_tensor(name).to(device, expected.dtype, copy=True)
        digest = file_hash(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}).", "Get the file again.") from error
    if _identity(file) != before:
        raise UserError(f"{file} was replaced while it was being read.", "Run the command again.")
    refuse_non_finite(file, state)
    shell.load_state_dict(state, assign=True)
    return Model(shell.eval(), header, file, digest)


def refuse_non_finite(file: Path, state: Mapping[str, Tensor]) -> None:
    """Raises a UserError that names `file` and the tensors in which a value is infinite or not a number."""
    # The extremes of a tensor with a NaN are NaN: one pass, and no mask in memory.
    broken = [
        name
        for name, value in state.items()
        if not all(bool(extreme.isfinite()) for extreme in torch.aminmax(value))
    ]
    if broken:
        raise UserError(
            f"{file} holds values that are not finite, in {listed(broken, 3)}: its training diverged.",
            "Take the weights of an earlier epoch, or train with a lower --lr.",
        )


def derived_from(path: str | os.PathLike[str], digest: str) -> bool:
    """Whether a weights file at `path` says that it was pruned or converted from the file of this SHA-256.

    Such a file may be made again over the old one; any other is somebody's work.
    """
    try:
        origin = read_header(path)[0].origin
    except UserError:
        return False
    return digest in (origin.get("pruned_from"), origin.get("converted_from"))


def _checked_skeleton(file: Path, header: Header, stored: Mapping[str, TensorInfo]) -> UNetPlusPlus:
    """The empty network of the header, once every tensor of the file is known to fit it."""
    problem = _contradiction(header)
    # Every depth has tensors of its own: bounds the work that a damaged header can ask for.
    if not problem and header.architecture.depth > len(stored):
        problem = f"its header says depth {header.architecture.depth}, its {len(stored)} tensors do not"
    if not problem:
        try:
            network = skeleton(header.architecture)
        except (ValueError, RuntimeError, OverflowError, TypeError) as error:
            problem = f"its header describes no network: {str(error).splitlines()[0]}"
        else:
            problem = _misfit(network.state_dict(), stored)
    if problem:
        raise UserError(f"{file} is damaged: {problem}.", "Get the file again.")
    return network


def _contradiction(header: Header) -> str:
    """How the parts of a header disagree, or the empty string."""
    architecture = header.architecture
    if len(header.classes) != architecture.num_classes:
        return f"{len(header.classes)} classes are named, but the network has {architecture.num_classes}"
    if not len(header.mean) == len(header.std) == architecture.in_channels:
        return f"mean and std are not of {architecture.in_channels} channels each"
    if architecture.trained_depth < architecture.depth:
        return f"depth {architecture.depth} is more than the trained depth {architecture.trained_depth}"
    return ""


def _misfit(expected: Mapping[str, Tensor], stored: Mapping[str, TensorInfo]) -> str:
    """How the tensors of a file differ from those the network has, or the empty string."""
    both = sorted(expected.keys() & stored.keys())
    floats = {name for name in both if expected[name].is_floating_point()}
    problems = {
        "missing tensors": sorted(expected.keys() - stored.keys()),
        "unknown tensors": sorted(stored.keys() - expected.keys()),
        "wrong shapes of": [name for name in both if stored[name].shape != tuple(expected[name].shape)],
        "wrong types of": [
            name for name in both if stored[name].dtype not in (_FLOATS if name in floats else ("I64",))
        ],
    }
    return "; ".join(f"{what} {listed(names, 3)}" for what, names in problems.items() if names)


def _identity(file: Path) -> tuple[int, int, int]:
    """Changes when another file is put in this one's place, as training does with its best weights."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size
