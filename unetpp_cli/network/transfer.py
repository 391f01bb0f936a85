"""Starting from another model's weights: copies what fits, and says what did not. Called by the training job.

Nodes have the same names and shapes at every depth, so a deeper, a shallower or a pruned model of the same
width fits. Heads answer for classes: where those differ, the filters go over by the classes' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.errors import UserError, listed
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model


@dataclass(frozen=True)
class Transfer:
    """What a network got from a model.

    Attributes:
        source: the model's file.
        copied: tensors that got values, wholly or for some of the classes.
        tensors: tensors of the network.
        parameters: numbers that were copied, BatchNorm statistics left out.
        total: numbers that the network has, counted likewise.
        by_name: the classes whose filters went over by name, as the class sets differ.
        kept: what stays as freshly initialised, and why, part by part.
        unused: what the model has and the network has no place for.
    """

    source: Path
    copied: int
    tensors: int
    parameters: int
    total: int
    by_name: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """For the console: what was copied, what was not, and what was not used."""
        share = f"{self.parameters / 1e6:.2f} of {self.total / 1e6:.2f} M parameters"
        lines = [f"Starts from {self.source}: {self.copied} of {self.tensors} tensors, {share}"]
        if self.by_name:
            lines.append(f"  heads, by the classes' names: {listed(self.by_name)}")
        lines += [f"  fresh: {text}" for text in self.kept]
        return lines + [f"  not used: {text}" for text in self.unused]


@torch.no_grad()
def transfer(network: UNetPlusPlus, model: Model, classes: ClassSet) -> Transfer:
    """Copies into `network`, in place, every tensor of `model` of the same name and shape.

    In a head's convolution each class gets the filter of the class of that name (the case of letters aside),
    or keeps its fresh one; with equal class sets that is the whole tensor.

    Args:
        network: freshly initialised, on any device.
        classes: what the network's outputs mean.

    Raises:
        UserError: nothing fits, as the width is another one.
    """
    theirs, ours = model.network.state_dict(), network.state_dict()
    if model.network.width != network.width:
        raise UserError(
            f"--init-from {model.path}: its width is {model.network.width}, here it is {network.width}; "
            "no layer fits.",
            f"Add --width {model.network.width}, or leave --init-from out.",
        )
    there = model.header.classes
    rows = _same_classes(classes, there)
    weights = {name for name, _ in network.named_parameters()}
    first = "" if model.network.in_channels == network.in_channels else "nodes.0.0.conv1."
    copied = parameters = 0
    for name, value in ours.items():
        saved = theirs.get(name)
        if saved is None or (first and name.startswith(first)):
            continue
        if _is_answer(name):
            outputs = list(rows)
            value[outputs] = saved[list(rows.values())].to(value)
            count = value[outputs].numel()
        else:
            value.copy_(saved)
            count = value.numel()
        copied += count > 0
        parameters += count if name in weights else 0
    return Transfer(
        source=model.path,
        copied=copied,
        tensors=len(ours),
        parameters=parameters,
        total=sum(parameter.numel() for parameter in network.parameters()),
        by_name=tuple(classes.names[index] for index in rows) if classes.names != there.names else (),
        kept=tuple(_kept(network, model, classes, rows)),
        unused=tuple(_unused(network, model)),
    )


def _is_answer(name: str) -> bool:
    """Whether the first dimension of this tensor is the classes."""
    return name.startswith("head.") and ".conv." in name


def _same_classes(here: ClassSet, there: ClassSet) -> dict[int, int]:
    """For each class of `here` that `there` has, by name, its index there."""
    exact = {name: index for index, name in enumerate(there.names)}
    loose = {name.casefold(): index for index, name in enumerate(there.names)}
    found = {}
    for index, name in enumerate(here.names):
        match = exact.get(name, loose.get(name.casefold()))
        if match is not None:
            found[index] = match
    return found


def _kept(network: UNetPlusPlus, model: Model, classes: ClassSet, rows: Mapping[int, int]) -> Iterable[str]:
    """What of `network` was not filled, part by part."""
    source = model.network
    if source.in_channels != network.in_channels:
        yield (
            f"the first convolution of X(0,0): {_count(network.in_channels, 'channel')} here, "
            f"{source.in_channels} there"
        )
    if nodes := _nodes(network) - _nodes(source):
        yield f"{_node_names(nodes)}: not in a depth-{source.depth} model"
    if heads := set(network.head_depths) - set(source.head_depths):
        yield f"{_heads(heads)}: not in the model, which has {_heads(source.head_depths)}"
    if fresh := [name for index, name in enumerate(classes.names) if index not in rows]:
        both = sorted(set(network.head_depths) & set(source.head_depths))
        if both:
            counts = f"{_count(len(classes), 'class')} here, {len(model.header.classes)} there"
            yield f"{_heads(both)}, outputs {listed(fresh)}: {counts}"


def _unused(network: UNetPlusPlus, model: Model) -> Iterable[str]:
    """What of `model` had no place."""
    source = model.network
    if nodes := _nodes(source) - _nodes(network):
        yield f"{_node_names(nodes)}: not in a depth-{network.depth} network"
    if heads := set(source.head_depths) - set(network.head_depths):
        yield f"{_heads(heads)}: not in this network"


def _nodes(network: UNetPlusPlus) -> set[tuple[int, int]]:
    return {(i, j) for i in range(network.depth + 1) for j in range(network.depth + 1 - i)}


def _node_names(nodes: Iterable[tuple[int, int]]) -> str:
    return listed((f"X({i},{j})" for i, j in sorted(nodes)), 6)


def _heads(depths: Iterable[int]) -> str:
    """`head 4`, `heads 1-4` or `heads 1, 2, 4`."""
    numbers = sorted(depths)
    if len(numbers) == 1:
        return f"head {numbers[0]}"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"heads {numbers[0]}-{numbers[-1]}"
    return f"heads {', '.join(map(str, numbers))}"


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
