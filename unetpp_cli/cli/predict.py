"""`unetpp predict`."""

from __future__ import annotations

from typing import Annotated

import typer

from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import LOOK, RUN, GpusOption, Precision, PrecisionOption, SizeOption
from unetpp_cli.help import Command


@app.command(cls=Command)
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Images, folders, or globs such as 'drive/*.png'.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A .png file for one image, a folder for several. Without it: NAME_mask.png beside it.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FILE",
            help="Weights file or run folder. Without it: $UNETPP_MODEL, else the newest run.",
            rich_help_panel=RUN,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Use the head at this depth; only what it needs is computed.", rich_help_panel=RUN),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Average the probabilities of all heads up to the depth.", rich_help_panel=RUN
        ),
    ] = False,
    size: SizeOption = None,
    gpus: GpusOption = "",
    precision: PrecisionOption = Precision.fp32,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay", help="Also write NAME_overlay.png: the mask over the image.", rich_help_panel=LOOK
        ),
    ] = False,
    legend: Annotated[
        bool,
        typer.Option(
            "--legend", help="Name the classes beside the overlay (implies it).", rich_help_panel=LOOK
        ),
    ] = False,
) -> None:
    """Paint a mask for every image.

    The mask is a palette PNG of the image's size: the pixel value is the class index, the colour the class's
    colour; class names, model, depth and precision stand in its text chunks.

    Examples:
        unetpp predict img.png -o mask.png
        unetpp predict drive/ -o masks/ --model runs/camvid-quick --overlay --legend
    """
    from unetpp_cli.jobs.predict import PredictRequest
    from unetpp_cli.jobs.predict import predict as run

    code = run(
        PredictRequest(
            inputs=inputs,
            output=output,
            model=model,
            depth=depth,
            use_ensemble=ensemble,
            size=size,
            overlay=overlay,
            legend=legend,
            gpus=gpus,
            precision=precision.value,
        )
    )
    if code:
        raise typer.Exit(code)
