"""The loop of `unetpp predict`: decode, compute and encode overlap, and broken pictures are left out.

Called by `jobs.predict` once it is clear what goes where. Nothing here knows of several processes but `Stop`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from unetpp_cli.errors import Stopped, UserError
from unetpp_cli.inference.prediction import Prediction
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.jobs.interrupt import Interruption
from unetpp_cli.jobs.painting.encoding import Writer
from unetpp_cli.jobs.painting.inputs import Item
from unetpp_cli.jobs.painting.outputs import Existing
from unetpp_cli.jobs.painting.pipeline import Read, Room, WriteBehind, batches, read_ahead
from unetpp_cli.memory import is_out_of_memory
from unetpp_cli.parallel import World
from unetpp_cli.report import console
from unetpp_cli.report.progress import track

ROOM = 256 << 20
"""Bytes that decoded pictures may take while they wait; one that is larger comes alone."""

NAMED = 5
"""How many of the broken pictures are remembered by name."""


@dataclass
class Totals:
    """What became of the pictures of one process.

    Attributes:
        done, skipped, broken: how many are painted, were there already, could not be read.
        names: the first of the broken ones.
        seconds: what the painting took.
        has_failed: whether an error ended it.
    """

    done: int = 0
    skipped: int = 0
    broken: int = 0
    names: list[str] = field(default_factory=list)
    seconds: float = 0.0
    has_failed: bool = False

    def add_broken(self, name: str) -> None:
        """One more that could not be read."""
        self.broken += 1
        if len(self.names) < NAMED:
            self.names.append(name)

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.done + other.done,
            self.skipped + other.skipped,
            self.broken + other.broken,
            (self.names + other.names)[:NAMED],
            max(self.seconds, other.seconds),
            self.has_failed or other.has_failed,
        )


class Stop:
    """Says whether the work is to end early: because of a signal, or of an error in another process."""

    def __init__(self, interruption: Interruption, world: World) -> None:
        self._interruption, self._store = interruption, world.store
        self._asked = time.monotonic()

    def tell_others(self) -> None:
        """They are to end, too."""
        if self._store is not None:
            self._store.set("stop", "")

    def __call__(self) -> bool:
        if self._interruption:
            return True
        if self._store is None or time.monotonic() - self._asked < 1:
            return False
        self._asked = time.monotonic()
        return bool(self._store.check(["stop"]))


@dataclass(frozen=True)
class Manner:
    """How the pictures of a process are painted.

    Attributes:
        predictor, writer: what makes predictions of pictures, and files of predictions.
        confidence: whether the maps of uncertainty are wanted.
        skip_existing: skip pictures all of whose outputs exist.
        strict: whether a broken picture ends it all.
        batch_size: pictures that are computed at once; None: 8 on a GPU, 1 on the CPU.
        bar: whether a progress bar is shown.
    """

    predictor: Predictor
    writer: Writer
    confidence: bool = False
    skip_existing: bool = False
    strict: bool = False
    batch_size: int | None = None
    bar: bool = True


def paint(
    items: Sequence[Item], manner: Manner, stop: Callable[[], bool], totals: Totals | None = None
) -> Totals:
    """Paints the pictures, in batches of those that meet the network at one size.

    Args:
        stop: asked before each batch and each tile; what has been computed by then is written, a picture of
            which only some tiles are is dropped.
        totals: is counted up and returned; it tells what was done when an error ends this.

    Raises:
        UserError: a file cannot be written, or a picture cannot be read and `strict` is set. What had been
            begun is whole, the rest is not there.
    """
    predictor, writer = manner.predictor, manner.writer
    totals, existing, began = totals or Totals(), Existing(), time.perf_counter()
    lost: deque[tuple[str, UserError]] = deque()  # what ran out of memory in the threads that write
    room, is_cuda = Room(ROOM), predictor.device.type == "cuda"
    size = manner.batch_size or (8 if is_cuda else 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(cores, 8 if is_cuda else 2)  # on the CPU the network needs the cores

    def wanted() -> Iterator[Item]:
        for item in items:
            if manner.skip_existing and existing.all(writer.naming.targets(item).values()):
                if not totals.skipped and (other := writer.differs(item)):
                    console.warn(f"Files that are skipped were made otherwise: {other} ({item.name}).")
                totals.skipped += 1
                advance(1)
            else:
                yield item

    def decode(item: Item, reserve: Callable[[int], None]) -> npt.NDArray[np.uint8]:
        try:
            image = item.decode(predictor.channels, reserve)
            try:
                predictor.network_size(*image.shape[:2])
            except UserError as error:  # too narrow to be enlarged
                raise UserError(f"{item.name}: {error.problem}", error.cure) from error
            return image
        except MemoryError as error:  # before anything tells its size
            raise _out_of_memory(item) from error

    def size_of(image: npt.NDArray[np.uint8]) -> Hashable | None:
        height, width = image.shape[:2]
        return None if predictor.is_tiled(height, width) else predictor.network_size(height, width)

    def write(read: Read[Item], prediction: Prediction) -> None:
        assert read.image is not None
        try:
            writer.write(read.item, read.image, prediction)
        except MemoryError as error:
            problem = _out_of_memory(read.item, read.image)
            if manner.strict:
                raise problem from error
            lost.append((read.item.name, problem))

    def done(number: int) -> None:
        while lost:
            broken(*lost.popleft())
            number -= 1
        totals.done += number
        advance(number)

    def broken(name: str, error: UserError) -> None:
        totals.add_broken(name)
        console.error(error.problem, error.cure)
        advance(1)

    def clock() -> None:
        totals.seconds = time.perf_counter() - began

    def paint_batch(batch: Sequence[Read[Item]]) -> None:
        for read, result in _results(batch, manner, stop):
            give_back = functools.partial(room.give_back, read.size)
            if not isinstance(result, UserError):
                behind.submit(functools.partial(write, read, result), give_back)
                continue
            if manner.strict:
                raise result
            broken(read.item.name, result)
            give_back()

    with contextlib.ExitStack() as stack:
        stack.callback(clock)  # at the end, however it ends
        stack.enter_context(_quiet_pillow())
        advance = stack.enter_context(track(len(items), "Predicting") if manner.bar else _no_bar())
        reads = stack.enter_context(
            contextlib.closing(read_ahead(wanted(), decode, room, threads, threads + 2 * size))
        )
        behind = stack.enter_context(WriteBehind(threads, threads + size, done))
        for batch in batches(reads, size, size_of, room):
            if stop():
                break
            try:
                paint_batch(batch)
            except Stopped:
                break
            del batch  # its pictures are the writers' now
    return totals


def _results(
    batch: Sequence[Read[Item]], manner: Manner, stop: Callable[[], bool]
) -> Iterator[tuple[Read[Item], Prediction | UserError]]:
    """The prediction for each picture of a batch, or why there is none."""
    if (error := batch[0].error) is not None:
        yield batch[0], error
        return
    try:
        yield from zip(batch, _compute(batch, manner, stop), strict=True)
        return
    except (RuntimeError, MemoryError) as failure:
        if not is_out_of_memory(failure):
            raise
    if manner.predictor.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(batch) > 1:  # perhaps one by one
        for read in batch:
            yield from _results([read], manner, stop)
        return
    assert batch[0].image is not None
    yield batch[0], _out_of_memory(batch[0].item, batch[0].image)


def _out_of_memory(item: Item, image: npt.NDArray[np.uint8] | None = None) -> UserError:
    if image is None:
        return UserError(f"Out of memory with {item.name}.", "Cut it into parts, or close other programs.")
    height, width = image.shape[:2]
    problem = f"Out of memory with {item.name} ({width}x{height})."
    return UserError(problem, "Try tiles: --tile 512, or a smaller --size.")


def _compute(batch: Sequence[Read[Item]], manner: Manner, stop: Callable[[], bool]) -> list[Prediction]:
    predictor, writer, uncertainty = manner.predictor, manner.writer, manner.confidence
    images = [read.image for read in batch if read.image is not None]
    if "probs" not in writer.naming.look.formats:
        return predictor.predict(images, uncertainty=uncertainty, stop=stop)
    with contextlib.ExitStack() as stack:
        takers = [
            stack.enter_context(writer.probabilities(read.item, *image.shape[:2]))
            for read, image in zip(batch, images, strict=True)
        ]
        return predictor.predict(
            images,
            uncertainty=uncertainty,
            on_probabilities=lambda number, row, strip: takers[number](strip),
            stop=stop,
        )


@contextlib.contextmanager
def _no_bar() -> Iterator[Callable[[int], None]]:
    yield lambda count: None


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Without Pillow's remarks about the metadata of pictures that it can read all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield
