"""`unetpp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import (
    DATA,
    HoldOutOption,
    ModelArgument,
    OverwriteOption,
    Split,
    SplitByOption,
    depth_number,
)
from unetpp_cli.help import Command

FORM, QUANTISED = "Form", "8 bits"


@app.command(cls=Command)
def export(
    model: ModelArgument = None,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write: .onnx or .pt2.")
    ],
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=depth_number,
            help="The head to export. Without it: the deepest.",
            rich_help_panel=FORM,
        ),
    ] = None,
    all_depths: Annotated[
        bool,
        typer.Option("--all-depths", help="Every head up to --depth is an output.", rich_help_panel=FORM),
    ] = False,
    argmax: Annotated[
        bool,
        typer.Option("--argmax", help="Outputs are masks (uint8), not logits.", rich_help_panel=FORM),
    ] = False,
    normalize: Annotated[
        bool,
        typer.Option(
            "--with-normalize",
            help="The input is a picture as it is decoded (uint8, N x H x W x C), not a normalised tensor.",
            rich_help_panel=FORM,
        ),
    ] = False,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Inputs of any size and number.", rich_help_panel=FORM)
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="The one size of all inputs.", rich_help_panel=FORM),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit integers, calibrated on training images of --data; what that costs is measured.",
            rich_help_panel=QUANTISED,
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="PATH", help="For --int8. Without it: the run's own.", rich_help_panel=DATA
        ),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="What --int8 is measured on. Without it: val.", rich_help_panel=DATA),
    ] = None,
    split_by: SplitByOption = None,
    hold_out: HoldOutOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model for other runtimes, as ONNX or as a torch.export program.

    The file is checked against torch before it gets its name; when they differ nothing is written. Class
    names, colours, input size and normalisation stand in its metadata; 'predict' and 'eval' take .onnx files
    like weights. ONNX needs: pip install 'unetpp[onnx]'.

    Examples:
        unetpp export model.safetensors -o model.onnx --dynamic
        unetpp export model.safetensors -o phone.onnx --depth 2 --size 480x360 --argmax --with-normalize
        unetpp export runs/camvid -o small.onnx --int8 --data ./camvid
        unetpp export model.safetensors -o model.pt2 --all-depths
    """
    from unetpp_cli.jobs.export import ExportRequest
    from unetpp_cli.jobs.export import export as run
    from unetpp_cli.jobs.runs import find_model, shown
    from unetpp_cli.report import console

    path, why = find_model(model, data)
    if not model:
        console.say(f"Model: {shown(path)} ({why})")
    run(
        ExportRequest(
            model=path,
            output=output,
            depth=depth,
            all_depths=all_depths,
            argmax=argmax,
            normalize=normalize,
            dynamic=dynamic,
            size=size,
            int8=int8,
            data=data,
            split=split.value if split else None,
            split_by=split_by,
            hold_out=hold_out,
            overwrite=overwrite,
        )
    )
