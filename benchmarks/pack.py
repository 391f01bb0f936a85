"""Packs a run's weights for the package: cut at a depth, halved, the tables of its scores in the header.

    python benchmarks/pack.py RUN/weights/last.safetensors -o unetpp_cli/weights/camvid11.safetensors \
        --table val=val.json --table "0001TP held out (same recipe)=held-out.json"

The tables are what `unetpp eval --json` prints. Equal input gives equal bytes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from unetpp_cli.network import halving, pruning
from unetpp_cli.network.weights import load_model, save_model

KEPT = ("miou", "pixel_accuracy", "mean_accuracy", "boundary_f1")


def table(file: Path) -> dict[str, Any]:
    """The depths' scores out of a report of `unetpp eval --json`."""
    report = json.loads(file.read_text(encoding="utf-8"))
    rows = {**report["depths"], **({"ensemble": report["ensemble"]} if report.get("ensemble") else {})}
    return {
        depth: {key: round(row[key], 6) for key in KEPT if row.get(key) is not None}
        for depth, row in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--table", action="append", default=[], metavar="NAME=FILE.json")
    args = parser.parse_args()

    model = load_model(args.model)
    network, header = pruning.prune(model, args.depth, may_stay=True)
    proof = pruning.verify(model.network, network, args.depth)
    stored = halving.rounded(network, header, str(args.model))
    change = halving.compare(network, stored, pruning.probes(model.network))
    tables = {name: table(Path(file)) for name, _, file in (entry.partition("=") for entry in args.table)}
    header = replace(
        header,
        metrics={"epoch": model.header.metrics["epoch"], "steps": model.header.metrics["steps"], **tables},
        origin={**header.origin, "proof": proof.to_json(), "half": change.to_json()},
    )
    save_model(args.output, network, header, half=True)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB; halved: {change.to_json()}")


if __name__ == "__main__":
    main()
