"""`unetpp prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import OverwriteOption
from unetpp_cli.help import Command


@app.command(cls=Command)
def prune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Weights file or run folder.")],
    depth: Annotated[int, typer.Option(help="Keep the nodes X(i,j) with i + j <= depth.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Without it: MODEL-L<depth>.safetensors beside it."
        ),
    ] = None,
    single_head: Annotated[
        bool,
        typer.Option("--single-head", help="Drop the lower heads too; smallest, but not to be cut again."),
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Cut a model at a depth: fewer nodes, a smaller file, a faster net, the very same answers of that head.

    Before anything is written, the command proves on probe images that the logits of the pruned net equal the
    full net's at that depth, bit for bit.

    Examples:
        unetpp prune --depth 3 model.safetensors
        unetpp prune --depth 2 runs/demo-quick -o small.safetensors --single-head
    """
    from unetpp_cli.jobs.prune import prune as run
    from unetpp_cli.jobs.runs import find_model

    run(find_model(model)[0], depth, output=output, single_head=single_head, overwrite=overwrite)
