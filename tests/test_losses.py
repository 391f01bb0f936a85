"""The losses against arithmetic written out per pixel; their parts over micro-batches; what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unetpp_cli.config import TrainConfig, resolve
from unetpp_cli.data.classes import CAMVID11, CAMVID32, VOID
from unetpp_cli.errors import UserError
from unetpp_cli.training import pixel_losses
from unetpp_cli.training.losses import (
    LOSSES,
    Criterion,
    class_weights,
    criterion,
    head_weights,
    logit_adjustment,
)
from unetpp_cli.training.pixel_losses import Labels, log_probabilities

CPU = torch.device("cpu")
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
SETS = ("ce+dice", "lovasz", "ce+lovasz", "ohem")  # losses with a term over a set of pixels


def logits_and_target(
    seed: int = 0, images: int = 2, classes: int = 5, ties: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits (images, classes, 6, 7) and a target of which about a third is void."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (images, 6, 7), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.35] = VOID
    logits = 2 * torch.randn(images, classes, 6, 7, generator=generator)
    return logits.round() if ties else logits, target


def one_head(loss: str, weights: Tensor | None = None, **fields: object) -> Criterion:
    return Criterion(loss, weights, (1.0,), **{"smoothing": 0.0, **fields})  # type: ignore[arg-type]


def value_and_gradient(
    one: Criterion, logits: Tensor, target: Tensor, norm: Tensor | None = None, share: float = 1.0
) -> tuple[float, Tensor]:
    leaf = logits.clone().requires_grad_()
    total, _ = one([leaf], target, norm, share)
    total.backward()
    assert leaf.grad is not None
    return float(total.detach()), leaf.grad


# The same losses, pixel by pixel in plain Python


def labelled(logits: Tensor, target: Tensor) -> list[tuple[int, list[float]]]:
    """(class, probability of each class) of every labelled pixel."""
    out = []
    for n, y, x in np.ndindex(*target.shape):
        if (label := int(target[n, y, x])) != VOID:
            powers = [math.exp(float(logit)) for logit in logits[n, :, y, x]]
            out.append((label, [power / sum(powers) for power in powers]))
    return out


def plain_cross_entropy(logits: Tensor, target: Tensor, w: list[float], smoothing: float) -> float:
    total = norm = 0.0
    for label, probs in labelled(logits, target):
        total -= (1 - smoothing) * w[label] * math.log(probs[label])
        total -= smoothing / len(probs) * sum(w[c] * math.log(p) for c, p in enumerate(probs))
        norm += w[label]
    return total / norm


def plain_focal(logits: Tensor, target: Tensor, w: list[float], gamma: float) -> float:
    pixels = labelled(logits, target)
    total = -sum(w[label] * (1 - probs[label]) ** gamma * math.log(probs[label]) for label, probs in pixels)
    return total / sum(w[label] for label, _ in pixels)


def plain_dice(logits: Tensor, target: Tensor) -> float:
    pixels = labelled(logits, target)
    dice = []
    for c in sorted({label for label, _ in pixels}):
        both = sum(probs[c] for label, probs in pixels if label == c)
        sizes = sum(probs[c] for _, probs in pixels) + sum(label == c for label, _ in pixels)
        dice.append(2 * both / sizes)
    return 1 - sum(dice) / len(dice)


def jaccard_loss(own: set[int], wrong: set[int]) -> float:
    """1 - intersection over union of the pixels `own` and of what is predicted when `wrong` are wrong."""
    predicted = own ^ wrong
    return 1 - len(own & predicted) / len(own | predicted)


def plain_lovasz(logits: Tensor, target: Tensor) -> float:
    """Choquet's integral: over t, the Jaccard loss when all pixels with an error of at least t are wrong."""
    pixels = labelled(logits, target)
    losses = []
    for c in sorted({label for label, _ in pixels}):
        own = {i for i, (label, _) in enumerate(pixels) if label == c}
        errors = [1 - probs[c] if label == c else probs[c] for label, probs in pixels]
        levels = sorted({0.0, *errors})
        losses.append(
            sum(
                (high - low) * jaccard_loss(own, {i for i, error in enumerate(errors) if error >= high})
                for low, high in itertools.pairwise(levels)
            )
        )
    return sum(losses) / len(losses)


