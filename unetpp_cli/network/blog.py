"""The weights of the article's network (a `.pth` of its training loop) -> our network and a header.

Called by the convert job. The file is read with `weights_only=True`: nothing in it is ever executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unetpp_cli.config import IMAGENET_MEAN, IMAGENET_STD
from unetpp_cli.data.classes import ClassSet, palette
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError, listed
from unetpp_cli.network.header import Architecture, Header, file_hash
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import assemble, refuse_non_finite, skeleton

# The article's modules are nn.Sequentials: our name for each layer -> its place there. The encoder's blocks
# are conv - BN - ReLU twice, the decoder's and the heads' BN - ReLU - conv.
_ENCODER = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}
_DECODER = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 5}
_HEAD = {"norm": 0, "conv": 2}

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_COUNTER = "num_batches_tracked"


def load_blog(path: str | os.PathLike[str], classes: ClassSet | None) -> tuple[UNetPlusPlus, Header]:
    """Reads a `.pth` of the article's network; width, depth, channels and classes follow from the shapes.

    A head whose BatchNorm still has mean 0 and variance 1 never saw an image: it is left out, and with it
    the nodes that only it needs, when it is a deepest one. `origin["untrained_heads"]` names them. The
    padding multiple stays that of the file's whole network.

    Args:
        path: a state dict, or a dict that holds one; with or without DataParallel's `module.` prefix.
        classes: what the outputs mean. None: class_0, class_1, ... (a `.pth` does not say).

    Raises:
        UserError: not readable as tensors alone, another network's keys or shapes, no trained head, values
            that are not finite, or another number of classes.
    """
    file = Path(path)
    state = _without_prefix(_state_dict(file))
    whole, trained = _architecture(file, state)
    _check_fit(file, state, whole)
    if classes is None:
        count = whole.num_classes
        classes = ClassSet("custom", tuple(f"class_{index}" for index in range(count)), palette(count))
    elif len(classes) != whole.num_classes:
        raise UserError(
            f"{file} has {whole.num_classes} classes, but {classes.name} names {len(classes)}.",
            "Name as many with --classes, or leave it out: they are then class_0, class_1, ...",
        )

    architecture = Architecture(**{**whole.__dict__, "depth": trained[-1], "heads": trained})
    ours = {
        name: state.get(_theirs(name), torch.tensor(0)).to(expected.dtype)
        for name, expected in skeleton(architecture).state_dict().items()
    }
    refuse_non_finite(file, ours)
    origin: dict[str, Any] = {"converted_from": file_hash(file)}
    if untrained := [head for head in whole.heads if head not in trained]:
        origin["untrained_heads"] = untrained
    # The article trains on 3 channels with ImageNet's statistics; of other numbers nothing is known.
    known = architecture.in_channels == len(IMAGENET_MEAN)
    return assemble(architecture, ours), Header(
        architecture=architecture,
        classes=classes,
        mean=IMAGENET_MEAN if known else (0.0,) * architecture.in_channels,
        std=IMAGENET_STD if known else (1.0,) * architecture.in_channels,
        geometry=Geometry("stretch", 224, 224),
        origin=origin,
    )


def _state_dict(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth`, by name."""
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.", "Check the path given.") from error
    try:
        with stream:
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler meets in a file that is none: KeyError, EOFError, ...
        if found := re.search(r"GLOBAL\s+(\S+)", str(error)):
            raise UserError(
                f"{file} holds more than tensors (a pickled {found[1]}), which could run code when read.",
                "Where it was made: torch.save(model.state_dict(), 'weights.pth'); then convert that.",
            ) from error
        raise UserError(
            f"{file} is damaged, or no file that torch.save wrote.", "Get the file again."
        ) from error
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in _WRAPPERS if key in content]
    for candidate in candidates:
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in candidate.items())
        ):
            return dict(candidate)
    holds = f" (it holds {listed(map(str, content))})" if isinstance(content, Mapping) else ""
    raise UserError(
        f"{file} holds no state dict{holds}.", f"Looked for it at the top and under {', '.join(_WRAPPERS)}."
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict as it was before DataParallel wrapped the network."""
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _architecture(file: Path, state: Mapping[str, Tensor]) -> tuple[Architecture, tuple[int, ...]]:
    """The architecture of the whole network in the file, and which of its heads were ever trained."""
    rows = {int(match[1]) for name in state if (match := re.match(r"stage_(\d)\.", name))}
    depth = next(d for d in range(10) if d + 1 not in rows)  # further rows, after a gap, are unknown keys
    heads = tuple(d for d in range(1, depth + 1) if f"final_super_0_{d}.2.weight" in state)
    first = state.get("stage_0.Conv_forward.0.weight")
    last = state[f"final_super_0_{heads[-1]}.2.weight"] if heads else None
    if first is None or last is None or first.dim() != 4 or last.dim() != 4:
        raise UserError(
            f"{file} is not the article's UNet++: its tensors are called {listed(state, 3)}.",
            "Only that network's keys (stage_0.Conv_forward.0.weight, ...) can be converted.",
        )
    whole = Architecture(
        num_classes=last.shape[0],
        in_channels=first.shape[1],
        width=first.shape[0],
        depth=depth,
        heads=tuple(sorted({*heads, depth})),
        pad_multiple=2**depth,
        trained_depth=depth,
    )
    trained = tuple(head for head in heads if _was_trained(state, head))
    if not trained:
        raise UserError(
            f"{file} was never trained: the BatchNorm statistics of all its heads are still 0 and 1.",
            "Convert weights that a training has saved.",
        )
    return whole, trained


def _was_trained(state: Mapping[str, Tensor], head: int) -> bool:
    """Whether the running statistics of a head's BatchNorm ever moved."""
    mean = state.get(f"final_super_0_{head}.0.running_mean")
    variance = state.get(f"final_super_0_{head}.0.running_var")
    return mean is None or variance is None or bool((mean != 0).any() or (variance != 1).any())


def _check_fit(file: Path, state: Mapping[str, Tensor], whole: Architecture) -> None:
    """Raises a UserError unless the file has exactly the tensors of the article's network of that size."""
    expected = {_theirs(name): value.shape for name, value in skeleton(whole).state_dict().items()}
    # Torch before 0.4.1 counted no batches; nothing reads the counters.
    missing = [name for name in expected if name not in state and not name.endswith(_COUNTER)]
    unknown = [name for name in state if name not in expected]
    wrong = [name for name in expected if name in state and state[name].shape != expected[name]]
    problems = [
        f"{len(names)} {what} ({listed(names, 3)})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise UserError(
            f"{file} is not the article's UNet++ of width {whole.width} and depth {whole.depth}:"
            f" tensors {', '.join(problems)}.",
            "Only the unchanged network of the article can be converted.",
        )


def _theirs(name: str) -> str:
    """The article's name of our tensor: `nodes.1.0.conv2.weight` -> `stage_1.Conv_forward.3.weight`."""
    kind, *place, layer, value = name.split(".")
    if kind == "head":
        return f"final_super_0_{place[0]}.{_HEAD[layer]}.{value}"
    i, j = place
    if layer == "up":
        return f"upsample_{i}_{j}.{value}"
    if j == "0":
        return f"stage_{i}.Conv_forward.{_ENCODER[layer]}.{value}"
    return f"CONV{i}_{j}.Conv_forward.{_DECODER[layer]}.{value}"
