"""The benchmark of prediction times and compares what it says; the simulation of early exit adds up."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.devices import resolve_precision
from unetpp_cli.inference.metrics import Scores
from unetpp_cli.jobs.painting.request import PredictRequest
from unetpp_cli.network.cost import macs, parameters
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import architecture_of

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import adaptive, agreement, folder, huge, passes, policies, quality
from benchmarks import networks as candidates
from benchmarks.contest import Variant
from benchmarks.predict_tables import Target

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
TUNED = ["fp32", "bf16"] if resolve_precision("auto", CPU) == "bf16" else ["fp32"]


def script(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Runs a benchmark in a process of its own, on one thread."""
    line = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_pass_at_a_depth_computes_that_depth(depth: int) -> None:
    task = {"width": 2, "batch": 3, "size": [40, 24]}
    run, facts = passes.prepare(Variant.parse(f"ours/fp32/{depth}"), task, CPU)
    architecture = architecture_of(UNetPlusPlus(candidates.CLASSES, 3, width=2))
    assert facts["macs"] == macs(architecture, 24, 40, depth, heads=(depth,))
    assert facts["parameters"] == parameters(architecture, depth, heads=(depth,))
    output = run()
    assert isinstance(output, torch.Tensor)
    assert output.shape == (3, candidates.CLASSES, 24, 40)


def test_baselines_meet_an_image_that_was_padded_for_them_and_compute_in_nchw() -> None:
    task = {"width": 2, "batch": 2, "size": [40, 24]}
    run, facts = passes.prepare(Variant.parse("article/plain"), task, CPU)
    output = run()
    assert isinstance(output, torch.Tensor)
    assert output.shape == (2, candidates.CLASSES, 32, 48)
    assert output.is_contiguous()
    assert output.dtype == torch.float32
    deepest = UNetPlusPlus(candidates.CLASSES, 3, width=2, heads=(4,))
    assert facts["macs"] == macs(architecture_of(deepest), 24, 40)
    if "bf16" in TUNED:
        ours = passes.prepare(Variant.parse("article/bf16"), task, CPU)[0]()
        assert isinstance(ours, torch.Tensor)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert ours.dtype == torch.bfloat16


def test_what_changed_between_two_logits() -> None:
    """(1, 3, 1, 4): a pixel changes by 0.5, and its best two were 0.25 apart; the largest logit is -8."""
    plain = torch.tensor([[4.0, 1.0, 0.0, -8.0], [0.0, 1.25, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]).view(
        1, 3, 1, 4
    )
    other = plain.clone()
    other[0, 0, 0, 1] += 0.5
    comparison = agreement.Comparison()
    comparison.add(plain, plain)
    comparison.add(plain, other)
    assert comparison.facts() == {
        "relative_difference": 0.5 / 8,
        "pixels": 8,
        "changed": 1,
        "changed_share": 1 / 8,
        "largest_gap": 0.25 / 8,
    }


def test_our_network_gives_the_article_s_logits() -> None:
    found = agreement.random_weights(2, [40, 36], TUNED)
    assert 0 < found["fp32"]["relative_difference"] < 1e-5
    assert found["fp32"]["pixels"] == agreement.PICTURES * 40 * 36
    if "bf16" in TUNED:
        assert found["bf16"]["relative_difference"] > 1e-4  # it is really another arithmetic


def test_counts_and_miou_are_those_of_the_package() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 12, (9, 7), generator=generator, dtype=torch.uint8)
    truth[truth == 11] = 255
    truth[truth == 4] = 5  # a class that does not occur
    said = torch.randint(0, 11, (9, 7), generator=generator, dtype=torch.uint8)
    counts = quality.confusion(truth, said, 11, tuple(CAMVID11.scored))
    assert counts.sum() == int((truth != 255).sum())
    row, column = 2, 7
    assert counts[row, column] == int(((truth == row) & (said == column)).sum())
    assert quality.miou(counts) == pytest.approx(Scores(counts.astype(np.int64), CAMVID11).miou)


def records(sure: list[float], right: list[bool]) -> policies.Records:
    """Images of 10 pixels, half of either class. Head 1 is `right` or swaps the classes; head 2 is right."""
    good, bad = np.diag([5.0, 5.0]), np.array([[0.0, 5.0], [5.0, 0.0]])
    count = len(sure)
    return policies.Records(
        depths=(1, 2),
        counts=np.array([[good if one else bad, good] for one in right]),
        sureness={"told": np.array([[one, 0.0] for one in sure])},
        fixed=np.array([[1.0, 4.0]] * count),
        stopped=np.array([[1.0, 5.0]] * count),
    )


