"""`unetpp prune`: choose a depth or take the one named, cut there, prove its heads unchanged, write it.

`jobs.scoring.choose` knows the rule, `network.pruning` cuts and proves, `network.halving` knows half storage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.devices import choose_device, resolve_precision, set_arithmetic
from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import DepthResult
from unetpp_cli.jobs.runs import folder_for, shown
from unetpp_cli.jobs.scoring.bench import Bench
from unetpp_cli.jobs.scoring.choose import Limits, choose
from unetpp_cli.jobs.scoring.savings import cost_json, savings_table
from unetpp_cli.network import halving, pruning
from unetpp_cli.network.weights import (
    Model,
    derived_from,
    load_model,
    predicted_bytes,
    save_model,
    stores_half,
)
from unetpp_cli.report import console
from unetpp_cli.report.tables import depth_tables

_LATER = 2048
"""Bytes that cost, choice and proof may add to the header of a file that is weighed before it is made."""


@dataclass(frozen=True)
class PruneRequest:
    """The options of `unetpp prune`; None and empty text stand for 'not given'.

    Attributes:
        model: a weights file.
        why: where it comes from, when nobody named it.
        depth: of the head that becomes the deepest, or `auto`.
        output: the file to write; a pruned file of the same model is replaced by itself.
        single_head: drop the shallower heads, too.
        half: store the convolutions in fp16.
        overwrite: replace `output` whatever it is, `model` excepted.
        limits: what `auto` asks of a depth.
    """

    model: Path
    depth: str
    output: Path | None = None
    single_head: bool = False
    half: bool = False
    overwrite: bool = False
    limits: Limits = Limits()
    data: str | None = None
    split: str | None = None
    split_by: str | None = None
    hold_out: str | None = None
    size: str | None = None
    gpus: str = ""
    precision: str = "fp32"
    timing: bool = True
    why: str = ""


@dataclass(frozen=True)
class _Rows:
    """The depths of the model as it is, and as they would be stored (the same, but for `--half`)."""

    before: Sequence[DepthResult] = ()
    after: Sequence[DepthResult] = ()


def prune(request: PruneRequest) -> Path | None:
    """Writes the model, cut at a depth, to a file: `MODEL-L<depth>[-half].safetensors` beside it by default.

    The proof comes first, then what half storage changes and the cost, then the file (all of it or nothing),
    then a table of what was won.

    Returns:
        The file that was written; None when `auto` chose the model as it is.

    Raises:
        UserError: options that do not go together, a model that cannot be read or has no such head, no depth
            that keeps the promise, or an output that may not be written.
    """
    depth = _refuse(request)
    geometry = Geometry.parse(request.size) if request.size else None
    device = choose_device(request.gpus)
    precision = resolve_precision(request.precision, device)
    set_arithmetic(device, precision, deterministic=False, training=False)
    full = load_model(request.model)
    if request.why:
        console.say(f"Model: {shown(Path(full.path))} ({request.why})")
    if request.output:
        _refuse_target(request, request.output, full)
    bench = Bench(device, precision, geometry or full.header.geometry)
    if request.data or depth is None:
        bench = bench.with_data(full, request.data, request.split, request.split_by, request.hold_out)
    was_half = stores_half(full)
    halves = request.half and not was_half

    origin: dict[str, Any] = {}
    rows = _Rows()
    if depth is None:
        rows, depth = _choose(request, full, bench, halves, was_half)
        if _stays(request, full, depth, halves):
            console.warn(f"Nothing was written: what was chosen is {full.path} as it is, L{depth}.")
            return None
        origin["choice"] = _choice_json(request.limits, bench, rows.after)
    name = f"{full.path.stem}-L{depth}{'-half' if halves else ''}.safetensors"
    target = request.output or folder_for(full.path) / name
    _refuse_target(request, target, full)

    network, header = pruning.prune(full, depth, single_head=request.single_head, may_stay=halves)
    pruned = Model(network, header, target, "")
    proof = pruning.verify(full.network, network, depth)
    origin["proof"] = proof.to_json()
    heads = f"head{'s' if len(proof.heads) > 1 else ''} {', '.join(map(str, proof.heads))}"
    stage = " when cut, before the weights are halved" if halves else ""
    console.explain(f"Logits of {heads} equal those of {full.path} bit for bit{stage}.")
    if halves:
        pruned, origin["half"] = _halve(full, pruned, bench, rows)
        console.explain(_half_sentence(origin["half"]))

    times = _times(full, pruned, bench, rows) if request.timing else ()
    half = halves or was_half
    origin["cost"] = cost_json(pruned, bench, half, times)
    save_model(target, pruned.network, replace(header, origin={**header.origin, **origin}), half=half)
    console.out.print(savings_table(full, pruned, bench, times))
    console.say(f"Wrote {target}")
    return target


def _refuse(request: PruneRequest) -> int | None:
    """The depth as a number, None for `auto`. Raises a UserError for options that do not go together."""
    word = request.depth.strip().lower()
    if not re.fullmatch(r"auto|-?[0-9]{1,9}", word):
        raise UserError(
            f"--depth {request.depth} is neither a number nor 'auto'.",
            "Write --depth 3, or --depth auto --data ./camvid.",
        )
    if word != "auto":
        if request.limits.given:
            raise UserError(
                f"{' and '.join(request.limits.given)} with --depth {word}: nothing is left to choose.",
                "Write --depth auto, or leave the limits away.",
            )
        if request.data and not request.half:
            raise UserError(
                f"--data with --depth {word}: a cut is proven and needs no data.",
                "Leave it away; it serves --depth auto and --half.",
            )
        unread = {"--split": request.split, "--split-by": request.split_by, "--hold-out": request.hold_out}
        if not request.data and (named := [option for option, value in unread.items() if value]):
            raise UserError(
                f"{' and '.join(named)} without --data: there is nothing to split.",
                "Leave it away, or see what --half changes on --data ./camvid.",
            )
    if request.limits.max_ms is not None and not request.timing:
        raise UserError("--max-ms needs times, and --no-timing takes none.", "Leave one of them away.")
    if request.output and request.output.suffix != ".safetensors":
        raise UserError(
            f"Weights are safetensors only: -o {request.output}.", "End its name with .safetensors."
        )
    return None if word == "auto" else int(word)


def _refuse_target(request: PruneRequest, target: Path, full: Model) -> None:
    """Raises a UserError if `target` is the model, or a file that is not this command's to replace."""
    if not target.exists():
        return
    if target.samefile(full.path):
        raise UserError(f"{target} is the model itself; prune does not overwrite it.", "Choose another -o.")
    if not request.overwrite and not derived_from(target, full.hash):
        raise UserError(
            f"{target} exists, and was not pruned from {full.path}.", "Choose another -o, or --overwrite."
        )


