"""What a training says of itself: its network, where it was resumed, how it ended. Called by `jobs.train`."""

from __future__ import annotations

from pathlib import Path

from unetpp_cli.config import TrainConfig
from unetpp_cli.jobs.learning.resume import command_for
from unetpp_cli.jobs.learning.training_run import TrainingRun
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.parallel import World
from unetpp_cli.report import console
from unetpp_cli.training.state import Environment, State


def describe(config: TrainConfig, network: UNetPlusPlus, device: str, precision: str, world: World) -> str:
    """The network, and on what it computes: one line."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    heads = len(network.head_depths)
    several = f", {world.size} processes" if world.size > 1 else ""
    return (
        f"Network: UNet++ width {config.width}, depth {config.depth}, {heads} head{'s' * (heads > 1)}, "
        f"{parameters / 1e6:.2f} M parameters, on {device} in {precision}{several}"
    )


def say_resumed(
    run: TrainingRun, state: State, fingerprint: str, changes: tuple[str, ...], path: Path | None
) -> None:
    """Where the run goes on, and all that keeps it from being the run it would have been."""
    batch = -(-state.samples // run.config.batch_size)
    where = f"epoch {state.epoch}, batch {batch + 1} of {run.batches.per_epoch}, step {state.step}"
    console.say(f"Resuming {path}: {where}")
    for change in changes:
        console.say(f"  changed: {change} (the new value wins)")
    trainer = run.trainer
    here = Environment.here(trainer.device, trainer.precision, trainer.world.size)
    if differing := here.differences(state.environment):
        console.warn(f"Not bit for bit what it would have been: {'; '.join(differing)}.")
    if state.teacher != (trainer.teacher.hash if trainer.teacher else ""):
        console.warn("The teacher is not the one that the run began with.")
    if fingerprint != state.data:
        console.warn("The data are not those that the run began with (their fingerprints differ).")


def farewell(run: TrainingRun, path: Path, began_with: int, seconds: float) -> None:
    """What the training came to, and what to do next."""
    weights = path / "weights"
    if run.ended in ("interrupted", "time limit"):
        what = "Interrupted" if run.ended == "interrupted" else "The time limit was reached"
        console.say(
            f"{what} in epoch {run.epoch} at step {run.trainer.step}; the state is saved. Go on with:"
        )
        console.say(f"  {command_for(path)}")
        return
    done = len(run.records)
    if done == began_with:
        console.say(f"{path} is trained to its end, {done} epochs. For more: {command_for(path)} --epochs N")
    else:
        console.say(f"Trained {done - began_with} epochs in {minutes(seconds)}.")
    if run.ended == "early stop":
        console.say(f"Stopped early: no better val mIoU for {run.config.patience} epochs.")
    name = "best" if run.best_epoch else "last"
    if run.best_epoch:
        score = f"val mIoU {100 * run.best:.1f} %"
        console.say(f"Best: epoch {run.best_epoch}, {score} -> {weights}/best.safetensors")
    else:
        console.say(f"Weights: {weights}/last.safetensors")
    console.say("Next:")
    console.say(f"  unetpp eval {path} --data {run.config.data}")
    heads = run.trainer.network.head_depths
    if len(heads) > 1:
        console.say(f"  unetpp prune --depth {heads[-2]} {weights}/{name}.safetensors")
    console.say(f"  unetpp predict photo.png -o mask.png --model {path}")


def minutes(seconds: float) -> str:
    """`40 seconds`, `12 minutes` or `2.5 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