def test_early_exit_by_hand() -> None:
    """Head 1 is right where it is sure: stopping there costs (1 + 5 + 1 + 5) / 4 and loses nothing."""
    known = records([0.9, 0.2, 0.8, 0.1], [True, False, True, False])
    policy = policies.Policy("told", 0.8)
    assert policy.heads(known).tolist() == [0, 1, 0, 1]
    assert policy.outcome(known) == (3.0, 1.0)
    assert known.sureness["told"][:, 1].tolist() == [0.0] * 4  # asking changes nothing
    assert policies.fixed_depths(known) == [(1, 1.0, pytest.approx(1 / 3)), (2, 4.0, 1.0)]
    # At a cost of 3 dice send 2/3 of the images to head 2: 5/6 of each class's 20 pixels are right, and the
    # other sixth is in the other class, so that each IoU is (5/6) / (7/6).
    assert policies.best_mixture(known, 3.0) == (0, 1)
    assert policies.mixed(known, (0, 1), 3.0) == pytest.approx(5 / 7)
    assert policies.mixed(known, (0, 1), 9.0) == 1.0
    assert policies.best_mixture(known, 0.5) in {(0, 0), (0, 1)}  # nothing is cheaper than head 1
    chosen = policies.choose(known, "told", 0.5)
    assert chosen == policies.Policy("told", 0.8)
    (first, second) = policies.cross(known, "told", 0.5)
    assert (first.chosen_on, first.applied_to) == ("first half", "second half")
    assert (first.policy.threshold, second.policy.threshold) == (0.9, 0.8)
    assert first.shares == (0.0, 1.0)  # 0.8 is not sure enough for a threshold of 0.9
    assert (first.gmac, first.miou, first.deepest_gmac) == (5.0, 1.0, 4.0)
    assert second.shares == (0.5, 0.5)
    assert second.gain == pytest.approx(100 * (1 - 5 / 7))
    assert second.saved == pytest.approx(1 - 3 / 4)


def test_the_verdict_follows_the_figures() -> None:
    telling = records([0.9, 0.2] * 4, [True, False] * 4)
    assert "Early exit per image pays here" in adaptive.verdict(policies.cross(telling, "told", 0.5), 0.2)
    # Sure of the wrong ones: only the deepest head for all keeps the promise, and that saves nothing.
    wrong = policies.cross(records([0.2, 0.9] * 4, [True, False] * 4), "told", 0.5)
    assert "does not pay" in adaptive.verdict(wrong, 0.2)
    assert all(trial.miou == 1.0 and trial.saved < 0 for trial in wrong)


def test_sureness_by_hand() -> None:
    """Two pixels, two classes; probabilities 0.9 and 0.5 at the first head, 0.6 and 0.6 at the second."""
    first = torch.tensor([[0.9, 0.5], [0.1, 0.5]]).log().view(1, 2, 1, 2)
    second = torch.tensor([[0.6, 0.4], [0.4, 0.6]]).log().view(1, 2, 1, 2)
    found = adaptive.sure_of([first, second])
    assert found["share of pixels surer than 0.7"] == [0.5, 0.0]
    assert found["share of pixels surer than 0.5"][1] == 1.0
    entropies = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (0.9, 0.5, 0.6)]
    expected = [-(entropies[0] + entropies[1]) / 2, -entropies[2]]
    assert found[adaptive.CERTAINTY] == pytest.approx(expected, rel=1e-5)
    assert found[adaptive.AGREEMENT][0] == -np.inf
    assert found[adaptive.AGREEMENT][1] == 0.5  # the tie counts as the first class


def test_targets_are_judged_where_they_hold() -> None:
    assert Target("a", 1.2, 1.25, spread=(1.1, 1.4)).row("") == ["a", "1.20", "1.25 (1.10-1.40)"]
    assert Target("a", 1.2, 1.15).row("")[2] == "**1.15**, missed"
    assert Target("a", 0.1, 0.2, most=True).row("") == ["a", "at most 0.10", "**0.20**, missed"]
    assert Target("a", 0.1, 0.05, most=True).row("")[2] == "0.05"
    assert Target("a", 500, None, shown="{:.0f}").row("") == ["a", "500", "not measured"]
    assert Target("a", 2.0, 1.0, where="there").row("here") == ["a", "2.00, at there", "1.00"]


