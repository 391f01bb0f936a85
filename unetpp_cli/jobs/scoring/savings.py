"""What a pruned model costs and what was won: for its header, and for people. Called by `jobs.prune`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from unetpp_cli.jobs.scoring.bench import Bench
from unetpp_cli.network import cost
from unetpp_cli.network.weights import Model, tensor_bytes
from unetpp_cli.report import units


def cost_json(pruned: Model, bench: Bench, half: bool, times: Sequence[float]) -> dict[str, Any]:
    """For the header's `origin`. Without times it is arithmetic, the same on every machine."""
    height, width = bench.size()
    measured = {"ms": round(times[1], 3), **bench.conditions()} if times else {}
    return {
        "parameters": cost.parameters(pruned.header.architecture),
        "gmac": _macs(pruned, height, width) / 1e9,
        "file_bytes": tensor_bytes(pruned.header.architecture, half=half),
        "size": f"{width}x{height}",
        **measured,
    }


def savings_table(before: Model, after: Model, bench: Bench, times: Sequence[float]) -> Table:
    """Parameters, file size, GMAC and time per image of two models, and their ratios."""
    height, width = bench.size()
    table = Table(title=f"{width}x{height} pixels, batch 1", title_justify="left")
    table.add_column("")
    table.add_column(f"before, L{before.network.depth}", justify="right")
    table.add_column(f"after, L{after.network.depth}", justify="right")
    table.add_column("remains", justify="right")
    models = (before, after)
    rows: list[tuple[str, str, Sequence[float]]] = [
        ("parameters", ",.0f", [cost.parameters(m.header.architecture) for m in models]),
        ("file size, MB", ",.2f", [m.path.stat().st_size / 1e6 for m in models]),
        ("GMAC", ",.2f", [_macs(m, height, width) / 1e9 for m in models]),
    ]
    if times:
        rows.append(("ms per image", ",.1f", times))
    for name, spelled, (one, other) in rows:
        table.add_row(name, format(one, spelled), format(other, spelled), f"{units.percent(other / one)} %")
    return table


def _macs(model: Model, height: int, width: int) -> int:
    """Of one forward pass, which reads the deepest head only."""
    return cost.macs(model.header.architecture, height, width, heads=(model.network.depth,))
