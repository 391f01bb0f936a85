"""The largest batch that fits, found under real limits in processes of their own, and what is left at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unetpp_cli.memory import (
    _cgroup_left,
    _machine_left,
    address_space_left,
    is_out_of_memory,
    memory_left,
)
from unetpp_cli.training import memory
from unetpp_cli.training.memory import extend, grow, largest_batch, out_of_memory

CPU = torch.device("cpu")
MIB = 1 << 20

SETUP = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from unetpp_cli.config import resolve
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.devices import place
from unetpp_cli.memory import address_space_left, is_out_of_memory, memory_left
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.training.losses import criterion
from unetpp_cli.training.memory import largest_batch, trial
cpu = torch.device("cpu")
config = resolve(("", {"width": 8, "depth": 3}))
network = place(UNetPlusPlus(11, width=8, depth=3), cpu)
loss = criterion(config, CAMVID11, None, 3, cpu)

def step(batch):
    trial(network, loss, config, batch, 192, 192, cpu, "fp32")

def allow(mebibytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and sets RLIMIT_AS")


def alone(code: str) -> object:
    """What the code prints as JSON, in a process of its own."""
    # One thread: where memory ends in a second one, its library ends the process instead of raising.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SETUP + textwrap.dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@linux
def test_memory_really_runs_out_and_the_suggested_batch_really_runs() -> None:
    answer = alone("""
        step(1)
        allow(700)
        left = memory_left(cpu)
        try:
            step(64)
            failed = "it ran"
        except Exception as error:
            failed = is_out_of_memory(error)
        fits = largest_batch(step, 64, cpu)
        for _ in range(3):
            step(fits)
        try:
            step(3 * fits)
            more = "it ran"
        except Exception as error:
            more = is_out_of_memory(error)
        print(json.dumps([left >> 20, failed, fits, more]))
    """)
    assert isinstance(answer, list)
    left, failed, fits, more = answer
    assert 600 <= left <= 700
    assert failed is True
    assert 2 <= fits < 64
    assert more is True  # not too timid either: three times as many fail


@linux
def test_not_even_one_image() -> None:
    answer = alone("""
        allow(40)
        print(json.dumps(largest_batch(step, 8, cpu)))
    """)
    assert answer == 0


@linux
def test_the_network_is_left_as_it_was_and_the_limit_too() -> None:
    answer = alone("""
        network.eval()
        state = torch.get_rng_state()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        allow(2000)
        limit = resource.getrlimit(resource.RLIMIT_AS)
        fits = largest_batch(step, 3, cpu)
        after = network.state_dict()
        same = all(torch.equal(after[name], before[name]) for name in before)
        grads = any(parameter.grad is not None for parameter in network.parameters())
        print(json.dumps([
            fits, same, grads, network.training, torch.equal(state, torch.get_rng_state()),
            limit == resource.getrlimit(resource.RLIMIT_AS),
        ]))
    """)
    assert answer == [3, True, False, False, True, True]


@linux
def test_memory_is_measured_where_nothing_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 64 MiB an image, and as much memory as ten of them may take, besides the reserve."""
    taken: list[int] = []

    def step(batch: int) -> None:
        taken.append(batch)
        block = bytearray(batch * 64 * MIB)
        block[::4096] = b"x" * len(block[::4096])

    room = int(10.5 * 64 * MIB / memory.CPU_SHARE)  # what is left changes while other programs run: fixed
    monkeypatch.setattr(memory, "memory_left", lambda device: room + 100 * MIB)
    assert largest_batch(step, 1000, CPU, reserve=100 * MIB) in (9, 10, 11)
    assert max(taken) <= 2
    assert largest_batch(step, 4, CPU, reserve=100 * MIB) == 4


@linux
def test_small_batches_are_tried_in_full() -> None:
    """What takes too little to be told apart is never guessed: every image up to the limit has been tried."""
    taken: list[int] = []
    assert largest_batch(taken.append, 24, CPU) == 24
    assert sorted(set(taken)) == [1, 2, 4, 8, 16, 24]


