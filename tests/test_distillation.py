"""Heads that learn from the deepest one, or from another network: the loss, and whole trainings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from conftest import TINY, unetpp
from torch import Tensor

from unetpp_cli.data.classes import VOID
from unetpp_cli.network.header import read_header
from unetpp_cli.network.weights import load_model, save_model
from unetpp_cli.report.history import read_history
from unetpp_cli.training.losses import Criterion

WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0])
LAST = Path("run/weights/last.safetensors")


def heads_and_target(count: int, images: int = 2) -> tuple[list[Tensor], Tensor]:
    """Logits (images, 4, 3, 5) of `count` heads, and a target of which a part is void."""
    generator = torch.Generator().manual_seed(count)
    target = torch.randint(0, 4, (images, 3, 5), generator=generator)
    target[:, 0, :2] = VOID
    return [torch.randn(images, 4, 3, 5, generator=generator) for _ in range(count)], target


def divergence(teacher: Tensor, student: Tensor, target: Tensor, temperature: float) -> float:
    """Pixel by pixel: the weighted mean of sum p (ln p - ln q), times the temperature squared."""
    total = norm = 0.0
    for n, y, x in np.ndindex(*target.shape):
        if (label := int(target[n, y, x])) == VOID:
            continue
        powers = [[math.exp(float(v) / temperature) for v in t[n, :, y, x]] for t in (teacher, student)]
        p, q = ([v / sum(one) for v in one] for one in powers)
        weight = float(WEIGHTS[label])
        total += weight * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        norm += weight
    return temperature**2 * total / norm


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("outside", [False, True])
def test_a_share_of_the_loss_is_the_divergence_from_the_teacher(temperature: float, outside: bool) -> None:
    (*heads, outer), target = heads_and_target(4)
    plain = Criterion("ce", WEIGHTS, (0.2, 0.3, 0.5), smoothing=0.0)
    taught = dataclasses.replace(plain, distill=0.25, temperature=temperature)
    _, before = plain(heads, target)
    _, after = taught(heads, target, teacher=outer if outside else None)
    for index, head in enumerate(heads):
        if index == 2 and not outside:
            assert after[index] == before[index]  # the deepest head is the teacher
        else:
            away = divergence(outer if outside else heads[-1], head, target, temperature)
            assert float(after[index]) == pytest.approx(0.75 * float(before[index]) + 0.25 * away, rel=1e-5)


def test_the_teacher_learns_nothing_from_its_pupils() -> None:
    heads, target = heads_and_target(3)
    leaves = [head.clone().requires_grad_() for head in heads]
    plain = Criterion("ce", None, (0.0, 0.0, 1.0), smoothing=0.0)
    plain(leaves, target)[0].backward()
    expected = leaves[-1].grad
    leaves = [head.clone().requires_grad_() for head in heads]
    weighted = dataclasses.replace(plain, head_weights=(0.5, 0.5, 1.0), distill=1.0)
    weighted(leaves, target)[0].backward()
    assert torch.equal(leaves[-1].grad, expected)  # type: ignore[arg-type]
    assert leaves[0].grad is not None
    assert bool(leaves[0].grad.any())


@pytest.mark.parametrize("outside", [False, True])
def test_the_parts_of_micro_batches_add_up_to_the_whole(outside: bool) -> None:
    (*heads, outer), target = heads_and_target(3, images=4)
    criterion = Criterion("ce", WEIGHTS, (0.5, 0.5), smoothing=0.0, distill=0.5, temperature=2.0)
    whole, _ = criterion(heads, target, teacher=outer if outside else None)
    norm = criterion.norm(target)
    parts = [
        criterion(
            [head[part] for head in heads], target[part], norm, 1 / 2, outer[part] if outside else None
        )[0]
        for part in (slice(0, 1), slice(1, 4))
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)


def trained(*args: object) -> str:
    result = unetpp("train", "--out", "run", *TINY, *args)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_training_with_distillation(camvid: Path, run: Path) -> None:
    """`run` was trained without it."""
    trained("--data", camvid, "--distill", "0.5")
    first, plain = read_history("run/history.csv")[0], read_history(run / "history.csv")[0]
    assert first.train_heads[1] != plain.train_heads[1]
    assert read_header(LAST)[0].recipe["distill"] == 0.5


def test_a_teacher_of_another_width_pulls_every_head(camvid: Path) -> None:
    teacher = networks.trained(width=6, depth=2)
    save_model(Path("wide.safetensors"), teacher, networks.header_for(teacher))
    trained("--data", camvid, "--distill", "1", "--teacher", "wide.safetensors", "--epochs", "8")
    header = read_header(LAST)[0]
    assert header.origin["teacher"] == load_model(Path("wide.safetensors")).hash
    assert "teacher" not in header.recipe  # a path of this machine
    losses = [record.train_heads for record in read_history("run/history.csv")]
    assert all(losses[-1][depth] < 0.8 * losses[0][depth] for depth in (1, 2))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--teacher", "five.safetensors"], "distill is 0"),
        (["--distill", "0.5", "--teacher", "none.safetensors"], "none.safetensors"),
        (["--distill", "0.5", "--teacher", "five.safetensors"], "class_4"),
        (["--distill", "0.5", "--teacher", "grey.safetensors"], "takes 1 channels"),
        (["--distill", "0.5", "--depth", "1"], "no shallower head"),
        (["--distill", "0.5", "--set", "deep_supervision=false"], "no shallower head"),
        (["--distill", "0.5", "--set", "distill_temperature=0"], "distill_temperature is 0"),
        (["--distill", "1.5"], "distill"),
    ],
)
def test_what_cannot_be_distilled(args: list[str], named: str, camvid: Path) -> None:
    for name, network in {
        "five": networks.trained(num_classes=5, width=4, depth=2),
        "grey": networks.trained(in_channels=1, width=4, depth=2),
    }.items():
        save_model(Path(f"{name}.safetensors"), network, networks.header_for(network))
    result = unetpp("train", "--data", camvid, "--out", "run", *TINY, *args)
    assert result.exit_code == 2
    assert named in result.output
    assert not Path("run").exists()
