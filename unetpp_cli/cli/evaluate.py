"""`unetpp eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from unetpp_cli.cli import completion
from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import (
    DATA,
    LOOK,
    RUN,
    DataOption,
    GpusOption,
    HoldOutOption,
    OverlapOption,
    Precision,
    PrecisionOption,
    SizeOption,
    Split,
    SplitByOption,
    TileOption,
    TtaOption,
)
from unetpp_cli.errors import UserError
from unetpp_cli.help import Command


@app.command("eval", cls=Command)
def eval_(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL...]",
            autocompletion=completion.models,
            help="Weights files or run folders, compared with the first one. Without any: $UNETPP_MODEL, "
            "else the newest run (the demo's count with --data demo), else the built-in CamVid weights.",
        ),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Which images. Without it: test if there is one, else val.", rich_help_panel=DATA),
    ] = None,
    split_by: SplitByOption = None,
    hold_out: HoldOutOption = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(
            "--pred",
            metavar="PATH",
            help="Score mask PNGs of any tool: a folder or archive. Without a model, or beside one.",
            rich_help_panel=DATA,
        ),
    ] = None,
    size: SizeOption = None,
    tta: TtaOption = "",
    tile: TileOption = None,
    overlap: OverlapOption = None,
    gpus: GpusOption = "",
    precision: PrecisionOption = Precision.fp32,
    block: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Consecutive frames that the intervals' bootstrap draws together; 1 = single images. "
            "Without it: 20 (the demo's scenes: 1).",
            rich_help_panel=RUN,
        ),
    ] = None,
    boundary: Annotated[
        bool,
        typer.Option("--boundary/--no-boundary", help="Score boundaries, too (BF).", rich_help_panel=LOOK),
    ] = True,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time each depth.", rich_help_panel=LOOK)
    ] = True,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Leave plots, sheets of the best and the worst images, and all tables there.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with fractions for per cent.", rich_help_panel=LOOK)
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, a line per depth.", rich_help_panel=LOOK)
    ] = False,
) -> None:
    """Score a model at every depth, say what each depth costs, and compare models.

    One confusion matrix over the whole split, void left out, at the masks' own size. The rows L1, L2, ... are
    what 'unetpp prune --depth' would leave; 'ensemble' is the mean of all heads. BF is the boundary F1 score.
    The intervals come from a bootstrap over blocks of consecutive frames, paired where two are compared.

    Examples:
        unetpp eval --data demo --out eval
        unetpp eval model.safetensors --data ./camvid --split val --json
        unetpp eval old.safetensors new.safetensors --data ./camvid
        unetpp eval --pred masks/ --data ./camvid --split test
    """
    from unetpp_cli.jobs.evaluate import EvalRequest, eval_model

    if as_json and as_csv:
        raise UserError("--json and --csv exclude each other.", "Choose one; --out FOLDER writes both.")
    eval_model(
        EvalRequest(
            models=models or (),
            masks=masks or (),
            data=data,
            split=split.value if split else None,
            split_by=split_by,
            hold_out=hold_out,
            size=size,
            tta=tta,
            tile=tile,
            overlap=overlap,
            gpus=gpus,
            precision=precision.value,
            block=block,
            boundary=boundary,
            timing=timing,
            out=out,
            form="json" if as_json else "csv" if as_csv else "tables",
        )
    )
