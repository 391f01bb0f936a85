"""The benchmarks compare what they say they do: networks, memory formats, counts; and their scripts run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unetpp_cli.devices import resolve_precision
from unetpp_cli.network.blog import load_blog
from unetpp_cli.network.cost import macs
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import architecture_of

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import article, contest, measure, networks
from benchmarks.ours import our_step

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
# What `auto` chooses is what the tables call bf16, or the tables have no such row.
TUNED = ["fp32", "bf16"] if resolve_precision("auto", CPU) == "bf16" else ["fp32"]
TINY = ["--width", "2", "--batch", "2", "--size", "32", "--rounds", "2"]


def script(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Runs a benchmark in a process of its own, on one thread."""
    line = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=env)


def test_the_articles_network_is_the_article_s(tmp_path: Path) -> None:
    """Its state dict is one that `load_blog` knows, and gives our network the same logits."""
    theirs = networks.Article(num_classes=5, width=3)
    image = torch.randn(2, 3, 32, 48)
    theirs(image)  # one pass in training mode: the deepest head's statistics move
    torch.save(theirs.state_dict(), tmp_path / "article.pth")
    ours, _ = load_blog(tmp_path / "article.pth", None)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    # The article's files hold four heads: what one head has, and three more of 16 channels and 11 classes.
    [
        ("article", 16, 2_956_619 + 3 * (2 * 16 + 9 * 16 * 11 + 11)),
        ("nested", 16, 9_163_659),
        ("ours", 16, 2_956_619),
    ],
)
def test_parameters(name: str, width: int, expected: int) -> None:
    assert networks.parameters(networks.build(name, width)) == expected


def test_multiply_accumulates_are_counted_as_everywhere_else() -> None:
    ours = UNetPlusPlus(7, 3, width=2, heads=(4,))
    with networks.MacCounter(ours) as counter:
        ours(torch.zeros(3, 3, 32, 64))
    assert counter.total == 3 * macs(architecture_of(ours), 32, 64)
    ours(torch.zeros(1, 3, 32, 32))
    assert counter.total == 3 * macs(architecture_of(ours), 32, 64)  # the hooks are gone


def test_a_baseline_that_runs_channels_last_is_found_out() -> None:
    """A stack of transposed (H, W, C) arrays is channels last, whatever its shape says."""
    network = networks.build("article", 2)
    pictures = [np.zeros((32, 32, 3), np.float32).transpose(2, 0, 1) for _ in range(2)]
    image = torch.from_numpy(np.stack(pictures))
    plain = torch.contiguous_format
    with torch.no_grad():
        with pytest.raises(AssertionError, match="image"):
            contest.check_formats(network, image, network(image), plain)
        image = image.contiguous()
        contest.check_formats(network, image, network(image), plain)
        with pytest.raises(AssertionError, match="weight"):
            contest.check_formats(network, image, network(image), torch.channels_last)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with pytest.raises(AssertionError, match="weight"):
            contest.check_formats(network, image, network(image), plain)


def test_both_loops_take_the_same_step() -> None:
    """Plain and ours, from the same weights, end in the same weights: the comparison is of like with like."""
    image, target = torch.randn(2, 3, 32, 32), torch.randint(0, 11, (2, 32, 32))
    target[0, :5] = article.IGNORED
    ours, plain = networks.build("nested", 0), networks.build("nested", 0)
    loss = our_step(ours, CPU, "fp32")(image.contiguous(memory_format=torch.channels_last), target)
    torch.testing.assert_close(loss, article.plain_step(plain, CPU)(image, target))
    expected = F.cross_entropy(networks.build("nested", 0)(image), target, ignore_index=255)
    torch.testing.assert_close(loss, expected.detach())
    for (name, one), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)


def test_rounds_alternate_and_ratios_are_of_the_same_round() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = measure.interleaved(runs, 3, inner=2, finish=lambda: order.append("."))
    assert order == list("aa.bb." * 3)
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    # A machine that slows down tenfold in the middle: both slow down, and the ratio does not mind.
    assert measure.ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0
    assert measure.quartiles([3.0, 1.0]) == (1.0, 3.0)


def test_overlapping_kernels_count_once() -> None:
    assert contest.covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.0)]) == 4.0
    assert contest.covered([]) == 0.0


@pytest.mark.slow
def test_train(tmp_path: Path) -> None:
    """All rows with tiny sizes; peers that are not installed are rows that say so."""
    report, tables = tmp_path / "report.json", tmp_path / "tables.md"
    args = ["--images", 5, "--repeats", 1, "--json", report, "--markdown", tables]
    done = script("train.py", *TINY, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables.read_text() == done.stdout.rstrip("\n") + "\n"
    read: dict[str, Any] = json.loads(report.read_text())
    step = read["step"]["variants"]
    assert list(step)[: 1 + len(TUNED)] == ["article/plain", *[f"ours/{settings}" for settings in TUNED]]
    assert set(step) == {
        "article/plain",
        f"article/{TUNED[-1]}",
        *[f"ours/{settings}" for settings in TUNED],
        *[f"{peer}/{settings}" for peer in networks.PEERS for settings in ("plain", TUNED[-1])],
    }
    for key, entry in step.items():
        assert entry == {"note": "not installed"} or len(entry["seconds"]) == 2, key
        assert "not installed" in done.stdout or "note" not in entry
    assert {len(entry["seconds"]) for key, entry in step.items() if key.startswith("nested/")} == {2}
    epochs = read["epoch"]["variants"]
    assert list(epochs) == ["article/plain", *[f"ours/{settings}/0" for settings in TUNED]]
    assert {entry["images"] for entry in epochs.values()} == {4}  # the last, smaller batch is left out
    # Baselines run with the allocator as it comes; ours as the command line sets it, where it can.
    processes = {**read["step_processes"], **read["epoch_processes"]}
    allocators = {key: entries[0]["allocator"] for key, entries in processes.items()}
    assert {allocators[key] for key in allocators if key.endswith("/plain")} == {"system"}
    assert {allocators[key] for key in allocators if key.startswith("ours/")} == {read["step"]["allocator"]}
    cells = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| the article's")]
    assert cells[0][4] == measure.milliseconds(statistics.median(step["article/plain"]["seconds"]))


@pytest.mark.slow
def test_data(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    args = ["--images", 4, "--batch", 2, "--rounds", 1, "--workers", "0,1", "--json", report]
    done = script("data.py", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    read = json.loads(report.read_text())
    assert set(read["images"].values()) == {4}
    rows = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines() if "|" in line]
    assert rows[2:] == list(read["seconds"])
    for recipe in ("crop 224 + flip", "recipe blog", "recipe camvid"):
        assert {f"cache, {recipe}, {workers} workers" for workers in (0, 1)} <= set(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--size", "40"], "multiple of 32"),
        (["--peers", "torchvision"], "monai"),
        (["--variants", "ours/quick"], "ours/quick"),
        (["--images", "3", "--batch", "4"], "batch of 4"),
    ],
)
def test_bad_options_are_refused(args: list[str], word: str) -> None:
    done = script("train.py", *args)
    assert done.returncode == 2
    assert word in done.stderr
