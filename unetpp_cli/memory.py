"""How much memory there is left, and whether an error says that there was too little.

Called by the search for the largest batch, and by whoever wants to say "out of memory" in one line.
"""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def memory_left(device: torch.device) -> int | None:
    """Bytes that this process can still take; None where nothing tells.

    On the CPU the least of what the machine has available, what the control group (a container's limit) still
    grants, and what `ulimit -v` leaves.
    """
    if device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    bounds = [_machine_left(), _cgroup_left(), address_space_left()]
    known = [bound for bound in bounds if bound is not None]
    return max(0, min(known)) if known else None


def address_space_limit() -> int | None:
    """Bytes of address space that `ulimit -v` allows this process, or None: no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def address_space_left() -> int | None:
    """What `ulimit -v` still leaves of the address space, in bytes, or None: there is no limit."""
    limit = address_space_limit()
    if limit is None:
        return None
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, IndexError, ValueError):
        return limit
    return limit - pages * resource.getpagesize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, however it is dressed, says that memory ran out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    if re.search(r"DefaultCPUAllocator|CUDA out of memory|_ALLOC_FAILED|bad_alloc", text):
        return True
    # oneDNN does not say why it failed; where allocations can fail, that is the reason.
    return "could not create a primitive" in text and address_space_limit() is not None


def _machine_left(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        if found := re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(encoding="ascii"), re.M):
            return 1024 * int(found[1])
    return None


def _cgroup_left(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """What the control groups of this process, of version 1 or 2, and all above them still grant."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, cache = root / "memory", "total_inactive_file"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the path may be the host's and not be there; the container's own group is at the top.
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            folder = base.joinpath(*parts[:depth])
            with contextlib.suppress(OSError, ValueError):  # no such group, or a limit of "max"
                granted = int((folder / limit).read_text()) - int((folder / usage).read_text())
                statistics = (folder / "memory.stat").read_text()
                # Cached files are given back when memory is asked for.
                found = re.search(rf"^{cache} (\d+)$", statistics, re.M)
                left.append(granted + (int(found[1]) if found else 0))
    return min(left) if left else None
