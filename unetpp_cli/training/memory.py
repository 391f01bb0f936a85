"""How many images fit into memory at once, found by trying. Called by the training job.

On CUDA trial steps with growing batches run until memory is out. On the CPU memory ends without an exception
(the kernel kills), so there the peaks of small batches are measured and extended in a straight line.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from unetpp_cli.config import TrainConfig
from unetpp_cli.devices import autocast
from unetpp_cli.errors import UserError
from unetpp_cli.memory import is_out_of_memory, memory_left
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.training.losses import Criterion
from unetpp_cli.training.optimization import build_optimizer, gradient_scaler
from unetpp_cli.training.teacher import Teacher

CUDA_SHARE, CPU_SHARE = 0.9, 0.8
"""How much of the memory that is left the batch may take; the rest is for what grows and for fragments."""

_CLEAR = 32 << 20  # bytes by which two peaks must differ before their difference is taken for the images'


def trial(
    network: UNetPlusPlus,
    criterion: Criterion,
    config: TrainConfig,
    batch: int,
    height: int,
    width: int,
    device: torch.device,
    precision: str,
    teacher: Teacher | None = None,
) -> None:
    """One training step of `batch` blank images of `height` x `width` on a copy, which is then thrown away.

    The copy's optimiser has its state before the step, as it has from the second step of a training on.
    """
    throwaway = copy.deepcopy(network).train()
    optimizer = build_optimizer(throwaway, config)
    scaler = gradient_scaler(device, precision)
    for parameter in throwaway.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    shape = (batch, network.in_channels, height, width)
    # Filled, as the kernel gives zeros no memory.
    pixels = torch.full(shape, 0.5, device=device).contiguous(memory_format=torch.channels_last)
    target = torch.full((batch, height, width), 0, dtype=torch.int64, device=device)
    blank = torch.zeros((batch, network.in_channels, height, width), dtype=torch.uint8)
    taught = teacher(blank, precision) if teacher else None
    with autocast(device, precision):
        logits = throwaway.heads(pixels)
    loss, _ = criterion(logits, target, teacher=taught)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest_batch(
    try_batch: Callable[[int], None], limit: int, device: torch.device, *, reserve: int = 0
) -> int:
    """The largest batch, at most `limit`, that leaves some memory over; 0 when not even one image fits.

    Args:
        try_batch: does what a training step of that many images does, and keeps nothing; `trial`, say. To be
            called when nothing of an earlier step is held any more, not even by an exception.
        reserve: bytes on the CPU that something else will take later, as a cache that is still empty.

    Raises:
        UserError: nothing tells how much memory this machine has left.
    """
    # The first step also loads code and starts threads, which stay.
    if limit < 1 or not _passes(try_batch, 1, device):
        return 0
    if device.type == "cuda":
        with _less_memory_on_cuda(device):
            return grow(lambda batch: _passes(try_batch, batch, device), limit)
    return _by_measuring(try_batch, limit, device, reserve)


def out_of_memory(batch: int, fits: int | None, accumulate: int = 1) -> UserError:
    """What to tell somebody whose batch was too large.

    Args:
        batch: images that were tried at once.
        fits: what `largest_batch` found; None when nobody looked.
        accumulate: batches per optimiser step as it was.
    """
    problem = f"Out of memory with --batch-size {batch}."
    if fits is None:
        return UserError(problem, "Use a smaller one, or --batch-size auto: it finds the largest that fits.")
    if fits == 0:
        return UserError(problem, "Not even one image fits: use a smaller --size or --width.")
    if fits >= batch:  # there was less memory then than there is now
        return UserError(problem, "Something else had taken the memory; run it again, or use a smaller one.")
    wanted = batch * accumulate
    more = max(1, round(wanted / fits))
    cure = f"The largest that fits is {fits}: --batch-size {fits}"
    if more == 1:
        return UserError(problem, f"{cure}.")
    effect = "keeps" if more * fits == wanted else "comes closest to"
    return UserError(problem, f"{cure} (--accumulate {more} {effect} the same effective batch).")


def grow(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that `fits`, by doubling and then halving the gap; 0 if 1 does not."""
    good, bad = 0, limit + 1
    while good < limit and bad > good + 1:
        middle = min(max(1, 2 * good), limit) if bad > limit else (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def _by_measuring(try_batch: Callable[[int], None], limit: int, device: torch.device, reserve: int) -> int:
    """Measures the peaks of small batches, until two differ clearly, and extends them to the memory left."""
    rest, left = _resident("VmRSS"), memory_left(device)
    if rest is None or left is None:
        raise UserError("--batch-size auto: nothing tells how much memory is free here.", "Give a number.")
    budget = CPU_SHARE * (left - reserve)
    points: list[tuple[int, int]] = []  # images, and the bytes that they took
    while not points or points[-1][0] < limit:
        batch = min(2 * points[-1][0], limit) if points else 1
        if points and batch / points[-1][0] * points[-1][1] > budget:
            break
        peak = _peak(try_batch, batch, device)
        if peak is None:
            break
        points.append((batch, peak - rest))
        if _is_clear(points):
            break
    return extend(points, budget, limit) if points else 0


def extend(points: Sequence[tuple[int, int]], budget: float, limit: int) -> int:
    """The batch, 1 to `limit`, whose bytes are within `budget`, along the line through the last two points.

    As long as their difference says nothing, all bytes are taken to be the images', the worst case.

    Args:
        points: images, ascending, and the bytes that they took.
    """
    batch, taken = points[-1]
    slope = taken / batch
    if _is_clear(points):
        slope = (taken - points[-2][1]) / (batch - points[-2][0])
    return max(1, min(limit, batch + math.floor((budget - taken) / max(slope, 1.0))))


def _is_clear(points: Sequence[tuple[int, int]]) -> bool:
    return len(points) > 1 and points[-1][1] - points[-2][1] >= _CLEAR


@contextlib.contextmanager
def _less_memory_on_cuda(device: torch.device) -> Iterator[None]:
    """Allows torch a share of the memory that is left, so that what passes leaves some over."""
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_allocated(device) + CUDA_SHARE * (memory_left(device) or 0)
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _passes(try_batch: Callable[[int], None], batch: int, device: torch.device) -> bool:
    """Whether a step of `batch` images runs, with the memory tidied up after it in either case."""
    try:
        try_batch(batch)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        passed = False
    else:
        passed = True
    _tidy(device)  # after the except block, when the traceback holds the step's tensors no more
    return passed


def _peak(try_batch: Callable[[int], None], batch: int, device: torch.device) -> int | None:
    """Bytes of the resident set at its largest in two steps of `batch` images; None when they did not run.

    Two, as the free memory that the first leaves in pieces makes the second take more.
    """

    def two_steps(count: int) -> None:
        try_batch(count)
        try_batch(count)

    _forget_peak()
    return _resident("VmHWM") if _passes(two_steps, batch, device) else None


def _tidy(device: torch.device) -> None:
    """Gives back what is not in use: to the driver on CUDA, to the kernel on Linux."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def _forget_peak() -> None:
    """Sets the peak of the resident set to what it is now (see proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the peak of all time then stands for this one's, which errs to the safe side


def _resident(field: str) -> int | None:
    """A line of /proc/self/status in bytes: `VmRSS` is the resident set now, `VmHWM` its peak."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None
