"""What changes the weights: optimiser, learning rate, averaged weights. Called by the training job.

The learning rate is a pure function of the step, so there is no scheduler state to lose. What state there is
can be taken out as named tensors and numbers and put back, so that the training goes on to the same bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unetpp_cli.config import TrainConfig
from unetpp_cli.network.unetpp import UNetPlusPlus


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW. Weight decay acts on convolution kernels only, never on norms and biases."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # fused needs CUDA parameters; on the CPU the default loop is as fast at these sizes
    fused = True if kernels[0].is_cuda else None
    if config.optimizer == "sgd" and config.momentum and config.precision == "fp16":
        fused = None  # a first step that the loss scaler skips would leave fused momentum uninitialised
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Keeps fp16's small gradients from vanishing; at any other precision it lets everything through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step `step` (0 is the first).

    `step`: falls by `step_factor` after every `step_epochs`, warm-up included. `poly`: (1 - t)^0.9. `cosine`:
    half a cosine to 0. `one-cycle`: up over the first 30 %, then a cosine to 0 (arXiv 1708.07120). t runs
    from 0 to 1 over the steps after the warm-up, which rises linearly to where the schedule starts.
    """
    total = config.epochs * steps_per_epoch
    # A recipe's warm-up must not swallow a training that was cut to an epoch or two.
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 2)
    ramp = min(1.0, (step + 1) / (warmup + 1))
    t = min(1.0, max(0, step - warmup) / max(1, total - warmup))
    if config.schedule == "step":
        factor = config.step_factor ** (step // steps_per_epoch // config.step_epochs)
    elif config.schedule == "poly":
        factor = (1 - t) ** 0.9
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * t))
    elif config.schedule == "one-cycle":
        rise = 0.3
        factor = (
            0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * t / rise))
            if t < rise
            else 0.5 * (1 + math.cos(math.pi * (t - rise) / (1 - rise)))
        )
    else:
        factor = 1.0
    return config.lr * ramp * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of the optimiser's state, on the CPU, as `optimizer.0.exp_avg` (0 is the first parameter).

    Empty before the first step. Tensors may share memory with the state: write them before the next step.
    """
    return {
        f"optimizer.{index}.{key}": value.detach().cpu().contiguous()
        for index, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def optimizer_numbers(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What JSON can hold of the optimiser: its kind, its learning rates, and state that is no tensor."""
    return {
        "kind": type(optimizer).__name__,
        "lr": [float(group["lr"]) for group in optimizer.param_groups],
        "state": {
            f"optimizer.{index}.{key}": value
            for index, parameter in enumerate(_parameters(optimizer))
            for key, value in optimizer.state.get(parameter, {}).items()
            if not isinstance(value, Tensor)
        },
    }


@torch.no_grad()
def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Puts back what `optimizer_tensors` and `optimizer_numbers` took out; other tensors are ignored.

    A tensor like its parameter gets the parameter's strides, too: in another memory layout the same
    arithmetic may be done in other groups, and be rounded otherwise.

    Raises:
        ValueError: the state is of another optimiser or of another network.
    """
    if numbers["kind"] != type(optimizer).__name__ or len(numbers["lr"]) != len(optimizer.param_groups):
        raise ValueError(f"a state of {numbers['kind']} does not fit {type(optimizer).__name__}")
    parameters, groups = list(_parameters(optimizer)), list(_groups(optimizer))
    optimizer.state.clear()
    for name, saved in {**tensors, **numbers["state"]}.items():
        prefix, _, rest = name.partition(".")
        if prefix != "optimizer":
            continue
        index, _, key = rest.partition(".")
        if int(index) >= len(parameters):
            raise ValueError(f"{name}: there are only {len(parameters)} parameters")
        parameter, group = parameters[int(index)], groups[int(index)]
        value = saved
        if isinstance(saved, Tensor) and saved.ndim == 0:  # the step count
            on_device = group.get("fused") or group.get("capturable")
            value = saved.to(parameter.device if on_device else "cpu", copy=True)
        elif isinstance(saved, Tensor):
            if saved.shape != parameter.shape:
                raise ValueError(f"{name} is {tuple(saved.shape)}, its parameter {tuple(parameter.shape)}")
            value = torch.zeros_like(parameter, dtype=saved.dtype, memory_format=torch.preserve_format)
            value.copy_(saved)
        optimizer.state[parameter][key] = value
    for group, lr in zip(optimizer.param_groups, numbers["lr"], strict=True):
        group["lr"] = lr


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _groups(optimizer: torch.optim.Optimizer) -> Iterator[dict[str, Any]]:
    """The group of each parameter."""
    for group in optimizer.param_groups:
        yield from [group] * len(group["params"])


class AveragedWeights:
    """Exponential moving average of the network, BatchNorm statistics included.

    The decay warms up as (1 + n) / (10 + n), so that early on the average follows the weights. Integer
    buffers are copied.
    """

    def __init__(self, network: UNetPlusPlus, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: UNetPlusPlus) -> None:
        """Moves the average towards `network` by one step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [ours[name] for name in floats], [theirs[name] for name in floats], weight=1 - decay
        )
        for name in ours.keys() - set(floats):
            ours[name].copy_(theirs[name])

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights, on the CPU, as `average.NAME`; with `updates`, all there is to keep."""
        state = self.network.state_dict()
        return {f"average.{name}": value.detach().cpu().contiguous() for name, value in state.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Puts back what `tensors` gave, and the count of updates; tensors of other names are ignored.

        Raises:
            ValueError: the tensors are of another network.
        """
        for name, ours in self.network.state_dict().items():
            saved = tensors.get(f"average.{name}")
            if saved is None or saved.shape != ours.shape:
                raise ValueError(f"the saved average has no {name} of shape {tuple(ours.shape)}")
            ours.copy_(saved)
        self.updates = updates
