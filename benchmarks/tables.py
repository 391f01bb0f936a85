"""The tables of `train.py`, and what those of `predict.py` share with them: measurements as Markdown."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.measure import milliseconds, quartiles, ratio, table
from benchmarks.networks import CANDIDATES

ARTICLE = "article/plain"
SETTINGS = {
    "plain": "as shipped: fp32, NCHW, plain loop",
    "fp32": "ours: channels last, fp32",
    "tf32": "ours: channels last, tf32",
    "bf16": "ours: channels last, bf16",
    "compile": "ours: channels last, bf16, compiled",
}


def step_table(report: dict[str, Any], options: argparse.Namespace) -> str:
    """Every variant in one process: the step, its spread, and two ratios."""
    variants = report["variants"]
    best = _ours(variants)
    gpu = any("peak_bytes" in entry for entry in variants.values())
    header = ["network", "settings", "parameters", "GMAC", "ms a step", "quartiles", "images/s"]
    header += ["against the article", f"ours in {best[5:]} against it" if best else "ours against it"]
    header += ["GPU memory beyond the weights, GiB"] if gpu else []
    rows = []
    for key, entry in variants.items():
        row = [*titles(key, options), count(entry.get("parameters")), gmac(entry.get("macs"))]
        if "seconds" not in entry or "note" in entry:
            rows.append([*row, entry.get("note", "not measured"), *[""] * (len(header) - len(row) - 1)])
            continue
        seconds = entry["seconds"]
        low, high = quartiles(seconds)
        median = statistics.median(seconds)
        row += [milliseconds(median), f"{milliseconds(low)}-{milliseconds(high)}"]
        row += [
            f"{options.batch / median:.1f}",
            against(variants, ARTICLE, key),
            against(variants, key, best),
        ]
        if gpu:
            row.append(_memory(entry))
        rows.append(row)
    return allocator(report["allocator"]) + "\n\n" + table(header, rows)


def epoch_table(report: dict[str, Any], options: argparse.Namespace) -> str:
    """Every variant's epoch in one process; the first one, which decodes, apart."""
    variants = report["variants"]
    gpu = any("peak_bytes" in entry or "gpu_note" in entry for entry in variants.values())
    header = ["loop", "settings", "input", "first epoch, s", "later epochs, s", "quartiles", "images/s"]
    header += ["against the article", *(["GPU without a kernel"] if gpu else [])]
    rows = []
    for key, entry in variants.items():
        row = [*titles(key, options), _input(key)]
        if "seconds" not in entry:
            rows.append([*row, entry.get("note", "not measured"), *[""] * (len(header) - len(row) - 1)])
            continue
        seconds = entry["seconds"]
        low, high = quartiles(seconds)
        median = statistics.median(seconds)
        row += [f"{entry['first_seconds']:.2f}", f"{median:.3f}", f"{low:.3f}-{high:.3f}"]
        row += [f"{entry['images'] / median:.1f}", against(variants, ARTICLE, key)]
        rows.append([*row, *([_idle(entry, median)] if gpu else [])])
    return allocator(report["allocator"]) + "\n\n" + table(header, rows)


def process_table(reports: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> str:
    """A variant per process: the median of the processes' medians, and the ratio's range over the repeats."""
    header = ["network", "settings", "allocator", "median, ms", "each process, ms", "against the article"]
    article = [entry.get("median_seconds") for entry in reports.get(ARTICLE, [])]
    rows = []
    for key, entries in reports.items():
        name, settings = titles(key, options)
        workers = "".join(f", {number} workers" for number in key.split("/")[2:])
        row = [name, settings + workers, entries[0]["allocator"]]
        if failed := [entry["note"] for entry in entries if "note" in entry]:
            rows.append([*row, failed[0], "", ""])
            continue
        medians = [entry["median_seconds"] for entry in entries]
        row += [milliseconds(statistics.median(medians)), ", ".join(map(milliseconds, medians))]
        ratios = [slow / fast for slow, fast in zip(article, medians, strict=False) if slow]
        spread = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 and key != ARTICLE else ""
        rows.append([*row, f"{statistics.median(ratios):.2f}{spread}" if ratios else ""])
    return table(header, rows)


def titles(key: str, options: argparse.Namespace) -> list[str]:
    """Network and settings of a row, in words."""
    network, settings = key.split("/")[:2]
    return [CANDIDATES[network].title.format(width=options.width), SETTINGS[settings]]


def _input(key: str) -> str:
    network, _, *workers = key.split("/")
    if network == "article":
        return "decoded every time, no workers"
    return f"decoded once, {workers[0] if workers else 0} workers"


def _ours(variants: dict[str, Any]) -> str:
    """Our fastest kind of run that was measured."""
    for key in ("ours/bf16", "ours/fp32"):
        if "seconds" in variants.get(key, {}):
            return key
    return ""


def against(variants: dict[str, Any], slow: str, fast: str) -> str:
    """How many times as fast as `slow` the row `fast` is; nothing where one of them was not measured."""
    if not all("seconds" in variants.get(key, {}) and "note" not in variants[key] for key in (slow, fast)):
        return ""
    return f"{ratio(variants[slow]['seconds'], variants[fast]['seconds']):.2f}"


def _memory(entry: dict[str, Any]) -> str:
    if "peak_bytes" not in entry:
        return "not measured"
    return f"{(entry['peak_bytes'] - entry['bytes_before']) / 2**30:.1f}"


def _idle(entry: dict[str, Any], median: float) -> str:
    """Share of an epoch, as timed without the profiler, in which no kernel ran."""
    if not entry.get("kernel_seconds"):
        return str(entry.get("gpu_note", "not measured"))
    return f"{100 * max(0.0, 1 - entry['kernel_seconds'] / median):.1f} %"


def allocator(how: str) -> str:
    """How the rows of one process were timed, in a sentence."""
    if how == "kept":
        return "One process, rounds in turn; glibc keeps its pages, for every row alike."
    return "One process, rounds in turn; the allocator as it comes, for every row alike."


def count(number: int | None) -> str:
    """With commas; nothing where it is not known."""
    return "" if number is None else f"{number:,}"


def gmac(number: int | None) -> str:
    """Multiply-accumulates in 1e9; nothing where they are not known."""
    return "" if number is None else f"{number / 1e9:.2f}"