@linux
def test_errors_of_another_kind_come_through() -> None:
    def step(batch: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        largest_batch(step, 4, CPU)


@given(largest=st.integers(0, 300), limit=st.integers(1, 256))
def test_growing_finds_the_largest_that_fits(largest: int, limit: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= largest

    assert grow(fits, limit) == min(largest, limit)
    assert len(tried) == len(set(tried)) <= 18
    assert all(1 <= batch <= limit for batch in tried)


@pytest.mark.parametrize(
    ("points", "budget", "expected"),
    [
        ([(1, 300), (2, 500)], 1100, 5),  # 100 + 200 an image
        ([(1, 300), (2, 500)], 1099, 4),
        ([(1, 300), (2, 500)], 10_000, 16),  # the limit
        ([(1, 300), (2, 500)], 100, 1),
        ([(1, 300)], 1000, 3),  # all of it could be the image's
        ([(1, 300), (2, 310)], 1000, 6),  # no clear difference: 155 an image
    ],
)
def test_the_line_through_the_peaks(points: list[tuple[int, int]], budget: int, expected: int) -> None:
    assert extend([(batch, taken * MIB) for batch, taken in points], budget * MIB, 16) == expected


def test_what_is_said() -> None:
    def said(*arguments: int | None) -> str:
        return str(out_of_memory(*arguments))  # type: ignore[arg-type]

    assert said(64, 12) == (
        "Out of memory with --batch-size 64. The largest that fits is 12: --batch-size 12 "
        "(--accumulate 5 comes closest to the same effective batch)."
    )
    assert "--batch-size 16 (--accumulate 8 keeps the same effective batch)." in said(64, 16, 2)
    assert said(13, 12).endswith("The largest that fits is 12: --batch-size 12.")
    assert "--batch-size auto" in said(64, None)
    assert "--size" in said(4, 0)
    assert "Something else" in said(4, 4)


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as python:
        bytearray(1 << 62)
    assert is_out_of_memory(python.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOENT, "No such file"))
    assert not is_out_of_memory(RuntimeError("expected scalar type Float"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


@linux
def test_memory_left_is_no_more_than_the_machine_has() -> None:
    left, machine = memory_left(CPU), _machine_left()
    assert left is not None
    assert machine is not None
    assert 0 < left <= machine * 1.05
    block = bytearray(256 * MIB)
    block[::4096] = b"x" * len(block[::4096])
    if address_space_left() is None:
        assert memory_left(CPU) < left + 128 * MIB  # type: ignore[operator]


def test_meminfo(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  99 kB\nMemAvailable:   24238416 kB\nBuffers: 1 kB\n")
    assert _machine_left(tmp_path / "meminfo") == 24238416 * 1024
    assert _machine_left(tmp_path / "none") is None


def group(folder: Path, limit: str, usage: int, cache: int, version: int) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\nactive_file 7\n")


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups(version: int, tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    base = root if version == 2 else root / "memory"
    membership.write_text(
        "0::/jobs/mine\n" if version == 2 else "5:cpuset:/\n4:memory,hugetlb:/jobs/mine\n0::/\n"
    )
    assert _cgroup_left(membership, root) is None  # nothing is mounted there
    group(base / "jobs" / "mine", "max" if version == 2 else str((1 << 63) - 4096), 300, 0, version)
    unlimited = _cgroup_left(membership, root)
    assert unlimited is None or unlimited > 1 << 62
    group(base / "jobs", "1000", 700, 100, version)  # the group above bounds what is in it
    assert _cgroup_left(membership, root) == 400
    group(base / "jobs" / "mine", "500", 300, 50, version)
    assert _cgroup_left(membership, root) == 250


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("4:memory:/docker/0123abc\n")
    group(tmp_path / "cgroup" / "memory", "4000", 1000, 0, 1)
    assert _cgroup_left(tmp_path / "membership", tmp_path / "cgroup") == 3000
