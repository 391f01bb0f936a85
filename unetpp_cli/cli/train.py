"""`unetpp train`: settings out of a recipe, a file, the command line or the run to be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unetpp_cli.cli import completion
from unetpp_cli.cli.app import app
from unetpp_cli.cli.options import (
    DATA,
    LEARNING,
    NETWORK,
    RUN,
    DataOption,
    HoldOutOption,
    Precision,
    SplitByOption,
)
from unetpp_cli.config import TrainConfig, describe, read_config_file, read_recipe, recipe_names, resolve
from unetpp_cli.devices import parse_gpus, request_determinism
from unetpp_cli.errors import UserError
from unetpp_cli.help import Command
from unetpp_cli.jobs.learning.resume import Request, compare, find_run, settings_of

if TYPE_CHECKING:
    from unetpp_cli.jobs.train import Outcome

Layer = tuple[str, Mapping[str, Any]]


@app.command(cls=Command)
def train(
    data: DataOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(recipe_names()),
            autocompletion=completion.recipes,
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
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="last|auto|DIR",
            autocompletion=completion.runs,
            help="Go on where a run was stopped or killed: the newest, a run folder, or with 'auto' the one "
            "in --out if it has begun. Settings are the run's; others given here win and are listed.",
            rich_help_panel=RUN,
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="0|0,1|all|cpu", help=describe("gpus"), rich_help_panel=RUN),
    ] = None,
    max_restarts: Annotated[
        int | None, typer.Option(metavar="N", help=describe("max_restarts"), rich_help_panel=RUN)
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic; auto is bf16 where native.", rich_help_panel=RUN)
    ] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help=describe("deterministic"), rich_help_panel=RUN)
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile", help=describe("compile"), rich_help_panel=RUN)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help=describe("workers"), rich_help_panel=RUN)
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help=describe("seed"), rich_help_panel=RUN)] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help=describe("time_limit"), rich_help_panel=RUN)
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(metavar="N", help=describe("save_every"), rich_help_panel=RUN)
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard", help=describe("tensorboard"), rich_help_panel=RUN)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            autocompletion=completion.class_sets,
            help=describe("classes"),
            rich_help_panel=DATA,
        ),
    ] = None,
    split_by: SplitByOption = None,
    hold_out: HoldOutOption = None,
    progressive: Annotated[
        str | None,
        typer.Option(metavar="SCALE:SHARE,...", help=describe("progressive"), rich_help_panel=DATA),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH|N|native", help=describe("size"), rich_help_panel=DATA)
    ] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="auto|on|off", help=describe("cache"), rich_help_panel=DATA)
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Write a sheet of augmented training images and stop.",
            rich_help_panel=DATA,
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(metavar="N", help=describe("width"), rich_help_panel=NETWORK)
    ] = None,
    depth: Annotated[
        int | None, typer.Option(metavar="N", help=describe("depth"), rich_help_panel=NETWORK)
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=completion.models,
            help=describe("init_from"),
            rich_help_panel=NETWORK,
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help=describe("epochs"), rich_help_panel=LEARNING)
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N|auto", help=describe("batch_size"), rich_help_panel=LEARNING)
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(metavar="N", help=describe("accumulate"), rich_help_panel=LEARNING)
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help=describe("lr"), rich_help_panel=LEARNING)
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="adamw|sgd", help="Optimiser.", rich_help_panel=LEARNING)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=describe("schedule"), rich_help_panel=LEARNING),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(metavar="NORM", help=describe("clip"), rich_help_panel=LEARNING)
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="NAME", help=describe("loss"), rich_help_panel=LEARNING)
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help=describe("label_smoothing"), rich_help_panel=LEARNING),
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(metavar="RULE", help=describe("class_weights"), rich_help_panel=LEARNING),
    ] = None,
    head_weights: Annotated[
        str | None,
        typer.Option(metavar="RULE", help=describe("head_weights"), rich_help_panel=LEARNING),
    ] = None,
    distill: Annotated[
        float | None, typer.Option(metavar="SHARE", help=describe("distill"), rich_help_panel=LEARNING)
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=completion.models,
            help=describe("teacher"),
            rich_help_panel=LEARNING,
        ),
    ] = None,
    ema: Annotated[
        float | None, typer.Option(metavar="DECAY", help=describe("ema"), rich_help_panel=LEARNING)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help=describe("patience"), rich_help_panel=LEARNING)
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
    Ctrl-C finishes the step and saves the state, a kill costs the last minutes at most, and --resume goes on
    exactly where the state stands. --gpus 0,1 trains on both GPUs; torchrun on several machines.

    Examples:
        unetpp train --data demo
        unetpp train --data ./camvid --recipe camvid --gpus 0
        unetpp train --data camvid.zip --recipe quick --epochs 10 --width 16
        unetpp train --data ./camvid --gpus 0,1 --batch-size 16 --time-limit 8h
        unetpp train --resume last
    """
    given = {
        "data": data,
        "out": out,
        "gpus": gpus,
        "max_restarts": max_restarts,
        "precision": precision.value if precision else None,
        "deterministic": deterministic,
        "compile": compile_,
        "workers": workers,
        "seed": seed,
        "time_limit": time_limit,
        "save_every": save_every,
        "tensorboard": tensorboard,
        "classes": classes,
        "split_by": split_by,
        "hold_out": hold_out,
        "size": size,
        "progressive": progressive,
        "cache": cache,
        "width": width,
        "depth": depth,
        "init_from": init_from,
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "lr": lr,
        "optimizer": optimizer,
        "schedule": schedule,
        "clip": clip,
        "loss": loss,
        "label_smoothing": label_smoothing,
        "class_weights": class_weights,
        "head_weights": head_weights,
        "distill": distill,
        "teacher": teacher,
        "ema": ema,
        "patience": patience,
    }
    flags = {key: value for key, value in given.items() if value is not None}
    file = read_config_file(config) if config else {}
    named = recipe or file.pop("recipe", None)
    file.pop("recipe", None)
    layers = [(str(config), file), ("--set", _settings(settings)), ("command line", flags)]
    folder = find_run(resume, out or "") if resume else None
    if folder is not None:
        request = _resumption(folder, recipe, layers)
    else:
        request = _beginning(named, layers)
    take_over = resume == "auto" and folder is None
    outcome = run_training(replace(request, preview=preview, take_over=take_over))
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _beginning(recipe: str | None, layers: Sequence[Layer]) -> Request:
    """A new run: the recipe named, or the one that suits data and device, under the other layers."""

    def resolved(name: str) -> TrainConfig:
        return resolve((f"recipe {name}", read_recipe(name)), *layers)

    # All that can be wrong with the settings is said before torch is imported.
    wanted = resolved(recipe or "quick")
    if not wanted.data:
        raise UserError("--data is missing: what shall the network learn from?", "Try --data demo.")
    parse_gpus(wanted.gpus)
    if wanted.deterministic:
        request_determinism()
    if recipe:
        return Request(wanted, recipe)
    from unetpp_cli.jobs.train import choose_recipe

    name, note = choose_recipe(wanted)
    return Request(resolved(name), name, note)


def _resumption(folder: Path, recipe: str | None, layers: Sequence[Layer]) -> Request:
    """The run in `folder`, with its own settings under the other layers."""
    name, saved = settings_of(folder)
    if recipe and recipe != name:
        raise UserError(
            f"--recipe {recipe}: the run in {folder} began with '{name}'.",
            "Leave --recipe away, or start anew.",
        )
    config = resolve((str(folder / "config.yaml"), saved), *layers)
    changes = compare(folder, saved, config)
    parse_gpus(config.gpus)
    if config.deterministic:
        request_determinism()
    return Request(config, name, resume=folder, changes=tuple(changes))


def run_training(request: Request) -> Outcome:
    """Imports what trains, and trains."""
    from unetpp_cli.jobs.train import train

    return train(request)


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
