"""Learning rates at their corners, and optimiser states that are put back to the same bits."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from unetpp_cli.config import TrainConfig, resolve
from unetpp_cli.devices import autocast, place
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.training.optimization import (
    AveragedWeights,
    build_optimizer,
    gradient_scaler,
    learning_rate,
    optimizer_numbers,
    optimizer_tensors,
    restore_optimizer,
)

CPU = torch.device("cpu")
SCHEDULES = ["constant", "step", "poly", "cosine", "one-cycle"]


def rates(epochs: int = 10, steps: int = 10, **keys: object) -> list[float]:
    config = resolve(("", {"lr": 1.0, "epochs": epochs, **keys}))
    return [learning_rate(config, step, steps) for step in range(epochs * steps)]


def test_a_warm_up_leads_to_where_the_schedule_starts() -> None:
    """No schedule jumps after it: one-cycle starts at 0.04, a fall of 'step' stays where it is counted."""
    one_cycle = rates(schedule="one-cycle", warmup_epochs=2)
    assert one_cycle[0] == pytest.approx(0.04 / 21)
    assert one_cycle[19:21] == pytest.approx([0.04 * 20 / 21, 0.04])
    assert max(one_cycle) == one_cycle[20 + 24] == pytest.approx(1.0)
    step = rates(schedule="step", step_epochs=3, step_factor=0.1, warmup_epochs=4)
    assert step[29:31] == pytest.approx([30 / 41, 0.1 * 31 / 41])
    assert step[40] == pytest.approx(0.1)
    assert step[60] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("schedule", "first", "last", "after"),
    [
        ("constant", 1.0, 1.0, 1.0),
        ("step", 1.0, 1.0, 0.1),
        ("poly", 1.0, 0.01**0.9, 0.0),
        ("cosine", 1.0, 0.5 * (1 + math.cos(0.99 * math.pi)), 0.0),
        ("one-cycle", 0.04, 0.5 * (1 + math.cos(69 / 70 * math.pi)), 0.0),
    ],
)
def test_both_ends_and_beyond(schedule: str, first: float, last: float, after: float) -> None:
    config = resolve(("", {"lr": 1.0, "epochs": 10, "schedule": schedule, "step_epochs": 10}))
    found = [learning_rate(config, step, 10) for step in (0, 99, 100, 101)]
    assert found == pytest.approx([first, last, after, after])


@given(
    schedule=st.sampled_from(SCHEDULES),
    epochs=st.integers(1, 12),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 3),
)
@settings(deadline=None, max_examples=80)
def test_a_rate_never_jumps_up(schedule: str, epochs: int, steps: int, warmup: float) -> None:
    """It may fall at once ('step'), but it rises no faster than its warm-up or its cycle."""
    found = rates(epochs, steps, schedule=schedule, warmup_epochs=warmup)
    ramp = min(round(warmup * steps), epochs * steps // 2)
    rise = 0.3 * (epochs * steps - ramp)
    steepest = max(1 / (ramp + 1), math.pi / 2 * 0.96 / rise if schedule == "one-cycle" else 0)
    assert all(after - before <= steepest + 1e-9 for before, after in itertools.pairwise(found))
    assert all(0 < rate <= 1 for rate in found)


def test_decay_momentum_and_betas_are_what_the_config_says() -> None:
    network = UNetPlusPlus(3, width=4, depth=1)
    sgd = build_optimizer(network, resolve(("", {"optimizer": "sgd", "momentum": 0.8, "nesterov": True})))
    assert [(group["momentum"], group["nesterov"]) for group in sgd.param_groups] == [(0.8, True)] * 2
    adamw = build_optimizer(network, resolve(("", {"weight_decay": 0.2})))
    assert [group["betas"] for group in adamw.param_groups] == [(0.9, 0.999)] * 2
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.2, 0.0]
    held = {id(parameter) for group in adamw.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in network.parameters()}
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert any(module.weight is parameter for parameter in adamw.param_groups[1]["params"])
            assert any(module.bias is parameter for parameter in adamw.param_groups[1]["params"])


def test_two_steps_of_sgd_written_out() -> None:
    """v = m v + g + d w; w -= lr (g + d w + m v) with Nesterov; biases have no d."""
    network = torch.nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.bias.fill_(3.0)  # type: ignore[union-attr]
    keys = {"optimizer": "sgd", "momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "lr": 0.01}
    optimizer = build_optimizer(network, resolve(("", keys)))
    weight, bias, v_weight, v_bias = 2.0, 3.0, 0.0, 0.0
    for gradient in (1.0, -4.0):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        g_weight, g_bias = gradient + 0.1 * weight, gradient
        v_weight, v_bias = 0.5 * v_weight + g_weight, 0.5 * v_bias + g_bias
        weight -= 0.01 * (g_weight + 0.5 * v_weight)
        bias -= 0.01 * (g_bias + 0.5 * v_bias)
        assert network.weight.item() == pytest.approx(weight, rel=1e-6)
        assert network.bias.item() == pytest.approx(bias, rel=1e-6)  # type: ignore[union-attr]


def test_only_fp16_scales_its_loss() -> None:
    loss = torch.tensor(2.0)
    for precision in ("fp32", "bf16"):
        assert gradient_scaler(CPU, precision).scale(loss) is loss
    assert gradient_scaler(CPU, "fp16").is_enabled()


class Training:
    """A little training on a fixed stream of batches."""

    def __init__(self, seed: int, config: TrainConfig, precision: str) -> None:
        torch.manual_seed(seed)
        self.config, self.precision = config, precision
        self.network = place(UNetPlusPlus(3, width=6, depth=2), CPU).train()
        self.optimizer = build_optimizer(self.network, config)
        self.average = AveragedWeights(self.network, 0.9)

    def run(self, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            image = torch.randn(3, 3, 12, 20, generator=generator).to(memory_format=torch.channels_last)
            target = torch.randint(0, 3, (3, 12, 20), generator=generator)
            with autocast(CPU, self.precision):
                logits = self.network.heads(image)
            sum(torch.nn.functional.cross_entropy(head.float(), target) for head in logits).backward()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, step, 5)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(self.network)

    def to_bytes(self) -> tuple[bytes, str]:
        """All of it, as a state file would hold it."""
        weights = {f"network.{name}": value.contiguous() for name, value in self.network.state_dict().items()}
        tensors = {**weights, **optimizer_tensors(self.optimizer), **self.average.tensors()}
        numbers = {"optimizer": optimizer_numbers(self.optimizer), "updates": self.average.updates}
        return save(tensors), json.dumps(numbers)

    def from_bytes(self, state: tuple[bytes, str]) -> None:
        tensors, numbers = load(state[0]), json.loads(state[1])
        prefix = "network."
        weights = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
        self.network.load_state_dict(weights)
        restore_optimizer(self.optimizer, tensors, numbers["optimizer"])
        self.average.restore(tensors, numbers["updates"])

    def everything(self) -> dict[str, torch.Tensor]:
        return {
            **dict(self.network.state_dict()),
            **optimizer_tensors(self.optimizer),
            **self.average.tensors(),
        }


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "lr": 0.1},
    {"optimizer": "sgd", "lr": 0.1, "nesterov": True},
    {"optimizer": "adamw", "lr": 0.01},
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keys", OPTIMIZERS)
def test_a_restored_training_goes_on_to_the_same_bits(keys: dict[str, Any], precision: str) -> None:
    config = resolve(("", {"epochs": 2, "warmup_epochs": 0.4, **keys}))
    straight = Training(0, config, precision)
    straight.run(range(10))
    first = Training(0, config, precision)
    first.run(range(5))
    state = first.to_bytes()
    second = Training(1, config, precision)  # other weights at first
    second.from_bytes(state)
    assert second.to_bytes() == state
    for ours, theirs in zip(second.network.parameters(), first.network.parameters(), strict=True):
        for name, value in second.optimizer.state[ours].items():
            before = first.optimizer.state[theirs][name]
            assert (value.stride(), value.dtype) == (before.stride(), before.dtype), name
    second.run(range(5, 10))
    found, expected = second.everything(), straight.everything()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert second.average.updates == straight.average.updates == 10
    assert any(name.startswith("optimizer.0.") for name in found)


def test_a_state_before_the_first_step_is_empty() -> None:
    config = resolve(("", {}))
    one, other = Training(0, config, "fp32"), Training(0, config, "fp32")
    assert optimizer_tensors(one.optimizer) == {}
    other.run(range(2))
    fresh = Training(0, config, "fp32")
    fresh.from_bytes(one.to_bytes())
    fresh.run(range(2))
    assert fresh.to_bytes() == other.to_bytes()


def test_a_strange_state_is_refused() -> None:
    adamw = Training(0, resolve(("", {})), "fp32")
    adamw.run(range(1))
    tensors, numbers = optimizer_tensors(adamw.optimizer), optimizer_numbers(adamw.optimizer)
    sgd = build_optimizer(adamw.network, resolve(("", {"optimizer": "sgd"})))
    with pytest.raises(ValueError, match="AdamW does not fit SGD"):
        restore_optimizer(sgd, tensors, numbers)
    wider = UNetPlusPlus(3, width=8, depth=2)
    with pytest.raises(ValueError, match="its parameter"):
        restore_optimizer(build_optimizer(wider, resolve(("", {}))), tensors, numbers)
    smaller = UNetPlusPlus(3, width=6, depth=1)
    with pytest.raises(ValueError, match=r"parameter"):
        restore_optimizer(build_optimizer(smaller, resolve(("", {}))), tensors, numbers)
    with pytest.raises(ValueError, match="saved average has no"):
        AveragedWeights(wider, 0.9).restore(adamw.average.tensors(), 1)


def test_the_average_warms_up_and_then_forgets_at_its_decay() -> None:
    network = UNetPlusPlus(2, width=2, depth=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    average = AveragedWeights(network, 0.75)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
        network.nodes[0][0].norm1.num_batches_tracked.fill_(41)
    left = 1.0
    for update in range(1, 31):
        average.update(network)
        left *= min(0.75, (1 + update) / (10 + update))
        assert float(average.network.head["1"].conv.bias[0]) == pytest.approx(1 - left, abs=1e-6)
    assert int(average.network.nodes[0][0].norm1.num_batches_tracked) == 41
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
