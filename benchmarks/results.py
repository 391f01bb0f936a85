"""From runs to tables and to the weights in the package; examples/camvid-gpu.sh calls it.

    python benchmarks/results.py best A.json,A2.json B.json ...  # prints those with the best deepest head
    python benchmarks/results.py table TITLE=EVAL.json ...     # Markdown: a row per file, a column per depth
    python benchmarks/results.py pack MODEL -o FILE --depth 4 --table NAME=EVAL.json ...

The JSON files are what `unetpp eval --json` prints. Equal input gives equal output.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from unetpp_cli.errors import UserError

KEPT = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_f1")
LIMIT = 14_000_000
"""Bytes that the weights in the package may have."""


def rows_of(file: Path) -> dict[str, dict[str, Any]]:
    """The depths of a report, and `ensemble` if there are several."""
    report = json.loads(file.read_text(encoding="utf-8"))
    return {**report["depths"], **({"ensemble": report["ensemble"]} if report.get("ensemble") else {})}


def deepest(file: Path) -> float:
    """mIoU of the deepest head."""
    depths: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))["depths"]
    return float(depths[max(depths, key=int)]["miou"])


def best(candidates: Sequence[str]) -> str:
    """That one of `FILE,FILE,...` whose mean of the deepest heads' mIoU is the highest."""
    return max(candidates, key=lambda files: fmean(deepest(Path(file)) for file in files.split(",")))


def table(entries: Sequence[tuple[str, Path]]) -> str:
    """mIoU in per cent, with the interval where there are blocks enough for one."""
    reports = [(name, rows_of(file)) for name, file in entries]
    columns = sorted({row for _, rows in reports for row in rows})  # digits come before "ensemble"
    lines = [["", *(f"L{column}" if column.isdigit() else column for column in columns)]]
    lines.append(["---"] * len(lines[0]))
    for name, rows in reports:
        lines.append([name, *(_cell(rows[column]) if column in rows else "" for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Mapping[str, Any]) -> str:
    text = f"{100 * row['miou']:.1f}"
    if row.get("interval"):
        low, high = row["interval"]
        text += f" ({100 * low:.1f}-{100 * high:.1f})"
    return text


def pack(model_file: Path, output: Path, depth: int, tables: Sequence[tuple[str, Path]]) -> int:
    """Writes the model, cut at `depth` and halved, with the tables in its header; returns its bytes."""
    from unetpp_cli.network import halving, pruning
    from unetpp_cli.network.weights import load_model, save_model

    model = load_model(model_file)
    network, header = pruning.prune(model, depth, may_stay=True)
    proof = pruning.verify(model.network, network, depth)
    stored = halving.rounded(network, header, str(model_file))
    change = halving.compare(network, stored, pruning.probes(model.network))
    kept = {name: {row: _kept(scores) for row, scores in rows_of(file).items()} for name, file in tables}
    trained = {key: model.header.metrics[key] for key in ("epoch", "steps") if key in model.header.metrics}
    header = replace(
        header,
        metrics={**trained, **kept},
        origin={**header.origin, "proof": proof.to_json(), "half": change.to_json()},
    )
    save_model(output, network, header, half=True)
    return output.stat().st_size


def _kept(scores: Mapping[str, Any]) -> dict[str, float]:
    return {key: round(scores[key], 6) for key in KEPT if scores.get(key) is not None}


def _entry(text: str) -> tuple[str, Path]:
    name, equals, file = text.rpartition("=")
    if not equals or not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"{text}: write NAME=FILE.json, and the file must be there")
    return name, Path(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("best").add_argument("candidates", nargs="+", metavar="FILE.json,...")
    commands.add_parser("table").add_argument("entries", type=_entry, nargs="+", metavar="TITLE=FILE.json")
    packing = commands.add_parser("pack")
    packing.add_argument("model", type=Path)
    packing.add_argument("-o", "--output", type=Path, required=True)
    packing.add_argument("--depth", type=int, default=4)
    packing.add_argument("--table", type=_entry, action="append", default=[], metavar="NAME=FILE.json")
    args = parser.parse_args(arguments)
    if args.command == "best":
        print(best(args.candidates))
    elif args.command == "table":
        print(table(args.entries))
    else:
        try:
            size = pack(args.model, args.output, args.depth, args.table)
        except UserError as error:
            print(f"{error.problem} {error.cure}", file=sys.stderr)
            return 2
        print(f"{args.output}: {size / 1e6:.2f} MB")
        if size > LIMIT:
            print(
                f"That is more than the package's {LIMIT / 1e6:g} MB: pack at a lower --depth.",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