def test_the_plain_loop_and_the_job_paint_the_same(tmp_path: Path) -> None:
    folder.write_folder(tmp_path, 2, 2, (40, 36))
    task = {"folder": str(tmp_path)}
    for key in ("article/plain", "ours/fp32"):
        run, facts = folder.prepare(Variant.parse(key), task, CPU)
        run()
        assert facts == {"images": 2}
    plain, ours = tmp_path / "masks-plain", tmp_path / "masks-fp32"
    assert len(list(plain.iterdir())) == 2
    assert folder.changed(plain, ours) <= 1e-3
    some = sorted(ours.iterdir())[0]
    picture = np.array(Image.open(some).convert("RGB"))
    picture[:3, :5] = (1, 2, 3)
    Image.fromarray(picture).save(some)
    assert folder.changed(plain, ours) == pytest.approx(15 / (2 * 40 * 36), abs=1e-3)
    taken = folder.stages(tmp_path, "fp32")
    assert list(taken) == list(folder.STAGES)
    assert min(taken.values()) > 0


def test_the_peak_of_memory_is_the_command_s_own(tmp_path: Path) -> None:
    """The process that starts it may be larger; only what runs in it counts."""
    ballast = b"x" * (400 << 20)
    done = script("huge.py", tmp_path / "report.json", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unetpp ")
    peak = json.loads((tmp_path / "report.json").read_text())["peak_bytes"]
    assert 10 << 20 < peak < len(ballast) < huge.peak_memory()


@pytest.mark.slow
def test_predict(tmp_path: Path) -> None:
    """Every part with tiny sizes; peers that are not installed are rows that say so."""
    report, tables = tmp_path / "report.json", tmp_path / "tables.md"
    args = ["--width", 2, "--size", "40x36", "--rounds", 2, "--repeats", 1, "--images", 2]
    done = script("predict.py", *args, "--peers", "smp", "--json", report, "--markdown", tables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables.read_text() == done.stdout.rstrip("\n") + "\n"
    read: dict[str, Any] = json.loads(report.read_text())
    rows = read["pass"]["variants"]
    assert set(rows) == {
        *("article/plain", f"article/{TUNED[-1]}", "smp/plain", f"smp/{TUNED[-1]}"),
        *(f"ours/{settings}{depth}" for settings in TUNED for depth in ("", "/3", "/2", "/1")),
    }
    for key, entry in rows.items():
        assert entry == {"note": "not installed"} or len(entry["seconds"]) == 2, key
    for processes in (read["pass_processes"], read["folder_processes"]):
        allocators = {key: entries[0]["allocator"] for key, entries in processes.items()}
        assert allocators["article/plain"] == "system"
    assert {entries[0]["images"] for entries in read["folder_processes"].values()} == {2}
    assert set(read["agreement"]["variants"]) == set(TUNED)
    assert read["folder"]["variants"]["ours/fp32"]["changed_share"] <= 1e-3
    lines = done.stdout.splitlines()
    assert next(line for line in lines if line.startswith("| one H200")).endswith("| 500 | not measured |")
    assert len([line for line in lines if "at cpu, width 16, batch 1, 480x360" in line]) >= 10


@pytest.mark.slow
@pytest.mark.skipif(
    "tile" not in {field.name for field in dataclasses.fields(PredictRequest)}, reason="predict has no --tile"
)
def test_a_huge_picture(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = script("predict.py", "--parts", "", "--huge", 1300, "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads(report.read_text())["huge"]["variants"].values()
    assert entry["picture_bytes"] == 3 * entry["mask_bytes"] == 3 * 1300 * 1300
    assert entry["peak_bytes"] > entry["picture_bytes"] + entry["mask_bytes"]


@pytest.mark.slow
def test_adaptive(camvid: Path, model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = script("adaptive.py", "--model", model, "--data", camvid, "--split", "train", "--json", report)
    assert done.returncode == 0, done.stderr
    read = json.loads(report.read_text())
    assert read["images"] == 5
    assert [row["depth"] for row in read["fixed"]] == [1, 2]
    assert len(read["trials"]) == 2 * (len(adaptive.SURE) + 2)
    assert done.stdout.strip().splitlines()[-1].startswith("Early exit per image ")


@pytest.mark.slow
def test_trained_weights_on_real_images(camvid: Path, model: Path) -> None:
    """What `predict.py --model --data` compares: mIoU of the plain pass is what eval's scores say."""
    found = agreement.trained_weights(str(model), str(camvid), "train", ["fp32"], str)
    assert found["images"] == 5
    assert found["variants"]["fp32"]["relative_difference"] < 1e-5
    assert found["variants"]["fp32"]["miou"] == pytest.approx(found["miou"], abs=1e-3)
    assert 0 < found["miou"] < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--size", "40"], "WIDTHxHEIGHT"),
        (["--size", "40x24"], "32"),
        (["--parts", "folders"], "folders"),
        (["--peers", "torchvision"], "monai"),
        (["--model", "a.safetensors"], "--data"),
    ],
)
def test_bad_options_are_refused(args: list[str], word: str) -> None:
    done = script("predict.py", *args)
    assert done.returncode == 2
    assert word in done.stderr
