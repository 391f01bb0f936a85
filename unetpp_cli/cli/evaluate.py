"""`unetpp eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import (
    DATA,
    LOOK,
    DataOption,
    GpusOption,
    Precision,
    PrecisionOption,
    SizeOption,
    Split,
    SplitByOption,
)
from unetpp_cli.help import Command


@app.command("eval", cls=Command)
def eval_(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Weights file or run folder. Without it: the newest run."),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Which images. Without it: test if there is one, else val.", rich_help_panel=DATA),
    ] = None,
    split_by: SplitByOption = None,
    size: SizeOption = None,
    gpus: GpusOption = "",
    precision: PrecisionOption = Precision.fp32,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with fractions for per cent.", rich_help_panel=LOOK)
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time each depth.", rich_help_panel=LOOK)
    ] = True,
) -> None:
    """Score a model at every depth, and say what each depth costs.

    One confusion matrix over the whole split, void left out, at the masks' own size. The rows L1, L2, ... are
    what 'unetpp prune --depth' would leave; 'ensemble' is the mean of all heads.

    Examples:
        unetpp eval --data demo
        unetpp eval model.safetensors --data ./camvid --split val --json
    """
    from unetpp_cli.jobs.evaluate import EvalRequest, eval_model

    eval_model(
        EvalRequest(
            model=model,
            data=data,
            split=split.value if split else None,
            split_by=split_by,
            size=size,
            gpus=gpus,
            precision=precision.value,
            as_json=as_json,
            timing=timing,
        )
    )
