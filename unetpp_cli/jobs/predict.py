"""`unetpp predict`: pictures in, masks out, in the order in which it happens; by one process or several."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import timedelta

from unetpp_cli import allocator
from unetpp_cli.data.findings import counted
from unetpp_cli.devices import choose_devices
from unetpp_cli.errors import UserError, listed
from unetpp_cli.files import sweep_beside
from unetpp_cli.jobs.interrupt import Interruption
from unetpp_cli.jobs.painting.encoding import Writer
from unetpp_cli.jobs.painting.film import predict_film
from unetpp_cli.jobs.painting.inputs import STDIN, Item, Scan
from unetpp_cli.jobs.painting.outputs import Naming, refuse_collisions
from unetpp_cli.jobs.painting.paint import Manner, Stop, Totals, paint
from unetpp_cli.jobs.painting.request import PredictRequest, look_of, predictor_of, prepare
from unetpp_cli.jobs.painting.video import is_video
from unetpp_cli.jobs.processes import as_worker, leave, said_once
from unetpp_cli.parallel import LauncherSignalled, ProcessesFailed, World, is_worker, join, launch
from unetpp_cli.report import console, units

_PATIENCE = timedelta(days=30)  # the first of several processes to be done waits for the last
_NOUNS = {"overlay": "overlay", "probs": "probability file"}


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
        return predict_film(request)
    if request.every:
        raise UserError("--every is for films, and there is none.", "Leave it out.")
    naming = _naming(request)
    if not is_worker():
        devices = choose_devices(request.gpus)
        if len(devices) > 1:
            return _in_processes(request, len(devices))
    with join(request.gpus, _PATIENCE) as world, said_once(world):
        return _predict(request, naming, world)


def _naming(request: PredictRequest) -> Naming:
    """Where everything goes; refuses what can be refused before anything is read."""
    return Naming.choose(look_of(request), request.output)


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
    prepare(request, world.device)  # what can be wrong with the options is said before inputs are looked for
    count, items = _share(request, naming, world)
    several = f", {counted(count, 'image')} on {world.size} processes" if world.size > 1 else ""
    predictor = predictor_of(request, world.device, several)
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
