"""`unetpp predict`: pictures in, masks out, in the order in which it happens; by one process or several."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from unetpp_cli import allocator
from unetpp_cli.data.findings import counted
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.images import is_picture
from unetpp_cli.devices import choose_devices, device_name, resolve_precision, set_arithmetic
from unetpp_cli.errors import Stopped, UserError, listed
from unetpp_cli.export.onnx_network import open_model
from unetpp_cli.files import sweep_beside
from unetpp_cli.inference.passes import parse_tta
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.inference.tiles import parse_tiling
from unetpp_cli.jobs.afar import local
from unetpp_cli.jobs.encoding import Writer
from unetpp_cli.jobs.inputs import STDIN, Item, Scan
from unetpp_cli.jobs.interrupt import Interruption
from unetpp_cli.jobs.outputs import Look, Naming, parse_formats, refuse_collisions
from unetpp_cli.jobs.painting import Manner, Stop, Totals, paint
from unetpp_cli.jobs.processes import as_worker, leave, said_once
from unetpp_cli.jobs.runs import find_model
from unetpp_cli.jobs.video import FORMATS as VIDEO_FORMATS
from unetpp_cli.jobs.video import OUTPUTS, Film, is_video, paint_film
from unetpp_cli.memory import is_out_of_memory
from unetpp_cli.parallel import LauncherSignalled, ProcessesFailed, World, is_worker, join, launch
from unetpp_cli.remote import is_url
from unetpp_cli.report import console, units

_PATIENCE = timedelta(days=30)  # the first of several processes to be done waits for the last
_NOUNS = {"overlay": "overlay", "probs": "probability file"}


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


def predict(request: PredictRequest) -> int:
    """Paints every picture; a broken one is named, skipped and counted. Several devices get a process each.

    Returns:
        The exit code: 0 when every picture was painted, 1 when some could not be read, 2 when an error ended
        one of several processes, 130 or 143 when a signal did.

    Raises:
        UserError: nothing to do, outputs that would overwrite each other or a picture, no such model or
            depth, a file that cannot be written, or with `strict` a broken picture.
    """
    if any(is_video(name) for name in request.inputs):
        return _predict_film(request)
    if request.every:
        raise UserError("--every is for films, and there is none.", "Leave it out.")
    naming = _naming(request)
    if not is_worker():
        devices = choose_devices(request.gpus)
        if len(devices) > 1:
            return _in_processes(request, len(devices))
    with join(request.gpus, _PATIENCE) as world, said_once(world):
        return _predict(request, naming, world)


def _predict_film(request: PredictRequest) -> int:
    """A single film, by a single process."""
    film = _film(request)
    if request.skip_existing and Path(film.output).is_file():
        console.say(f"{film.output} exists already.")
        return 0
    devices = choose_devices(request.gpus)
    if len(devices) > 1:
        console.warn(f"A film is painted by one process: on {device_name(devices[0])}.")
    predictor = _predictor(request, devices[0])
    with Interruption() as interruption:
        try:
            return paint_film(film, predictor, lambda: bool(interruption))
        except Stopped:
            left = "the masks so far are there" if film.is_folder else "no film was written"
            console.say(f"Interrupted: {left}.")
            return interruption.exit_code
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{film.source}: out of memory.", "Use a smaller --size, or --tile 512."
            ) from error


def _film(request: PredictRequest) -> Film:
    """What is to be made of which film; refuses what makes no sense for one."""
    named = request.inputs[0]
    if len(request.inputs) > 1:
        raise UserError(
            f"{listed(request.inputs)}: a film is painted by itself.", "Give one film, or images only."
        )
    if is_worker():
        raise UserError(f"{named}: a film is painted by one process.", "Start it without torchrun.")
    output = (
        request.output or f"{Path(named).with_suffix('') if not is_url(named) else Path(named).stem}_mask.mp4"
    )
    suffix = Path(output).suffix.lower()
    if is_picture(output) or (is_video(output) and suffix not in OUTPUTS):
        raise UserError(
            f"-o {output}: a film becomes a film ({', '.join(OUTPUTS)}) or a folder of masks.",
            "Write -o masks.mp4 or -o masks/.",
        )
    plain = Look(parse_formats(request.formats))
    look = _look(replace(request, formats="color" if request.formats == "palette" else request.formats))
    film = Film(local(named), output, look, request.every or 1)
    if film.is_folder and (request.formats != "palette" or replace(look, formats=plain.formats) != plain):
        raise UserError(
            f"-o {output} is a folder, which gets palette PNGs: nothing shows --format or its like.",
            "Leave them out, or write -o masks.mp4.",
        )
    if len(look.formats) > 1 or look.formats[0] not in VIDEO_FORMATS:
        raise UserError(
            f"--format {request.formats}: a film shows one of {', '.join(VIDEO_FORMATS)}.",
            "Name one; for masks of class indices give a folder: -o masks/.",
        )
    unread = {
        "--confidence": request.confidence,
        "--strict": request.strict,
        "--batch-size": request.batch_size,
        "--skip-existing": request.skip_existing and film.is_folder,
    }
    if named_options := [option for option, wanted in unread.items() if wanted]:
        raise UserError(f"{' and '.join(named_options)}: not for films.", "Leave it out.")
    if Path(output).exists() and Path(film.source).exists() and Path(output).samefile(film.source):
        raise UserError(f"-o {output} is the film itself.", "Choose another name.")
    return film


def _naming(request: PredictRequest) -> Naming:
    """Where everything goes; refuses what can be refused before anything is read."""
    return Naming.choose(_look(request), request.output)


def _look(request: PredictRequest) -> Look:
    look = Look(
        parse_formats(request.formats),
        request.confidence,
        request.legend,
        request.side_by_side,
        request.opacity,
    )
    look.check()
    return look


def _in_processes(request: PredictRequest, processes: int) -> int:
    _refuse_stdin(request)
    try:
        return launch(_work, processes, 0, request, allocator.keeps_pages())
    except ProcessesFailed as failure:
        if failure.signal is not None:  # it could not say so itself
            console.error(
                f"A process was ended by signal {failure.signal}.", "--skip-existing goes on from there."
            )
        return failure.exit_code
    except LauncherSignalled as signalled:
        return 128 + signalled.number


def _work(request: PredictRequest, keep_pages: bool) -> int:
    """What each of the processes does that `--gpus` asks for."""
    with as_worker(keep_pages):
        if code := predict(request):
            leave(code)
        return 0


def _refuse_stdin(request: PredictRequest) -> None:
    if STDIN in request.inputs:
        raise UserError(
            "-: several processes cannot share one standard input.",
            "Name a file that holds the list: @list.txt.",
        )


def _predict(request: PredictRequest, naming: Naming, world: World) -> int:
    if not world.is_main:
        console.mute()
    _prepare(request, world.device)  # what can be wrong with the options is said before inputs are looked for
    count, items = _share(request, naming, world)
    several = f", {counted(count, 'image')} on {world.size} processes" if world.size > 1 else ""
    predictor = _predictor(request, world.device, several)
    heads = predictor.heads
    if request.confidence and len(heads) == 1:
        console.warn("One head alone cannot disagree: --confidence writes the entropy only.")
    manner = Manner(
        predictor,
        Writer(naming.for_heads(len(heads)), predictor.header.classes, predictor.text),
        confidence=request.confidence,
        skip_existing=request.skip_existing,
        strict=request.strict,
        batch_size=request.batch_size,
        bar=world.is_main,
    )

    with Interruption(forwarded=is_worker()) as interruption:
        stop, totals = Stop(interruption, world), Totals()
        try:
            paint(items, manner, stop, totals)
        except UserError as error:
            if world.size == 1:
                raise
            stop.tell_others()
            if world.says_it_first(str(error)):
                console.error(error.problem, error.cure)
            totals.has_failed = True
    if interruption:
        if world.is_main:
            # The others are not waited for, who may have been ended at once.
            done = ("at least " if world.size > 1 else "") + counted(totals.done, "image")
            console.say(f"Interrupted after {done}; --skip-existing goes on from here.")
        return interruption.exit_code
    return _end(totals, count, items, manner.writer.naming, world)


def _prepare(request: PredictRequest, device: torch.device) -> dict[str, Any]:
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


def _predictor(request: PredictRequest, device: torch.device, several: str = "") -> Predictor:
    """The predictor, with what is to be said of it said."""
    options = _prepare(request, device)
    path, why = find_model(request.model)
    model = open_model(path, device)
    predictor = Predictor(model, device, **options)
    console.say(f"Model: {path}" + ("" if why == request.model else f" ({why})"))
    text = predictor.text
    extra = "".join(f", {key} {text[key]}" for key in ("TTA", "Tile") if key in text)
    console.say(
        f"Depth {text['Depth']}, {predictor.geometry}{extra}, on {device_name(predictor.device)} in "
        f"{predictor.precision}{several}"
    )
    return predictor


def _share(request: PredictRequest, naming: Naming, world: World) -> tuple[int, list[Item]]:
    """How many pictures there are, and those that are this process's to paint."""
    if world.size > 1:
        _refuse_stdin(request)
    scan = Scan(request.inputs, request.output)
    items = list(scan)
    if naming.is_file and len(items) > 1:
        raise UserError(
            f"-o {request.output} is one file, but there are {len(items):,} images.",
            "Give a folder: -o masks/",
        )
    world.from_main(lambda: refuse_collisions(items, naming))
    if world.is_main:
        sweep_beside(target for item in items for target in naming.targets(item).values())
    if scan.left_out:
        console.say(f"{counted(scan.left_out, 'file')} left out: named like outputs of an earlier predict.")
    if world.size > 1:
        names = hashlib.sha256()
        for item in items:
            names.update(os.fsencode(item.name) + b"\0")
        # From here on files may be written where another process would have looked for pictures.
        if len(set(world.collect(names.digest()))) > 1:
            raise UserError(
                "The processes do not find the same images.",
                "Does a folder change, or differ on another machine?",
            )
    return len(items), items[world.rank :: world.size]


