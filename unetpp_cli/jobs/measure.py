"""What every depth of a model is worth on some pairs, and what it costs. Called by eval and prune."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unetpp_cli.data.dataset import EvaluationExamples, Example
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.devices import autocast, place
from unetpp_cli.inference.evaluation import Evaluation, evaluate
from unetpp_cli.inference.metrics import Cost, DepthResult
from unetpp_cli.network.cost import file_bytes, macs, milliseconds, parameters
from unetpp_cli.network.weights import Model
from unetpp_cli.report.progress import track


def measure(
    model: Model,
    data: Dataset,
    pairs: Sequence[Pair],
    device: torch.device,
    precision: str,
    *,
    geometry: Geometry | None = None,
    timing: bool = True,
) -> list[DepthResult]:
    """A row for each head of `model`, shallowest first, then one for their ensemble if there are several.

    Args:
        data: decoded in the model's classes; `pairs` are some of its.
        precision: as `devices.resolve_precision` gave it.
        geometry: overrides the one in the model's header.
        timing: time each depth, one after the other and apart from the scoring, at the first image's size.
    """
    geometry = geometry or model.header.geometry
    network = place(model.network, device)
    examples = EvaluationExamples(data, pairs, geometry, network.in_channels)
    cuda = device.type == "cuda"
    loader: DataLoader[Example] = DataLoader(
        examples,
        batch_size=8 if cuda else 1,
        collate_fn=list,
        num_workers=min(8, os.cpu_count() or 1) if cuda else 1 if len(pairs) > 16 else 0,
    )

    def heads(x: Tensor) -> list[Tensor]:
        with autocast(device, precision):
            return network.heads(x)

    with track(len(pairs), "Scoring") as advance:
        evaluation = evaluate(
            heads,
            network.head_depths,
            loader,
            data.classes,
            model.header.mean,
            model.header.std,
            device,
            with_ensemble=True,
            on_images=advance,
        )
    height, width = geometry.size(*data.image_size(pairs[0]))
    return _rows(model, evaluation, height, width, precision, timing)


def _rows(
    model: Model, evaluation: Evaluation, height: int, width: int, precision: str, timing: bool
) -> list[DepthResult]:
    """L1..Ld and the ensemble, each with its cost, timed one after the other and apart from the scoring."""
    network, architecture = model.network, model.header.architecture
    classes = model.header.classes

    def milliseconds_at(depth: int, *, ensemble: bool = False) -> float | None:
        if not timing:
            return None
        with autocast(next(network.parameters()).device, precision):
            return milliseconds(network, height, width, depth, ensemble=ensemble)

    rows = [
        DepthResult(
            depth=depth,
            scores=tally.scores(classes),
            cost=Cost(
                parameters=parameters(architecture, depth, heads=(depth,)),
                gmac=macs(architecture, height, width, depth, heads=(depth,)) / 1e9,
                file_bytes=file_bytes(architecture, depth, heads=(depth,)),
                milliseconds=milliseconds_at(depth),
            ),
        )
        for depth, tally in evaluation.heads.items()
    ]
    if evaluation.ensemble is not None and len(architecture.heads) > 1:
        together = DepthResult(
            depth=None,
            scores=evaluation.ensemble.scores(classes),
            cost=Cost(
                parameters=parameters(architecture),
                gmac=macs(architecture, height, width) / 1e9,
                file_bytes=file_bytes(architecture),
                milliseconds=milliseconds_at(architecture.depth, ensemble=True),
            ),
        )
        rows.append(together)
    return rows
