"""The tables of `predict.py`: what was aimed at and reached, passes, agreement, folders, the huge picture."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.huge import TILE, WIDTH
from benchmarks.measure import milliseconds, quartiles, ratio, table
from benchmarks.tables import ARTICLE, allocator, count, gmac, process_table, titles

Report = dict[str, Any]

DEPTHS = {3: 1.5, 2: 2.7, 1: 5.5}
"""How many times as fast as depth 4 the others are to be."""


@dataclass(frozen=True)
class Target:
    """A line of what is aimed at.

    Attributes:
        what: is measured.
        wanted: the bound, a lower one unless `most`.
        reached: None where it was not measured.
        shown: how `reached` is printed, when not as a ratio; `{}` takes it.
        spread: low and high of a ratio.
        where: the settings that the bound is for, as `settings` spells them; any when empty.
    """

    what: str
    wanted: float
    reached: float | None
    most: bool = False
    shown: str = "{:.2f}"
    spread: tuple[float, float] | None = None
    where: str = ""

    def row(self, here: str) -> list[str]:
        """What, target, reached; `here` are the settings of this run."""
        wanted = ("at most " if self.most else "") + self.shown.format(self.wanted)
        if self.reached is None:
            return [self.what, wanted, "not measured"]
        text = self.shown.format(self.reached)
        if self.spread:
            text += f" ({_range(self.spread)})"
        if self.where and self.where != here:
            return [self.what, f"{wanted}, at {self.where}", text]
        met = self.reached <= self.wanted if self.most else self.reached >= self.wanted
        return [self.what, wanted, text if met else f"**{text}**, missed"]


CPU_RUN, GPU_RUN = "cpu, width 16, batch 1, 480x360", "cuda, width 64, batch 8, 480x360"


def settings(options: argparse.Namespace) -> str:
    """What a bound on speed depends on."""
    width, height = options.size
    return f"{options.device}, width {options.width}, batch {options.batch}, {width}x{height}"


def target_table(report: Report, options: argparse.Namespace) -> str:
    """All bounds, whatever was measured, with quartiles of the ratios."""
    targets = [*_speed(report), *_agreement(report), *_folder(report), _gpu(report, options)]
    here = settings(options)
    return table(["what", "target", "reached"], [target.row(here) for target in targets])


def pass_table(report: Report, options: argparse.Namespace) -> str:
    """Every variant in one process: the pass, its spread, against the article and against depth 4."""
    variants = report["variants"]
    gpu = any("peak_bytes" in entry for entry in variants.values())
    header = ["network", "settings", "parameters", "GMAC", "ms a pass", "quartiles", "images/s"]
    header += ["against the article", "quartiles", "against depth 4"]
    header += ["GPU memory beyond the weights, GiB"] if gpu else []
    rows = []
    for key, entry in variants.items():
        name, how = titles(key, options)
        depth = key.split("/")[2:]
        row = [name, how + (f", depth {depth[0]}" if depth else "")]
        row += [count(entry.get("parameters")), gmac(entry.get("macs"))]
        if "seconds" not in entry or "note" in entry:
            rows.append([*row, entry.get("note", "not measured"), *[""] * (len(header) - len(row) - 1)])
            continue
        median = statistics.median(entry["seconds"])
        row += [milliseconds(median), "-".join(map(milliseconds, quartiles(entry["seconds"])))]
        row.append(f"{options.batch / median:.1f}")
        middle, spread = _ratio(variants, ARTICLE, key)
        row += ["", ""] if middle is None else [f"{middle:.2f}", _range(spread)]
        whole = _ratio(variants, key.rsplit("/", 1)[0], key)[0] if depth else None
        row.append("" if whole is None else f"{whole:.2f}")
        if gpu:
            row.append(f"{(entry['peak_bytes'] - entry['bytes_before']) / 2**30:.2f}")
        rows.append(row)
    return allocator(report["allocator"]) + "\n\n" + table(header, rows)


def agreement_table(report: Report) -> str:
    """What our settings change in logits and masks."""
    header = ["weights", "arithmetic", "largest difference / largest logit", "pixels changed", "share"]
    header += ["largest gap of the best two / largest logit", "mIoU, %", "change, points"]
    rows = [_compared("random", key, entry) for key, entry in report["variants"].items()]
    real = report.get("real")
    if real:
        for key, entry in real["variants"].items():
            change = 100 * (entry["miou"] - real["miou"])
            scores = [f"{100 * entry['miou']:.3f}", f"{change:+.3f}"]
            rows.append(_compared(f"trained, {real['name']}", key, entry, scores))
    else:
        rows.append(["trained", "", "not measured: needs --model and --data", *[""] * 5])
    return table(header, rows)


def folder_table(report: Report) -> str:
    """Whole folders in one process, and what each stage of ours takes."""
    header = ["folder", "images/s", "against the plain loop", "quartiles", "pixels changed"]
    variants = report["variants"]
    stages = next((list(entry["stages"]) for entry in variants.values() if "stages" in entry), [])
    header += [f"{stage}, %" for stage in stages]
    rows = []
    for key, entry in variants.items():
        name = "the plain loop" if key == ARTICLE else f"the predict job, {key.split('/')[1]}"
        if "note" in entry:
            rows.append([name, entry["note"], *[""] * (len(header) - 2)])
            continue
        middle, spread = _ratio(variants, ARTICLE, key)
        row = [name, f"{entry['images'] / statistics.median(entry['seconds']):.2f}"]
        row += ["", ""] if middle is None else [f"{middle:.2f}", _range(spread)]
        row.append(f"{entry['changed_share']:.2e}" if "changed_share" in entry else "")
        taken = entry.get("stages", {})
        row += [f"{100 * taken[stage] / sum(taken.values()):.1f}" if taken else "" for stage in stages]
        rows.append(row)
    return allocator(report["allocator"]) + "\n\n" + table(header, rows)


def folder_process_table(reports: dict[str, list[Report]], options: argparse.Namespace) -> str:
    """Whole folders as whole processes."""
    return "Per image, from the start of Python to its end.\n\n" + process_table(reports, options)


def huge_table(report: Report) -> str:
    """One row."""
    header = [f"width {WIDTH}, tiles of {TILE}", "seconds", "megapixels/s", "peak memory, MiB"]
    header += ["picture, MiB", "mask, MiB", "above both, MiB"]
    rows = []
    for precision, entry in report["variants"].items():
        name = f"{entry['side']:,}x{entry['side']:,}, {precision}"
        if "note" in entry:
            rows.append([name, entry["note"], *[""] * (len(header) - 2)])
            continue
        (seconds,) = entry["seconds"]
        sizes = [entry[name] for name in ("peak_bytes", "picture_bytes", "mask_bytes")]
        cells = [f"{size / 2**20:,.0f}" for size in (*sizes, sizes[0] - sizes[1] - sizes[2])]
        rows.append([name, f"{seconds:.1f}", f"{entry['mask_bytes'] / 1e6 / seconds:.2f}", *cells])
    return table(header, rows)


def _speed(report: Report) -> list[Target]:
    """Passes against the article, and depths against the deepest."""
    variants, processes = report.get("pass", {}).get("variants", {}), report.get("pass_processes", {})
    targets = []
    for key, equal, whole in (("ours/fp32", 1.2, 2.0), ("ours/bf16", 2.2, 3.5)):
        name = f"a pass in {key.split('/')[1]}, against the article"
        middle, spread = _ratio(variants, ARTICLE, key)
        targets.append(Target(f"{name}, allocator equal", equal, middle, spread=spread, where=CPU_RUN))
        middle, spread = _process_ratio(processes, key)
        targets.append(Target(f"{name}, whole processes", whole, middle, spread=spread, where=CPU_RUN))
    for key in ("ours/fp32", "ours/bf16"):
        for depth, wanted in DEPTHS.items():
            middle, spread = _ratio(variants, key, f"{key}/{depth}")
            name = f"depth {depth} against depth 4, {key.split('/')[1]}"
            targets.append(Target(name, wanted, middle, spread=spread, where=CPU_RUN))
    return targets


def _agreement(report: Report) -> list[Target]:
    found = report.get("agreement", {})
    exact = found.get("variants", {}).get("fp32", {})
    real = found.get("real") or {}
    half = real.get("variants", {}).get("bf16", {})
    drop = 100 * abs(half["miou"] - real["miou"]) if half else None
    name, trained, share, points = "fp32, random weights: ", "bf16, trained weights: ", "{:.1e}", "{:.3f}"
    return [
        Target(f"{name}relative difference", 1e-5, exact.get("relative_difference"), True, share),
        Target(f"{name}share of pixels changed", 1e-5, exact.get("changed_share"), True, share),
        Target(f"{name}gap of the best two where changed", 1e-4, exact.get("largest_gap"), True, share),
        Target(f"{trained}mIoU changes by, points", 0.1, drop, True, points),
        Target(f"{trained}share of pixels changed", 0.003, half.get("changed_share"), True, share),
    ]


def _folder(report: Report) -> list[Target]:
    processes = report.get("folder_processes", {})
    targets = []
    for key in ("ours/fp32", "ours/bf16"):
        middle, spread = _process_ratio(processes, key)
        name = f"a folder end to end in {key.split('/')[1]}, whole processes"
        targets.append(Target(name, 3.2, middle, spread=spread, where=CPU_RUN))
    entries = [entry for entry in report.get("folder", {}).get("variants", {}).values() if "stages" in entry]
    shares = [entry["stages"]["argmax"] / sum(entry["stages"].values()) for entry in entries]
    argmax = max(shares, default=None)
    targets.append(Target("argmax, share of a folder's time", 0.1, argmax, True, "{:.3f}", where=CPU_RUN))
    return targets


def _gpu(report: Report, options: argparse.Namespace) -> Target:
    """Images per second; on a CPU nothing is known of it."""
    entry = report.get("pass", {}).get("variants", {}).get("ours/bf16", {})
    measured = options.device == "cuda" and "seconds" in entry and "note" not in entry
    reached = options.batch / statistics.median(entry["seconds"]) if measured else None
    return Target(
        "one H200, width 64, batch 8: images/s in bf16", 500, reached, shown="{:.0f}", where=GPU_RUN
    )


def _ratio(variants: Report, slow: str, fast: str) -> tuple[float | None, tuple[float, float] | None]:
    """Median and quartiles, over the rounds, of how many times as fast."""
    entries = [variants.get(key, {}) for key in (slow, fast)]
    if any("seconds" not in entry or "note" in entry for entry in entries):
        return None, None
    one, other = (entry["seconds"] for entry in entries)
    return ratio(one, other), quartiles([a / b for a, b in zip(one, other, strict=True)])


def _process_ratio(reports: Report, key: str) -> tuple[float | None, tuple[float, float] | None]:
    """Median and range, over the repeats, of how many times as fast as the article."""
    pairs = list(zip(reports.get(ARTICLE, []), reports.get(key, []), strict=False))
    if not pairs or any("note" in entry for pair in pairs for entry in pair):
        return None, None
    ratios = [slow["median_seconds"] / fast["median_seconds"] for slow, fast in pairs]
    return statistics.median(ratios), (min(ratios), max(ratios))


def _range(spread: tuple[float, float] | None) -> str:
    return "" if spread is None else f"{spread[0]:.2f}-{spread[1]:.2f}"


def _compared(weights: str, key: str, entry: Report, scores: Sequence[str] = ("", "")) -> list[str]:
    figures = [f"{entry['relative_difference']:.1e}", f"{entry['changed']:,} of {entry['pixels']:,}"]
    figures += [f"{100 * entry['changed_share']:.4f} %", f"{entry['largest_gap']:.1e}"]
    return [weights, key, *figures, *scores]
