"""Which device computes, and in which arithmetic. Called by the train, eval and predict jobs.

torch is imported inside the functions: `PRECISIONS`, `parse_gpus` and `request_determinism` serve the command
line before anything heavy loads.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import shutil
import sys
import sysconfig
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from unetpp_cli.errors import UserError

if TYPE_CHECKING:
    import torch

    from unetpp_cli.network.unetpp import UNetPlusPlus

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
"""What `--precision` takes, for training, scoring and predicting alike."""

_CUBLAS, _REPEATABLE = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


def parse_gpus(text: str) -> tuple[int | str, ...] | str:
    """`0` or `0,1` as numbers, `cpu,cpu` as two words; `cpu`, `all` and the empty string as they are.

    Raises:
        UserError: it is none of these.
    """
    word = text.strip().lower()
    if word in {"", "cpu", "all"}:
        return word
    if re.fullmatch(r"cpu(,cpu)+", word):
        return tuple(word.split(","))
    if re.fullmatch(r"\d+(,\d+)*", word):
        numbers = tuple(int(part) for part in word.split(","))
        if len(set(numbers)) == len(numbers):
            return numbers
    raise UserError(f"--gpus {text} is no choice of GPUs.", "Write 0, or 0,1, or all, or cpu.")


def choose_devices(gpus: str) -> list[torch.device]:
    """The devices that `--gpus` asks for; without a wish, GPU 0 if there is one, else the CPU.

    `cpu,cpu` is the CPU twice: two processes that share it.

    Raises:
        UserError: a GPU was asked for that is not there.
    """
    import torch

    wish = parse_gpus(gpus)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "cpu" or (wish == "" and there == 0):
        return [torch.device("cpu")]
    if wish and wish[0] == "cpu":
        return [torch.device("cpu")] * len(wish)
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
    return [torch.device("cuda", number) for number in numbers]


def choose_device(gpus: str) -> torch.device:
    """The one device that `--gpus` asks for.

    Raises:
        UserError: a GPU was asked for that is not there, or more than one device.
    """
    devices = choose_devices(gpus)
    if len(devices) > 1:
        raise UserError(
            f"--gpus {gpus}: this command computes on one device.", "Choose one: --gpus 0, or cpu."
        )
    return devices[0]


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
    """`fp32`, `tf32`, `bf16` or `fp16`; `auto` is bf16 where the hardware computes in it natively, else fp32.

    Raises:
        UserError: the hardware cannot do what was asked for, or not well.
    """
    native, cuda = _native_bf16(device), device.type == "cuda"
    if wish == "bf16" and not native:
        raise UserError(
            "--precision bf16: this hardware has no native bf16, it would be slower than fp32.",
            f"Use --precision {'fp16' if cuda else 'fp32'} or auto.",
        )
    if wish == "tf32" and not (cuda and _capability(device) >= 8):
        raise UserError(
            "--precision tf32: this hardware has no TF32; NVIDIA GPUs have it from the Ampere generation on.",
            "Use --precision fp32 or auto.",
        )
    if wish == "fp16" and not cuda:
        raise UserError(
            "--precision fp16 is for GPUs: the CPU computes in it more slowly than in fp32.",
            "Use --precision fp32 or auto.",
        )
    if wish == "auto":
        return "bf16" if native else "fp32"
    if wish not in PRECISIONS:
        raise UserError(f"--precision cannot be '{wish}'.", f"Choose one of {', '.join(PRECISIONS)}.")
    return wish


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which the network computes at `precision`, as `resolve_precision` gave it."""
    import torch

    if precision in ("bf16", "fp16"):
        half = torch.bfloat16 if precision == "bf16" else torch.float16
        return torch.autocast(device.type, dtype=half)
    return contextlib.nullcontext()


def set_arithmetic(device: torch.device, precision: str, *, deterministic: bool, training: bool) -> None:
    """Sets torch's process-wide switches: TF32, the choice of convolution algorithms, repeatability.

    Args:
        precision: as `resolve_precision` gave it. `fp32` is exact on CUDA too, where torch would let
            convolutions round to TF32.
        deterministic: equal runs give equal bits; an operation that cannot raises. On CUDA it needs
            `request_determinism` before the first computation.
        training: batches of one shape, for which it pays to try the algorithms out.
    """
    import torch

    tf32 = device.type == "cuda" and precision != "fp32"
    # The older of torch's two interfaces: it keeps both in step, and torch.compile still reads this one and
    # fails after the newer one was used. Some releases warn of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = training and device.type == "cuda" and not deterministic
    torch.use_deterministic_algorithms(deterministic)
    # Nothing here reads memory that was not written, so filling it first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def request_determinism() -> None:
    """Has cuBLAS repeat itself bit for bit; to be called before CUDA starts, which reads this only once.

    Raises:
        UserError: CUDA has started with another setting.
    """
    if os.environ.get(_CUBLAS) in _REPEATABLE:
        return
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise UserError(
            f"--deterministic: CUDA has started without {_CUBLAS}={_REPEATABLE[0]}.",
            f"Set {_CUBLAS}={_REPEATABLE[0]} in the environment, before the program starts.",
        )
    os.environ[_CUBLAS] = _REPEATABLE[0]


def check_compile(device: torch.device) -> None:
    """Refuses `--compile` where torch.compile could not translate anything.

    Raises:
        UserError: a compiler, Python's headers or Triton is missing, or the GPU is too old.
    """
    windows, mac = sys.platform == "win32", sys.platform == "darwin"
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise UserError("--compile: Triton is not installed.", "pip install triton, or leave it out.")
        if _capability(device) < 7:
            raise UserError("--compile: Triton needs a Volta GPU or a newer one.", "Leave it out.")
        wanted = [os.environ["CC"]] if os.environ.get("CC") else ["cl"] if windows else ["clang", "gcc"]
        language, package = "C", "gcc"
    else:
        wanted = [os.environ.get("CXX") or ("cl" if windows else "clang++" if mac else "g++")]
        language, package = "C++", "g++"
    if not any(shutil.which(command) for command in wanted):
        raise UserError(
            f"--compile needs a {language} compiler ({' or '.join(wanted)}), and there is none.",
            f"Install {package}, or leave --compile out.",
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise UserError(
            f"--compile needs Python's headers, and there is no {header}.",
            "Install python3-dev, or leave --compile out.",
        )


def _capability(device: torch.device) -> int:
    """The generation of a GPU: 7 Volta and Turing, 8 Ampere and Ada, 9 Hopper."""
    import torch

    return torch.cuda.get_device_capability(device)[0]


def _native_bf16(device: torch.device) -> bool:
    return _capability(device) >= 8 if device.type == "cuda" else _cpu_has_bf16()


@functools.cache
def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself (AVX512-BF16, AMX or Arm's); Linux tells."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags))


def processor_name() -> str:
    """The CPU's model, or its architecture where nobody tells the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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


class Reading:
    """A small tensor on its way from the device to numbers, while the device goes on with what comes after.

    On a GPU the copy starts when it is made, and `values` waits for that alone: not for work queued since.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        import torch

        self._event = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor

    def values(self) -> list[float]:
        """The numbers, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._host.tolist()
        return values
