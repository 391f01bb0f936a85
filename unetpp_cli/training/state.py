"""The training state on disk: everything that continues a training as if it had never stopped.

One safetensors file holds the tensors, and as JSON in its metadata the numbers; nothing is pickled. It is
replaced in one step, so at every moment there is a whole one. Called by the training job.

The weights files, the history and the plots of a run follow from the state, and are written after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unetpp_cli.devices import processor_name
from unetpp_cli.errors import UserError, listed
from unetpp_cli.files import replacing
from unetpp_cli.training.loop import Trainer
from unetpp_cli.training.optimization import optimizer_numbers, optimizer_tensors, restore_optimizer

METADATA_KEY = "unetpp_state"
FORMAT = 1


@dataclass(frozen=True)
class Environment:
    """What must be equal for a resumed training to repeat bit for bit.

    Attributes:
        torch_version: of the torch that computed.
        device: the processor's or the GPU's name.
        threads: that torch computes with on the CPU.
        processes: that train together.
        precision: as resolved: fp32, bf16, ...
    """

    torch_version: str
    device: str
    threads: int
    processes: int
    precision: str

    @staticmethod
    def here(device: torch.device, precision: str, processes: int) -> Environment:
        """The environment of this process."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
        return Environment(torch.__version__, name, torch.get_num_threads(), processes, precision)

    def differences(self, other: Environment) -> list[str]:
        """`torch_version: 2.11.0 -> 2.13.0` for each thing that differs from `other`, an earlier one."""
        before, now = vars(other), vars(self)
        return [f"{key}: {before[key]} -> {now[key]}" for key in now if before[key] != now[key]]


@dataclass(frozen=True)
class State:
    """A training between two optimiser steps.

    Attributes:
        epoch: the epoch under way, counted from 1; `epochs + 1` when all are done.
        samples: training samples of this epoch that have been used, over all processes.
        step: optimiser steps so far.
        sums: the sums of the epoch so far (`EpochSums.to_json`).
        records: the finished epochs, as JSON.
        best: the highest val mIoU so far, or None, and `best_epoch`, the epoch it belongs to.
        pixels: labelled pixels per class in the training split, if they were counted.
        data: fingerprint of the data.
        teacher: hash of the weights that are learnt from; empty without.
        terms: of weights that the training began with or learns from; empty without.
        environment: where it was written.
        seconds: spent in training so far, over all starts.
        numbers: of the optimiser, the averaged weights, the loss scaler: whatever is no tensor.
        tensors: by name; `network.*`, `average.*`, `optimizer.*`, `random.*`.
    """

    epoch: int
    samples: int
    step: int
    sums: Mapping[str, Any]
    records: list[dict[str, Any]]
    best: float | None
    best_epoch: int
    pixels: list[int] | None
    data: str
    environment: Environment
    seconds: float
    numbers: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    teacher: str = ""
    terms: str = ""


def save_state(path: str | os.PathLike[str], state: State) -> None:
    """Writes the state over the one at `path`, which stays whole until the new one is safe on disk.

    Raises:
        UserError: a value is not finite (the training diverged), or `path` cannot be written. The state
            that lies at `path` is untouched.
    """
    broken = [name for name, value in state.tensors.items() if not _is_finite(value)]
    if broken:
        raise UserError(
            f"The training diverged: at step {state.step} values are not finite in {listed(broken, 3)}.",
            "The last good state is kept. Lower --lr, add warm-up or --clip 5, or use --precision fp32.",
        )
    numbers = {key: value for key, value in vars(state).items() if key != "tensors"}
    numbers["environment"] = vars(state.environment)
    text = json.dumps({"format": FORMAT, **numbers})
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={METADATA_KEY: text})
        except (SafetensorError, OSError) as error:
            raise UserError(f"Cannot write {Path(path)}: {error}.", "Is the disk full?") from error


def load_state(path: str | os.PathLike[str]) -> State:
    """Reads a state onto the CPU.

    Raises:
        UserError: there is none at `path`, or it is damaged or of another version.
    """
    file = Path(path)
    try:
        with safe_open(file, framework="pt") as stored:
            numbers = json.loads((stored.metadata() or {})[METADATA_KEY])
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
        if numbers.pop("format") != FORMAT:
            raise UserError(f"{file} was written by another version of unetpp.", "Resume with that version.")
        environment = Environment(**numbers.pop("environment"))
        return State(environment=environment, tensors=tensors, **numbers)
    except FileNotFoundError as error:
        raise UserError(f"There is no training state {file}.", "Name a run that has one.") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}).", "Train anew; this run cannot be resumed.") from error


def trainer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Network, averaged weights, optimiser and generators, by name; to be written before the next step.

    Nothing in the network or the loop draws from a generator today; order and augmentation have their own.
    """
    tensors = {f"network.{name}": value for name, value in trainer.network.state_dict().items()}
    tensors |= optimizer_tensors(trainer.optimizer)
    if trainer.average is not None:
        tensors |= trainer.average.tensors()
    tensors["random.torch"] = torch.get_rng_state()
    if trainer.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(trainer.device)
    return tensors


def trainer_numbers(trainer: Trainer) -> dict[str, Any]:
    """What of the same is no tensor, as JSON."""
    return {
        "optimizer": optimizer_numbers(trainer.optimizer),
        "scaler": trainer.scaler.state_dict(),
        "average_updates": trainer.average.updates if trainer.average is not None else None,
    }


def restore_trainer(trainer: Trainer, state: State) -> None:
    """Puts back what `trainer_tensors` and `trainer_numbers` took out.

    Everything is copied into the tensors that are there already. Those keep the layout in memory that they
    would have had without the interruption: sums run over them in the same order, and give the same bits.
    """
    tensors, numbers = state.tensors, state.numbers
    trainer.step = state.step
    trainer.network.load_state_dict(under("network.", tensors))
    restore_optimizer(trainer.optimizer, tensors, numbers["optimizer"])
    if trainer.average is not None and numbers["average_updates"] is not None:
        trainer.average.restore(tensors, numbers["average_updates"])
    elif trainer.average is not None:  # averaging begins here
        trainer.average.network.load_state_dict(trainer.network.state_dict())
    if trainer.scaler.is_enabled() and numbers["scaler"]:
        trainer.scaler.load_state_dict(dict(numbers["scaler"]))
    torch.set_rng_state(tensors["random.torch"])
    if trainer.device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], trainer.device)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    low, high = torch.aminmax(value)  # one pass, and no mask in memory; NaN comes through
    return bool(low.isfinite() and high.isfinite())