def _end(totals: Totals, count: int, items: Sequence[Item], naming: Naming, world: World) -> int:
    """Waits for the other processes, and has the first one say what all have done. The exit code."""
    try:
        first, *others = world.collect(totals)
    except RuntimeError:
        console.error("Another process ended before its work was done.", "--skip-existing goes on from here.")
        return 1
    for other in others:
        first = first + other
    if world.is_main:
        _report(first, count, items, naming)
    world.any([False])  # whoever ends first, with an error, takes the others along: not before the report
    return 2 if first.has_failed else 1 if first.broken else 0


def _report(totals: Totals, count: int, items: Sequence[Item], naming: Naming) -> None:
    if totals.skipped:
        console.say(f"{counted(totals.skipped, 'image')} skipped: the files exist.")
    if count == 1 and totals.done:
        console.say(f"{items[0].name} -> {' and '.join(naming.targets(items[0]).values())}")
    elif totals.done:
        noun = _NOUNS.get(naming.look.formats[0], "mask")
        rate = f"{units.short(totals.done / max(totals.seconds, 1e-9))} img/s"
        console.say(f"{counted(totals.done, noun)} {naming.place(items)} ({rate})")
    if totals.broken:
        more = totals.broken - len(totals.names)
        names = listed(totals.names) + (f" and {more:,} more" if more else "")
        console.warn(f"{totals.broken:,} of {counted(count, 'image')} could not be read: {names}")
