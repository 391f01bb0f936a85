"""What reads weights files: `unetpp info` and `unetpp convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import ModelArgument, OverwriteOption
from unetpp_cli.errors import UserError
from unetpp_cli.help import Command


@app.command(cls=Command)
def info(
    model: ModelArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole header as JSON.")] = False,
    as_card: Annotated[
        bool, typer.Option("--card", help="Print a model card (Markdown), as model hubs show it.")
    ] = False,
) -> None:
    """Print what a weights file says about itself: architecture, classes, recipe, scores, origin.

    Examples:
        unetpp info runs/demo-quick
        unetpp info model.safetensors --json
        unetpp info model.safetensors --card > README.md
    """
    if as_json and as_card:
        raise UserError("--json and --card exclude each other.", "Choose one.")
    from unetpp_cli.jobs.info import info as run
    from unetpp_cli.jobs.runs import find_model

    path = find_model(model)[0]
    if as_card:
        from unetpp_cli.jobs.card import card

        print(card(path), end="")
    else:
        run(path, json=as_json)


@app.command(cls=Command)
def convert(
    pth: Annotated[
        Path, typer.Argument(metavar="FILE.pth", help="State dict of the article's training loop.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The weights file to write.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="SET|FILE",
            help="A class set (camvid33) or a text file, a class name a line; else class_0, class_1, ...",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert the article's .pth weights into a self-describing safetensors file.

    Examples:
        unetpp convert old.pth -o new.safetensors --classes camvid33
        unetpp convert old.pth -o new.safetensors --classes names.txt
    """
    from unetpp_cli.jobs.convert import convert as run

    run(pth, output=output, classes=classes, overwrite=overwrite)
