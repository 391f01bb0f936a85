"""`unetpp eval`: what each depth of a model is worth on a split and what it costs; models compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.data.named_masks import written_classes
from unetpp_cli.data.splits import segnet_split
from unetpp_cli.devices import choose_device, device_name, resolve_precision, set_arithmetic
from unetpp_cli.errors import UserError, listed
from unetpp_cli.export.onnx_network import open_model
from unetpp_cli.inference.bootstrap import LEAST, blocks_of, sequences_of
from unetpp_cli.inference.metrics import Difference
from unetpp_cli.inference.passes import parse_tta
from unetpp_cli.inference.tiles import parse_tiling
from unetpp_cli.jobs.afar import local
from unetpp_cli.jobs.runs import find_model
from unetpp_cli.jobs.scoring.candidates import Candidate, find_candidates
from unetpp_cli.jobs.scoring.evaluation_folder import evaluation_folder, write_evaluation
from unetpp_cli.jobs.scoring.measure import Measured, Way, between, block_of, open_data_of
from unetpp_cli.network.weights import Model
from unetpp_cli.report import console
from unetpp_cli.report.comparison import comparison_json, comparison_table, verdict
from unetpp_cli.report.tables import class_table, depth_tables, results_csv, results_json

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EvalRequest:
    """The options of `unetpp eval`; None and empty text stand for 'not given'.

    Attributes:
        models: weights files and run folders.
        masks: folders or archives of masks that are scored without a model.
        out: the folder for plots, sheets and tables.
        form: `tables`, `json` or `csv`: what is printed.
    """

    models: Sequence[str] = ()
    masks: Sequence[str] = ()
    data: str | None = None
    split: str | None = None
    split_by: str | None = None
    hold_out: str | None = None
    size: str | None = None
    tta: str = ""
    tile: int | None = None
    overlap: int | None = None
    gpus: str = ""
    precision: str = "auto"
    block: int | None = None
    boundary: bool = True
    timing: bool = True
    out: str | None = None
    form: str = "tables"


def eval_model(request: EvalRequest) -> list[Measured]:
    """Prints what was found, as tables, JSON or CSV, and leaves the plots in `out`.

    Returns:
        One for each model, then one for each folder of masks, in the order of the request.

    Raises:
        UserError: a model, the data or the split is not there, or their classes do not fit.
    """
    folder = evaluation_folder(request.out) if request.out else None
    found = [find_model(name) for name in request.models]
    if not request.models and not request.masks:
        found = [find_model(None, request.data)]
    device = choose_device(request.gpus)
    models = [open_model(path, device) for path, _ in found]
    for number, model in enumerate(models):
        if twin := next((one for one in models[:number] if one.hash == model.hash), None):
            console.warn(f"{twin.path} and {model.path} hold the same weights.")
    data = _open_data(request, models)
    way = _way(request, device, block_of(data, request.block))
    split = _choose_split(data, request.split)
    pairs = data.splits[split]
    candidates = find_candidates(models, request.masks, data, pairs, way)
    if request.form == "tables":
        why = f" ({found[0][1]})" if found and not request.models else ""
        for candidate in candidates:
            console.say(f"{candidate.kind}: {candidate.place}{why}")
        console.say(f"Data: {data.name}: {data.summary()}")
        held = f" ({data.split_by})" if data.hold_out else ""
        console.say(f"Split: {split}, {len(pairs)} images{held}{_in_words(way) if models else ''}")
    for text in data.warnings:
        console.warn(text)

    measured = [candidate.score() for candidate in candidates]
    differences = [between(measured[0], measured[0].main, one, one.main) for one in measured[1:]]
    stems = [pair.stem for pair in pairs]
    facts = {
        "data": data.name,
        "layout": data.layout,
        "split_by": data.split_by,
        "images": len(pairs),
        "sequences": sequences_of(stems) if way.block > 1 else len(stems),
        "block": way.block,
        "blocks": len(set(blocks_of(stems, way.block))),
        **(_facts(way) if models else {}),
    }
    report = _report(split, candidates, measured, differences, facts, data)
    table = results_csv([(one.name, one.rows) for one in measured])
    if request.form == "json":
        print(json.dumps(report, indent=2))
    elif request.form == "csv":
        print(table, end="")
    else:
        for one, candidate in zip(measured, candidates, strict=True):
            _print(one, f"{one.name}, {data.name} {split}{candidate.timed}", data, facts["sequences"])
        for one, difference in zip(measured[1:], differences, strict=True):
            console.out.print(comparison_table(measured[0].main, one.main, difference, data.classes))
            console.explain(verdict(difference, facts["sequences"]))
        _explain(split, stems, way.block)
    if folder is not None:
        drawn = [(one, candidate.predict) for one, candidate in zip(measured, candidates, strict=True)]
        write_evaluation(folder, report, table, drawn, data, split, way.block)
        if request.form == "tables":
            console.say(f"Plots, sheets and tables are in {folder}")
    return measured


def _way(request: EvalRequest, device: torch.device, block: int) -> Way:
    precision = resolve_precision(request.precision, device)
    set_arithmetic(device, precision, deterministic=False, training=False)
    return Way(
        device=device,
        precision=precision,
        geometry=Geometry.parse(request.size) if request.size else None,
        tta=parse_tta(request.tta),
        tiling=parse_tiling(request.tile, request.overlap),
        block=block,
        boundary=request.boundary,
        timing=request.timing,
    )


def _in_words(way: Way) -> str:
    averaged = f", averaged over {' and '.join(way.tta)}" if way.tta else ""
    return f", on {device_name(way.device)} in {way.precision}{averaged}"


def _facts(way: Way) -> dict[str, Any]:
    return {"precision": way.precision, "device": device_name(way.device), "tta": list(way.tta)}


def _report(
    split: str,
    candidates: Sequence[Candidate],
    measured: Sequence[Measured],
    differences: Sequence[Difference],
    facts: dict[str, Any],
    data: Dataset,
) -> dict[str, Any]:
    """Everything that was found, as plain JSON values: the first candidate's at the top level."""
    first, *others = [
        {
            **results_json(split, one.rows, candidate.facts),
            "steps": [comparison_json(step, data.classes) for step in one.steps()],
        }
        for one, candidate in zip(measured, candidates, strict=True)
    ]
    compared = [comparison_json(difference, data.classes) for difference in differences]
    return {**facts, **first, **({"others": others, "differences": compared} if others else {})}


