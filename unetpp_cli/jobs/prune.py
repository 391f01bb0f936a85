"""`unetpp prune`: cut a network at a depth, prove its heads unchanged, write it, show what was won."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table

from unetpp_cli.devices import place
from unetpp_cli.errors import UserError
from unetpp_cli.network import cost, pruning
from unetpp_cli.network.weights import Model, derived_from, load_model, save_model
from unetpp_cli.report import console, units

_SAMPLE = (360, 480)
"""(H, W) of the image whose cost is shown, before the geometry of the file is applied: CamVid's frames."""


def prune(
    model: Path,
    depth: int,
    *,
    output: Path | None = None,
    single_head: bool = False,
    overwrite: bool = False,
) -> Path:
    """Writes `model` cut at `depth` to `output` (`NAME-L<depth>.safetensors` beside it by default).

    The proof comes first, then the file (all of it or nothing), then a table of what was won.

    Args:
        model: a weights file.
        depth: of the head that becomes the deepest.
        output: the file to write; a pruned file of the same model is replaced by itself.
        single_head: drop the shallower heads, too.
        overwrite: replace `output` whatever it is, `model` excepted.

    Returns:
        The file that was written.

    Raises:
        UserError: the model cannot be read, has no such head, or `output` may not be written.
    """
    target = output or model.with_name(f"{model.stem}-L{depth}.safetensors")
    if target.suffix != ".safetensors":
        raise UserError(f"Weights are safetensors only: -o {target}.", "End its name with .safetensors.")
    if target.exists() and model.exists() and target.samefile(model):
        raise UserError(f"{target} is the model itself; prune does not overwrite it.", "Choose another -o.")
    full = load_model(model)
    if target.exists() and not overwrite and not derived_from(target, full.hash):
        raise UserError(
            f"{target} exists, and was not pruned from {model}.", "Choose another -o, or --overwrite."
        )

    network, header = pruning.prune(full, depth, single_head=single_head)
    proof = pruning.verify(full.network, network, depth)
    header = replace(header, origin={**header.origin, "proof": proof.to_json()})
    save_model(target, network, header)

    heads = ", ".join(map(str, proof.heads))
    console.say(
        f"Logits of head{'s' if len(proof.heads) > 1 else ''} {heads} equal those of {model} bit for bit."
    )
    pruned = Model(network, header, target, "")
    with console.err.status("Measuring the time per image ..."):
        table = _table(full, pruned)
    console.out.print(table)
    console.say(f"Wrote {target}")
    return target


def _table(before: Model, after: Model) -> Table:
    """Parameters, file size, GMAC and time per image of two models, and their ratios."""
    height, width = before.header.geometry.size(*_SAMPLE)
    table = Table(title=f"{width}x{height} pixels, batch 1", title_justify="left")
    table.add_column("")
    table.add_column(f"before, L{before.network.depth}", justify="right")
    table.add_column(f"after, L{after.network.depth}", justify="right")
    table.add_column("remains", justify="right")
    models = (before, after)
    rows: tuple[tuple[str, Callable[[float], str], list[float]], ...] = (
        ("parameters", "{:,.0f}".format, [cost.parameters(m.header.architecture) for m in models]),
        ("file size, MB", "{:,.2f}".format, [m.path.stat().st_size / 1e6 for m in models]),
        ("GMAC", "{:,.2f}".format, [_macs(m, height, width) / 1e9 for m in models]),
        ("ms per image", "{:,.1f}".format, [_milliseconds(m, height, width) for m in models]),
    )
    for name, spelled, (one, other) in rows:
        table.add_row(name, spelled(one), spelled(other), f"{units.percent(other / one)} %")
    return table


def _milliseconds(model: Model, height: int, width: int) -> float:
    """On the CPU, in the memory layout in which eval and predict run."""
    return cost.milliseconds(place(model.network, torch.device("cpu")), height, width)


def _macs(model: Model, height: int, width: int) -> int:
    """Of one forward pass, which reads the deepest head only."""
    return cost.macs(model.header.architecture, height, width, heads=(model.network.depth,))
