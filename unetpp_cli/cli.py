"""The command line: names, options and help; each command is one call into a job.

Imports neither torch nor anything that does, so that help, completion and a mistyped option answer at once.
Errors of the user's are caught here and nowhere else. Exit codes: 0 done, 1 some inputs failed, 2 usage or
data error, 130 and 143 interrupted.
"""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unetpp_cli.allocator import keep_pages
from unetpp_cli.config import TrainConfig, describe, read_config_file, read_recipe, recipe_names, resolve
from unetpp_cli.errors import UserError
from unetpp_cli.help import Command, Group
from unetpp_cli.version import __version__

RUN, NETWORK, DATA, LEARNING, LOOK = "Run", "Network", "Data", "Optimisation", "Output"


class Commands(Group):
    """All commands: turns what the user can mend into a message and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command named; see the class."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            if os.environ.get("UNETPP_DEBUG"):
                raise
            from unetpp_cli.report import console

            console.error(error.problem, error.cure)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(130) from interrupt
        except BrokenPipeError as closed:  # `unetpp info ... | head`: nobody listens any more
            sys.stderr.close()
            raise typer.Exit(1) from closed


app = typer.Typer(
    name="unetpp",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """The entry point of the `unetpp` command."""
    keep_pages()
    app(prog_name="unetpp")


class Precision(str, enum.Enum):
    """Arithmetic of the network."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Split(str, enum.Enum):
    """The splits of a data set."""

    train = "train"
    val = "val"
    test = "test"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"unetpp {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Semantic segmentation with UNet++: train it, see what each depth is worth, prune it, paint masks.

    Start with: unetpp train --data demo
    """


DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Folder, .zip or .tar of images and masks in any CamVid layout or images/ + masks/; or 'demo'.",
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

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output file, whatever it is.")
]


@app.command(cls=Command)
def train(
    data: DataOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(recipe_names()),
            autocompletion=recipe_names,
            help="Where the settings start: quick (small, for a CPU), camvid (for a GPU), "
            "blog (the article's). Without it: quick for the demo or without a GPU, else camvid.",
            rich_help_panel=RUN,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML of settings over the recipe; a run's config.yaml repeats the run.",
            rich_help_panel=RUN,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The run's folder. Without it: runs/DATA-RECIPE.", rich_help_panel=RUN
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="0|all|cpu", help=describe("gpus"), rich_help_panel=RUN),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic; auto is bf16 where native.", rich_help_panel=RUN)
    ] = None,
    workers: Annotated[int | None, typer.Option(help=describe("workers"), rich_help_panel=RUN)] = None,
    seed: Annotated[int | None, typer.Option(help=describe("seed"), rich_help_panel=RUN)] = None,
    save_every: Annotated[
        int | None, typer.Option(metavar="N", help=describe("save_every"), rich_help_panel=RUN)
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="SET", help=describe("classes"), rich_help_panel=DATA)
    ] = None,
    split_by: SplitByOption = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH|N|native", help=describe("size"), rich_help_panel=DATA)
    ] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="auto|on|off", help=describe("cache"), rich_help_panel=DATA)
    ] = None,
    width: Annotated[int | None, typer.Option(help=describe("width"), rich_help_panel=NETWORK)] = None,
    depth: Annotated[int | None, typer.Option(help=describe("depth"), rich_help_panel=NETWORK)] = None,
    epochs: Annotated[int | None, typer.Option(help=describe("epochs"), rich_help_panel=LEARNING)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=describe("batch_size"), rich_help_panel=LEARNING)
    ] = None,
    lr: Annotated[float | None, typer.Option(help=describe("lr"), rich_help_panel=LEARNING)] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="adamw|sgd", help="Optimiser.", rich_help_panel=LEARNING)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=describe("schedule"), rich_help_panel=LEARNING),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="ce|ce+dice", help="Loss of each head.", rich_help_panel=LEARNING),
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(metavar="RULE", help=describe("class_weights"), rich_help_panel=LEARNING),
    ] = None,
    head_weights: Annotated[
        str | None,
        typer.Option(metavar="RULE", help=describe("head_weights"), rich_help_panel=LEARNING),
    ] = None,
    ema: Annotated[
        float | None, typer.Option(metavar="DECAY", help=describe("ema"), rich_help_panel=LEARNING)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting by its name in config.yaml; may be repeated.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
) -> None:
    """Train a UNet++ and leave a run folder: weights, history, curves, samples.

    Every depth has a head and a loss of its own (deep supervision), so the result can be cut at any depth.
    Ctrl-C finishes the step and saves the weights.

    Examples:
        unetpp train --data demo
        unetpp train --data ./camvid --recipe camvid --gpus 0
        unetpp train --data camvid.zip --recipe quick --epochs 10 --width 16
    """
    given: dict[str, Any] = {
        "data": data,
        "out": out,
        "gpus": gpus,
        "precision": precision.value if precision else None,
        "workers": workers,
        "seed": seed,
        "save_every": save_every,
        "classes": classes,
        "split_by": split_by,
        "size": size,
        "cache": cache,
        "width": width,
        "depth": depth,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "schedule": schedule,
        "loss": loss,
        "class_weights": class_weights,
        "head_weights": head_weights,
        "ema": ema,
    }
    flags = {key: value for key, value in given.items() if value is not None}
    file = read_config_file(config) if config else {}
    base = recipe or file.pop("recipe", None)
    file.pop("recipe", None)
    layers = ((str(config), file), ("--set", _settings(settings)), ("command line", flags))

    def resolved(name: str) -> TrainConfig:
        return resolve((f"recipe {name}", read_recipe(name)), *layers)

    # All that can be wrong with the settings is said before torch is imported.
    wanted = resolved(base or "quick")
    if not wanted.data:
        raise UserError("--data is missing: what shall the network learn from?", "Try --data demo.")
    from unetpp_cli.devices import parse_gpus

    parse_gpus(wanted.gpus)

    from unetpp_cli.jobs.train import choose_recipe, train

    name, note = (base, "") if base else choose_recipe(wanted)
    outcome = train(resolved(name), name, note)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


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


@app.command(cls=Command)
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Folder or archive of images and masks.")],
    classes: Annotated[str | None, typer.Option(metavar="SET", help=describe("classes"))] = None,
    split_by: SplitByOption = None,
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

    report = run(path, classes, split_by)
    show(report, json=as_json)
    if not report.ok:
        raise typer.Exit(2)


@app.command(cls=Command)
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Weights file or run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole header as JSON.")] = False,
) -> None:
    """Print what a weights file says about itself: architecture, classes, recipe, scores, origin.

    Examples:
        unetpp info runs/demo-quick
        unetpp info model.safetensors --json
    """
    from unetpp_cli.jobs.info import info as run
    from unetpp_cli.jobs.runs import find_model

    run(find_model(model)[0], json=as_json)


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


def _settings(entries: list[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` entries as keys; the value is read as YAML."""
    import yaml

    values: dict[str, Any] = {}
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"--set {entry} has no '='.", "Write --set clip=5.")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {entry}: the value cannot be read.", "Quote it.") from error
    return values
