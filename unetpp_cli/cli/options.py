"""Options that several commands share: one spelling, one help text."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from unetpp_cli.cli import completion
from unetpp_cli.values import read_names

RUN, NETWORK, DATA, LEARNING, LOOK = "Run", "Network", "Data", "Optimisation", "Output"


WITHOUT_A_MODEL = (
    "Weights file or run folder. Without it: $UNETPP_MODEL, else the newest run (the demo's do not count), "
    "else the built-in CamVid weights (camvid11)."
)
"""What stands in the help of whatever takes one model."""


class Precision(str, enum.Enum):
    """Arithmetic of the network."""

    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


class Split(str, enum.Enum):
    """The splits of a data set."""

    train = "train"
    val = "val"
    test = "test"


def depth_number(text: str) -> int:
    """A depth as typed. `auto` is for prune, which measures; elsewhere a head must be named."""
    if not text.isdecimal():
        hint = " (only prune chooses one)" if text == "auto" else ""
        raise typer.BadParameter(f"'{text}' is no depth{hint}; write a number such as 3.")
    return int(text)


ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", autocompletion=completion.models, help=WITHOUT_A_MODEL),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH",
        autocompletion=completion.data,
        help="Folder, .zip or .tar of images and masks in any CamVid layout or images/ + masks/, or the "
        "https:// address of one (with #sha256=... to be sure); or 'demo'.",
        rich_help_panel=DATA,
    ),
]
SplitByOption = Annotated[
    str | None,
    typer.Option(
        "--split-by",
        metavar="segnet|random",
        help="'segnet': the CamVid benchmark's frame lists instead of the data's own split.",
        rich_help_panel=DATA,
    ),
]
HoldOutOption = Annotated[
    str | None,
    typer.Option(
        "--hold-out",
        metavar="NAME,...|@FILE",
        callback=lambda text: text and read_names(text),
        help="Sequences, beginnings of names or names that are val, whatever the data's own split says "
        "(0001TP); @FILE lists them, one a line. eval and prune follow the training: '' for nothing.",
        rich_help_panel=DATA,
    ),
]
GpusOption = Annotated[
    str,
    typer.Option(
        "--gpus",
        metavar="0|all|cpu",
        help="Where to compute. Without it: GPU 0 if there is one, else the CPU.",
        rich_help_panel=RUN,
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WxH|N|native",
        help="Size at which images meet the network, instead of the model's own: stretched to WxH, "
        "short side N, or as they are. Masks always have the image's size.",
        rich_help_panel=RUN,
    ),
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Arithmetic of the network.", rich_help_panel=RUN)
]
TtaOption = Annotated[
    str,
    typer.Option(
        "--tta",
        metavar="flip,scales",
        help="Average over the mirrored image, over three sizes (0.75, 1, 1.25), or both.",
        rich_help_panel=RUN,
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option(
        "--tile",
        min=1,
        metavar="PIXELS",
        help="Compute in squares of this side, with the result of the whole (with --tta scales: a similar "
        "one). Without it: only where memory would not do.",
        rich_help_panel=RUN,
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        min=0,
        metavar="PIXELS",
        help="Let tiles overlap by less than exactness needs, and blend them.",
        rich_help_panel=RUN,
    ),
]

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output file, whatever it is.")
]
