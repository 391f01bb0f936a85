"""What changes the weights: optimiser, learning rate, averaged weights. Called by the training job.

The learning rate is a pure function of the step, so there is no scheduler state to lose.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

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
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step `step` (0 is the first).

    `step`: falls by `step_factor` every `step_epochs`. `poly`: (1 - t)^0.9. `cosine`: half a cosine to 0.
    `one-cycle`: up over the first 30 %, then a cosine to 0 (arXiv 1708.07120). t runs over the steps after
    the warm-up, which rises linearly.
    """
    total = config.epochs * steps_per_epoch
    # A recipe's warm-up must not swallow a training that was cut to an epoch or two.
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 2)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    t = (step - warmup) / max(1, total - warmup)
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
    return config.lr * factor


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
