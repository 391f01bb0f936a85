"""The weights inside the package: what they are, when they are used, and that they paint photographs."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import numpy as np
import pytest
from conftest import unetpp
from PIL import Image
from safetensors import safe_open

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.jobs.runs import find_model
from unetpp_cli.network.built_in import BUILT_IN
from unetpp_cli.network.header import read_header
from unetpp_cli.network.weights import load_model, stores_half

WEIGHTS = BUILT_IN["camvid11"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A street as a child would draw it: sky above, houses between, road below."""
    pixels = np.zeros((360, 480, 3), np.uint8)
    pixels[:150] = (225, 230, 240)
    pixels[100:250, :140] = (120, 85, 70)
    pixels[100:250, 340:] = (110, 90, 80)
    pixels[220:] = (95, 95, 100)
    noise = np.random.default_rng(0).integers(-12, 13, pixels.shape)
    path = tmp_path / "photo.png"
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def test_they_are_small_and_say_all_that_there_is_to_say() -> None:
    assert WEIGHTS.stat().st_size <= 14_000_000
    header, tensors = read_header(WEIGHTS)
    assert header.classes == CAMVID11
    assert header.architecture.heads == tuple(range(1, header.architecture.depth + 1))
    assert {"epochs", "seed", "lr", "augment", "progressive"} <= set(header.recipe)
    assert header.recipe["hold_out"] == ""
    assert header.data["train"] == 367
    assert len(header.data["fingerprint"]) == 64
    assert "non-commercial" in header.data["terms"]
    assert stores_half(load_model(WEIGHTS))
    dtypes = {name: info.dtype for name, info in tensors.items()}
    assert {dtype for name, dtype in dtypes.items() if ".conv" in name and name.endswith("weight")} == {"F16"}
    assert {dtype for name, dtype in dtypes.items() if "running" in name or ".norm" in name} <= {"F32", "I64"}
    with safe_open(WEIGHTS, "pt") as file:
        assert all(bool(file.get_tensor(name).isfinite().all()) for name in dtypes)


def test_their_scores_and_terms_are_shown() -> None:
    for args in ([], ["camvid11"], [WEIGHTS]):
        result = unetpp("info", *args)
        assert result.exit_code == 0, result.output
        assert "non-commercial research only" in result.output
        assert "mIoU" in result.output
    assert "CC BY-NC" in (WEIGHTS.parent / "TERMS.md").read_text(encoding="utf-8")


def test_a_fresh_installation_paints_a_photograph(photo: Path) -> None:
    result = unetpp("predict", photo, "-o", "mask.png", "--format", "index", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert "the built-in CamVid weights" in result.output
    mask = np.asarray(Image.open("mask.png"))
    assert mask.shape == (360, 480)
    share = {name: (mask == index) for index, name in enumerate(CAMVID11.names)}
    assert share["Sky"][:60].mean() > 0.7
    assert share["Road"][300:, 120:360].mean() > 0.7


def test_whoever_has_a_model_of_his_own_gets_that(
    photo: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(*args: object) -> str:
        result = unetpp("predict", photo, "-o", "mask.png", *args)
        assert result.exit_code == 0, result.output
        return result.output

    weights = Path("runs/mine/weights")
    weights.mkdir(parents=True)
    (weights / "best.safetensors").write_bytes(model.read_bytes())
    Path("runs/mine/config.yaml").write_text("data: demo\n", encoding="utf-8")
    assert "built-in" in used()  # a run on the demo is no model for photographs
    assert find_model(None, "demo")[0] == weights / "best.safetensors"
    Path("runs/mine/config.yaml").write_text("data: ./camvid\n", encoding="utf-8")
    assert "(the newest run)" in used()
    for ending, words in (
        ("finished", "(the newest run)"),
        ("interrupted", "newest run, not trained to its end"),
    ):
        Path("runs/mine/run.json").write_text(json.dumps({"starts": [{"ending": ending}]}), encoding="utf-8")
        assert words in used()
    assert "built-in" not in used("--model", model)
    monkeypatch.setenv("UNETPP_MODEL", "camvid11")
    assert "Model: camvid11.safetensors" in used()
    Path("camvid11").write_bytes(model.read_bytes())  # a file of that name comes first
    assert "camvid11.safetensors" not in used("--model", "camvid11")


def test_eval_scores_them_on_camvid_and_prune_cuts_them_here(camvid: Path) -> None:
    result = unetpp("eval", "--data", camvid, "--split", "val", "--json", "--no-timing")
    assert result.exit_code == 0, result.output
    depths = json.loads(result.stdout)["depths"]
    deepest = read_header(WEIGHTS)[0].architecture.depth
    assert list(depths) == [str(depth) for depth in range(1, deepest + 1)]
    for depth in range(1, deepest):
        result = unetpp("prune", "--depth", depth, "--no-timing")
        assert result.exit_code == 0, result.output
        assert "the built-in CamVid weights" in result.output
        pruned = Path(f"camvid11-L{depth}.safetensors")  # beside nobody's package
        header = read_header(pruned)[0]
        assert header.architecture.depth == depth
        assert "non-commercial" in header.data["terms"]
        assert unetpp("predict", layouts_photo(), "-o", "m.png", "-m", pruned).exit_code == 0


def layouts_photo() -> Path:
    path = Path("scene.png")
    path.write_bytes(layouts.encode(layouts.photo("scene")))
    return path
