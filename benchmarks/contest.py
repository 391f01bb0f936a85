"""One process of `train.py` or `predict.py`: sets the allocator, checks the memory formats, times in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.article import IGNORED, article_epochs, plain_step
from benchmarks.measure import interleaved
from benchmarks.networks import CLASSES, MacCounter, build, logits, parameters
from benchmarks.ours import our_epochs, our_step
from unetpp_cli.allocator import keep_pages
from unetpp_cli.devices import autocast

WARM_UP = 2


@dataclass(frozen=True)
class Variant:
    """A network under one of two ways to use it.

    Attributes:
        network: one of `networks.CANDIDATES`.
        settings: `plain` (fp32, NCHW, torch's defaults, the usual loop), or ours: `fp32`, `tf32`, `bf16`,
            `compile` (bf16, compiled).
        number: processes that load, for epochs; the depth, for passes; 0 when left out.
    """

    network: str
    settings: str
    number: int = 0

    @staticmethod
    def parse(key: str) -> Variant:
        """Reads `ours/bf16` or `ours/bf16/4`."""
        network, settings, *number = key.split("/")
        return Variant(network, settings, int(number[0]) if number else 0)

    @property
    def ours(self) -> bool:
        """Whether the settings are ours."""
        return self.settings != "plain"

    @property
    def precision(self) -> str:
        """`fp32`, `tf32` or `bf16`."""
        return {"plain": "fp32", "compile": "bf16"}.get(self.settings, self.settings)

    @property
    def memory_format(self) -> torch.memory_format:
        """How weights and images lie in memory."""
        return torch.channels_last if self.ours else torch.contiguous_format


Run = Callable[[], object]
Prepare = Callable[[Variant, dict[str, Any], torch.device], tuple[Run, dict[str, Any]]]
"""A variant, the task and the device -> what is timed, and what is known of it."""


def work(task: dict[str, Any], say: Callable[[str], None], prepare: Prepare | None = None) -> dict[str, Any]:
    """Does one task of `train.py`, or of whoever brings its own `prepare`, in this process.

    Args:
        task: `group` (step, epoch, ...), `allocator` (kept, system), `variants`, `rounds`, `inner`, `device`
            and what `prepare` needs: `width`, `batch`, `size`, and for epochs `data` and `images`.

    Returns:
        `allocator` (what is in force), `torch_threads` and per variant, under `variants`, its numbers or a
        `note` that says why there are none.
    """
    kept = keep_pages() if task["allocator"] == "kept" else False
    device = torch.device(task["device"])
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    finish = partial(torch.cuda.synchronize, device) if device.type == "cuda" else bool
    variants = {key: Variant.parse(key) for key in task["variants"]}
    prepare = prepare or (_prepare_step if task["group"] == "step" else _prepare_epochs)
    report: dict[str, dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    for key, variant in variants.items():
        try:
            run, report[key] = prepare(variant, task, device)
            runs[key] = _timed(run, variant, device)
            # Compiles and chooses kernels; an epoch's decodes as well.
            report[key]["first_seconds"] = interleaved({key: runs[key]}, 1, finish=finish)[key][0]
            if task["group"] in ("step", "pass"):
                interleaved({key: runs[key]}, WARM_UP, finish=finish)
        except Exception as error:  # the other rows are worth having all the same
            report[key] = {"note": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            runs.pop(key, None)
        say(f"{key} is ready" if key in runs else f"{key}: {report[key]['note']}")
    for key, seconds in interleaved(runs, task["rounds"], say, task["inner"], finish).items():
        report[key]["seconds"] = seconds
    for key, run in runs.items():
        if device.type == "cuda":
            _watch_gpu(run, report[key], device, task["group"] == "epoch")
        if "loss" in report[key]:
            loss = report[key]["loss"] = float(report[key]["loss"])
            if not math.isfinite(loss):  # arithmetic on NaNs and denormals has another speed
                report[key]["note"] = f"failed: the loss became {loss}"
    return {
        "allocator": "kept" if kept else "system",
        "torch_threads": torch.get_num_threads(),
        "variants": report,
    }


def check_formats(network: nn.Module, image: Tensor, output: Tensor, wanted: torch.memory_format) -> None:
    """Raises an AssertionError unless weights, image and logits all lie in memory as `wanted`.

    A (1, 1)-kernel or a single channel is both; everything else is one or the other.
    """
    for name, weight in network.named_parameters():
        assert weight.ndim != 4 or weight.is_contiguous(memory_format=wanted), f"{name} is not {wanted}"
    for name, tensor in (("image", image), ("logits", output)):
        assert tensor.is_contiguous(memory_format=wanted), f"the {name} are not {wanted}"
        other = torch.contiguous_format if wanted == torch.channels_last else torch.channels_last
        assert not tensor.is_contiguous(memory_format=other), f"the {name} are {other} as well"


def _prepare_step(variant: Variant, task: dict[str, Any], device: torch.device) -> tuple[Run, dict[str, Any]]:
    """A training step on one batch that stays where it is, and what is known of the network."""
    network = build(variant.network, task["width"])
    if variant.ours:
        step = our_step(network, device, variant.precision, compiled=variant.settings == "compile")
    else:
        step = plain_step(network, device)
    generator = torch.Generator().manual_seed(1)
    shape = (task["batch"], task["size"], task["size"])
    image = torch.randn(shape[0], 3, *shape[1:], generator=generator).to(device)
    image = image.contiguous(memory_format=variant.memory_format)
    target = torch.randint(0, CLASSES, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.03] = IGNORED
    target = target.to(device)

    with torch.no_grad(), autocast(device, variant.precision), MacCounter(network) as counter:
        output = logits(network(image))
    check_formats(network, image, output, variant.memory_format)

    facts: dict[str, Any] = {"parameters": parameters(network), "macs": counter.total // task["batch"]}

    def run() -> None:
        facts["loss"] = step(image, target)

    return run, facts


def _prepare_epochs(
    variant: Variant, task: dict[str, Any], device: torch.device
) -> tuple[Run, dict[str, Any]]:
    """An epoch with data, from the files to the last step."""
    options = {name: task[name] for name in ("images", "width", "batch", "size")}
    folder = Path(task["data"])
    if variant.network == "article":
        epoch = article_epochs(folder, device=device, **options)
    else:
        precision, workers = variant.precision, variant.number
        epoch = our_epochs(folder, device=device, precision=precision, workers=workers, **options)
    facts: dict[str, Any] = {}

    def run() -> None:
        facts["images"] = epoch()

    return run, facts


def _timed(run: Run, variant: Variant, device: torch.device) -> Run:
    """`run` under the variant's process-wide settings."""
    if device.type != "cuda":
        return run

    def timed() -> None:
        # Convolutions run in TF32 on both sides: that is torch's default.
        torch.backends.cudnn.benchmark = variant.ours
        run()

    return timed


def _watch_gpu(run: Run, report: dict[str, Any], device: torch.device, profiled: bool) -> None:
    """Adds, of one more run, the peak of the memory and, if asked for, the seconds in which a kernel ran."""
    from torch.profiler import ProfilerActivity, profile

    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        report["peak_bytes"] = torch.cuda.max_memory_allocated(device)
        report["bytes_before"] = before  # what lies there anyway, of all variants
        if profiled:
            finish = partial(torch.cuda.synchronize, device)
            finish()
            with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
                watched = interleaved({"": run}, 1, finish=finish)[""][0]
            report["profiled_seconds"] = watched
            report["kernel_seconds"] = covered(_kernels(profiler.events() or [])) / 1e6
    except Exception as error:
        report["gpu_note"] = f"not watched: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _kernels(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Start and end, in microseconds, of every kernel; copies and the profiler's own marks are none."""
    marks = ("Memcpy", "Memset", "Optimizer.", "ProfilerStep")
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA"
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(marks)
    ]


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of spans (start, end): kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
