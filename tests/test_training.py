"""Optimiser, learning rate, averaged weights and the loop, each against arithmetic written out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import class_set

from unetpp_cli.config import TrainConfig, resolve
from unetpp_cli.data.classes import VOID
from unetpp_cli.data.loading import Batch
from unetpp_cli.errors import UserError
from unetpp_cli.jobs.learning.setup import build_network, build_trainer
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.parallel import World
from unetpp_cli.training.loop import EpochSums, Step, Trainer, Wishes, train_epoch
from unetpp_cli.training.losses import criterion
from unetpp_cli.training.optimization import AveragedWeights, build_optimizer, learning_rate

CPU = torch.device("cpu")


def test_weight_decay_spares_norms_and_biases() -> None:
    network = UNetPlusPlus(3, width=4, depth=1)
    decayed, spared = build_optimizer(network, resolve(("", {"weight_decay": 0.3}))).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all("norm" not in names[id(p)] and names[id(p)].endswith("weight") for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


@pytest.mark.parametrize(
    ("keys", "step", "expected"),
    [
        ({"schedule": "constant"}, 70, 1.0),
        ({"schedule": "step", "step_epochs": 3, "step_factor": 0.1}, 29, 1.0),
        ({"schedule": "step", "step_epochs": 3, "step_factor": 0.1}, 30, 0.1),
        ({"schedule": "step", "step_epochs": 3, "step_factor": 0.1}, 60, 0.01),
        ({"schedule": "poly"}, 50, 0.5**0.9),
        ({"schedule": "cosine"}, 0, 1.0),
        ({"schedule": "cosine"}, 50, 0.5),
        ({"schedule": "one-cycle"}, 0, 0.04),
        ({"schedule": "one-cycle"}, 30, 1.0),
        ({"schedule": "one-cycle"}, 65, 0.5),
        ({"schedule": "cosine", "warmup_epochs": 2}, 0, 1 / 21),
        ({"schedule": "cosine", "warmup_epochs": 2}, 20, 1.0),
        ({"schedule": "cosine", "warmup_epochs": 2}, 60, 0.5),
        ({"schedule": "cosine", "warmup_epochs": 99}, 50, 1.0),
        ({"schedule": "cosine", "warmup_epochs": 99}, 75, 0.5),
    ],
)
def test_learning_rates_written_out(keys: dict[str, object], step: int, expected: float) -> None:
    config = resolve(("", {"lr": 1.0, "epochs": 10, **keys}))
    assert learning_rate(config, step, steps_per_epoch=10) == pytest.approx(expected)


@given(
    schedule=st.sampled_from(["constant", "step", "poly", "cosine", "one-cycle"]),
    epochs=st.integers(2, 20),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 1.5),
)
@settings(deadline=None, max_examples=60)
def test_learning_rates_stay_between_zero_and_the_highest(
    schedule: str, epochs: int, steps: int, warmup: float
) -> None:
    config = resolve(("", {"schedule": schedule, "epochs": epochs, "warmup_epochs": warmup, "lr": 0.3}))
    rates = [learning_rate(config, step, steps) for step in range(epochs * steps)]
    assert all(0 < rate <= 0.3 + 1e-12 for rate in rates)


def test_averaged_weights_include_batchnorm_statistics() -> None:
    torch.manual_seed(0)
    network = UNetPlusPlus(3, width=4, depth=1)
    average = AveragedWeights(network, decay=0.9)
    before = {name: value.clone() for name, value in average.network.state_dict().items()}
    network.train()(torch.randn(4, 3, 16, 16))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    average.update(network)
    decay = 2 / 11  # the first update of the warm-up
    for name, value in average.network.state_dict().items():
        now = network.state_dict()[name]
        if value.is_floating_point():
            torch.testing.assert_close(value, decay * before[name] + (1 - decay) * now)
        else:
            assert torch.equal(value, now)
    assert not torch.equal(
        average.network.state_dict()["nodes.0.0.norm1.running_mean"], before["nodes.0.0.norm1.running_mean"]
    )
    for _ in range(500):
        average.update(network)
    assert average.updates == 501
    torch.testing.assert_close(average.network.nodes[0][0].conv1.weight, network.nodes[0][0].conv1.weight)


def batches(count: int, size: int = 2, seed: int = 0) -> list[Batch]:
    """Pictures whose class can be read off their colour."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        mask = torch.from_numpy(rng.integers(0, 3, (size, 4, 4), dtype=np.uint8))
        mask = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
        colors = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200]], dtype=torch.uint8)
        image = colors[mask.long()].permute(0, 3, 1, 2)
        mask[:, :2] = VOID
        out.append(Batch(image, mask, [number * size + i for i in range(size)]))
    return out


