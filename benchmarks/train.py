"""Training speed, side by side: the article's loop and network, other UNet++ and nested U-Nets, and ours.

    python benchmarks/train.py --width 16 --batch 8 --peers none --markdown table.md

README.md says what the rows mean. This process measures nothing: each group of rows has processes of its own,
one at a time, because the allocator's settings hold for a whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.measure import PACKAGES, PEER_PACKAGES, environment, environment_line
from benchmarks.networks import CANDIDATES, PEERS
from benchmarks.processes import KERNELS, answer, in_turn, installed, run_task, say, split
from benchmarks.tables import epoch_table, process_table, step_table


def main() -> int:
    """The command line; exits with 1 when a row failed."""
    options = _arguments()
    if options.worker:
        from benchmarks.contest import work

        return answer(json.loads(options.worker), work)
    facts = environment(options.device, (*PACKAGES, *PEER_PACKAGES))
    report: dict[str, Any] = {
        "command": " ".join(["benchmarks/train.py", *sys.argv[1:]]),
        "environment": {**facts, "onednn_primitive_cache": KERNELS},
        "settings": {name: getattr(options, name) for name in ("device", "width", "batch", "size", "rounds")},
    }
    tuned = ["fp32", "bf16"] if facts["native_bf16"] else ["fp32"]
    if not facts["native_bf16"]:
        say("no native bf16 here: the bf16 rows are left out")
    text = [f"{options.device}, batch {options.batch}, {options.size}x{options.size}, one head.\n"]
    text += [environment_line(facts) + "\n"]
    with contextlib.ExitStack() as stack:
        if options.group in ("step", "all"):
            variants = options.variants or _step_variants(options, tuned)
            missing = [key for key in variants if not installed(key)]
            there = [key for key in variants if key not in missing]
            task = _task(options, "step", "kept", there)
            report["step"] = run_task(__file__, task)
            report["step"]["variants"] |= {key: {"note": "not installed"} for key in missing}
            text += ["### A step, the allocator equal\n", step_table(report["step"], options)]
            if options.repeats:
                report["step_processes"] = _processes(options, "step", there)
                text += ["### A step, whole processes\n", process_table(report["step_processes"], options)]
        if options.group in ("epoch", "all"):
            data = options.data or _draw(stack, options.images)
            chosen = [key for key in options.variants if key.split("/")[0] in ("article", "ours")]
            variants = chosen or _epoch_variants(options, tuned)
            task = _task(options, "epoch", "kept", variants, data)
            report["epoch"] = run_task(__file__, task)
            text += ["### An epoch with data, the allocator equal\n", epoch_table(report["epoch"], options)]
            if options.repeats:
                report["epoch_processes"] = _processes(options, "epoch", variants, data)
                processes = process_table(report["epoch_processes"], options)
                text += ["### An epoch with data, whole processes\n", processes]
    markdown = "\n".join(text)
    print(markdown)
    if options.markdown:
        Path(options.markdown).write_text(markdown, encoding="utf-8")
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if '"failed: ' in json.dumps(report) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training speed, side by side. See benchmarks/README.md.")
    add = parser.add_argument
    add("--group", choices=("step", "epoch", "all"), default="all", help="what is timed")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--width", type=int, default=16, help="of the article's network and of ours")
    add("--batch", type=int, default=8)
    add("--size", type=int, default=224, help="side of the square images, a multiple of 32")
    add("--rounds", type=int, default=7, help="samples of each row; of an epoch's half as many")
    add("--repeats", type=int, help="processes of each row of the whole-process tables; 0 = no such tables")
    add("--inner", type=int, help="steps per sample")
    add("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    add("--variants", type=_variants, default=[], help="the rows, instead: ours/bf16,article/plain,...")
    add("--compile", action="store_true", help="a row with our network compiled")
    add("--data", help="a folder in SegNet's layout; drawn scenes when left out")
    add("--images", type=int, default=48, help="images of an epoch")
    add("--workers", default="0", help="our loader's processes, one row each: 0,4")
    add("--json", help="file for everything that was measured")
    add("--markdown", help="file for the tables")
    add("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size % 32:
        parser.error(f"--size {options.size} is no multiple of 32")
    if options.images < options.batch:
        parser.error(f"--images {options.images} do not fill a batch of {options.batch}")
    if unknown := sorted({*split(options.peers)} - {*PEERS, "all", "none"}):
        parser.error(f"--peers {','.join(unknown)}: choose among all, none, {', '.join(PEERS)}")
    gpu = options.device == "cuda"
    if gpu and not torch.cuda.is_available():
        parser.error(f"--device cuda: torch {torch.__version__} sees no GPU here")
    options.inner = options.inner or (10 if gpu else 1)
    # The allocator in question is that of the CPU's memory.
    options.repeats = (0 if gpu else 3) if options.repeats is None else options.repeats
    return options


def _variants(text: str) -> list[str]:
    for key in text.split(","):
        network, settings, *_ = [*key.split("/"), ""]
        if network not in CANDIDATES or settings not in ("plain", "fp32", "bf16", "compile"):
            raise argparse.ArgumentTypeError(f"{key} is none of NETWORK/plain, /fp32, /bf16, /compile")
    return text.split(",")


def _step_variants(options: argparse.Namespace, tuned: list[str]) -> list[str]:
    """The article as it is, ours, and every peer first as it is and then with our settings."""
    chosen = PEERS if options.peers == "all" else () if options.peers == "none" else split(options.peers)
    keys = ["article/plain", *[f"ours/{settings}" for settings in tuned]]
    keys += ["ours/compile"] if options.compile else []
    for peer in ("article", *chosen):
        keys += [] if peer == "article" else [f"{peer}/plain"]
        keys += [f"{peer}/{tuned[-1]}"]
    return keys


def _epoch_variants(options: argparse.Namespace, tuned: list[str]) -> list[str]:
    ours = [f"ours/{settings}/{workers}" for settings in tuned for workers in split(options.workers)]
    return ["article/plain", *ours]


def _task(
    options: argparse.Namespace, group: str, allocator: str, variants: list[str], data: str = ""
) -> dict[str, Any]:
    task = {name: getattr(options, name) for name in ("device", "width", "batch", "size", "images")}
    task |= {"group": group, "allocator": allocator, "variants": variants, "data": data}
    if group == "epoch":
        return {**task, "inner": 1, "rounds": -(-options.rounds // 2)}
    return {**task, "inner": options.inner, "rounds": options.rounds}


def _processes(
    options: argparse.Namespace, group: str, variants: list[str], data: str = ""
) -> dict[str, list[dict[str, Any]]]:
    return in_turn(
        __file__, variants, options.repeats, lambda how, key: _task(options, group, how, [key], data)
    )


def _draw(stack: contextlib.ExitStack, images: int) -> str:
    from benchmarks.scenes import write_scenes

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unetpp-benchmark-")))
    say(f"drawing {images} scenes")
    return str(write_scenes(folder / "scenes", images))


if __name__ == "__main__":
    raise SystemExit(main())
