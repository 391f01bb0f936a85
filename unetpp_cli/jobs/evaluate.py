"""`unetpp eval`: what each depth of a model is worth on a split, and what it costs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.devices import choose_device, device_name, resolve_precision, set_arithmetic
from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import DepthResult
from unetpp_cli.jobs.measure import measure
from unetpp_cli.jobs.runs import data_of_run, find_model
from unetpp_cli.network.weights import load_model
from unetpp_cli.report import console
from unetpp_cli.report.tables import class_table, depth_table, results_json


@dataclass(frozen=True)
class EvalRequest:
    """The options of `unetpp eval`; empty text stands for 'not given'."""

    model: str | None = None
    data: str | None = None
    split: str | None = None
    split_by: str | None = None
    size: str | None = None
    gpus: str = ""
    precision: str = "fp32"
    as_json: bool = False
    timing: bool = True


def eval_model(request: EvalRequest) -> list[DepthResult]:
    """Prints the table of depths and the table of classes (or JSON) and returns the former's rows.

    Raises:
        UserError: the model, the data or the split is not there, or their classes do not fit.
    """
    device = choose_device(request.gpus)
    precision = resolve_precision(request.precision, device)
    set_arithmetic(device, precision, deterministic=False, training=False)
    geometry = Geometry.parse(request.size) if request.size else None
    path, why = find_model(request.model)
    where = request.data or data_of_run(path)
    if not where:
        raise UserError(f"--data is missing: what should {path} be scored on?", "Add --data ./camvid.")
    model = load_model(path, device)
    geometry = geometry or model.header.geometry
    data = open_dataset(
        where, classes=model.header.classes, split_by=request.split_by, seed=_seed_of(model.header.recipe)
    )
    split = _choose_split(data, request.split)
    pairs = data.splits[split]
    if not request.as_json:
        console.say(f"Model: {path}" + ("" if why == request.model else f" ({why})"))
        console.say(f"Data: {data.name}: {data.summary()}")
        console.say(f"Split: {split}, {len(pairs)} images, on {device_name(device)} in {precision}")
    for text in data.warnings:
        console.warn(text)

    rows = measure(model, data, pairs, device, precision, geometry=geometry, timing=request.timing)
    height, width = geometry.size(*data.image_size(pairs[0]))
    if request.as_json:
        extra = {
            "model": str(path),
            "sha256": model.hash,
            "data": data.name,
            "layout": data.layout,
            "split_by": data.split_by,
            "images": len(pairs),
            "geometry": str(geometry),
            "timed_size": f"{width}x{height}",
            "precision": precision,
            "device": device_name(device),
        }
        print(json.dumps(results_json(split, rows, extra), indent=2))
    else:
        console.out.print(depth_table(rows, f"{data.name} {split}, {width}x{height}, {precision}"))
        console.out.print(class_table(rows, data.classes))
    return rows


def _choose_split(data: Dataset, wish: str | None) -> str:
    there = [name for name, pairs in data.splits.items() if pairs]
    if wish is None:
        for name in ("test", "val", "train"):
            if name in there:
                return name
    elif wish in there:
        return wish
    raise UserError(f"--split {wish}: {data.name} has no such split.", f"It has {', '.join(there)}.")


def _seed_of(recipe: object) -> int:
    """The seed with which the training drew a random split, so that eval meets the same one."""
    return int(recipe.get("seed", 0)) if isinstance(recipe, dict) else 0
