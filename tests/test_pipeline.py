"""Reading ahead and writing behind: in order, within bounds, and clean whatever ends it."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp_cli.errors import UserError
from unetpp_cli.jobs.painting.pipeline import Closed, Read, Room, WriteBehind, batches, read_ahead


def threads_named(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


class Source:
    """Items are sizes in bytes; negative ones cannot be read. Remembers how much was decoded at once."""

    def __init__(self, room: Room) -> None:
        self.room, self.lock = room, threading.Lock()
        self.held = self.most = 0

    def decode(self, item: int, reserve: Callable[[int], None]) -> npt.NDArray[np.uint8]:
        if item == -1:
            raise UserError("no picture")
        reserve(abs(item))
        if item < 0:
            raise UserError("a damaged one")
        with self.lock:
            self.held += item
            self.most = max(self.most, self.held)
        time.sleep(random.random() / 2000)
        return np.full((1, item), item % 256, np.uint8)

    def done_with(self, read: Read[int]) -> None:
        with self.lock:
            self.held -= read.size
        self.room.give_back(read.size)


@given(
    st.lists(st.one_of(st.integers(1, 300), st.just(-1), st.integers(-300, -2)), max_size=40),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(1, 5),
)
@settings(deadline=None, max_examples=40)
def test_pictures_come_in_order_and_within_bounds(
    sizes: list[int], threads: int, ahead: int, kept: int
) -> None:
    """`kept` pictures are held back, as those of a batch are: it never waits for itself."""
    largest = max([0, *(abs(size) for size in sizes)])
    room = Room(500)
    source, seen, held = Source(room), [], []
    for read in read_ahead(sizes, source.decode, room, threads, ahead):
        seen.append(read.item)
        if read.item < 0:
            assert read.image is None
            assert read.error is not None
            continue
        assert read.image is not None
        assert read.image.shape == (1, read.item)
        held.append(read)
        if len(held) > kept:
            source.done_with(held.pop(0))
        room.keep(sum(one.size for one in held))
    assert seen == sizes
    for read in held:
        source.done_with(read)
    assert source.held == 0
    # The reader holds `kept` in any case, and one more comes without asking.
    assert source.most <= max(500, kept * largest) + largest


@given(
    st.lists(st.one_of(st.integers(1, 300), st.just(-1), st.integers(-300, -2)), max_size=30),
    st.integers(1, 8),
    st.integers(1, 8),
)
@settings(deadline=None, max_examples=30)
def test_batches_and_slow_writers_stay_within_the_room(sizes: list[int], threads: int, most: int) -> None:
    """What is gathered, what is read ahead and what waits to be written exceed it by one picture together."""
    room, written = Room(500), []
    source = Source(room)

    def write(one: Read[int]) -> None:
        time.sleep(random.random() / 500)
        written.append(one.item)

    with (
        contextlib.closing(read_ahead(sizes, source.decode, room, threads, threads + 16)) as reads,
        WriteBehind(2, 10, lambda count: None) as behind,
    ):
        for batch in batches(reads, most, lambda image: 0, room):
            assert sum(one.size for one in batch[:-1]) < 500, "it should have come earlier"
            for one in batch:
                behind.submit(functools.partial(write, one), functools.partial(source.done_with, one))
    readable = [size for size in sizes if size > 0]
    assert sorted(item for item in written if item > 0) == sorted(readable)
    assert source.most <= 500 + max([0, *readable])


def test_a_failed_writer_gives_its_room_back() -> None:
    """The reader waits for that room: it must get on, to hear of the failure."""
    room = Room(100)
    source = Source(room)

    def fail() -> None:
        time.sleep(0.01)
        raise UserError("the disk is full")

    def run() -> None:
        with (
            contextlib.closing(read_ahead([90] * 9, source.decode, room, 2, 4)) as reads,
            WriteBehind(1, 9, lambda count: None) as behind,
        ):
            for one in reads:
                behind.submit(fail, functools.partial(source.done_with, one))

    with pytest.raises(UserError, match="disk is full"):
        run()


def test_room_holds_back_what_is_not_awaited() -> None:
    room = Room(500)
    source = Source(room)
    reads = read_ahead([300] * 20, source.decode, room, threads=4, ahead=8)
    for read in reads:
        time.sleep(0.005)  # all threads would have decoded by now
        source.done_with(read)
    assert source.most <= 600, "two of 300: the room of 500 and the awaited one"


def test_a_picture_larger_than_the_room_comes_alone() -> None:
    room = Room(100)
    source = Source(room)
    for read in read_ahead([900, 800, 700], source.decode, room, threads=3, ahead=3):
        time.sleep(0.005)
        source.done_with(read)
    assert source.most == 900


def test_leaving_early_ends_the_threads_even_those_that_wait_for_room() -> None:
    room = Room(10)
    source = Source(room)
    with contextlib.closing(read_ahead(iter(range(10, 1000)), source.decode, room, 3, 6)) as reads:
        next(reads)
    assert not threads_named("decode")
    with pytest.raises(Closed):
        room.take(99, 1)


def test_what_is_no_user_error_is_raised() -> None:
    def broken(item: int, reserve: Callable[[int], None]) -> npt.NDArray[np.uint8]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_ahead([1], broken, Room(1), 1, 1))
    assert not threads_named("decode")


def read(item: str) -> Read[str]:
    """An upper-case item is a picture, `T` a tiled one, a lower-case one is broken."""
    return Read(item, np.zeros(1, np.uint8) if item.isupper() else None)


@pytest.mark.parametrize(
    ("items", "size", "expected"),
    [
        ("", 3, []),
        ("AAAAA", 3, ["AAA", "AA"]),
        ("AABBA", 3, ["AA", "BB", "A"]),
        ("AAB", 1, ["A", "A", "B"]),
        ("AATTAA", 3, ["AA", "T", "T", "AA"]),
        ("AxAyA", 3, ["x", "y", "AAA"]),  # the broken ones at once: a batch goes on
        ("AxBB", 2, ["x", "A", "BB"]),
    ],
)
def test_batches(items: str, size: int, expected: list[str]) -> None:
    current = ""

    def feed() -> object:
        nonlocal current
        for current in items:
            yield read(current)

    made = batches(feed(), size, lambda image: None if current == "T" else current, Room(9))  # type: ignore[arg-type]
    assert ["".join(one.item for one in batch) for batch in made] == expected


def test_writing_behind_does_everything_and_counts_it() -> None:
    done: list[int] = []
    counted: list[int] = []
    with WriteBehind(3, 4, counted.append) as behind:
        for number in range(50):
            behind.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert sorted(done) == list(range(50))
    assert sum(counted) == 50
    assert not threads_named("encode")


def test_no_more_than_so_many_pieces_wait() -> None:
    gate = threading.Event()
    with WriteBehind(1, 3, lambda count: None) as behind:
        for _ in range(3):
            behind.submit(lambda: gate.wait(10) and None)
        late = threading.Thread(target=behind.submit, args=(lambda: None,))
        late.start()
        late.join(0.05)
        assert late.is_alive(), "it waits for the oldest"
        gate.set()
        late.join(10)
        assert not late.is_alive()


def test_an_error_ends_the_writing_and_drops_what_has_not_begun() -> None:
    gate, done, counted = threading.Event(), [], []

    def fail() -> None:
        gate.wait(10)
        raise UserError("the disk is full")

    def write() -> None:
        with WriteBehind(1, 50, counted.append) as behind:
            behind.submit(fail)
            for number in range(20):
                behind.submit(lambda number=number: done.append(number))  # type: ignore[misc]
            gate.set()

    with pytest.raises(UserError, match="disk is full"):
        write()
    assert not done
    assert not counted
    assert not threads_named("encode")


def test_the_block_hears_of_an_error_before_it_hands_in_more() -> None:
    def fail() -> None:
        raise UserError("the disk is full")

    def write() -> None:
        with WriteBehind(1, 50, lambda count: None) as behind:
            behind.submit(lambda: time.sleep(0.01))
            behind.submit(fail)
            for _ in range(1000):  # far fewer than it takes to fill the queue
                time.sleep(0.01)
                behind.submit(lambda: None)
            pytest.fail("it went on although nothing could be written")

    with pytest.raises(UserError, match="disk is full"):
        write()


def test_an_error_of_the_block_lets_running_pieces_end(tmp_path: Path) -> None:
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        (tmp_path / "whole").touch()

    counted: list[int] = []

    def write() -> None:
        with WriteBehind(1, 5, counted.append) as behind:
            behind.submit(slow)
            behind.submit((tmp_path / "never").touch)
            begun.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (tmp_path / "whole").exists()
    assert counted == [1]
    assert not (tmp_path / "never").exists()
