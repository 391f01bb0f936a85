"""What looks at data before anything is trained: `unetpp check` and `unetpp demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetpp_cli.cli import completion
from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import HoldOutOption, SplitByOption
from unetpp_cli.config import describe
from unetpp_cli.help import Command


@app.command(cls=Command)
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Folder or archive of images and masks.")],
    classes: Annotated[
        str | None,
        typer.Option(metavar="SET", autocompletion=completion.class_sets, help=describe("classes")),
    ] = None,
    split_by: SplitByOption = None,
    hold_out: HoldOutOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at a data set before training on it: layout, pairs, sizes, classes, problems.

    Exit code 2 when there is a problem that training would refuse.

    Examples:
        unetpp check ./camvid
        unetpp check camvid.zip --classes camvid11
    """
    from unetpp_cli.jobs.check import check as run
    from unetpp_cli.jobs.check import show

    report = run(path, classes, split_by, hold_out)
    show(report, json=as_json)
    if not report.ok:
        raise typer.Exit(2)


@app.command(cls=Command)
def relabel(
    source: Annotated[str, typer.Argument(metavar="DATA", help="Folder or archive of images and masks.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="A new folder.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="segnet|original|kaggle|fastai|cvat|plain",
            help="The layout to write; plain is images/ + masks/ + classes.txt.",
        ),
    ] = "plain",
    classes: Annotated[
        str | None,
        typer.Option(metavar="SET", autocompletion=completion.class_sets, help=describe("classes")),
    ] = None,
    split_by: SplitByOption = None,
) -> None:
    """Write a data set in another layout: images as they are, masks bit for bit.

    What was written is read back and compared before the folder gets its name.

    Examples:
        unetpp relabel ./original -o ./camvid --to segnet --classes camvid11
        unetpp relabel cvat-export.zip -o ./mine --to plain
    """
    from unetpp_cli.jobs.relabel import relabel as run

    run(source, output, to, classes, split_by)


@app.command(cls=Command)
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
) -> None:
    """Write the embedded demo data set as files: drawn street scenes in SegNet's layout.

    'unetpp train --data demo' needs no files; this is for looking at them, or for predicting one.

    Examples:
        unetpp demo ./scenes
        unetpp demo ./scenes && unetpp predict ./scenes/test -o masks/
    """
    from unetpp_cli.data.demo import write_demo
    from unetpp_cli.report import console

    files = write_demo(folder)
    console.say(f"{len(files)} files in {folder}")
