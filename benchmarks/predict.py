"""Prediction speed, side by side: the article's network and folder loop, other UNet++ networks, and ours.

    python benchmarks/predict.py --width 16 --size 480x360 --json predict.json --markdown predict.md

README.md says what the rows mean. This process measures nothing but whole commands: all else has processes of
its own, one at a time, because the allocator's settings hold for a whole process.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import predict_tables as tables
from benchmarks.measure import PACKAGES, PEER_PACKAGES, environment, environment_line
from benchmarks.networks import PEERS
from benchmarks.processes import KERNELS, Report, answer, in_turn, installed, run_task, say, split
from benchmarks.tables import process_table

PARTS = ("networks", "agreement", "folder")
ARTICLE = "article/plain"


def main() -> int:
    """The command line; exits with 1 when a row failed."""
    options = _arguments()
    if options.worker:
        return _worker(json.loads(options.worker))
    facts = environment(options.device, (*PACKAGES, *PEER_PACKAGES))
    names = ("device", "width", "batch", "size", "rounds", "images")
    report: Report = {
        "command": " ".join(["benchmarks/predict.py", *sys.argv[1:]]),
        "environment": {**facts, "onednn_primitive_cache": KERNELS},
        "settings": {name: getattr(options, name) for name in names},
    }
    precisions = ["fp32", "bf16"] if facts["native_bf16"] else ["fp32"]
    if not facts["native_bf16"]:
        say("no native bf16 here: the bf16 rows are left out")
    text = []
    if "networks" in options.parts:
        text += _networks(report, options, precisions)
    if "agreement" in options.parts:
        wanted = {name: getattr(options, name) for name in ("width", "size", "model", "data", "split")}
        report["agreement"] = run_task(__file__, {"group": "agreement", "variants": precisions, **wanted})
        text += ["### What our settings change\n", tables.agreement_table(report["agreement"])]
    if "folder" in options.parts:
        text += _folder(report, options, precisions)
    if options.huge:
        task = {"group": "huge", "variants": precisions[-1:], "side": options.huge}
        report["huge"] = run_task(__file__, task)
        text += ["### One huge picture, by the command\n", tables.huge_table(report["huge"])]
    head = [tables.settings(options) + ".\n", environment_line(facts) + "\n"]
    head += ["### What is aimed at\n", tables.target_table(report, options)]
    markdown = "\n".join([*head, *text])
    print(markdown)
    if options.markdown:
        Path(options.markdown).write_text(markdown, encoding="utf-8")
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if '"failed: ' in json.dumps(report) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prediction speed, side by side. See benchmarks/README.md.")
    add = parser.add_argument
    add("--parts", type=_parts, help=f"which of {','.join(PARTS)}, or ''; all, on a GPU the networks")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--width", type=int, default=16, help="of the article's network and of ours")
    add("--batch", type=int, default=1, help="images of a pass")
    add("--size", type=_size, default=[480, 360], help="WIDTHxHEIGHT of the images")
    add("--rounds", type=int, default=9, help="samples of each row; of a folder a third as many")
    add("--repeats", type=int, help="processes of each row of the whole-process tables; 0 = no such tables")
    add("--inner", type=int, help="passes per sample")
    add("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    add("--images", type=int, default=48, help="images of a folder")
    add("--model", help="trained weights, and with --data what bf16 changes in their masks")
    add("--data", help="what `unetpp train --data` takes")
    add("--split", default="val")
    add("--huge", type=int, nargs="?", const=20_000, metavar="SIDE", help="one picture of SIDE x SIDE, too")
    add("--json", help="file for everything that was measured")
    add("--markdown", help="file for the tables")
    add("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := sorted({*split(options.peers)} - {*PEERS, "all", "none"}):
        parser.error(f"--peers {','.join(unknown)}: choose among all, none, {', '.join(PEERS)}")
    if bool(options.model) != bool(options.data):
        parser.error("--model and --data belong together")
    gpu = options.device == "cuda"
    if gpu and not torch.cuda.is_available():
        parser.error(f"--device cuda: torch {torch.__version__} sees no GPU here")
    options.inner = options.inner or (10 if gpu else 1)
    if options.parts is None:
        options.parts = ["networks"] if gpu else list(PARTS)
    # The allocator in question is that of the CPU's memory.
    options.repeats = (0 if gpu else 3) if options.repeats is None else options.repeats
    return options


def _parts(text: str) -> list[str]:
    if unknown := {*split(text)} - {*PARTS}:
        raise argparse.ArgumentTypeError(f"{','.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    return split(text)


def _size(text: str) -> list[int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(map(int, match.groups())) < 32:  # no scene is drawn smaller
        raise argparse.ArgumentTypeError(f"{text} is no WIDTHxHEIGHT of at least 32x32")
    return [int(match[1]), int(match[2])]


def _networks(report: Report, options: argparse.Namespace, precisions: list[str]) -> list[str]:
    """Forward passes; fills `report` and returns the text."""
    gpu = options.device == "cuda"
    tuned = ["fp32", "tf32", "bf16"] if gpu and "bf16" in precisions else precisions
    variants = _variants(options, tuned)
    there = [key for key in variants if installed(key)]

    def task(allocator: str, *keys: str) -> Report:
        names = ("device", "width", "batch", "size", "rounds", "inner")
        values = {name: getattr(options, name) for name in names}
        return {**values, "group": "pass", "allocator": allocator, "variants": keys}

    report["pass"] = run_task(__file__, task("kept", *there))
    missing = {key: {"note": "not installed"} for key in variants if key not in there}
    report["pass"]["variants"] |= missing
    text = ["### A pass, the allocator equal\n", tables.pass_table(report["pass"], options)]
    if options.repeats:
        whole = [key for key in there if key.count("/") == 1]
        report["pass_processes"] = in_turn(__file__, whole, options.repeats, task)
        processes = process_table(report["pass_processes"], options)
        text += ["### A pass, whole processes\n", processes]
    return text


def _variants(options: argparse.Namespace, tuned: list[str]) -> list[str]:
    """The article as it is, ours at every depth, and every peer first as it is and then with our settings."""
    chosen = PEERS if options.peers == "all" else () if options.peers == "none" else split(options.peers)
    keys = [ARTICLE, *[f"ours/{settings}" for settings in tuned], f"article/{tuned[-1]}"]
    for peer in chosen:
        keys += [f"{peer}/plain", f"{peer}/{tuned[-1]}"]
    return keys + [f"ours/{settings}/{depth}" for settings in tuned for depth in tables.DEPTHS]


def _folder(report: Report, options: argparse.Namespace, precisions: list[str]) -> list[str]:
    """A folder end to end; fills `report` and returns the text."""
    from benchmarks import folder

    variants = [ARTICLE, *[f"ours/{precision}" for precision in precisions]]
    with tempfile.TemporaryDirectory(prefix="unetpp-benchmark-") as place:
        say(f"drawing {options.images} scenes")
        folder.write_folder(Path(place), options.images, options.width, options.size)
        task: dict[str, Any] = {"group": "folder", "allocator": "kept", "variants": variants, "folder": place}
        task |= {"rounds": -(-options.rounds // 3), "inner": 1, "device": "cpu"}
        report["folder"] = run_task(__file__, task)
        text = [f"### A folder of {options.images} images, the allocator equal\n"]
        text.append(tables.folder_table(report["folder"]))
        if options.repeats:
            found = folder.whole_processes(Path(place), variants, options.repeats)
            report["folder_processes"] = found
            text += ["### The same, whole processes\n", tables.folder_process_table(found, options)]
    return text


def _worker(task: Report) -> int:
    # Imported where they are needed: passes run where not all of the package's dependencies are installed.
    if task["group"] == "pass":
        from benchmarks import contest, passes

        return answer(task, lambda task, say: contest.work(task, say, passes.prepare))
    from benchmarks import agreement, folder, huge

    return answer(
        task, {"agreement": agreement.work, "folder": folder.work, "huge": huge.work}[task["group"]]
    )


if __name__ == "__main__":
    raise SystemExit(main())
