"""Several processes that train one network: who they are, how they agree, how they are started.

A process is one of several when PyTorch's elastic launcher started it: `launch` does for `--gpus 0,1`,
torchrun for more than one machine. `join` reads its environment; everything else asks the `World` it gives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from unetpp_cli.devices import choose_devices
from unetpp_cli.errors import UserError

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others; the first may have to read and count a whole data set alone."""


@dataclass(frozen=True)
class World:
    """The processes that train together; of one process only, unless `join` says otherwise.

    Attributes:
        device: where this process computes.
        rank: 0 .. size - 1; rank 0 writes and speaks.
        size: how many there are.
        local_rank: its number among those on the same machine.
        store: what the processes can leave notes in; None for a single one.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> Tensor:
        """Sums `tensor` over all processes, in place; on the device and without waiting for it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag, whether any process raised it. All processes must ask."""
        if self.size == 1:
            return list(flags)
        # On the CPU whatever the device: the answer is awaited, and the GPU must not be.
        votes = torch.tensor([int(flag) for flag in flags])
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, in every process. If it raises there, it raises everywhere."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except UserError as error:
                box[1] = (error.problem, error.cure)
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if box[1] is not None:
            raise UserError(*box[1])
        value: T = box[0]
        return value

    def collect(self, value: T) -> list[T]:
        """The `value` of every process, by rank, in every process."""
        if self.size == 1:
            return [value]
        boxes: list[Any] = [None] * self.size
        distributed.all_gather_object(boxes, value)
        return boxes

    def spread_buffers(self, network: nn.Module) -> None:
        """Gives every process the buffers (the BatchNorm statistics) of rank 0's network."""
        if self.size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)

    def once_per_machine(self, key: str, make: Callable[[], str]) -> str:
        """The text that the first process of each machine makes, for all processes of that machine."""
        if self.store is None:
            return make()
        key = f"{key}/{os.environ.get('GROUP_RANK', '0')}"
        if self.local_rank == 0:
            self.store.set(key, make())
        return str(self.store.get(key).decode())

    def says_it_first(self, text: str) -> bool:
        """Whether no process has asked this with `text` before: an error that all meet is printed once."""
        if self.store is None:
            return True
        try:
            return int(self.store.add(f"said/{hash_of(text)}", 1)) == 1
        except RuntimeError:  # the process that keeps the notes has gone
            return self.is_main


def hash_of(text: str) -> str:
    """A short name of a text, the same in every process."""
    return uuid.uuid5(uuid.NAMESPACE_OID, text).hex


def is_worker() -> bool:
    """Whether a launcher started this process as one of several (or as the only one of a torchrun)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def launch_name() -> str:
    """A name for the launch of this process, the same after a restart; empty without a launcher."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    name = os.environ["TORCHELASTIC_RUN_ID"]
    # torchrun without --rdzv-id calls every launch 'none'; the launcher itself tells them apart.
    return f"{socket.gethostname()}-{os.getppid()}" if name == "none" else name


def is_restart() -> bool:
    """Whether the launcher started these processes again because one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextlib.contextmanager
def join(gpus: str, patience: timedelta = _PATIENCE) -> Iterator[World]:
    """Enters the group of processes that the environment describes, for as long as the block runs.

    Args:
        gpus: as `--gpus`; among several processes each takes the device at its place on its machine.
        patience: how long a process waits for the others.

    Raises:
        UserError: there are more processes on this machine than devices.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device_of(gpus, local_rank) if is_worker() else choose_devices(gpus)[0]
    if device.type == "cuda":
        torch.cuda.set_device(device)  # or events and pinned memory would be GPU 0's
    if not is_worker():
        yield World(device)
        return
    # gloo for what lies on the CPU, so that agreeing does not wait for the GPU
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=patience))
    if size == 1:
        yield World(device, local_rank=local_rank)
        return
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    distributed.init_process_group(
        backend,
        # A store may outlive a restart: in the last attempt's notes the processes would look for the dead.
        store=PrefixStore(f"train-{attempt}", store),
        rank=rank,
        world_size=size,
        timeout=patience,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield World(device, rank, size, local_rank, PrefixStore(f"unetpp-{attempt}", store))
    finally:
        # Not after an error: the others may hang in a sum that will never come, the launcher ends them.
        if sys.exc_info()[0] is None:
            distributed.destroy_process_group()


def _device_of(gpus: str, local_rank: int) -> torch.device:
    devices = choose_devices(gpus or ("all" if torch.cuda.is_available() else "cpu"))
    if devices == [torch.device("cpu")]:  # --gpus cpu: all ranks share the processor
        return devices[0]
    if local_rank >= len(devices):
        raise UserError(
            f"--gpus {gpus or 'all'} names {len(devices)} devices, none for process {local_rank} here.",
            "Start as many processes as there are GPUs: torchrun --nproc-per-node.",
        )
    return devices[local_rank]


def launch(work: Callable[..., T], processes: int, max_restarts: int, *args: Any) -> T:
    """Runs `work(*args)` in so many processes on this machine, through PyTorch's elastic launcher.

    When one of them dies, all are ended and, up to `max_restarts` times, started again.

    Args:
        work: a function that can be imported by name.

    Returns:
        What rank 0 returned.

    Raises:
        ProcessesFailed: a process failed and the restarts are used up. Unless a signal killed it, it has said
            why.
        LauncherSignalled: a signal ended the launcher; the processes have been told and have ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    threads = max(1, len(os.sched_getaffinity(0)) // processes) if hasattr(os, "sched_getaffinity") else 1
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    for part in (
        "",
        ".agent.server.api",
        ".multiprocessing.api",
    ):  # the processes, and we, say it in one line
        logging.getLogger(f"torch.distributed.elastic{part}").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="unetpp-launch-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        if hasattr(config, "shutdown_timeout"):  # not in every torch: what a step and its state may take
            config.shutdown_timeout = 120
        try:
            results: dict[int, T] = elastic_launch(config, work)(*args)
        except ChildFailedError as error:
            first = min(error.failures.values(), key=lambda failure: failure.timestamp)
            raise ProcessesFailed(first.exitcode, config.run_id) from error
        except SignalException as error:
            raise LauncherSignalled(int(error.sigval)) from error
    return results[0]


class ProcessesFailed(Exception):  # noqa: N818 - the error was theirs
    """A process of the group failed for good.

    Attributes:
        exit_code: its own; 1 when a signal ended it.
        signal: the signal that ended it, or None.
        launch: the name of the launch (see `launch_name`).
    """

    def __init__(self, code: int, launch: str) -> None:
        super().__init__(f"a training process failed with exit code {code}")
        self.exit_code = code if code > 0 else 1
        self.signal = -code if code < 0 else None
        self.launch = launch


class LauncherSignalled(Exception):  # noqa: N818 - no error
    """The launcher was asked to end by `number` and has ended its processes."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.number = number