def trainer(seed: int = 0, **keys: object) -> Trainer:
    defaults = {"lr": 0.01, "epochs": 20, "schedule": "constant", "width": 4, "depth": 2, "batch_size": 2}
    config: TrainConfig = resolve(("", {**defaults, "seed": seed, **keys}))
    network = build_network(config, 3, World(CPU))
    loss = criterion(config, class_set(3), None, 2, CPU)
    one = build_trainer(config, network, loss, World(CPU), "fp32", "picture-{}".format)
    one.steps_per_epoch = 4
    return one


def epoch_of(one: Trainer, data: list[Batch]) -> EpochSums:
    sums = EpochSums.empty(one.world)
    assert train_epoch(one, data, sums)
    return sums


@pytest.mark.parametrize("keys", [{}, {"loss": "ce+dice"}, {"optimizer": "sgd", "lr": 0.1}, {"ema": 0.9}])
def test_training_learns(keys: dict[str, object]) -> None:
    one = trainer(**keys)
    first = epoch_of(one, batches(4))
    for _ in range(8):
        last = epoch_of(one, batches(4))
    assert last.loss < 0.5 * first.loss
    assert int(last.hits) > 0.9 * int(last.labelled) > int(first.hits)
    assert int(last.labelled) == 4 * 2 * 14 * 16, "void is not counted"
    assert (len(last.heads), last.steps, last.samples) == (2, 4, 8)
    assert one.step == 36


def test_equal_seeds_give_equal_weights() -> None:
    states = []
    for seed in (0, 0, 1):
        one = trainer(seed, ema=0.9)
        epoch_of(one, batches(3))
        assert one.average is not None
        states.append(one.average.network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def freeze_norms(network: UNetPlusPlus) -> None:
    """BatchNorm mixes the images of a batch; with its statistics fixed, gradients are sums over images."""
    network.eval()
    for module in network.modules():
        module.train = lambda mode=True: None  # type: ignore[method-assign,assignment]


def test_accumulated_gradients_equal_those_of_the_whole() -> None:
    """Two halves with different numbers of labelled pixels: each pixel counts as in the whole."""
    (a, b) = batches(2)
    a.masks[:, :9] = VOID
    whole = Batch(torch.cat([a.images, b.images]), torch.cat([a.masks, b.masks]), [0, 1, 2, 3])
    grown = []
    for data, accumulate in (([whole], 1), ([a, b], 2)):
        one = trainer(accumulate=accumulate, optimizer="sgd", momentum=0.0, lr=0.1, class_weights="1,2,3")
        freeze_norms(one.network)
        before = [parameter.clone() for parameter in one.network.parameters()]
        epoch_of(one, data)
        assert one.step == 1
        grown.append([p.detach() - q for p, q in zip(one.network.parameters(), before, strict=True)])
    for left, right in zip(*grown, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-7)


def test_clipping_bounds_the_step() -> None:
    one = trainer(clip=1e-3, optimizer="sgd", momentum=0.0, lr=1.0, weight_decay=0)
    before = [parameter.detach().clone() for parameter in one.network.parameters()]
    epoch_of(one, batches(1))
    moved = torch.stack(
        [(p.detach() - q).norm() for p, q in zip(one.network.parameters(), before, strict=True)]
    ).norm()
    assert float(moved) == pytest.approx(1e-3, rel=1e-2)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    """The step and the pictures of the batch are named; accumulated, only those of the guilty one."""
    one = trainer(accumulate=2)
    with torch.no_grad():
        one.network.head["2"].conv.bias.fill_(math.inf)
    before = one.network.nodes[0][0].conv1.weight.clone()
    good, bad = batches(2)
    good.masks.fill_(VOID)
    with pytest.raises(UserError, match="The loss is nan at step 1, in the batch picture-2, picture-3"):
        epoch_of(one, [good, bad])
    assert torch.equal(one.network.nodes[0][0].conv1.weight, before)
    assert one.step == 0


def test_stop_is_obeyed_after_a_step_and_the_rest_is_as_if_it_had_never_been() -> None:
    steps: list[Step] = []
    cut, whole = trainer(), trainer()
    sums, saved = EpochSums.empty(cut.world), []
    stopped = train_epoch(
        cut,
        batches(4),
        sums,
        on_step=steps.append,
        wishes=lambda: Wishes(stop=len(steps) == 2, save=len(steps) == 1),
        save=lambda: saved.append(len(steps)),
    )
    assert not stopped
    assert saved == [1]
    assert cut.step == 2
    assert [step.samples for step in steps] == [2, 4]
    again = EpochSums.from_json(json.loads(json.dumps(sums.to_json(cut.world))), cut.world)
    assert train_epoch(cut, batches(4)[2:], again)
    expected = epoch_of(whole, batches(4))
    for key in ("samples", "steps", "loss", "heads", "lr"):
        assert getattr(again, key) == getattr(expected, key), key
    assert (again.hits, again.labelled) == (expected.hits, expected.labelled)
    states = cut.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
