"""What a running command shows: the live view of a training and its epoch table, a bar for eval and predict.

On a terminal it draws in place and tidies up after itself, whatever ends it; elsewhere (a log, a pipe, CI)
a training prints one plain line per epoch and the bar is silent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from unetpp_cli.report import console as terminal
from unetpp_cli.report import units
from unetpp_cli.report.history import EpochRecord

_REFRESH_PER_SECOND = 4
_HEADER_EVERY = 25
"""Rows after which the head of the epoch table is repeated: by then it has left a small window."""


class TrainingDisplay:
    """The view of a training; a context manager. `start` first, then `step`, `validating`, `epoch_done`.

    Args:
        console: where to show it; standard output by default.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or terminal.out
        self._clock = clock
        self._in_place = self._console.is_interactive
        self._stack = contextlib.ExitStack()
        self._epochs = self._steps_per_epoch = 0
        self._epoch = 1  # the one that is running
        self._done, self._total, self._is_validating = 0, 0, False
        self._skipped = 0.0  # the share of the running epoch's batches that an earlier start had done
        self._training_took: float | None = None  # seconds of the running epoch, once it is validating
        self._facts: list[str] = []
        self._seconds: list[float] = []
        self._epoch_began = clock()
        self._heads: tuple[int, ...] = ()
        self._scored: tuple[int, ...] = ()  # the heads that have a column in the epoch table
        self._rows = 0
        self._wide = False

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(
        self,
        epochs: int,
        steps_per_epoch: int,
        head_depths: tuple[int, ...],
        epoch: int = 1,
        done: int = 0,
    ) -> None:
        """Begins the view of `epochs` epochs, each of `steps_per_epoch` batches, for heads at these depths.

        Args:
            epoch, done: where a resumed training goes on: `done` batches of `epoch` (from 1) are done.
        """
        self._epochs, self._steps_per_epoch, self._heads = epochs, steps_per_epoch, head_depths
        self._epoch, self._skipped = epoch, done / max(steps_per_epoch, 1)
        self._done, self._total = done, steps_per_epoch if done else 0
        self._epoch_began = self._clock()
        self._wide = self._console.width >= 100
        if not self._in_place:
            return
        live = Live(
            console=self._console,
            get_renderable=self._view,
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
        )
        self._stack.enter_context(live)
        self._stack.enter_context(terminal.live_on(self._console))

    def step(
        self,
        epoch: int,
        step: int,
        loss: float,
        lr: float,
        images_per_second: float,
        memory_bytes: int | None = None,
    ) -> None:
        """`step` batches of `epoch` (both counted from 1) are done, those before a resumption included.

        `memory_bytes`: the peak in use.
        """
        self._epoch, self._is_validating = epoch, False
        self._done, self._total = step, self._steps_per_epoch
        facts = [f"loss {units.loss(loss)}", f"lr {lr:.2g}", f"{units.short(images_per_second)} img/s"]
        if memory_bytes is not None:
            facts.append(f"memory {memory_bytes / 2**30:.1f} GiB")
        self._facts = facts

    def validating(self, done: int, total: int) -> None:
        """`done` of `total` validation images are done."""
        if not self._is_validating:
            self._training_took = self._clock() - self._epoch_began
        self._done, self._total, self._is_validating = done, total, True

    def epoch_done(self, record: EpochRecord, best: bool) -> None:
        """An epoch is over: prints its line, for good. `best`: its mIoU is the highest so far."""
        whole = self._whole_epoch() if self._skipped else record.seconds
        self._seconds += [whole] if whole is not None else []
        self._epoch, self._skipped, self._training_took = record.epoch + 1, 0.0, None
        self._done, self._total, self._is_validating = 0, self._steps_per_epoch, False
        self._epoch_began = self._clock()
        if self._in_place:
            self._print_row(record, best)
        else:
            self._print(Text(_plain_line(record, self._epochs, best)))

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end of the run, or None while there is nothing to judge by."""
        if self._epoch > self._epochs:
            return 0.0
        elapsed = self._clock() - self._epoch_began
        done = self._done / max(self._steps_per_epoch, 1)
        per_epoch: float | None = None
        left = 0.0  # of the running epoch
        if self._seconds:
            recent = self._seconds[-3:]
            per_epoch = sum(recent) / len(recent)
            left = max(per_epoch - elapsed, 0.0)
        elif self._is_validating:
            per_epoch = self._whole_epoch()
        elif done > self._skipped and elapsed > 1:
            per_epoch = elapsed / (done - self._skipped)
            left = per_epoch * (1 - done)
        return None if per_epoch is None else left + per_epoch * (self._epochs - self._epoch)

    def _whole_epoch(self) -> float | None:
        """Seconds of the running epoch so far, and those that its skipped batches would have taken."""
        elapsed = self._clock() - self._epoch_began
        if self._skipped >= 1:
            return None  # this start has trained none of it
        trained = elapsed if self._training_took is None else self._training_took
        return elapsed + trained * self._skipped / (1 - self._skipped)

    def _view(self) -> Group:
        top = Table.grid(padding=(0, 1), expand=True)
        top.add_column(no_wrap=True)
        top.add_column(ratio=1)
        top.add_column(no_wrap=True)
        doing = "validating" if self._is_validating else "training"
        if self._epoch > self._epochs:
            doing = "finishing"
        epoch = f"Epoch {min(self._epoch, self._epochs)}/{self._epochs}"
        top.add_row(
            Text.assemble((epoch, "bold"), f" {doing}"),
            ProgressBar(total=max(self._total, 1), completed=self._done),
            f"{self._done}/{self._total}" if self._total else "starting",
        )
        left = self.seconds_left()
        facts = [*self._facts, *([f"ETA {units.duration(left)}"] if left is not None else [])]
        return Group(top, Text("  ".join(facts), style="dim", no_wrap=True, overflow="ellipsis"))

    def _print_row(self, record: EpochRecord, best: bool) -> None:
        scored = tuple(depth for depth in self._heads if depth in record.val) or self._scored
        star = terminal.glyph(self._console, "★", "*") if best else ""
        cells = _cells(record, self._epochs, scored, star, self._wide)
        if self._rows % _HEADER_EVERY == 0 or scored != self._scored:
            heading = "".join(cell.title.rjust(cell.width) for cell in cells)
            self._print(Text(heading, style="bold"))
            self._rows, self._scored = 0, scored
        self._rows += 1
        row = Text.assemble(*((cell.text.rjust(cell.width), cell.style) for cell in cells))
        self._print(row)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)


class _Cell(NamedTuple):
    """One field of the epoch table; title and text are set flush right in `width` columns."""

    title: str
    text: str
    width: int
    style: str = ""


def _cells(record: EpochRecord, epochs: int, heads: tuple[int, ...], star: str, wide: bool) -> list[_Cell]:
    """One epoch with a score for each of `heads`; `star` marks the best, `wide` adds what 80 columns lack."""
    cells = [
        _Cell("epoch", f"{record.epoch}/{epochs}", 7),
        _Cell("lr", f"{record.lr:.2g}", 9),
        _Cell("train loss", units.loss(record.train_loss), 12),
    ]
    if wide:
        cells.append(_Cell("train acc %", units.percent(record.train_accuracy), 13))
    if heads:
        loss = units.loss(record.val[max(record.val)].loss) if record.val else "-"
        cells.append(_Cell("val loss", loss, 10))
    marked = "bold green" if star else ""
    for depth in heads:
        title, width = (f"mIoU % L{depth}", 11) if depth == heads[0] else (f"L{depth}", 6)
        score = units.percent(record.val[depth].miou) if depth in record.val else "-"
        cells.append(_Cell(title, score, width, marked if depth == heads[-1] else ""))
    cells += [_Cell("", star, 2, marked), _Cell("time", units.duration(record.seconds), 8)]
    if wide:
        cells.append(_Cell("img/s", units.short(record.images_per_second), 8))
    return cells


def _plain_line(record: EpochRecord, epochs: int, best: bool) -> str:
    """One line that needs no heading: what a log keeps of an epoch."""
    parts = [
        f"epoch {record.epoch}/{epochs}",
        f"lr {record.lr:.2g}",
        f"train loss {units.loss(record.train_loss)}",
    ]
    if record.val:
        parts.append(f"val loss {units.loss(record.val[max(record.val)].loss)}")
        scores = " ".join(f"L{depth} {units.percent(record.val[depth].miou)}" for depth in sorted(record.val))
        parts.append(f"mIoU % {scores}")
    parts += [units.duration(record.seconds), f"{units.short(record.images_per_second)} img/s"]
    return "  ".join(parts) + ("  * best" if best else "")


@contextlib.contextmanager
def track(total: int, description: str, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar with images per second and the time left; yields a function that counts images.

    Written to standard error, so that what a command prints can be piped. Silent where that is no terminal,
    and while another live view is on.

        with track(len(files), "Predicting") as advance:
            for file in files:
                ...
                advance(1)
    """
    target = console or terminal.err
    if not target.is_interactive or terminal.is_live():
        yield lambda count: None
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Speed(),
        console=target,
        refresh_per_second=_REFRESH_PER_SECOND,
        transient=True,
        expand=True,
    )
    with bar, terminal.live_on(target):
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


class _Speed(ProgressColumn):
    """`45.2 img/s  ETA 12 s` over the whole of the work so far."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        if not task.completed or not elapsed or not task.total:
            return Text("")
        speed = task.completed / elapsed
        left = (task.total - task.completed) / speed
        return Text(f"{units.short(speed)} img/s  ETA {units.duration(left)}", style="dim")


def _leave_streams_alone() -> None:
    """In a forked child (a data loader's worker): give back the streams that a live view has taken over.

    What the worker prints must not be drawn by a copy of the view, whose lock nobody may ever release.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        setattr(sys, name, getattr(stream, "rich_proxied_file", stream))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_streams_alone)