def _stays(request: PruneRequest, full: Model, depth: int, halves: bool) -> bool:
    """Whether pruning at `depth` would change nothing."""
    heads = full.header.architecture.heads
    return depth == heads[-1] and not halves and not (request.single_head and len(heads) > 1)


def _choose(
    request: PruneRequest, full: Model, bench: Bench, halves: bool, was_half: bool
) -> tuple[_Rows, int]:
    """Measures every depth and chooses one, saying why.

    Returns:
        The rows, of which those after hold the size of the whole file that would be written; and the depth.
    """
    heads = full.header.architecture.heads
    if len(heads) == 1:
        raise UserError(
            f"{full.path} has one head, at depth {heads[0]}: there is nothing to choose.",
            "Train with deep supervision, prune without --single-head.",
        )
    if bench.split != "val":
        why = "favours the deeper heads" if bench.split == "train" else "flatters the scores there"
        console.warn(f"Choosing a depth on {bench.split} {why}; choose on val where there is one.")
    before = after = bench.rows(full, timing=request.timing)
    if halves:
        stored = halving.rounded(full.network, full.header, str(full.path))
        after = bench.rows(replace(full, network=stored))
    rows = []
    for row, other in zip(before, after, strict=True):
        if row.depth is None or row.cost is None:
            continue  # the ensemble is no depth to be cut at
        size = full.path.stat().st_size
        if not _stays(request, full, row.depth, halves):
            header = pruning.pruned_header(full, row.depth, single_head=request.single_head, may_stay=True)
            size = predicted_bytes(header, half=halves or was_half) + _LATER
        rows.append(replace(other, cost=replace(row.cost, file_bytes=size)))
    height, width = bench.size()
    name = bench.data.name if bench.data else ""
    kind = ", convolutions in fp16" if halves else ""
    title = f"{name} {bench.split}, {width}x{height}, {bench.precision}{kind}"
    for table in depth_tables(rows, title, console.out.width):
        console.out.print(table)
    choice = choose(rows, request.limits, reference=_miou(before)[heads[-1]] if halves else None)
    for reason in choice.reasons:
        console.explain(reason)
    return _Rows(before, rows), choice.depth


def _halve(full: Model, pruned: Model, bench: Bench, rows: _Rows) -> tuple[Model, dict[str, Any]]:
    """The pruned model as its file will hold it, and what that changes: on the probes, and on any data."""
    stored = replace(pruned, network=halving.rounded(pruned.network, pruned.header, str(full.path)))
    change = halving.compare(pruned.network, stored.network, pruning.probes(full.network)).to_json()
    if bench.data:
        # There is no file of them yet; whose it is plays no part in the scores.
        before = _miou(rows.before or bench.rows(replace(pruned, path=full.path)))
        after = _miou(rows.after or bench.rows(replace(stored, path=full.path)))
        depth = pruned.network.depth
        change |= {"split": bench.split, "images": len(bench.pairs), "precision": bench.precision}
        change |= {"miou_before": before[depth], "miou_after": after[depth]}
    return stored, change


def _half_sentence(change: Mapping[str, Any]) -> str:
    """What half storage changes, in one line."""
    line = (
        "Halved, the answers are no longer the same: on the probe images logits change by at most"
        f" {100 * change['logits']:.3g} % of the largest, and {100 * change['pixels']:.3g} % of the pixels"
        " their class"
    )
    if "split" in change:
        before, after = (f"{100 * change[key]:.2f} %" for key in ("miou_before", "miou_after"))
        line += f"; mIoU on {change['split']} ({change['images']} images) is {before} before, {after} after"
    return f"{line}."


def _miou(rows: Sequence[DepthResult]) -> dict[int, float]:
    """Mean IoU (0..1) by depth."""
    return {row.depth: row.scores.miou for row in rows if row.depth is not None}


def _choice_json(limits: Limits, bench: Bench, rows: Sequence[DepthResult]) -> dict[str, Any]:
    """For the header's `origin`: what was asked for, and what was measured."""
    asked = limits.resolved().given
    return {
        **{option[2:].replace("-", "_"): value for option, value in asked.items()},
        "split": bench.split,
        "images": len(bench.pairs),
        "precision": bench.precision,
        "miou": {str(depth): value for depth, value in _miou(rows).items()},
    }


def _times(full: Model, pruned: Model, bench: Bench, rows: _Rows) -> tuple[float, float]:
    """Milliseconds per image of both: as the choice measured them, if it did."""
    known = {row.depth: row.cost.milliseconds for row in rows.before if row.cost}
    with console.err.status("Measuring the time per image ..."):
        before, after = (
            known.get(model.network.depth) or bench.milliseconds(model.network) for model in (full, pruned)
        )
    return before, after
