"""What `unetpp predict` is asked for, and the parts that pictures and films share. Called by both jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.devices import device_name, resolve_precision, set_arithmetic
from unetpp_cli.export.onnx_network import open_model
from unetpp_cli.inference.passes import parse_tta
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.inference.tiles import parse_tiling
from unetpp_cli.jobs.painting.outputs import Look, parse_formats
from unetpp_cli.jobs.runs import find_model, shown
from unetpp_cli.report import console


@dataclass(frozen=True)
class PredictRequest:
    """The options of `unetpp predict`; empty text and None stand for 'not given'."""

    inputs: Sequence[str]
    output: str | None = None
    model: str | None = None
    depth: int | None = None
    use_ensemble: bool = False
    size: str | None = None
    tta: str = ""
    tile: int | None = None
    overlap: int | None = None
    formats: str = "palette"
    confidence: bool = False
    legend: bool = False
    side_by_side: bool = False
    opacity: float = 0.5
    skip_existing: bool = False
    strict: bool = False
    batch_size: int | None = None
    every: int | None = None
    gpus: str = ""
    precision: str = "auto"


def look_of(request: PredictRequest) -> Look:
    look = Look(
        parse_formats(request.formats),
        request.confidence,
        request.legend,
        request.side_by_side,
        request.opacity,
    )
    look.check()
    return look


def prepare(request: PredictRequest, device: torch.device) -> dict[str, Any]:
    """The arithmetic, set, and what `Predictor` is told of the options."""
    precision = resolve_precision(request.precision, device)
    set_arithmetic(device, precision, deterministic=False, training=False)
    return {
        "precision": precision,
        "depth": request.depth,
        "use_ensemble": request.use_ensemble,
        "size": Geometry.parse(request.size) if request.size else None,
        "tta": parse_tta(request.tta),
        "tiling": parse_tiling(request.tile, request.overlap),
    }


def predictor_of(request: PredictRequest, device: torch.device, several: str = "") -> Predictor:
    """The predictor, with what is to be said of it said."""
    options = prepare(request, device)
    path, why = find_model(request.model)
    model = open_model(path, device)
    predictor = Predictor(model, device, **options)
    console.say(f"Model: {shown(path)}" + ("" if why == request.model else f" ({why})"))
    text = predictor.text
    extra = "".join(f", {key} {text[key]}" for key in ("TTA", "Tile") if key in text)
    console.say(
        f"Depth {text['Depth']}, {predictor.geometry}{extra}, on {device_name(predictor.device)} in "
        f"{predictor.precision}{several}"
    )
    return predictor
