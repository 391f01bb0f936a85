"""`unetpp export`: files that other runtimes read, checked against torch; predict and eval on ONNX files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from conftest import exported, unetpp
from PIL import Image

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.export.interface import Interface
from unetpp_cli.export.metadata import read_metadata
from unetpp_cli.jobs.export import loss_sentence
from unetpp_cli.masks import read_mask
from unetpp_cli.network.weights import load_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels deep, padded to multiples of 8: cut from a deeper one, say."""
    return networks.saved(tmp_path_factory.mktemp("weights"), width=4, depth=2, pad_multiple=8)


def asked(path: str, image: np.ndarray) -> list[np.ndarray]:
    """As somebody who knows nothing of this package asks the file."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": image}))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour, (H, W, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def normalised(pixels: np.ndarray, path: Path) -> np.ndarray:
    header = load_model(path).header
    x = (pixels.astype(np.float32) / 255 - np.float32(header.mean)) / np.float32(header.std)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def test_any_size_and_number_at_every_depth(weights: Path) -> None:
    said = exported(weights, "-o", "m.onnx", "--all-depths", "--dynamic")
    assert "no pixel" in said
    assert "logits_1, logits_2" in said
    network = load_model(weights).network
    for height, width, count in ((48, 64, 1), (33, 47, 3), (8, 8, 2), (1, 5, 1)):
        image = torch.randn(count, 3, height, width)
        with torch.inference_mode():
            expected = network.heads(image)
        for mine, theirs in zip(asked("m.onnx", image.numpy()), expected, strict=True):
            assert mine.shape == (count, 11, height, width)
            assert np.allclose(mine, theirs.numpy(), atol=1e-4)


def test_a_depth_holds_no_more_than_it_needs(weights: Path) -> None:
    exported(weights, "-o", "deep.onnx", "--dynamic")
    exported(weights, "-o", "flat.onnx", "--dynamic", "--depth", "1")
    assert Path("flat.onnx").stat().st_size < 0.5 * Path("deep.onnx").stat().st_size
    image = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        expected = load_model(weights).network(image, 1)
    (found,) = asked("flat.onnx", image.numpy())
    assert np.allclose(found, expected.numpy(), atol=1e-4)


def test_masks_out_of_pictures_in_one_size(weights: Path) -> None:
    """All that a phone needs: decoded pixels in, class indices out."""
    said = exported(weights, "-o", "m.onnx", "--argmax", "--with-normalize", "--size", "50x36")
    assert "uint8 1x36x50x3" in said
    assert "Output mask: uint8 1x36x50" in said
    pixels = picture(36, 48)[:, :, :]
    pixels = np.asarray(Image.fromarray(pixels).resize((50, 36)))
    (mask,) = asked("m.onnx", pixels[None])
    assert mask.dtype == np.uint8
    with torch.inference_mode():
        logits = load_model(weights).network(torch.from_numpy(normalised(pixels, weights)))
    assert np.array_equal(mask[0], logits.argmax(1)[0].numpy())
    assert len(np.unique(mask)) > 2


def test_the_file_says_what_it_is(weights: Path) -> None:
    exported(weights, "-o", "m.onnx", "--size", "64x48")
    texts = {entry.key: entry.value for entry in onnx.load("m.onnx").metadata_props}
    assert json.loads(texts["classes"]) == list(CAMVID11.names)
    assert [tuple(color) for color in json.loads(texts["colors"])] == list(CAMVID11.colors)
    assert texts["geometry"] == "stretch 64x48"
    header, interface = read_metadata(texts, "m.onnx")
    own = load_model(weights).header
    assert (header.classes, header.mean, header.std) == (own.classes, own.mean, own.std)
    assert interface == Interface((2,), size=(48, 64))
    onnx.checker.check_model(onnx.load("m.onnx"))


@pytest.mark.parametrize("extra", [[], ["--with-normalize"]])
def test_predict_takes_it_like_weights(weights: Path, extra: list[str]) -> None:
    exported(weights, "-o", "m.onnx", "--all-depths", "--dynamic", *extra)
    Image.fromarray(picture(80, 96)).save("a.png")
    for options in (
        [],
        ["--depth", "1"],
        ["--ensemble"],
        ["--tta", "flip"],
        ["--tile", "72", "--size", "native"],
    ):
        for model in (weights, "m.onnx"):
            name = f"{Path(model).suffix[1:]}.png"
            result = unetpp("predict", "a.png", "-o", name, "-m", model, "--precision", "fp32", *options)
            assert result.exit_code == 0, result.output
        (mine, text), (theirs, _) = read_mask("onnx.png"), read_mask("safetensors.png")
        assert np.mean(mine != theirs) < 0.001, options
        assert text["Precision"] == "fp32"
    result = unetpp("predict", "a.png", "-o", "probs.npz", "-m", "m.onnx", "--format", "probs")
    assert result.exit_code == 0, result.output


def test_eval_scores_it_like_weights(run: Path, camvid: Path) -> None:
    model = run / "weights/best.safetensors"
    exported(model, "-o", "m.onnx", "--all-depths", "--dynamic")

    def report(path: object) -> dict[str, Any]:
        result = unetpp("eval", path, "--data", camvid, "--split", "val", "--json", "--no-timing")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)["depths"]
        return found

    mine, theirs = report("m.onnx"), report(model)
    assert list(mine) == list(theirs)
    for depth, row in theirs.items():
        assert mine[depth]["miou"] == pytest.approx(row["miou"], abs=0.002)
        assert mine[depth]["parameters"] == row["parameters"]


def test_8_bits_are_measured_beside_the_rest(run: Path, camvid: Path) -> None:
    model = run / "weights/best.safetensors"
    exported(model, "-o", "whole.onnx", "--size", "64x48")
    said = exported(model, "-o", "small.onnx", "--int8", "--data", camvid, "--size", "64x48")
    for row in ("weights, torch, fp32", "ONNX, fp32", "ONNX, int8"):
        assert row in said
    kinds = {node.op_type for node in onnx.load("small.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert read_metadata(
        {entry.key: entry.value for entry in onnx.load("small.onnx").metadata_props}, "small.onnx"
    )
    image = np.asarray(Image.open(next((camvid / "val").iterdir())).convert("RGB"))
    (one,), (other,) = (asked(name, normalised(image, model)) for name in ("whole.onnx", "small.onnx"))
    assert not np.array_equal(one, other)
    assert np.mean(one.argmax(1) == other.argmax(1)) > 0.8


REFUSED = [
    (["-o", "m.tflite"], "no format '.tflite'"),
    (["-o", "there.onnx"], "there.onnx exists already"),
    (["-o", "m.onnx", "--depth", "3"], "no head at that depth"),
    (["-o", "m.onnx", "--dynamic", "--size", "64x48"], "exclude each other"),
    (["-o", "m.onnx", "--size", "360"], "no single size"),
    (["-o", "m.pt2", "--int8"], "--int8 is for ONNX"),
    (["-o", "m.onnx", "--int8", "--argmax"], "--argmax leaves none"),
    (["-o", "m.onnx", "--data", "x"], "--data without --int8"),
    (["-o", "m.onnx", "--int8"], "--data is missing"),
]


@pytest.mark.parametrize(("args", "named"), REFUSED)
def test_refusals(args: list[str], named: str, weights: Path) -> None:
    Path("there.onnx").write_bytes(b"mine")
    result = unetpp("export", weights, *args)
    assert result.exit_code == 2
    assert named in result.output
    assert Path("there.onnx").read_bytes() == b"mine"
    assert {path.name for path in Path().iterdir()} == {"there.onnx"}


def test_what_differs_from_torch_leaves_the_old_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.onnx").write_bytes(b"mine")
    monkeypatch.setattr(
        "unetpp_cli.export.onnx_file.answers",
        lambda session, image: [image.new_zeros(len(image), 11, *image.shape[2:])],
    )
    result = unetpp("export", weights, "-o", "m.onnx", "--dynamic", "--overwrite")
    assert result.exit_code == 2
    assert "nothing was written" in result.output
    assert Path("m.onnx").read_bytes() == b"mine"
    assert [path.name for path in Path().iterdir()] == ["m.onnx"]


def test_what_8_bits_lose_is_said() -> None:
    assert loss_sentence(0.5, 0.5, 0.4901) == ""
    assert loss_sentence(0.5, 0.5, 0.51) == ""
    assert loss_sentence(0.5, 0.499, 0.47) == (
        "In 8 bits it loses 3.0 points of mIoU; the fp32 file loses 0.1."
    )


def test_one_size_means_one_size(weights: Path, camvid: Path) -> None:
    exported(weights, "-o", "fixed.onnx", "--size", "64x36")  # no multiple of what the network pads to
    image = next((camvid / "test").iterdir())
    assert unetpp("predict", image, "-o", "m.png", "-m", "fixed.onnx").exit_code == 0
    for option in (["--tta", "flip"], ["--tile", "512"]):
        for command in (
            ["predict", image, "-o", "n.png", "-m"],
            ["eval", "--data", camvid, "--split", "val"],
        ):
            result = unetpp(*command, "fixed.onnx", *option)
            assert result.exit_code == 2, result.output
            assert f"{option[0]}: fixed.onnx takes 64x36 pixels only" in result.output


def test_an_exported_network_has_one_time_and_its_own_arithmetic(run: Path, camvid: Path) -> None:
    exported(run / "weights/best.safetensors", "-o", "m.onnx", "--all-depths", "--dynamic")
    result = unetpp("eval", "m.onnx", "--data", camvid, "--split", "val", "--json", "--precision", "auto")
    depths = json.loads(result.stdout)["depths"]
    assert depths["1"]["ms"] is None
    assert depths["2"]["ms"] > 0
    result = unetpp("eval", "m.onnx", "--data", camvid, "--split", "val")
    assert "by onnxruntime on CPU" in result.output


def test_onnx_files_that_cannot_be_asked(weights: Path) -> None:
    Image.fromarray(picture(40, 56)).save("a.png")

    def refused(model: str, *args: object) -> str:
        result = unetpp("predict", "a.png", "-o", "m.png", "-m", model, *args)
        assert result.exit_code == 2, result.output
        assert not Path("m.png").exists()
        return result.output

    exported(weights, "-o", "masks.onnx", "--argmax", "--dynamic")
    assert "gives masks, no logits" in refused("masks.onnx")
    exported(weights, "-o", "fixed.onnx", "--size", "64x48")
    assert "takes 64x48 pixels only" in refused("fixed.onnx", "--size", "native")
    Path("damaged.onnx").write_bytes(Path("fixed.onnx").read_bytes()[:500])
    assert "damaged.onnx cannot be read" in refused("damaged.onnx")
    stranger = onnx.load("fixed.onnx")
    del stranger.metadata_props[:]
    onnx.save(stranger, "stranger.onnx")
    assert "unetpp did not write it" in refused("stranger.onnx")
    result = unetpp("prune", "fixed.onnx", "--depth", "1")
    assert result.exit_code == 2
    assert "no safetensors file" in result.output


def test_a_missing_package_is_named_with_the_cure(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = unetpp("export", weights, "-o", "m.onnx")
    assert result.exit_code == 2
    assert "pip install 'unetpp[onnx]'" in result.output
