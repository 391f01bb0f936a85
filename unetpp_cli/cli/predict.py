"""`unetpp predict`."""

from __future__ import annotations

from typing import Annotated

import typer

from unetpp_cli.cli import completion
from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import (
    LOOK,
    RUN,
    WITHOUT_A_MODEL,
    OverlapOption,
    Precision,
    PrecisionOption,
    SizeOption,
    TileOption,
    TtaOption,
    depth_number,
)
from unetpp_cli.errors import UserError
from unetpp_cli.help import Command


@app.command(cls=Command)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Images, folders with all below them, globs such as 'drive/*.png', .zip or .tar archives, "
            "@list.txt (one path a line), or - for such a list on standard input; or one film.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A .png file for one image, a film (.mp4) or a folder of masks for a film, else a folder, "
            "in which the tree of the inputs is kept. Without it: NAME_mask.png beside each image, "
            "NAME_mask.mp4 beside a film; for NAME.zip the folder NAME_masks. Where two images differ in "
            "their suffix alone, NAME keeps it.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="palette,color,index,overlay,probs",
            help="What to write, separated by commas: palette PNG, RGB PNG in the class colours, grey PNG of "
            "class indices, the mask over the image, probabilities as .npz (float16). In a folder the first "
            "is NAME.png, the others NAME_overlay.png and so on.",
            rich_help_panel=LOOK,
        ),
    ] = "palette",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Short for --format overlay.", rich_help_panel=LOOK)
    ] = False,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Of a film compute every Nth frame only; its mask stands until the next.",
            rich_help_panel=RUN,
        ),
    ] = None,
    confidence: Annotated[
        bool,
        typer.Option(
            "--confidence",
            help="Also write NAME_entropy.png and NAME_disagreement.png: how unsure the answer is and how "
            "much the heads differ, from 0 (dark, not at all) to 255 (bright, as much as can be).",
            rich_help_panel=LOOK,
        ),
    ] = False,
    legend: Annotated[
        bool,
        typer.Option(
            "--legend", help="Name the classes beside overlays and colour pictures.", rich_help_panel=LOOK
        ),
    ] = False,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side",
            help="Put the image to the left of overlays and colour pictures.",
            rich_help_panel=LOOK,
        ),
    ] = False,
    opacity: Annotated[
        float,
        typer.Option(metavar="0..1", help="How much an overlay hides the image.", rich_help_panel=LOOK),
    ] = 0.5,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Skip images all of whose outputs exist.", rich_help_panel=LOOK),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first broken image (exit code 2). Without it: name it, go on (exit code 1).",
            rich_help_panel=LOOK,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FILE",
            autocompletion=completion.models,
            help=WITHOUT_A_MODEL,
            rich_help_panel=RUN,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=depth_number,
            help="Use the head at this depth; only what it needs is computed.",
            rich_help_panel=RUN,
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Average the probabilities of all heads up to the depth.", rich_help_panel=RUN
        ),
    ] = False,
    tta: TtaOption = "",
    size: SizeOption = None,
    tile: TileOption = None,
    overlap: OverlapOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Images of one size that are computed at once. Without it: 8 on a GPU, 1 on the CPU.",
            rich_help_panel=RUN,
        ),
    ] = None,
    gpus: Annotated[
        str,
        typer.Option(
            metavar="0|0,1|all|cpu",
            help="Where to compute; several GPUs share the images. Without it: GPU 0 if there is one, else "
            "the CPU. Under torchrun the processes share the images, too.",
            rich_help_panel=RUN,
        ),
    ] = "",
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Paint a mask for every image, or for every frame of a film.

    The mask is a palette PNG of the image's size: the pixel value is the class index, the colour the class's
    colour; class names, model, depth and precision stand in its text chunks.

    Examples:
        unetpp predict img.png -o mask.png
        unetpp predict drive/ -o masks/ --model runs/camvid-quick --format palette,overlay --legend
        unetpp predict drive.zip -o masks/ --skip-existing
        unetpp predict drive.mp4 -o masks.mp4 --overlay --every 2
        find . -name '*.jpg' -size -10M | unetpp predict - -o masks/
    """
    if overlay and formats not in ("palette", "overlay"):
        raise UserError(
            f"--overlay and --format {formats} exclude each other.", f"Write --format {formats},overlay."
        )
    from unetpp_cli.jobs.painting.request import PredictRequest
    from unetpp_cli.jobs.predict import predict as run

    code = run(
        PredictRequest(
            inputs=inputs,
            output=output,
            model=model,
            depth=depth,
            use_ensemble=ensemble,
            size=size,
            tta=tta,
            tile=tile,
            overlap=overlap,
            formats="overlay" if overlay else formats,
            every=every,
            confidence=confidence,
            legend=legend,
            side_by_side=side_by_side,
            opacity=opacity,
            skip_existing=skip_existing,
            strict=strict,
            batch_size=batch_size,
            gpus=gpus,
            precision=precision.value,
        )
    )
    if code:
        raise typer.Exit(code)
