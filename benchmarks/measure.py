"""What the benchmarks share: interleaved rounds, ratios, what the machine is, Markdown tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "albumentations", "opencv-python-headless", "pillow")
PEER_PACKAGES = ("monai", "segmentation-models-pytorch")


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    say: Callable[[str], None] = lambda text: None,
    inner: int = 1,
    finish: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds per call of each run, A B C A B C ..., so that whatever slows the machine slows all of them.

    Args:
        runs: what is timed.
        rounds: samples of each.
        say: told after every round.
        inner: calls per sample.
        finish: called before a sample's clock stops; waits for a GPU.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(inner):
                run()
            finish()
            seconds[name].append((time.perf_counter() - start) / inner)
        shown = ", ".join(f"{name} {1000 * taken[-1]:.0f}" for name, taken in seconds.items())
        say(f"round {number}/{rounds}, ms: {shown}")
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast: the median over the rounds of the two samples' ratio."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; of fewer than four values the smallest and the largest."""
    if len(values) < 4:
        return min(values), max(values)
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def environment(device: str, packages: Sequence[str]) -> dict[str, Any]:
    """Hardware and versions, for the line above a table."""
    import torch

    from unetpp_cli.devices import resolve_precision

    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()) or "unknown",
        "python": platform.python_version(),
        "native_bf16": resolve_precision("auto", torch.device(device)) == "bf16",
    }
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    for package in packages:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    # Whatever else bends the allocator would bend the comparison.
    bent = [name for name in os.environ if name.startswith("MALLOC_") or name in _ALLOCATOR_VARIABLES]
    facts["allocator_variables"] = {name: os.environ[name] for name in sorted(bent)}
    return facts


_ALLOCATOR_VARIABLES = ("LD_PRELOAD", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE", "PYTORCH_CUDA_ALLOC_CONF")


def environment_line(facts: Mapping[str, Any]) -> str:
    """The environment in one sentence."""
    parts = [f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads"]
    if facts["memory_gib"]:
        parts.append(f"{facts['memory_gib']} GiB")
    if "gpu" in facts:
        parts.append(f"{facts['gpu']}, CUDA {facts['cuda']}, cuDNN {facts['cudnn']}")
    parts += [
        "native bf16" if facts["native_bf16"] else "no native bf16",
        f"{facts['system']}, {facts['libc']}",
    ]
    parts.append(f"Python {facts['python']}")
    parts += [f"{name} {facts[name]}" for name in (*PACKAGES, *PEER_PACKAGES) if name in facts]
    if facts["allocator_variables"]:
        parts.append(f"allocator variables set: {facts['allocator_variables']}")
    return "; ".join(parts) + "."


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def milliseconds(seconds: float) -> str:
    """Three significant digits, and no more decimals than they need: 1392, 84.3, 4.27."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, OSError, ValueError):
        return None
