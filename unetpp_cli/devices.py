"""Which device computes, and in which arithmetic. Called by the train, eval and predict jobs.

torch is imported inside the functions: `parse_gpus` serves the command line before anything heavy loads.
"""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from unetpp_cli.errors import UserError

if TYPE_CHECKING:
    import torch

    from unetpp_cli.network.unetpp import UNetPlusPlus


def parse_gpus(text: str) -> tuple[int, ...] | str:
    """`0` or `0,1` as numbers; `cpu`, `all` and the empty string (choose for me) as they are.

    Raises:
        UserError: it is none of these.
    """
    word = text.strip().lower()
    if word in {"", "cpu", "all"}:
        return word
    if re.fullmatch(r"\d+(,\d+)*", word):
        numbers = tuple(int(part) for part in word.split(","))
        if len(set(numbers)) == len(numbers):
            return numbers
    raise UserError(f"--gpus {text} is no choice of GPUs.", "Write 0, or 0,1, or all, or cpu.")


def choose_device(gpus: str) -> torch.device:
    """The device that `--gpus` asks for; without a wish, GPU 0 if there is one, else the CPU.

    Raises:
        UserError: a GPU was asked for that is not there, or more than one.
    """
    import torch

    wish = parse_gpus(gpus)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "cpu" or (wish == "" and there == 0):
        return torch.device("cpu")
    if there == 0:
        built = "sees no GPU" if torch.version.cuda else "is built without CUDA"
        raise UserError(
            f"--gpus {gpus}: there is no GPU here (torch {torch.__version__} {built}).",
            "Use --gpus cpu, or install a CUDA build of torch and the NVIDIA driver.",
        )
    numbers = tuple(range(there)) if wish == "all" else (0,) if wish == "" else tuple(map(int, wish))
    if missing := [number for number in numbers if number >= there]:
        raise UserError(
            f"--gpus {gpus}: there is no GPU {missing[0]} here.",
            f"There {'is GPU 0' if there == 1 else f'are GPUs 0 to {there - 1}'}; or use --gpus cpu.",
        )
    if len(numbers) > 1:
        raise UserError(
            f"--gpus {gpus}: this version computes on one GPU.", f"Choose one: --gpus {numbers[0]}."
        )
    return torch.device("cuda", numbers[0])


def place(network: UNetPlusPlus, device: torch.device) -> UNetPlusPlus:
    """Moves the network to `device`, channels last: the layout in which convolutions are fast everywhere."""
    import torch

    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def device_name(device: torch.device) -> str:
    """`GPU 0 (NVIDIA H200)` or `CPU (2 threads)`."""
    import torch

    if device.type == "cuda":
        return f"GPU {device.index} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


def resolve_precision(wish: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` is bf16 where the hardware computes in it natively.

    Raises:
        UserError: bf16 was asked for on hardware that only emulates it.
    """
    native = _native_bf16(device)
    if wish == "bf16" and not native:
        raise UserError(
            "--precision bf16: this hardware has no native bf16, it would be slower than fp32.",
            "Use --precision fp32 or auto.",
        )
    return "bf16" if native and wish in {"auto", "bf16"} else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which the network computes at `precision`."""
    import torch

    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device)[0] >= 8
    return _cpu_has_bf16()


@functools.cache
def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself (AVX512-BF16, AMX or Arm's); Linux tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags))


def memory_used(device: torch.device) -> int | None:
    """Bytes: the peak on a GPU, the resident set of this process on the CPU; None where nothing tells."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    import resource

    return pages * resource.getpagesize()