def plain_ohem(logits: Tensor, target: Tensor, w: list[float], threshold: float, keep: float) -> float:
    pixels = sorted((probs[label], label) for label, probs in labelled(logits, target))
    least = math.ceil(keep * len(pixels))
    kept = [(p, label) for i, (p, label) in enumerate(pixels) if p < threshold or i < least]
    return sum(-w[label] * math.log(p) for p, label in kept) / sum(w[label] for _, label in kept)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_loss_is_its_arithmetic_written_out(seed: int, weights: Tensor | None) -> None:
    logits, target = logits_and_target(seed)
    w = [1.0] * 5 if weights is None else weights.tolist()
    ce = plain_cross_entropy(logits, target, w, 0.0)
    expected = {
        "ce": ce,
        "ce+dice": ce + plain_dice(logits, target),
        "focal": plain_focal(logits, target, w, 2.0),
        "lovasz": plain_lovasz(logits, target),
        "ce+lovasz": ce + plain_lovasz(logits, target),
        "ohem": plain_ohem(logits, target, w, 0.7, 0.0625),
    }
    assert tuple(expected) == LOSSES
    for loss in LOSSES:
        total, each = one_head(loss, weights)([logits], target)
        assert float(total) == pytest.approx(expected[loss], rel=1e-5), loss
        assert each.tolist() == [float(total)]
    smooth, _ = one_head("ce", weights, smoothing=0.2)([logits], target)
    assert float(smooth) == pytest.approx(plain_cross_entropy(logits, target, w, 0.2), rel=1e-5)


def test_smoothed_and_weighted_cross_entropy_is_torchs() -> None:
    logits, target = logits_and_target(3)
    for weights in (None, WEIGHTS):
        total, _ = one_head("ce", weights, smoothing=0.1)([logits], target)
        expected = torch.nn.functional.cross_entropy(
            logits, target, weights, ignore_index=VOID, label_smoothing=0.1
        )
        torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0])
def test_focal_gamma(gamma: float) -> None:
    logits, target = logits_and_target()
    total, _ = one_head("focal", WEIGHTS, gamma=gamma)([logits], target)
    assert float(total) == pytest.approx(plain_focal(logits, target, WEIGHTS.tolist(), gamma), rel=1e-5)
    logits[:, 0] += 1000.0  # a probability of exactly 1, where a power below 1 has no slope
    value, gradient = value_and_gradient(one_head("focal", gamma=gamma), logits, torch.zeros_like(target))
    assert value == 0
    assert not gradient.any()


@given(seed=st.integers(0, 10**6), classes=st.integers(1, 6), ties=st.booleans())
@settings(deadline=None, max_examples=25)
def test_lovasz_is_the_integral_over_its_level_sets(seed: int, classes: int, ties: bool) -> None:
    logits, target = logits_and_target(seed, 1, classes, ties)
    target[target == 2] = VOID  # a class that does not occur
    total, _ = one_head("lovasz")([logits], target)
    assert float(total) == pytest.approx(plain_lovasz(logits, target), rel=1e-5, abs=1e-6)


def test_lovasz_of_a_hard_answer_is_one_minus_the_mean_iou() -> None:
    _, target = logits_and_target()
    answer = (target + (torch.arange(7) % 3 == 0)) % 5  # void pixels too get an answer
    logits = 100.0 * torch.nn.functional.one_hot(answer, 5).permute(0, 3, 1, 2).float()
    ious = []
    for c in range(5):
        own, said = (target == c), (answer == c) & (target != VOID)
        ious.append(float((own & said).sum() / (own | said).sum()))
    total, _ = one_head("lovasz")([logits], target)
    assert float(total) == pytest.approx(1 - sum(ious) / 5, rel=1e-5)


