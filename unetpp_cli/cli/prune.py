"""`unetpp prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import (
    DATA,
    LOOK,
    DataOption,
    GpusOption,
    HoldOutOption,
    ModelArgument,
    OverwriteOption,
    Precision,
    PrecisionOption,
    SizeOption,
    Split,
    SplitByOption,
)
from unetpp_cli.help import Command

CHOICE = "Choice"


@app.command(cls=Command)
def prune(
    *,
    model: ModelArgument = None,
    depth: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Keep the nodes X(i,j) with i + j <= N; 'auto' measures every depth and chooses.",
            rich_help_panel=CHOICE,
        ),
    ],
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="auto: the smallest depth at most so many points of mIoU below the deepest. "
            "Without any limit: 0.5.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="auto: at most so many milliseconds per image here. Without --max-drop: the most accurate "
            "depth within the budget.",
            rich_help_panel=CHOICE,
        ),
    ] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(metavar="MB", help="auto: a file of at most so many MB.", rich_help_panel=CHOICE),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        Split | None,
        typer.Option(help="What auto and --half are measured on. Without it: val.", rich_help_panel=DATA),
    ] = None,
    split_by: SplitByOption = None,
    hold_out: HoldOutOption = None,
    size: SizeOption = None,
    gpus: GpusOption = "",
    precision: PrecisionOption = Precision.fp32,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Without it: MODEL-L<depth>[-half].safetensors beside it (of built-in weights: here).",
            rich_help_panel=LOOK,
        ),
    ] = None,
    single_head: Annotated[
        bool,
        typer.Option(
            "--single-head",
            help="Drop the lower heads too; smallest, but not to be cut again.",
            rich_help_panel=LOOK,
        ),
    ] = False,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Store convolutions in fp16: half the file, and a change that is measured.",
            rich_help_panel=LOOK,
        ),
    ] = False,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing/--no-timing",
            help="Measure ms per image; without it equal runs write equal bytes.",
            rich_help_panel=LOOK,
        ),
    ] = True,
    overwrite: OverwriteOption = False,
) -> None:
    """Cut a model at a depth: fewer nodes, a smaller file, a faster net, the very same answers of that head.

    Before anything is written, the command proves on probe images that the logits of the pruned net equal the
    full net's at that depth, bit for bit. With --depth auto it drops what your data do not need: when head 3
    does as well as head 4, level 4 goes.

    Examples:
        unetpp prune --depth 3 model.safetensors
        unetpp prune --depth auto --data ./camvid --max-drop 0.5 runs/camvid
        unetpp prune --depth auto --data ./camvid --max-ms 20 --max-mb 4 --half model.safetensors
        unetpp prune --depth 2 runs/demo-quick -o small.safetensors --single-head
    """
    from unetpp_cli.jobs.prune import PruneRequest
    from unetpp_cli.jobs.prune import prune as run
    from unetpp_cli.jobs.runs import find_model
    from unetpp_cli.jobs.scoring.choose import Limits

    path, why = find_model(model, data)
    run(
        PruneRequest(
            model=path,
            why="" if model else why,
            depth=depth,
            output=output,
            single_head=single_head,
            half=half,
            overwrite=overwrite,
            limits=Limits(max_drop, max_ms, max_mb),
            data=data,
            split=split.value if split else None,
            split_by=split_by,
            hold_out=hold_out,
            size=size,
            gpus=gpus,
            precision=precision.value,
            timing=timing,
        )
    )
