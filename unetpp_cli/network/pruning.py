"""Cutting a network at a depth, and the proof that the remaining heads answer as before, bit for bit.

Depth d needs the nodes X(i,j) with i + j <= d and nothing else, so pruning selects tensors and computes none.
Called by the prune job; `verify` also by tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unetpp_cli.errors import UserError
from unetpp_cli.network.header import Header
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, assemble, skeleton


@dataclass(frozen=True)
class Proof:
    """What was found equal, bit for bit.

    Attributes:
        heads: the depths whose logits were compared.
        inputs: shapes (N, C, H, W) of the probes.
    """

    heads: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """For the header's `origin`. The same on every machine."""
        return {
            "identical_logits": True,
            "heads": list(self.heads),
            "inputs": ["x".join(map(str, shape)) for shape in self.inputs],
        }


def prune(
    model: Model | tuple[UNetPlusPlus, Header],
    depth: int,
    *,
    single_head: bool = False,
    may_stay: bool = False,
) -> tuple[UNetPlusPlus, Header]:
    """The network cut at `depth`, with tensors of its own and in eval mode, and its header.

    It keeps the padding multiple (so that its heads see the same pixels as before) and every head up to
    `depth`, and can be pruned again. The header keeps the metrics of the heads that remain; an ensemble
    would be another one than was measured, so its metrics go. `origin` says what was pruned.

    Args:
        model: a loaded model, or a network in memory and its header.
        depth: of the head that becomes the deepest.
        single_head: drop the shallower heads, too.
        may_stay: `depth` may be the deepest there is, since the network will be stored in another way.

    Raises:
        UserError: there is no head at `depth`, or nothing would change.
    """
    header = pruned_header(model, depth, single_head=single_head, may_stay=may_stay)
    state = (model.network if isinstance(model, Model) else model[0]).state_dict()
    names = skeleton(header.architecture).state_dict()
    return assemble(header.architecture, {name: state[name].clone() for name in names}), header


def pruned_header(
    model: Model | tuple[UNetPlusPlus, Header],
    depth: int,
    *,
    single_head: bool = False,
    may_stay: bool = False,
) -> Header:
    """The header that `prune` gives, without the network. Arguments and refusals are those of `prune`."""
    header = model.header if isinstance(model, Model) else model[1]
    name = str(model.path) if isinstance(model, Model) else "The network"
    _refuse(name, header.architecture.heads, depth, single_head, may_stay)
    kept = (depth,) if single_head else tuple(head for head in header.architecture.heads if head <= depth)

    origin: dict[str, Any] = {"from_depth": header.architecture.depth, "to_depth": depth}
    if isinstance(model, Model):
        origin["pruned_from"] = model.hash
    if header.origin:
        origin["parent"] = dict(header.origin)
    return replace(
        header,
        architecture=replace(header.architecture, depth=depth, heads=kept),
        metrics=_metrics_of(header.metrics, kept),
        origin=origin,
    )


def verify(full: UNetPlusPlus, pruned: UNetPlusPlus, depth: int) -> Proof:
    """Compares the logits of every head of `pruned` with those of the same head of `full`, bit for bit.

    Both ways of asking are compared, `forward(image, depth)` and `heads(image)`, on every probe.

    Raises:
        ValueError: `pruned` is not `full` cut at `depth`, by its architecture.
        UserError: the logits differ.
    """
    if pruned.depth != depth or not set(pruned.head_depths) <= set(full.head_depths):
        raise ValueError(f"a network with heads {pruned.head_depths} is not one cut at depth {depth}")
    shapes = []
    modes = full.training, pruned.training
    full.eval()
    pruned.eval()
    try:
        with torch.inference_mode():
            for image in probes(full):
                _compare(full, pruned, image)
                shapes.append(tuple(image.shape))
    finally:
        full.train(modes[0])
        pruned.train(modes[1])
    return Proof(pruned.head_depths, tuple(shapes))


def probes(network: UNetPlusPlus) -> Iterator[Tensor]:
    """Images of seeded noise, where the network is, as (N, C, H, W) in three shapes.

    The first is a multiple of what inputs are padded to. The second has rows that are a multiple for a
    shallower network but not for this one (as CamVid's 360 are for 8 and not for 16). The third is odd, and a
    batch.
    """
    multiple, channels = network.pad_multiple, network.in_channels
    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    for shape in (
        (1, channels, multiple, 2 * multiple),
        (1, channels, multiple + multiple // 2, multiple),
        (2, channels, multiple + 1, multiple // 2 + 3),
    ):
        yield torch.randn(shape, generator=generator).to(parameter)


def _compare(full: UNetPlusPlus, pruned: UNetPlusPlus, image: Tensor) -> None:
    """Raises a UserError unless the heads of `pruned` answer to `image` as those of `full` do."""
    wanted = [head for head in full.head_depths if head <= pruned.depth]
    together = dict(zip(wanted, full.heads(image, pruned.depth), strict=True))
    for head, logits in zip(pruned.head_depths, pruned.heads(image), strict=True):
        answers = (logits, pruned(image, head), full(image, head))
        if not all(_same_bits(together[head], answer) for answer in answers):
            raise UserError(
                f"The proof failed: the logits of head {head} are not those of the full network"
                f" (input {'x'.join(map(str, image.shape))}).",
                "Run it again; if it stays, this is a fault of unetpp or of the machine: please report it.",
            )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Stricter than `torch.equal`, to which 0.0 and -0.0 are the same; looser, as it takes NaN for NaN."""
    return one.shape == other.shape and torch.equal(
        one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    )


def _refuse(name: str, heads: tuple[int, ...], depth: int, single_head: bool, may_stay: bool) -> None:
    """Raises a UserError unless cutting at `depth` removes something, or need not."""
    lower = [head for head in heads if head < heads[-1]]
    if lower:
        has = f"{name} has heads at depth {', '.join(map(str, heads))}"
        cure = f"Choose --depth {' or '.join(map(str, lower))}"
    else:
        has = f"{name} has one head, at depth {heads[0]}"
        cure = "A network is cut at its heads: train with deep supervision, prune without --single-head"
    if depth > heads[-1]:
        raise UserError(f"{has}: it cannot be pruned upwards, to {depth}.", f"{cure}.")
    if depth not in heads:
        raise UserError(f"{has}, none at {depth}.", f"{cure}.")
    if depth == heads[-1] and not (single_head and lower) and not may_stay:
        more = ", or add --single-head, which drops the lower heads" if lower else ""
        raise UserError(f"{has}: pruned at {depth} nothing would change.", f"{cure}{more}.")


def _metrics_of(metrics: Mapping[str, Any], heads: tuple[int, ...]) -> dict[str, Any]:
    """Metrics without the rows of other depths and of the ensemble, at the top and within each split."""

    def rows(table: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: row
            for key, row in table.items()
            if key in map(str, heads) or not (key.isdigit() or key == "ensemble")
        }

    return {
        key: rows(value) if isinstance(value, Mapping) and not key.isdigit() else value
        for key, value in rows(metrics).items()
    }
