"""What eval scores: models, and masks that somebody made. Called by the eval job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.data.predictions import find_predictions
from unetpp_cli.devices import device_name
from unetpp_cli.export.onnx_network import OnnxNetwork
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.inference.tiles import check_tiling
from unetpp_cli.jobs.runs import shown
from unetpp_cli.jobs.scoring.measure import Measured, Way, measure, measure_masks
from unetpp_cli.network.weights import Model

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """One of those that are scored: a model, or masks that somebody made.

    Attributes:
        name: what tables call it.
        kind: `Model` or `Masks`.
        place: the file or folder.
        facts: about it, for JSON.
        timed: the size and the arithmetic in which it is timed, for a title.
        score: measures it.
        predict: its mask of a pair's image, in the data's classes and at the truth's size.
    """

    name: str
    kind: str
    place: str
    facts: dict[str, Any]
    timed: str
    score: Callable[[], Measured]
    predict: Callable[[Pair], Mask]


def find_candidates(
    models: Sequence[Model], masks: Sequence[str], data: Dataset, pairs: Sequence[Pair], way: Way
) -> list[Candidate]:
    """Models and folders of masks, in this order, under names that tell them apart.

    Raises:
        UserError: there are no masks of these images, or tiles too small for a model.
    """
    for model in models:
        if way.tiling is not None:
            check_tiling(way.tiling, model.network.pad_multiple, model.network.depth)
    names = _names([*(model.path for model in models), *map(Path, masks)])
    of_models = [_of_model(model, name, data, pairs, way) for model, name in zip(models, names, strict=False)]
    of_masks = [
        _of_masks(place, name, data, pairs, way)
        for place, name in zip(masks, names[len(models) :], strict=True)
    ]
    return of_models + of_masks


def _of_model(model: Model, name: str, data: Dataset, pairs: Sequence[Pair], way: Way) -> Candidate:
    by = ""
    if isinstance(model.network, OnnxNetwork):  # computes where onnxruntime can, in what it was exported in
        way = replace(way, device=model.network.device, precision="fp32")
        by = f", by onnxruntime on {device_name(way.device)}"
    geometry = way.geometry or model.header.geometry
    height, width = geometry.size(*data.image_size(pairs[0]))
    predictor = Predictor(
        model,
        way.device,
        precision=way.precision,
        size=way.geometry,
        tta=way.tta,
        tiling=way.tiling,
    )
    return Candidate(
        name=name,
        kind="Model",
        place=f"{shown(model.path)}{by}",
        facts={
            "model": str(model.path),
            "sha256": model.hash,
            "geometry": str(geometry),
            "timed_size": f"{width}x{height}",
        },
        timed=f", {width}x{height}, {way.precision}",
        score=lambda: measure(model, data, pairs, way, name),
        predict=lambda pair: predictor.mask(data.read_image(pair, predictor.channels)),
    )


def _of_masks(place: str, name: str, data: Dataset, pairs: Sequence[Pair], way: Way) -> Candidate:
    masks = find_predictions(place, data, pairs)
    return Candidate(
        name=name,
        kind="Masks",
        place=f"{place}, read {masks.how}",
        facts={"masks_path": place},
        timed="",
        score=lambda: measure_masks(masks, data, pairs, way, name),
        predict=lambda pair: masks.read(pair, data.mask_size(pair)),
    )


def _names(places: Sequence[Path]) -> list[str]:
    """A short name for each: the run's for weights in a run folder, else the file's; numbered where equal."""
    names: list[str] = []
    for place in (given.resolve() for given in places):
        known = place.suffix.lower() in {".safetensors", ".zip", ".tar"}
        run = place.parent.parent.name if place.parent.name == "weights" else ""
        short = (place.stem if known else place.name) or "masks"
        if run:
            short = run if place.stem == "best" else f"{run} {place.stem}"
        names.append(short if short not in names else f"{short} ({len(names) + 1})")
    return names
