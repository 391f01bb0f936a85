"""Decode, compute and encode at the same time: pictures are read ahead, and written behind, in threads.

Called by `jobs.predict`, whose own thread computes. What is in memory is bounded in bytes and in number, the
order of the items is kept, and whatever ends the work, every file that was begun is whole or gone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from unetpp_cli.errors import UserError

T = TypeVar("T")
Image = npt.NDArray[np.uint8]
Decode = Callable[[T, Callable[[int], None]], Image]
"""Decodes an item; before it does, it tells how many bytes the picture will have (see `Room.take`)."""


class Closed(Exception):  # noqa: N818 - no error
    """Nobody waits for this picture any more."""


class Room:
    """The bytes that pictures may take together, from before they are decoded until they are done with.

    Pictures get their bytes in their order. The one that the reader is waiting for gets them in any case once
    nothing but what the reader itself keeps is held: it would wait for itself otherwise. So, as long as the
    reader keeps less than the room, this is exceeded by a single picture at a time.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = self._awaited = self._kept = self._turn = 0
        self._ahead: set[int] = set()  # those that have had their turn before earlier ones
        self._is_closed = False
        self._changed = threading.Condition()

    def take(self, number: int, size: int) -> None:
        """Waits until there is room for `size` bytes of the picture with this number, and takes them.

        Every number must come here or to `pass_by`, for later ones wait for it.

        Raises:
            Closed: the work has ended meanwhile.
        """

        def is_granted() -> bool:
            if self._is_closed:
                return True
            if number > self._turn:
                return False
            is_alone = number <= self._awaited and self._held <= self._kept
            return is_alone or self._held + size <= self.limit

        with self._changed:
            self._changed.wait_for(is_granted)
            if self._is_closed:
                raise Closed
            self._held += size
            self._had_its_turn(number)

    def pass_by(self, number: int) -> None:
        """The picture with this number needs no room, or has it."""
        with self._changed:
            self._had_its_turn(number)

    def keep(self, size: int) -> None:
        """The reader keeps so many of the bytes itself while it waits for the next picture."""
        with self._changed:
            self._kept = size
            self._changed.notify_all()

    def _had_its_turn(self, number: int) -> None:
        if number >= self._turn:
            self._ahead.add(number)
        while self._turn in self._ahead:
            self._ahead.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()

    def give_back(self, size: int) -> None:
        """The bytes are free again."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        """The reader now waits for the picture with this number, the first being 0."""
        with self._changed:
            self._awaited = number
            self._changed.notify_all()

    def close(self) -> None:
        """Sends away whoever waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


@dataclass(frozen=True, eq=False)
class Read(Generic[T]):
    """An item and its picture, or what was wrong with it.

    Attributes:
        image: (H, W, 3) or (H, W) uint8, None when it could not be decoded.
        error: why it could not.
        size: bytes to give back to the room when nobody needs the picture any more.
    """

    item: T
    image: Image | None
    error: UserError | None = None
    size: int = 0


def read_ahead(
    items: Iterable[T], decode: Decode[T], room: Room, threads: int, ahead: int
) -> Generator[Read[T], None, None]:
    """Decodes the items in threads and yields them in their order. To be closed when it is left early.

    Args:
        decode: raises `UserError` for an item that cannot be read.
        ahead: how many items are begun before they are asked for, at most.
    """

    def work(number: int, item: T) -> Read[T]:
        taken = 0

        def reserve(size: int) -> None:
            nonlocal taken
            room.take(number, size)
            taken = size

        try:
            return Read(item, decode(item, reserve), None, taken)
        except BaseException as error:
            room.give_back(taken)
            if isinstance(error, UserError):
                return Read(item, None, error)
            raise
        finally:
            room.pass_by(number)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    begun: deque[Future[Read[T]]] = deque()
    numbered = enumerate(items)
    try:
        for waiting_for in range(1 << 62):
            while len(begun) < ahead and (one := next(numbered, None)) is not None:
                begun.append(pool.submit(work, *one))
            if not begun:
                return
            room.wait_for(waiting_for)
            yield begun.popleft().result()
    finally:
        room.close()
        pool.shutdown(wait=True, cancel_futures=True)


def batches(
    reads: Iterable[Read[T]], size: int, key: Callable[[Image], Hashable | None], room: Room
) -> Iterator[list[Read[T]]]:
    """Pictures with the same key that follow each other, up to `size` at a time or until they fill the room.

    A picture whose key is None, and an item without a picture, comes alone.
    """
    batch: list[Read[T]] = []
    gathered = 0
    last: Hashable | None = None
    for read in reads:
        if read.image is None:
            yield [read]
            continue
        its = key(read.image)
        if batch and (its is None or its != last):
            yield batch
            batch, gathered = [], 0
        batch.append(read)
        last, gathered = its, gathered + read.size
        del read  # or its picture would outlive its batch
        if its is None or len(batch) == size or gathered >= room.limit:
            yield batch
            batch, gathered = [], 0
        room.keep(gathered)
    if batch:
        yield batch


class WriteBehind:
    """Work that is done in threads, in no order; a context manager that waits for all of it.

    When the block, or a piece of the work, raises, what has not begun is dropped and what has is finished.

    Args:
        most: pieces that may wait or be under way; `submit` waits for the oldest when there are more.
        on_done: called in the thread of the block for every piece that is done, with 1, whatever
            ends the block.
    """

    def __init__(self, threads: int, most: int, on_done: Callable[[int], None]) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._most, self._on_done = most, on_done
        self._has_failed = threading.Event()
        self._pieces: deque[Future[bool]] = deque()

    def __enter__(self) -> WriteBehind:
        return self

    def submit(self, work: Callable[[], None], at_end: Callable[[], None] = lambda: None) -> None:
        """Has the work done. Raises what an earlier piece has raised.

        Args:
            at_end: called in the thread once the piece is done, has failed, or is dropped after a failure.
        """
        if self._has_failed.is_set():
            while self._pieces:
                self._await_oldest()
        while self._pieces and (len(self._pieces) >= self._most or self._pieces[0].done()):
            self._await_oldest()
        self._pieces.append(self._pool.submit(self._do, work, at_end))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._pieces:
                self._await_oldest()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            for piece in self._pieces:
                if not piece.cancelled() and piece.exception() is None and piece.result():
                    self._on_done(1)

    def _do(self, work: Callable[[], None], at_end: Callable[[], None]) -> bool:
        """Whether the work has been done."""
        try:
            if self._has_failed.is_set():
                return False  # the block will hear of it when it comes to the piece that failed
            work()
            return True
        except BaseException:
            self._has_failed.set()
            raise
        finally:
            at_end()

    def _await_oldest(self) -> None:
        if self._pieces.popleft().result():
            self._on_done(1)
