"""`unetpp train`: from settings to a run folder, in the order in which it happens."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from unetpp_cli import allocator
from unetpp_cli.config import AUTO_BATCH, TrainConfig
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.layouts import Dataset
from unetpp_cli.data.loading import training_loader, validation_loader
from unetpp_cli.data.progression import Progression
from unetpp_cli.devices import (
    choose_devices,
    device_name,
    resolve_precision,
    set_arithmetic,
)
from unetpp_cli.errors import UserError
from unetpp_cli.files import Hold
from unetpp_cli.jobs.learning import setup
from unetpp_cli.jobs.learning.messages import describe, farewell, minutes, say_resumed
from unetpp_cli.jobs.learning.origins import find_teacher, header_of, open_data, start_from
from unetpp_cli.jobs.learning.resume import (
    STATE,
    Request,
    command_for,
    has_state,
    launched_at,
    mark_launch,
    run_of_launch,
)
from unetpp_cli.jobs.learning.run_folder import RunFolder, preview
from unetpp_cli.jobs.learning.training_run import TrainingRun
from unetpp_cli.jobs.processes import as_worker, said_once
from unetpp_cli.jobs.runs import new_run
from unetpp_cli.memory import is_out_of_memory
from unetpp_cli.parallel import (
    LauncherSignalled,
    ProcessesFailed,
    World,
    is_restart,
    is_worker,
    join,
    launch,
    launch_name,
)
from unetpp_cli.report import console
from unetpp_cli.report.history import EpochRecord
from unetpp_cli.report.progress import TrainingDisplay
from unetpp_cli.training.loop import Trainer
from unetpp_cli.training.memory import out_of_memory
from unetpp_cli.training.state import State, load_state
from unetpp_cli.values import DEMO, seconds


@dataclass(frozen=True)
class Outcome:
    """What a training left: `folder`, the `records` of its epochs, and the exit code of the command."""

    folder: Path
    records: tuple[EpochRecord, ...] = ()
    exit_code: int = 0


def choose_recipe(config: TrainConfig) -> tuple[str, str]:
    """The recipe for somebody who named none, and a sentence that says why.

    Args:
        config: as resolved so far; its `data` and `gpus` decide.
    """
    if config.data == DEMO:
        return "quick", ""
    if choose_devices(config.gpus)[0].type == "cpu":
        return (
            "quick",
            "Without a GPU the recipe is 'quick'; '--recipe camvid' is the good one, and slow here.",
        )
    return "camvid", ""


def train(request: Request) -> Outcome:
    """Trains as asked and leaves a run folder. Several devices are given a process each.

    Raises:
        UserError: whatever the user can mend; before the first step nothing has been written.
    """
    if not is_worker():
        devices = choose_devices(request.config.gpus)
        if len(devices) > 1:
            return _train_in_processes(request, len(devices))
    with join(request.config.gpus) as world, said_once(world):
        return _train(request, world)


def _train_in_processes(request: Request, processes: int) -> Outcome:
    try:
        with tempfile.TemporaryDirectory(prefix="unetpp-note-") as folder:
            note = Path(folder) / "gave-up"
            arguments = (request, allocator.keeps_pages(), note)
            return launch(_work, processes, request.config.max_restarts, *arguments)
    except ProcessesFailed as failure:
        if failure.signal is not None:  # it could not say so itself
            path = run_of_launch(failure.launch, request.config.out)
            go_on = f"Go on with: {command_for(path)} --gpus {request.config.gpus}" if path else ""
            console.error(f"A training process was ended by signal {failure.signal}.", go_on)
        return Outcome(Path(), exit_code=failure.exit_code)
    except LauncherSignalled as signalled:
        return Outcome(Path(), exit_code=128 + signalled.number)


def _work(request: Request, keep_pages: bool, note: Path) -> Outcome:
    """What each process does; the exit code says what its messages have said.

    Args:
        note: a file that is made when a process has met what the user must mend: starting again is no cure.
    """
    if note.exists():
        return Outcome(Path(), exit_code=2)
    with as_worker(keep_pages, on_user_error=note.touch):
        outcome = train(request)
        if outcome.exit_code:  # to return would be to wait for a launcher that waits for us to end
            sys.exit(outcome.exit_code)
        return dataclasses.replace(outcome, records=())


def _train(request: Request, world: World) -> Outcome:
    config, device, began = request.config, world.device, time.perf_counter()
    if not world.is_main:
        console.mute()
    precision = resolve_precision(config.precision, device)
    set_arithmetic(device, precision, deterministic=config.deterministic, training=True)

    progression = Progression.parse(config.progressive, config.epochs)
    augmentation = Augmentation(config.augment, config.seed, progression)
    data = open_data(config, world)
    teacher = find_teacher(config, data, world)
    with contextlib.ExitStack() as stack:
        path, state = world.from_main(lambda: _resumed(request, stack))
        decoded = stack.enter_context(setup.DecodedSplits(data, config, world))
        if request.preview is not None:
            preview(request.preview, data, decoded.train, augmentation)
            console.say(f"Augmented samples: {request.preview}")
            return Outcome(request.preview)
        network = setup.build_network(config, len(data.classes), world)
        inherited = state.terms if state else teacher.terms if teacher else ""
        if config.init_from and state is None:
            inherited = start_from(config.init_from, network, data) or inherited
        pixels = state.pixels if state is not None else None
        if pixels is None:
            pixels = world.from_main(lambda: setup.count_pixels(decoded.train, data.classes))
        loss = setup.build_criterion(config, data.classes, pixels, world)
        trainer = setup.build_trainer(
            config,
            network,
            loss,
            world,
            precision,
            lambda index: decoded.train.pairs[index].stem,
            teacher,
        )
        if config.batch_size == AUTO_BATCH:
            config = _with_batch_size(trainer, decoded, augmentation, world)
            trainer.config = config
        batches = setup.build_batches(config, len(decoded.train), world)
        trainer.steps_per_epoch = setup.steps_per_epoch(config, batches)

        fingerprint = world.from_main(data.fingerprint)
        header = header_of(config, trainer.network, data, fingerprint, inherited)
        if teacher is not None:
            header = dataclasses.replace(header, origin={"teacher": teacher.hash})
        console.say(describe(config, trainer.network, device_name(device), precision, world))
        loader = training_loader(decoded.train, augmentation, batches, config, world)
        if request.note and world.size == 1:
            batch = setup.trial_batch(decoded.train, augmentation, config.batch_size)
            took = setup.estimate(trainer, batch, batches.per_epoch, progression)
            console.say(f"{request.note} About {minutes(took)}.")

        run = TrainingRun(
            trainer=trainer,
            batches=batches,
            loader=loader,
            val_loader=validation_loader(decoded.val, config, world) if decoded.val else None,
            val_size=len(decoded.val) if decoded.val else 0,
            classes=data.classes,
            pixels=pixels,
            data=fingerprint,
            terms=inherited,
            folder=None,
            deadline=began + world.from_main(lambda: _time_left(config, path)),
        )
        if state is not None:
            run.restore(state)
            say_resumed(run, state, fingerprint, request.changes, path)
        path = path or world.from_main(lambda: _new_run(request, data, stack))
        if world.is_main:
            step = None if state is None else state.step
            run.folder = RunFolder(path, header, data, config, request.recipe, step)
            if not is_restart():
                mark_launch(path, launch_name())
            run.folder.before_training(
                pixels,
                loss.class_weights,
                decoded.train,
                augmentation,
                as_before=state is not None and not request.changes,
            )
        console.say(f"Run: {path}")
        had, start = len(run.records), time.perf_counter()
        display = TrainingDisplay(None if world.is_main else Console(file=io.StringIO()))
        with _receipt(run, device_name(device)):
            if state is None:
                run.save_state()  # from now on the run can be resumed, whatever happens
            else:
                run.publish()
            exit_code = _fit(run, display, decoded, augmentation)
        farewell(run, path, had, time.perf_counter() - start)
        return Outcome(path, tuple(run.records), exit_code)


@contextlib.contextmanager
def _receipt(run: TrainingRun, device: str) -> Iterator[None]:
    """Keeps run.json: that the training started, on what, and how it ended."""
    if run.folder is None:
        yield
        return
    run.folder.begin(run.trainer.precision, device, run.trainer.world.size)
    try:
        yield
    except BaseException as error:
        problem = error.problem if isinstance(error, UserError) else type(error).__name__
        run.folder.end(f"error: {problem}")
        raise
    run.folder.end(run.ended)


def _resumed(request: Request, stack: contextlib.ExitStack) -> tuple[Path | None, State | None]:
    """The run to go on in, held until `stack` ends, and its state; after a restart, the run of the launch."""
    path = request.resume
    if path is None and is_restart():
        path = run_of_launch(launch_name(), request.config.out)
    if path is None:
        return None, None
    _hold(path, stack)
    return path, load_state(path / STATE) if has_state(path) else None


def _new_run(request: Request, data: Dataset, stack: contextlib.ExitStack) -> Path:
    """The folder of a new run, held until `stack` ends."""
    name = f"{data.name}-{request.recipe}"
    path = new_run(request.config.out, name, take_over=request.take_over)
    _hold(path, stack)
    return path


def _hold(path: Path, stack: contextlib.ExitStack) -> None:
    try:
        stack.callback(Hold(path).let_go)
    except BlockingIOError as error:
        raise UserError(
            f"{path} is being trained by another process.", "Wait for it, or stop it first."
        ) from error


def _time_left(config: TrainConfig, path: Path | None) -> float:
    """Seconds until the time limit; a start after a failure goes on with what its launch has left."""
    limit = seconds(config.time_limit)
    if path is not None and is_restart():
        limit -= time.time() - launched_at(path)
    return limit


def _with_batch_size(
    trainer: Trainer, decoded: setup.DecodedSplits, augmentation: Augmentation, world: World
) -> TrainConfig:
    """The settings with the batch size that `auto` stands for."""
    found = setup.find_batch_size(trainer, decoded.train, augmentation)
    total = world.size * min(world.collect(found))
    if not total:
        raise UserError("--batch-size auto: not even one image fits.", "Use a smaller --size or --width.")
    console.say(f"Batch size: {total} is the largest that fits (--batch-size {total} repeats it).")
    return dataclasses.replace(trainer.config, batch_size=total)


def _fit(
    run: TrainingRun, display: TrainingDisplay, decoded: setup.DecodedSplits, augmentation: Augmentation
) -> int:
    """Trains; what torch raises and the user can mend becomes a message. Returns the exit code."""
    try:
        return run.fit(display)
    except (RuntimeError, MemoryError) as error:
        if "deterministic" in str(error) and run.config.deterministic:
            raise UserError(
                f"--deterministic: this GPU has no repeatable form of a step's operation: {error}",
                "Leave --deterministic out.",
            ) from error
        if not is_out_of_memory(error):
            raise
    # Out here the exception, and with it all that the failed step held, is gone.
    trainer = run.trainer
    trainer.optimizer.zero_grad(set_to_none=True)
    fits = None
    if trainer.world.size == 1:  # the others may wait in a sum; nothing can be tried together any more
        fits = setup.find_batch_size(trainer, decoded.train, augmentation)
    raise out_of_memory(run.config.batch_size, fits, run.config.accumulate)
