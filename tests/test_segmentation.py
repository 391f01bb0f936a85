"""`Predictor.load` and what calling it gives: images as people have them, one or many, in several threads."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import networks
import numpy as np
import pytest
from conftest import unetpp
from PIL import Image

from unetpp_cli import Predictor, Segmentation, save_model
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.errors import UserError
from unetpp_cli.masks import read_mask

Pixels = np.ndarray


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.saved(tmp_path_factory.mktemp("weights"), width=4, depth=2)


@pytest.fixture(scope="module")
def predictor(weights: Path) -> Predictor:
    return Predictor.load(weights, precision="fp32")


def picture(seed: int = 0, height: int = 40, width: int = 56) -> Pixels:
    """Blobs of colour, so that a mask has areas."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_every_way_to_have_an_image_gives_the_same(predictor: Predictor, tmp_path: Path) -> None:
    pixels = picture()
    (tmp_path / "a.png").write_bytes(encoded(pixels))
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 9, np.uint8)])
    expected = predictor.mask(pixels)
    assert len(np.unique(expected)) > 2
    ways = [
        pixels,
        Image.fromarray(pixels),
        encoded(pixels),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        alpha,
    ]
    for image in [*ways, pixels[:, ::-1][:, ::-1]]:
        found = predictor(image)
        assert isinstance(found, Segmentation)
        assert np.array_equal(found.mask, expected)
        assert np.array_equal(found.image, pixels)
    assert [np.array_equal(one.mask, expected) for one in predictor(ways)] == [True] * len(ways)
    assert predictor([]) == []


@pytest.mark.parametrize("mode", ["I;16", "P", "CMYK", "LA", "RGBA"])
def test_a_pillow_image_is_read_as_its_file(mode: str, predictor: Predictor, tmp_path: Path) -> None:
    if mode == "I;16":
        grey = np.asarray(Image.fromarray(picture()).convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(grey)
    else:
        image = Image.fromarray(picture()).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path, **({"transparency": 3} if mode == "P" else {}))
    by_path = predictor(path)
    with Image.open(path) as opened:
        by_image = predictor(opened)
    assert np.array_equal(by_path.image, by_image.image)
    assert np.array_equal(by_path.mask, by_image.mask)


def test_a_buffer_may_be_filled_again(predictor: Predictor) -> None:
    buffer = picture().copy()
    found = predictor(buffer)
    probabilities, overlay = predictor(buffer.copy()).probabilities, predictor(buffer.copy()).overlay()
    buffer[:] = 0
    assert np.array_equal(found.probabilities, probabilities)
    assert np.array_equal(found.overlay(), overlay)


def test_a_list_of_several_sizes_keeps_its_order(predictor: Predictor, weights: Path) -> None:
    images = [picture(seed, 40 + 8 * (seed % 3), 56) for seed in range(7)]
    alone = [predictor(image).mask for image in images]
    together = predictor(images)
    assert all(np.array_equal(one, two.mask) for one, two in zip(alone, together, strict=True))
    tiled = Predictor.load(weights, precision="fp32", tile_automatically=False)
    assert all(np.array_equal(one, tiled(image).mask) for one, image in zip(alone, images, strict=True))


@pytest.mark.parametrize("use_ensemble", [False, True])
def test_probabilities_are_those_of_the_mask(weights: Path, use_ensemble: bool) -> None:
    predictor = Predictor.load(weights, precision="fp32", use_ensemble=use_ensemble)
    found = predictor(picture())
    probabilities = found.probabilities
    assert probabilities.shape == (11, 40, 56)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(0), found.mask)
    assert found.probabilities is probabilities  # not computed twice


def test_colours_overlays_shares_and_files(predictor: Predictor, tmp_path: Path) -> None:
    found = predictor(picture())
    colors = np.array(CAMVID11.colors, np.uint8)
    assert np.array_equal(found.color(), colors[found.mask])
    assert np.array_equal(found.overlay(0), found.image)
    assert np.array_equal(found.overlay(1), found.color())
    assert found.overlay(legend=True).shape[1] > 56
    shares = list(found.shares.items())
    assert sum(found.shares.values()) == pytest.approx(1)
    assert [share for _, share in shares] == sorted((share for _, share in shares), reverse=True)
    name, share = shares[0]
    assert share == pytest.approx(np.mean(found.mask == CAMVID11.names.index(name)))
    for kind in ("palette", "index"):
        found.save(tmp_path / f"{kind}.png", kind)
        mask, text = read_mask(tmp_path / f"{kind}.png")
        assert np.array_equal(mask, found.mask)
        assert text["Model"] == predictor.hash
    found.save(tmp_path / "o.jpg", "overlay", opacity=0.3, legend=True)
    found.save(tmp_path / "c.png", "color")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "c.png")), found.color())
    with pytest.raises(ValueError, match="none of palette"):
        found.save(tmp_path / "x.png", "colour")
    with pytest.raises(ValueError, match="no options, such as legend"):
        found.save(tmp_path / "x.png", legend=True)
    with pytest.raises(UserError, match="masks are PNG"):
        found.save(tmp_path / "x.jpg")
    assert not list(tmp_path.glob("x.*"))


def test_what_is_saved_is_what_predict_writes(predictor: Predictor, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    result = unetpp("predict", "a.png", "-o", "cli.png", "-m", weights, "--precision", "fp32")
    assert result.exit_code == 0, result.output
    predictor("a.png").save("api.png")
    assert Path("api.png").read_bytes() == Path("cli.png").read_bytes()


def test_a_network_of_one_channel_takes_grey(tmp_path: Path) -> None:
    network = networks.trained(width=4, depth=2, in_channels=1)
    save_model(tmp_path / "grey.safetensors", network, networks.header_for(network))
    predictor = Predictor.load(tmp_path / "grey.safetensors", precision="fp32")
    pixels = picture()
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    for image in (pixels, grey, Image.fromarray(pixels), Image.fromarray(grey), encoded(pixels)):
        found = predictor(image)
        assert np.array_equal(found.image, grey)
        assert np.array_equal(found.mask, predictor.mask(grey))
        assert found.overlay().shape == (40, 56, 3)


def test_threads_may_share_it(predictor: Predictor) -> None:
    images = [picture(seed) for seed in range(12)]
    alone = [predictor(image).mask for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(predictor, images))
    assert all(np.array_equal(one, two.mask) for one, two in zip(alone, together, strict=True))


def test_built_in_weights_need_no_name() -> None:
    predictor = Predictor.load(precision="fp32")
    assert predictor.header.classes == CAMVID11
    assert predictor.hash == Predictor.load("camvid11").hash


@pytest.mark.parametrize(
    ("image", "error", "named"),
    [
        (np.zeros((4, 4, 3)), ValueError, "float64"),
        (np.zeros((3, 4, 4, 3), np.uint8), ValueError, "3, 4, 4, 3"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, "4, 4, 2"),
        ("none.png", UserError, "none.png"),
        (b"no picture", UserError, "no picture"),
    ],
)
def test_what_is_no_image_is_refused(
    predictor: Predictor, image: object, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        predictor(image)  # type: ignore[arg-type, call-overload]


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UserError, match="camvid12"):
        Predictor.load("camvid12")