def test_lovasz_keeps_its_digits_on_many_pixels() -> None:
    """Against differences of Jaccard losses in float64, for one class among many pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 300, 400, generator=generator)
    target = (torch.rand(1, 300, 400, generator=generator) < 0.4).long()
    probs = logits.double().softmax(1)[0].flatten(1).numpy()
    expected = 0.0
    for c in range(2):
        own = target.flatten().numpy() == c
        errors = np.where(own, 1 - probs[c], probs[c])
        order = np.argsort(-errors)
        seen = np.cumsum(own[order])
        jaccard = 1 - (own.sum() - seen) / (own.sum() + np.arange(1, len(own) + 1) - seen)
        expected += errors[order] @ np.diff(jaccard, prepend=0.0) / 2
    total, _ = one_head("lovasz")([logits], target)
    assert float(total) == pytest.approx(expected, rel=2e-6)


def test_ohem_keeps_the_hard_pixels_and_no_fewer_than_asked_for() -> None:
    p = torch.tensor([0.9, 0.8, 0.95, 0.2, 0.85, 0.99, 0.4, 0.7, 0.5, 0.5])  # of the true class, 0
    logits = torch.stack([p.log(), (1 - p).log()])[None, :, None]
    target = torch.zeros(1, 1, 10, dtype=torch.int64)
    target[..., 8:] = VOID
    loss = -p.log()

    def ohem(threshold: float, keep: float) -> float:
        return float(one_head("ohem", threshold=threshold, keep=keep)([logits], target)[0])

    assert ohem(0.6, 0.0) == pytest.approx(float(loss[[3, 6]].mean()))
    assert ohem(0.6, 0.25) == pytest.approx(float(loss[[3, 6]].mean()))  # 2 of 8 are hard: enough
    assert ohem(0.6, 0.5) == pytest.approx(float(loss[[3, 6, 7, 1]].mean()))
    assert ohem(0.0, 0.1) == pytest.approx(float(loss[3]))  # 0.8 of a pixel is one
    assert ohem(0.0, 0.0) == 0  # nothing is hard, nothing is kept
    many, mask = logits.repeat(1, 1, 1, 10), torch.zeros(1, 1, 100, dtype=torch.int64)
    many[0, 0, 0] += torch.arange(100) / 1000  # no two alike
    one = one_head("ohem", threshold=0.0, keep=0.07)  # 0.07 * 100 is a little above 7 in floating point
    gradient = value_and_gradient(one, many, mask)[1]
    assert int(gradient[0, 0].count_nonzero()) == 7
    assert ohem(1.0, 0.0) == ohem(0.0, 1.0) == pytest.approx(float(loss[:8].mean()))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_gradients_are_those_of_finite_differences(loss: str, weights: Tensor | None) -> None:
    logits, target = logits_and_target(5, 1)
    one = one_head(loss, weights, smoothing=0.1 if loss.startswith("ce") else 0.0, keep=0.3, threshold=0.1)
    leaf = logits[..., :3, :4].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: one([x], target[:, :3, :4])[0], (leaf,))


# Micro-batches and ranks


@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    setting=st.sampled_from(
        [
            ("ce", None, 0.0),
            ("ce", WEIGHTS, 0.0),
            ("ce", WEIGHTS, 0.1),
            ("focal", None, 0),
            ("focal", WEIGHTS, 0),
        ]
    ),
    blank=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_parts_of_pixelwise_losses_add_up_to_the_whole(
    seed: int, sizes: list[int], setting: tuple[str, Tensor | None, float], blank: bool
) -> None:
    loss, weights, smoothing = setting
    one = one_head(loss, weights, smoothing=smoothing)
    logits, target = logits_and_target(seed, sum(sizes))
    if blank and len(sizes) > 1:
        target[: sizes[0]] = VOID  # a micro-batch without a labelled pixel
    whole, gradient = value_and_gradient(one, logits, target)
    parts = list(zip(logits.split(sizes), target.split(sizes), strict=True))
    norm = torch.stack([one.norm(mask) for _, mask in parts]).sum()
    done = [value_and_gradient(one, x, mask, norm, 1 / len(parts)) for x, mask in parts]
    assert sum(value for value, _ in done) == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(torch.cat([g for _, g in done]), gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", SETS)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    weights=st.sampled_from([None, WEIGHTS]),
)
@settings(deadline=None, max_examples=15)
def test_parts_of_set_losses_add_up_to_their_mean(
    loss: str, seed: int, sizes: list[int], weights: Tensor | None
) -> None:
    logits, target = logits_and_target(seed, sum(sizes))
    parts = list(zip(logits.split(sizes), target.split(sizes), strict=True))
    one, ce = one_head(loss, weights), one_head("ce", weights)
    norm = one.norm(target)
    done = [value_and_gradient(one, x, mask, norm, 1 / len(parts)) for x, mask in parts]

    # The set's own term: the loss of a micro-batch alone, without its cross entropy
    expected, gradients = (
        value_and_gradient(ce, logits, target) if loss.startswith("ce+") else (0.0, torch.zeros_like(logits))
    )
    for (x, mask), rows in zip(parts, gradients.split(sizes), strict=True):
        alone, slope = value_and_gradient(one, x, mask)
        if loss.startswith("ce+"):
            value, plain = value_and_gradient(ce, x, mask)
            alone, slope = alone - value, slope - plain
        expected += alone / len(parts)
        rows += slope / len(parts)
    assert sum(value for value, _ in done) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(torch.cat([g for _, g in done]), gradients, rtol=1e-4, atol=1e-7)


def test_the_norm_counts_labelled_pixels_by_their_class() -> None:
    _, target = logits_and_target()
    labels = [int(label) for label in target.flatten() if label != VOID]
    assert float(one_head("ce").norm(target)) == len(labels)
    expected = sum(float(WEIGHTS[label]) for label in labels)
    assert float(one_head("focal", WEIGHTS).norm(target)) == pytest.approx(expected)
    expected -= sum(float(WEIGHTS[label]) for label in labels if label in (1, 4))
    assert float(one_head("ce", WEIGHTS, void=(1, 4)).norm(target)) == pytest.approx(expected)


# Void, extremes, dtypes, layouts


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_void_pixels_change_nothing(loss: str, weights: Tensor | None) -> None:
    logits, target = logits_and_target()
    target[target == 3] = VOID
    one = one_head(loss, weights, keep=1.0)
    value, gradient = value_and_gradient(one, logits, target)
    void = (target == VOID)[:, None].expand_as(logits)
    assert not gradient[void].any()
    assert gradient[~void].all()
    changed = torch.where(void, 7 * torch.randn_like(logits), logits)
    assert value_and_gradient(one, changed, target)[0] == pytest.approx(value, rel=1e-6)
    # An output that means void counts like no output at all
    said = target.masked_fill(target == VOID, 3)
    other, slope = value_and_gradient(dataclasses.replace(one, void=(3,)), logits, said)
    assert other == value
    assert torch.equal(slope, gradient)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_a_labelled_pixel_loss_and_gradient_are_zero(loss: str) -> None:
    logits, target = logits_and_target()
    for weights, mask, keep in (
        (None, torch.full_like(target, VOID), 0.5),
        (WEIGHTS, torch.full_like(target, VOID), 0.0),
    ):
        value, gradient = value_and_gradient(one_head(loss, weights, keep=keep), logits, mask)
        assert value == 0
        assert not gradient.any()  # NaN would be any
    if loss in ("ce", "focal", "ohem"):  # every pixel's class weighs nothing
        value, gradient = value_and_gradient(
            one_head(loss, torch.tensor([0.0, 1, 1, 1, 1])), logits, torch.zeros_like(target)
        )
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much(loss: str) -> None:
    _, target = logits_and_target()
    valid = target.where(target != VOID, torch.zeros_like(target))
    perfect = 100.0 * torch.nn.functional.one_hot(valid, 5).permute(0, 3, 1, 2).float()
    value, gradient = value_and_gradient(one_head(loss, smoothing=0.0), perfect, target)
    assert value == pytest.approx(0, abs=1e-6)
    assert not gradient.isnan().any()
    wrong, _ = value_and_gradient(one_head(loss), perfect.roll(1, 1), target)
    most = {"ce": 100, "ce+dice": 101, "focal": 100, "lovasz": 1, "ce+lovasz": 101, "ohem": 100}
    assert wrong == pytest.approx(most[loss], rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_widened_first(loss: str) -> None:
    logits, target = logits_and_target()
    half = logits.bfloat16()
    value, gradient = value_and_gradient(one_head(loss, WEIGHTS), half, target)
    wide, exact = value_and_gradient(one_head(loss, WEIGHTS), half.float(), target)
    assert value == wide
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(gradient, exact.bfloat16())


def test_pixels_as_rows_give_the_same_losses() -> None:
    """The layout used on CUDA."""
    logits, target = logits_and_target()
    image = log_probabilities(logits)
    rows = image.permute(0, 2, 3, 1).flatten(0, 2)
    for weights in (None, WEIGHTS):
        a, b = Labels(target, 5, weights), Labels(target.flatten(), 5, weights)
        for of in (
            lambda x, labels: pixel_losses.cross_entropy(x, labels, 0.1),
            lambda x, labels: pixel_losses.focal_loss(x, labels, 2.0),
            pixel_losses.dice_loss,
            pixel_losses.lovasz_softmax,
            lambda x, labels: pixel_losses.hard_pixel_loss(x, labels, 0.5, 0.8),
        ):
            torch.testing.assert_close(of(image, a), of(rows, b))


def test_channels_last_logits_give_the_same_losses() -> None:
    logits, target = logits_and_target()
    for loss in LOSSES:
        value, gradient = value_and_gradient(one_head(loss, WEIGHTS), logits, target)
        last = logits.contiguous(memory_format=torch.channels_last)
        other, slope = value_and_gradient(one_head(loss, WEIGHTS), last, target)
        assert other == pytest.approx(value, rel=1e-6)
        torch.testing.assert_close(slope, gradient)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_deterministic_on_cuda(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = (x.cuda() for x in logits_and_target(0, 64))
    cpu, slope = value_and_gradient(one_head(loss, WEIGHTS), logits.cpu(), target.cpu())
    torch.use_deterministic_algorithms(True)
    try:
        runs = [value_and_gradient(one_head(loss, WEIGHTS.cuda()), logits, target) for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value == runs[0][0] and torch.equal(g, runs[0][1]) for value, g in runs)
    assert runs[0][0] == pytest.approx(cpu, rel=1e-5)
    torch.testing.assert_close(runs[0][1].cpu(), slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_teaches_a_pixel_classifier(loss: str) -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 8, 8))
    image = torch.nn.functional.one_hot(target, 3).permute(0, 3, 1, 2) + 0.3 * torch.randn(2, 3, 8, 8)
    target[:, :2] = VOID
    network = torch.nn.Conv2d(3, 3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    one = one_head(loss)
    losses, right = [], []
    for _ in range(30):
        logits = network(image)
        total, _ = one([logits], target)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
        right.append(float((logits.argmax(1) == target)[target != VOID].float().mean()))
    assert losses[-1] < 0.6 * losses[0]
    assert right[-1] > 0.95 > right[0]


# Heads and configuration


def test_deep_supervision_sums_the_heads_by_weight() -> None:
    _, target = logits_and_target()
    heads = [torch.randn(2, 5, 6, 7, requires_grad=True) for _ in range(3)]
    for loss in LOSSES:
        total, each = Criterion(loss, None, (0.2, 0.3, 0.5), 0.0)(heads, target)
        expected = [float(one_head(loss)([head], target)[0].detach()) for head in heads]
        assert each.tolist() == pytest.approx(expected)
        assert float(total.detach()) == pytest.approx(
            0.2 * expected[0] + 0.3 * expected[1] + 0.5 * expected[2]
        )
        assert total.requires_grad
        assert not each.requires_grad


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
    for bad in ("0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match="class_weights cannot be"):
            class_weights(",".join([bad] * 11), CAMVID11, None)
    with pytest.raises(UserError, match="labelled pixel"):
        class_weights("enet", CAMVID11, [0] * 11)


def made(**keys: object) -> Criterion:
    config: TrainConfig = resolve(("", keys))
    return criterion(config, CAMVID32, [1] * 32, 4, CPU)


def test_the_criterion_is_what_the_config_says() -> None:
    assert made(loss="focal", focal_gamma=1.5).gamma == 1.5
    one = made(loss="ohem", ohem_threshold=0.4, ohem_keep=0.2, class_weights="enet")
    assert (one.loss, one.threshold, one.keep, one.void) == ("ohem", 0.4, 0.2, CAMVID32.void)
    assert one.class_weights is not None
    assert made(loss="ce+lovasz", label_smoothing=0.1).smoothing == 0.1
    assert made(class_weights="enet").adjustment is None
    for loss in LOSSES:
        assert made(loss=loss).loss == loss
    with pytest.raises(UserError, match="must be 0 to 1"):
        made(loss="ohem", ohem_threshold=1.1)


@pytest.mark.parametrize("loss", ["focal", "lovasz", "ohem"])
def test_what_has_no_effect_is_refused(loss: str) -> None:
    with pytest.raises(UserError, match=f"label_smoothing has no meaning for the loss '{loss}'"):
        made(loss=loss, label_smoothing=0.1)
    if loss == "lovasz":
        with pytest.raises(UserError, match="class_weights has no meaning"):
            made(loss=loss, class_weights="enet")


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "lovasz"])
def test_adjusted_logits_are_all_that_a_loss_sees(loss: str) -> None:
    logits, target = logits_and_target()
    shift = logit_adjustment(WEIGHTS.tolist(), 0.75)
    assert shift.mean() == pytest.approx(0, abs=1e-6)
    assert (shift[3] - shift[2]).item() == pytest.approx(0.75 * math.log(6), rel=1e-5)
    adjusted = one_head(loss, WEIGHTS, adjustment=shift)
    there = value_and_gradient(adjusted, logits, target)
    here = value_and_gradient(one_head(loss, WEIGHTS), logits + shift.view(1, -1, 1, 1), target)
    assert there[0] == pytest.approx(here[0])
    assert torch.equal(there[1], here[1])


def test_with_all_of_it_a_network_learns_the_classes_true_shares() -> None:
    """The weighted loss is at its least, its gradient zero, at the logarithms of the shares."""
    target = torch.tensor([0] * 5 + [1] * 3 + [2] * 2 + [3] * 9 + [4]).view(1, 4, 5)
    shares = torch.bincount(target.flatten()) / target.numel()
    logits = shares.log().view(1, -1, 1, 1).expand(1, 5, 4, 5)
    adjusted = one_head("ce", WEIGHTS, adjustment=logit_adjustment(WEIGHTS.tolist(), 1.0))
    _, gradient = value_and_gradient(adjusted, logits, target)
    assert gradient.sum((0, 2, 3)).abs().max() < 1e-6
    _, plain = value_and_gradient(one_head("ce", WEIGHTS), logits, target)
    assert plain.sum((0, 2, 3)).abs().max() > 0.01


def test_the_adjustment_is_what_the_config_says() -> None:
    weights = ",".join(str(1 + index) for index in range(len(CAMVID32)))
    adjustment = made(class_weights=weights, logit_adjustment=0.5).adjustment
    assert adjustment is not None
    assert torch.equal(adjustment, logit_adjustment([1.0 + index for index in range(len(CAMVID32))], 0.5))
    assert made(logit_adjustment=0.5).adjustment is None  # as --class-weights none leaves the camvid recipe
    with pytest.raises(UserError, match="class weights above 0"):
        made(class_weights=weights.replace("1,", "0,", 1), logit_adjustment=0.5)