def _print(measured: Measured, title: str, data: Dataset, sequences: int) -> None:
    for table in depth_tables(measured.rows, title, console.out.width):
        console.out.print(table)
    for step in measured.steps():
        console.explain(verdict(step, sequences))
    console.out.print(class_table(measured.rows, data.classes))


def _choose_split(data: Dataset, wish: str | None) -> str:
    """The split `wish`, or test, val or train, whichever there is first.

    Raises:
        UserError: the data have no such split.
    """
    there = [name for name, pairs in data.splits.items() if pairs]
    if wish is None:
        for name in ("test", "val", "train"):
            if name in there:
                return name
    elif wish in there:
        return wish
    raise UserError(f"--split {wish}: {data.name} has no such split.", f"It has {', '.join(there)}.")


def _open_data(request: EvalRequest, models: Sequence[Model]) -> Dataset:
    for model in models[1:]:
        if model.header.classes.names != models[0].header.classes.names:
            raise UserError(
                f"{models[0].path} and {model.path} know different classes "
                f"({listed(models[0].header.classes.names, 12)}; {listed(model.header.classes.names, 12)}).",
                "Compare models of the same classes.",
            )
    if models:
        return open_data_of(models[0], request.data, request.split_by, request.hold_out)
    masks = request.masks[0]
    if not request.data:
        raise UserError(
            f"--data is missing: what should --pred {masks} be scored on?", "Add --data ./camvid."
        )
    # In the classes that the masks say they are in: then they score as their model does.
    return open_dataset(
        local(request.data),
        classes=written_classes(masks),
        split_by=request.split_by,
        hold_out=request.hold_out,
    )


def _explain(split: str, stems: Sequence[str], block: int) -> None:
    """What the intervals mean here."""
    blocks = len(set(blocks_of(stems, block)))
    drawn = f"{blocks} blocks of {block} consecutive frames" if block > 1 else f"{blocks} single images"
    if blocks < LEAST:
        hint = " Where images are unrelated, in spite of their names, add --block 1." if block > 1 else ""
        console.explain(f"No intervals: {drawn} are too few to tell.{hint}")
        return
    console.explain(f"95 % intervals: bootstrap over {drawn}.")
    if block > 1 and sequences_of(stems) == 1:
        is_benchmark = all(segnet_split(stem) == "val" for stem in stems)
        clip = "one clip of 6.7 seconds" if is_benchmark else "one sequence, by their names"
        console.explain(
            f"All {len(stems)} images of {split} are {clip}: the intervals say nothing about others."
        )
