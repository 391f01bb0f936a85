"""Losses, optimiser, learning rate, averaged weights and the loop, each against arithmetic written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp_cli.config import TrainConfig, resolve
from unetpp_cli.data.classes import CAMVID11, VOID
from unetpp_cli.errors import UserError
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.training.loop import Step, Trainer, train_epoch
from unetpp_cli.training.losses import (
    Criterion,
    class_weights,
    criterion,
    cross_entropy,
    dice_loss,
    head_weights,
)
from unetpp_cli.training.optimization import AveragedWeights, build_optimizer, learning_rate

CPU = torch.device("cpu")


def logits_and_target(classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (2, 6, 7), generator=generator)
    target[0, :3] = VOID
    return torch.randn(2, classes, 6, 7, generator=generator), target


def test_cross_entropy_ignores_void_and_weighs_classes() -> None:
    logits, target = logits_and_target()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    total = norm = 0.0
    for n in range(2):
        for y in range(6):
            for x in range(7):
                label = int(target[n, y, x])
                if label != VOID:
                    total -= float(weight[label] * logits[n, :, y, x].log_softmax(0)[label])
                    norm += float(weight[label])
    assert float(cross_entropy(logits, target, weight, 0.0)) == pytest.approx(total / norm, rel=1e-5)
    changed = logits.clone()
    changed[0, :, :3] += torch.randn(5, 3, 7)
    assert torch.equal(
        cross_entropy(changed, target, weight, 0.0), cross_entropy(logits, target, weight, 0.0)
    )


def test_losses_without_a_labelled_pixel_are_zero_and_differentiable() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.full((1, 4, 4), VOID)
    loss = cross_entropy(logits, target, None, 0.1) + dice_loss(logits, target)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_dice_is_zero_for_a_perfect_and_one_for_a_wrong_answer() -> None:
    _, target = logits_and_target()
    valid = target.where(target != VOID, torch.zeros_like(target))
    perfect = 100.0 * torch.nn.functional.one_hot(valid, 5).permute(0, 3, 1, 2).float()
    wrong = 100.0 * torch.nn.functional.one_hot((valid + 1) % 5, 5).permute(0, 3, 1, 2).float()
    assert float(dice_loss(perfect, target)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(wrong, target)) == pytest.approx(1, abs=1e-6)


def test_deep_supervision_sums_the_heads_by_weight() -> None:
    _, target = logits_and_target()
    heads = [torch.randn(2, 5, 6, 7) for _ in range(3)]
    total, each = Criterion("ce", None, (0.2, 0.3, 0.5), 0.0)(heads, target)
    expected = [float(cross_entropy(head, target, None, 0.0)) for head in heads]
    assert [float(loss) for loss in each] == pytest.approx(expected)
    assert float(total) == pytest.approx(0.2 * expected[0] + 0.3 * expected[1] + 0.5 * expected[2])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("uniform", (0.25,) * 4),
        ("linear", (0.1, 0.2, 0.3, 0.4)),
        ("exp", (1 / 15, 2 / 15, 4 / 15, 8 / 15)),
        ("1,1,2,4", (0.125, 0.125, 0.25, 0.5)),
    ],
)
def test_head_weights(rule: str, expected: tuple[float, ...]) -> None:
    assert head_weights(rule, 4) == pytest.approx(expected)


def test_class_weights_follow_their_papers() -> None:
    pixels = [700, 200, 100, 0, *[0] * 7]
    enet = class_weights("enet", CAMVID11, pixels)
    assert enet is not None
    assert enet[:4] == pytest.approx([1 / math.log(1.72), 1 / math.log(1.22), 1 / math.log(1.12), 1.0])
    median = class_weights("median-frequency", CAMVID11, pixels)
    assert median is not None
    assert median[:4] == pytest.approx([0.2 / 0.7, 1.0, 2.0, 1.0])
    assert class_weights("none", CAMVID11, None) is None
    with pytest.raises(UserError, match="2 numbers for 11 classes"):
        class_weights("1,2", CAMVID11, None)
    with pytest.raises(UserError, match="labelled pixel"):
        class_weights("enet", CAMVID11, [0] * 11)


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


def batches(count: int, size: int = 2, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures whose class can be read off their colour."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        mask = torch.from_numpy(rng.integers(0, 3, (size, 4, 4), dtype=np.uint8))
        mask = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
        colors = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200]], dtype=torch.uint8)
        image = colors[mask.long()].permute(0, 3, 1, 2)
        mask[:, :2] = VOID
        out.append((image, mask))
    return out


def trainer(seed: int = 0, **keys: object) -> Trainer:
    config: TrainConfig = resolve(("", {"lr": 0.01, "epochs": 20, "schedule": "constant", **keys}))
    torch.manual_seed(seed)
    network = UNetPlusPlus(3, width=4, depth=2)
    return Trainer(
        config=config,
        network=network,
        optimizer=build_optimizer(network, config),
        criterion=criterion(config, CAMVID11, None, 2, CPU),
        average=AveragedWeights(network, config.ema) if config.ema else None,
        device=CPU,
        precision="fp32",
        steps_per_epoch=4,
    )


@pytest.mark.parametrize("keys", [{}, {"loss": "ce+dice"}, {"optimizer": "sgd", "lr": 0.1}, {"ema": 0.9}])
def test_training_learns(keys: dict[str, object]) -> None:
    one = trainer(**keys)
    first = train_epoch(one, batches(4))
    for _ in range(8):
        last = train_epoch(one, batches(4))
    assert last.loss < 0.5 * first.loss
    assert last.accuracy > 0.9 > first.accuracy
    assert len(last.heads) == 2
    assert one.step == 36


def test_equal_seeds_give_equal_weights() -> None:
    states = []
    for seed in (0, 0, 1):
        one = trainer(seed, ema=0.9)
        train_epoch(one, batches(3))
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
    """Two equal halves with as many labelled pixels: the mean of their gradients is the whole's."""
    (a, b) = batches(2)
    whole = (torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]))
    grown = []
    for data, accumulate in (([whole], 1), ([a, b], 2)):
        one = trainer(accumulate=accumulate, optimizer="sgd", momentum=0.0, lr=0.1)
        freeze_norms(one.network)
        before = [parameter.clone() for parameter in one.network.parameters()]
        train_epoch(one, data)
        assert one.step == 1
        grown.append([p.detach() - q for p, q in zip(one.network.parameters(), before, strict=True)])
    for left, right in zip(*grown, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-7)


def test_clipping_bounds_the_step() -> None:
    one = trainer(clip=1e-3, optimizer="sgd", momentum=0.0, lr=1.0, weight_decay=0)
    before = [parameter.detach().clone() for parameter in one.network.parameters()]
    train_epoch(one, batches(1))
    moved = torch.stack(
        [(p.detach() - q).norm() for p, q in zip(one.network.parameters(), before, strict=True)]
    ).norm()
    assert float(moved) == pytest.approx(1e-3, rel=1e-2)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    one = trainer()
    with torch.no_grad():
        one.network.head["2"].conv.bias.fill_(math.inf)
    before = one.network.nodes[0][0].conv1.weight.clone()
    with pytest.raises(UserError, match="The loss is nan at step 1"):
        train_epoch(one, batches(2))
    assert torch.equal(one.network.nodes[0][0].conv1.weight, before)
    assert one.step == 0


def test_stop_is_obeyed_after_a_step() -> None:
    steps: list[Step] = []
    one = trainer()
    result = train_epoch(one, batches(4), steps.append, lambda: len(steps) == 2)
    assert not result.finished
    assert one.step == 2
    assert [step.number for step in steps] == [1, 2]
