"""`unetpp predict` from files to files: every kind of input, every format, what is broken, what is there."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layouts
import networks
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import unetpp
from PIL import Image, ImageOps
from typer.testing import CliRunner

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.files import ABANDONED
from unetpp_cli.inference.prediction import Prediction
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.inference.tiles import Tiling
from unetpp_cli.jobs.painting.encoding import Writer
from unetpp_cli.jobs.painting.inputs import Item, Scan
from unetpp_cli.jobs.painting.outputs import Look, Naming
from unetpp_cli.jobs.painting.paint import Manner, Totals, paint
from unetpp_cli.masks import read_mask, save_mask
from unetpp_cli.network.weights import load_model, save_model

HEIGHT, WIDTH = 30, 44
COLORS = np.asarray(CAMVID11.colors, np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two levels that takes images as they are."""
    network = networks.trained(width=4, depth=2)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, network, networks.header_for(network, geometry=Geometry.parse("native")))
    return path


@pytest.fixture(autouse=True)
def _model(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETPP_MODEL", str(weights))


def pixels(seed: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PICTURES = {
    name: encoded(Image.fromarray(pixels(seed)))
    for seed, name in enumerate(["a.png", "b.png", "below/c.png", "below/deep/d.png"])
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder `in` with four pictures."""
    return layouts.to_folder(PICTURES, tmp_path / "in")


def tree(folder: str | Path) -> set[str]:
    root = Path(folder)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def logits(weights: Path, picture: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float64]]:
    """What the heads say of a picture, (K, H, W) each: the network itself, and nothing else of ours."""
    model = load_model(weights)
    mean, std = (np.array(value)[:, None, None] for value in (model.header.mean, model.header.std))
    x = (picture.transpose(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():
        heads = model.network.heads(torch.tensor(x, dtype=torch.float32)[None])
    return [head[0].double().numpy() for head in heads]


def softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(values - values.max(0))
    shares: npt.NDArray[np.float64] = powers / powers.sum(0)
    return shares


def entropy(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = -(shares * np.log(shares)).sum(0)
    return result


def opened(path: str | Path) -> tuple[str, npt.NDArray[np.uint8]]:
    with Image.open(path) as image:
        return image.mode, np.array(image)


def ok(*args: object) -> str:
    # What the network says is computed by the tests in fp32; bf16 would round some pixels otherwise.
    exact = () if "--precision" in args else ("--precision", "fp32")
    result = unetpp("predict", *args, *exact)
    assert result.exit_code == 0, result.output
    assert not list(Path().rglob(".partial*"))
    return result.output


# --- inputs


INPUTS: list[tuple[list[str], set[str]]] = [
    (["in/a.png"], {"a.png"}),
    (["in"], set(PICTURES)),
    (["in/*.png"], {"a.png", "b.png"}),
    (["in/**/[cd].png"], {"below/c.png", "below/deep/d.png"}),
    (["in/a.png", "in/below"], {"a.png", "c.png", "deep/d.png"}),
    (["@list.txt"], {"a.png", "below/c.png"}),
    (["in.zip"], set(PICTURES)),
    (["in.tar"], set(PICTURES)),
]


@pytest.mark.parametrize(("inputs", "expected"), INPUTS, ids=lambda names: ",".join(sorted(names)))
def test_every_kind_of_input_gives_the_same_masks(
    inputs: list[str], expected: set[str], pictures: Path, weights: Path
) -> None:
    layouts.to_zip(PICTURES, Path("in.zip"))
    layouts.to_tar(PICTURES, Path("in.tar"))
    Path("list.txt").write_text("# two\nin/a.png\n\nin/below/c.png\n")
    output = ok(*inputs, "-o", "out")
    assert tree("out") == expected
    for name in expected:
        seed = next(number for number, key in enumerate(PICTURES) if key.endswith(name))
        mask, text = read_mask(f"out/{name}")
        np.testing.assert_array_equal(mask, logits(weights, pixels(seed))[-1].argmax(0))
        assert json.loads(text["classes"]) == list(CAMVID11.names)
        assert text["Model"] == load_model(weights).hash
        assert (text["Depth"], text["Precision"], text["Geometry"]) == ("2", "fp32", "native")
    if len(expected) > 1:
        assert f"{len(expected)} masks in out/ (" in output
        assert "img/s)" in output


def test_a_list_on_standard_input(pictures: Path) -> None:
    from unetpp_cli.cli import app

    paths = "\0".join(f"in/{name}" for name in PICTURES)
    result = CliRunner().invoke(app, ["predict", "-", "-o", "out"], input=paths.encode())
    assert result.exit_code == 0, result.output
    assert tree("out") == set(PICTURES)


def test_without_o_an_archive_has_a_folder_beside_it(pictures: Path) -> None:
    layouts.to_zip(PICTURES, Path("in/drive.zip"))
    assert "4 masks in in/drive_masks/" in ok("in/drive.zip", "--format", "palette,overlay")
    assert tree("in/drive_masks") == {
        name.replace(".png", ending) for name in PICTURES for ending in (".png", "_overlay.png")
    }


def with_alpha() -> Image.Image:
    return Image.fromarray(np.dstack([pixels(0), np.full((HEIGHT, WIDTH), 9, np.uint8)]))


def turned(orientation: int) -> bytes:
    """Stored on its side, so that a viewer shows picture 0."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(pixels(0))
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    return encoded(upright.transpose(back[orientation]), exif=exif)


GREY = pixels(0)[..., 0]
INVERTED = Image.fromarray(255 - pixels(0))
KINDS: dict[str, tuple[bytes, npt.NDArray[np.uint8]]] = {
    "rgba.png": (encoded(with_alpha()), pixels(0)),
    "grey.png": (encoded(Image.fromarray(GREY)), np.dstack([GREY] * 3)),
    "deep.png": (encoded(Image.fromarray(GREY.astype(np.uint16) * 257)), np.dstack([GREY] * 3)),
    "deep.tif": (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), np.dstack([GREY] * 3)),
    "cmyk.tif": (
        encoded(Image.merge("CMYK", [*INVERTED.split(), Image.new("L", (WIDTH, HEIGHT))]), "TIFF"),
        pixels(0),
    ),
    "palette.png": (
        encoded(Image.fromarray(pixels(0)).quantize(16)),
        np.array(Image.fromarray(pixels(0)).quantize(16).convert("RGB")),
    ),
    "lossless.webp": (encoded(Image.fromarray(pixels(0)), "WEBP", lossless=True), pixels(0)),
    **{f"exif{number}.png": (turned(number), pixels(0)) for number in (3, 6, 8)},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture(name: str, weights: Path) -> None:
    data, expected = KINDS[name]
    Path(name).write_bytes(data)
    ok(name, "-o", "m.png", "--format", "palette,overlay", "--opacity", 0)
    np.testing.assert_array_equal(read_mask("m.png")[0], logits(weights, expected)[-1].argmax(0))
    np.testing.assert_array_equal(opened("m_overlay.png")[1], expected)  # the image, and it is upright


def test_a_camera_jpeg_is_painted_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(0)).save("photo.jpg", exif=exif)
    ok("photo.jpg", "--format", "overlay", "--opacity", 0)
    with Image.open("photo.jpg") as photo:
        expected = np.array(ImageOps.exif_transpose(photo))
    assert expected.shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(opened("photo_overlay.png")[1], expected)


# --- outputs


def test_every_format(pictures: Path, weights: Path) -> None:
    ok("in/a.png", "-o", "out", "--format", "palette,color,index,overlay,probs", "--opacity", 0.25)
    image, answer = pixels(0), logits(weights, pixels(0))[-1]
    mask = answer.argmax(0)
    assert opened("out/a.png")[0] == "P"
    np.testing.assert_array_equal(opened("out/a.png")[1], mask)
    mode, values = opened("out/a_index.png")
    assert mode == "L"
    np.testing.assert_array_equal(values, mask)
    mode, values = opened("out/a_color.png")
    assert mode == "RGB"
    np.testing.assert_array_equal(values, COLORS[mask])
    mode, values = opened("out/a_overlay.png")
    assert mode == "RGB"
    assert np.abs(values - (0.75 * image + 0.25 * COLORS[mask])).max() <= 1
    with np.load("out/a_probs.npz") as archive:
        probs = archive["probs"]
        assert probs.dtype == np.float16
        assert probs.shape == (HEIGHT, WIDTH, 11)
        assert archive["classes"].tolist() == list(CAMVID11.names)
        assert json.loads(str(archive["about"]))["Model"] == load_model(weights).hash
    assert np.abs(probs - softmax(answer).transpose(1, 2, 0)).max() < 1e-3
    for ending in ("", "_color", "_index", "_overlay"):
        with Image.open(f"out/a{ending}.png") as picture:
            assert picture.info["Model"] == load_model(weights).hash
    assert len(tree("out")) == 5


def test_the_first_format_has_the_plain_name(pictures: Path) -> None:
    ok("in", "-o", "out", "--format", "probs,index")
    assert tree("out") == {name.replace(".png", end) for name in PICTURES for end in (".npz", "_index.png")}
    ok("in/a.png", "-o", "x/y.png", "--format", "overlay,palette")
    assert opened("x/y.png")[0] == "RGB"
    assert opened("x/y_mask.png")[0] == "P"
    before = tree("in")
    for _ in range(2):
        assert "4 masks beside the images" in ok("in", "--format", "palette,color,overlay", "--confidence")
    ends = ("_mask.png", "_color.png", "_overlay.png", "_entropy.png", "_disagreement.png")
    assert tree("in") == before | {name.replace(".png", end) for name in PICTURES for end in ends}


def test_side_by_side_and_legend(pictures: Path) -> None:
    look = ["--format", "overlay,color", "--opacity", 1]
    ok("in/a.png", "-o", "plain.png", *look)
    ok("in/a.png", "-o", "pair.png", *look, "--side-by-side")
    ok("in/a.png", "-o", "named.png", *look, "--side-by-side", "--legend")
    plain = opened("plain.png")[1]
    np.testing.assert_array_equal(plain, opened("plain_color.png")[1])  # nothing of the image is seen
    for name in ("pair.png", "pair_color.png"):
        pair = opened(name)[1]
        np.testing.assert_array_equal(pair, np.concatenate([pixels(0), plain], axis=1))
        named = opened(name.replace("pair", "named"))[1]
        np.testing.assert_array_equal(named[:HEIGHT, : 2 * WIDTH], pair)
        assert named.shape[1] > 2 * WIDTH + 20, "names stand beside it"


def test_confidence_is_entropy_and_disagreement(pictures: Path, weights: Path) -> None:
    ok("in/a.png", "-o", "out", "--confidence")
    assert tree("out") == {"a.png", "a_entropy.png", "a_disagreement.png"}
    shares = [softmax(head) for head in logits(weights, pixels(0))]
    expected = 255 * entropy(shares[-1]) / math.log(11)
    assert np.abs(opened("out/a_entropy.png")[1] - expected).max() <= 1
    apart = entropy((shares[0] + shares[1]) / 2) - (entropy(shares[0]) + entropy(shares[1])) / 2
    assert np.abs(opened("out/a_disagreement.png")[1] - 255 * apart / math.log(2)).max() <= 1
    assert expected.std() > 5
    result = ok("in/b.png", "-o", "out", "--confidence", "--depth", 1)
    assert "One head alone cannot disagree" in result
    assert "b_entropy.png" in tree("out")
    assert "b_disagreement.png" not in tree("out")


def test_what_was_done_differently_stands_in_the_text(pictures: Path) -> None:
    ok("in/a.png", "-o", "m.png", "--tta", "flip", "--tile", 512, "--size", 24, "--ensemble")
    text = read_mask("m.png")[1]
    assert (text["TTA"], text["Tile"]) == ("flip", "512")
    assert (text["Geometry"], text["Depth"]) == ("fit 24", "ensemble of 1, 2")


def test_tiles_give_the_same_files(tmp_path: Path) -> None:
    Path("in").mkdir()
    for number, (height, width) in enumerate([(150, 260), (40, 50), (150, 260)]):
        Image.fromarray(pixels(number, height, width)).save(f"in/{number}.png")
    for folder, options in (("whole", []), ("tiled", ["--tile", 128])):
        ok("in", "-o", folder, "--format", "index,probs", "--confidence", "--batch-size", 3, *options)
    assert tree("whole") == tree("tiled")
    for number in range(3):
        whole, tiled = (opened(f"{folder}/{number}.png")[1] for folder in ("whole", "tiled"))
        assert (whole != tiled).mean() < 1e-3
        with np.load(f"whole/{number}_probs.npz") as one, np.load(f"tiled/{number}_probs.npz") as other:
            assert np.abs(one["probs"] - other["probs"]).max() < 2e-3
        for name in (f"{number}_entropy.png", f"{number}_disagreement.png"):
            assert np.abs(opened(f"whole/{name}")[1] - opened(f"tiled/{name}")[1].astype(int)).max() <= 1


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_batches_paint_what_single_images_paint(batch: int, tmp_path: Path) -> None:
    sizes = [(30, 44), (30, 44), (44, 30), (30, 44), (30, 44), (30, 44), (17, 9)]
    for number, (height, width) in enumerate(sizes):
        Path("in").mkdir(exist_ok=True)
        Image.fromarray(pixels(number, height, width)).save(f"in/{number}.png")
    formats = ["--format", "index,probs"]
    ok("in", "-o", "one", *formats, "--batch-size", 1)
    ok("in", "-o", "many", *formats, "--batch-size", batch)
    assert tree("one") == tree("many")
    differing = total = 0
    for number in range(len(sizes)):
        one, many = (opened(f"{folder}/{number}.png")[1] for folder in ("one", "many"))
        differing += int((one != many).sum())
        total += one.size
        with np.load(f"one/{number}_probs.npz") as single, np.load(f"many/{number}_probs.npz") as batched:
            assert np.abs(single["probs"] - batched["probs"]).max() < 2e-3
    assert differing <= total / 1000, "near-ties alone may fall the other way"


def test_skip_existing_goes_on_where_it_stopped(pictures: Path) -> None:
    args = ["in", "-o", "out", "--format", "palette,overlay", "--skip-existing"]
    ok(*args)
    times = {name: (Path("out") / name).stat().st_mtime_ns for name in tree("out")}
    assert "4 images skipped" in ok(*args)
    assert times == {name: (Path("out") / name).stat().st_mtime_ns for name in tree("out")}
    Path("out/b_overlay.png").unlink()
    output = ok(*args)
    assert "3 images skipped" in output
    assert "1 mask in out/" in output
    changed = {name for name in tree("out") if (Path("out") / name).stat().st_mtime_ns != times[name]}
    assert changed == {"b.png", "b_overlay.png"}
    assert "skipped" not in ok(*args[:-1])


def test_equal_runs_give_equal_bytes(pictures: Path) -> None:
    args = ["in", "--format", "palette,color,index,overlay,probs", "--confidence"]
    for folder in ("one", "two"):
        ok(*args, "-o", folder)
    assert tree("one") == tree("two")
    assert len(tree("one")) == 28
    for name in tree("one"):
        assert (Path("one") / name).read_bytes() == (Path("two") / name).read_bytes(), name


# --- what is broken


def vanished(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAK: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(PICTURES["b.png"][:-900]),
    "zero bytes": lambda path: path.write_bytes(b""),
    "no picture": lambda path: path.write_bytes(b"hello"),
    "vanished": vanished,
    "a folder": a_folder,
}


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("how", BREAK)
def test_broken_files_are_named_and_skipped(how: str, batch: int, pictures: Path) -> None:
    BREAK[how](pictures / "b.png")
    Path("list.txt").write_text("".join(f"in/{name}\n" for name in PICTURES))
    result = unetpp("predict", "@list.txt", "-o", "out", "--batch-size", batch)
    assert result.exit_code == 1
    assert result.output.count("Error:") == 1
    assert "1 of 4 images could not be read: in/b.png" in result.output
    assert "3 masks in out/" in result.output
    assert tree("out") == set(PICTURES) - {"b.png"}
    result = unetpp("predict", "@list.txt", "-o", "strict", "--batch-size", batch, "--strict")
    assert result.exit_code == 2
    assert result.output.count("Error:") == 1
    assert "b.png" in result.output
    assert "Traceback" not in result.output
    for name in tree("strict"):
        assert name in PICTURES
        assert read_mask(f"strict/{name}")[0].shape == (HEIGHT, WIDTH)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_broken(pictures: Path) -> None:
    (pictures / "b.png").chmod(0)
    result = unetpp("predict", "in", "-o", "out")
    assert result.exit_code == 1
    assert "in/b.png: Permission denied" in result.output


def test_a_damaged_member_of_an_archive_is_broken(pictures: Path) -> None:
    layouts.to_zip({**PICTURES, "b.png": b"cut"}, Path("in.zip"))
    data = bytearray(Path("in.zip").read_bytes())
    at = data.index(b"below/c.png") + 200  # inside its compressed bytes
    data[at : at + 50] = bytes(50)
    Path("in.zip").write_bytes(data)
    result = unetpp("predict", "in.zip", "-o", "out")
    assert result.exit_code == 1
    assert "2 of 4 images could not be read: in.zip/b.png, in.zip/below/c.png" in result.output
    assert tree("out") == {"a.png", "below/deep/d.png"}


def test_many_broken_files_are_counted_not_listed() -> None:
    layouts.to_folder({f"in/{number}.png": b"" for number in range(20)}, Path())
    result = unetpp("predict", "in", "-o", "out")
    assert result.exit_code == 1
    assert result.output.count("Error:") == 20
    assert "20 of 20 images could not be read: in/0.png," in result.output
    assert "and 15 more" in result.output


def test_pictures_of_a_few_pixels_are_painted() -> None:
    for height, width in [(1, 1), (1, 50), (3, 2)]:
        Image.fromarray(pixels(0, height, width)).save("x.png")
        ok("x.png", "-o", "m.png")
        assert read_mask("m.png")[0].shape == (height, width)


def test_an_output_folder_that_is_a_file_ends_it_at_once(pictures: Path) -> None:
    Path("out").write_text("mine")
    result = unetpp("predict", "in", "-o", "out")
    assert result.exit_code == 2
    assert result.output.count("Error: Cannot write out/") == 1
    assert Path("out").read_text() == "mine"


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond 4 kB: the system then fails to write as it does on a full disk.

    Around the command only: what pytest prints may go to a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("formats", ["palette,probs", "palette,overlay"])
def test_a_full_disk_ends_it_in_one_line(formats: str) -> None:
    Path("in").mkdir()
    for number in range(8):
        big = Image.fromarray(np.full((40, 40, 3), 40 * number % 256, np.uint8) | pixels(number, 40, 40))
        big.save(f"in/{number}.jpg", quality=30)
    with small_disk():
        result = unetpp("predict", "in", "-o", "out", "--format", formats)
    assert result.exit_code == 2
    assert result.output.count("Error:") == 1
    assert "File too large" in result.output
    assert "--skip-existing" in result.output
    assert not list(Path().rglob(".partial*"))
    for name in tree("out"):
        assert name.count("_") == 0, "what is there is a whole mask"
        read_mask(f"out/{name}")


def test_it_stops_when_asked_and_leaves_whole_files(pictures: Path, weights: Path) -> None:
    items = list(Scan(["in"]))
    predictor = Predictor(load_model(weights), "cpu")
    writer = Writer(Naming.choose(Look(), "out"), CAMVID11, {})
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 2

    totals = paint(items, Manner(predictor, writer, batch_size=1, bar=False), stop)
    assert totals.done == 2
    assert tree("out") == {"a.png", "b.png"}


def test_a_large_picture_is_given_up_between_its_tiles(weights: Path) -> None:
    small, large = (encoded(Image.fromarray(pixels(0, side, side))) for side in (30, 320))
    layouts.to_folder({"a.png": small, "b.png": large, "c.png": small}, Path("in"))
    predictor = Predictor(load_model(weights), "cpu", tiling=Tiling(80))
    assert not predictor.is_tiled(30, 30)
    writer = Writer(Naming.choose(Look(("palette", "probs")), "out"), CAMVID11, {})
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(any(Path().glob("out/.partial*.npz")))  # it is being computed
        return sum(asked) > 3

    totals = paint(list(Scan(["in"])), Manner(predictor, writer, bar=False), stop)
    assert (totals.done, totals.broken) == (1, 0)
    assert asked == [False, False, True, True, True, True], "two pictures, four tiles"
    assert len(tree("out")) == 2, "the first picture alone"


def test_what_was_done_is_known_when_an_error_ends_it(pictures: Path, weights: Path) -> None:
    (pictures / "z.png").write_bytes(b"broken")
    writer, totals = Writer(Naming.choose(Look(), "out"), CAMVID11, {}), Totals()
    manner = Manner(Predictor(load_model(weights), "cpu"), writer, strict=True, bar=False)
    with pytest.raises(UserError, match=r"z\.png"):
        paint(list(Scan(["in/a.png", "in/b.png", "in/z.png"])), manner, lambda: False, totals)
    assert totals.done == len(tree("out")) > 0
    assert totals.seconds > 0


class Huge(Item):
    """A picture for which memory would not do, though it is small."""

    def decode(self, channels: int, reserve: Callable[[int], None] | None = None) -> npt.NDArray[np.uint8]:
        raise MemoryError


class Wasteful(Writer):
    """Runs out of memory with `b.png`."""

    def write(self, item: Item, image: npt.NDArray[np.uint8], prediction: Prediction) -> None:
        if item.below == "b.png":
            raise MemoryError
        super().write(item, image, prediction)


@pytest.mark.usefixtures("pictures")
def test_pictures_too_large_to_read_or_write_are_named_and_skipped(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [*Scan(["in"]), Huge("huge.png", "huge.png", "")]
    predictor, naming = Predictor(load_model(weights), "cpu"), Naming.choose(Look(), "out")
    manner = Manner(predictor, Wasteful(naming, CAMVID11, {}), bar=False)
    totals = paint(items, manner, lambda: False)
    assert (totals.done, totals.broken) == (3, 2)
    assert set(totals.names) == {"huge.png", "in/b.png"}
    assert tree("out") == set(PICTURES) - {"b.png"}
    told = "".join(capsys.readouterr())
    assert "Out of memory with huge.png." in told
    assert f"Out of memory with in/b.png ({WIDTH}x{HEIGHT})." in told
    with pytest.raises(UserError, match=r"Out of memory with in/b\.png"):
        paint(items[:-1], dataclasses.replace(manner, strict=True), lambda: False)


def test_what_a_killed_predict_has_left_goes(pictures: Path) -> None:
    """Of these targets, and old: what is new may be another process's, and the rest is not ours."""
    old = [".partial-a-abcdefg1.png", "below/.partial-c-_bcdefgh.png"]
    kept = [
        ".partial-a-abcdefgh.jpg",
        ".partial-x-abcdefgh.png",
        ".partial-a-mine.png",
        ".partial-a-b-abcdefgh.png",
    ]
    layouts.to_folder(dict.fromkeys([*old, *kept], b"half"), Path("out"))
    for name in [*old, *kept]:
        os.utime(f"out/{name}", (time.time() - ABANDONED - 60,) * 2)
    Path("out/.partial-b-abcdefgh.png").write_bytes(b"half")
    assert unetpp("predict", "in", "-o", "out").exit_code == 0
    assert tree("out") == {*PICTURES, *kept, ".partial-b-abcdefgh.png"}


# --- probabilities


def test_probabilities_are_streamed() -> None:
    writer = Writer(Naming.choose(Look(("probs",)), "p.npz"), CAMVID11, {"Model": "x"})
    height, width = 3000, 1000
    strip = np.random.default_rng(0).random((20, width, 11)).astype(np.float16)
    item = Item("x.png", "x.png", "")
    tracemalloc.start()
    try:
        with writer.probabilities(item, height, width) as take:
            for row in range(0, height, 20):
                take(np.roll(strip, row, axis=1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    with np.load("p.npz") as archive:
        probs = archive["probs"]
    assert probs.nbytes > 60e6
    assert peak < 5 * strip.nbytes
    for row in (0, 1480, 2980):
        np.testing.assert_array_equal(probs[row : row + 20], np.roll(strip, row, axis=1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_probabilities_that_break_off_leave_nothing(error: type[BaseException] | None) -> None:
    writer = Writer(Naming.choose(Look(("probs",)), "p.npz"), CAMVID11, {})

    def write() -> None:
        with writer.probabilities(Item("x.png", "x.png", ""), 4, 5) as take:
            take(np.zeros((2, 5, 11), np.float16))
            if error is not None:
                raise error

    with pytest.raises(error or ValueError, match=None if error else "2 rows"):
        write()
    assert tree(".") == set()


# --- refusals: one line, exit code 2, nothing written


def test_a_list_without_its_sign_is_told_from_a_picture(pictures: Path) -> None:
    Path("names.txt").write_text("in/a.png\n", encoding="utf-8")
    result = unetpp("predict", "names.txt", "-o", "m")
    assert result.exit_code == 2
    assert "write @names.txt" in result.output
    assert not Path("m").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.png"], "There is no image none.png"),
        (["in", "--format", "overly"], "Did you mean 'overlay'?"),
        (["in", "--legend"], "--legend is for overlays"),
        (["in", "--opacity", "0.5", "--side-by-side"], "--side-by-side is for overlays"),
        (["in", "--format", "overlay", "--opacity", "7"], "--opacity 7"),
        (["in", "-o", "m.png"], "one file, but there are 4 images"),
        (["in/a.png", "-o", "m.png", "--format", "probs"], "ends in .npz"),
        (["in", "--overlap", "64"], "--tile"),
        (["in", "--tile", "0"], "--tile"),
        (["in", "--tile", "16"], "--tile"),
        (["in", "--batch-size", "0"], "--batch-size"),
        (["in", "--tta", "flop"], "flop"),
        (["in", "--size", "huge"], "no size"),
        (["in", "--depth", "7"], "It has 1, 2"),
        (["in", "--gpus", "one"], "--gpus one"),
        (["-", "--gpus", "cpu,cpu"], "@list.txt"),
        (["in", "-o", "in"], "the masks would lie among the images"),
        (["in/below", "in/below/deep", "in", "in/*.png", "-o", "in"], "-o in:"),
        (["@none.txt"], "cannot read the list"),
        (["in", "--overlapp"], "--overlap"),
        (["in", "--depth", "auto"], "only prune chooses one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(args: list[str], message: str, pictures: Path) -> None:
    # What the network says is computed by the tests in fp32; bf16 would round some pixels otherwise.
    exact = () if "--precision" in args else ("--precision", "fp32")
    result = unetpp("predict", *args, *exact)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert tree(".") == {f"in/{name}" for name in PICTURES}


def test_a_write_error_is_told_as_one() -> None:
    writer = Writer(Naming.choose(Look(), "out"), CAMVID11, {})
    Path("out").mkdir()
    Path("out/x.png").mkdir()  # a folder stands where the mask should
    predictor_says = type("P", (), {"mask": np.zeros((2, 2), np.uint8), "entropy": None})()
    with pytest.raises(UserError, match=r"Cannot write out/x\.png"):
        writer.write(Item("x.png", "x.png", ""), np.zeros((2, 2, 3), np.uint8), predictor_says)
    save_mask("out/y.png", np.zeros((2, 2), np.uint8), CAMVID11)
    assert tree("out") == {"y.png"}


def test_a_picture_too_narrow_for_the_models_size_is_named_and_skipped(model: Path, tmp_path: Path) -> None:
    Path("in").mkdir()
    Image.new("RGB", (60_000, 1)).save("in/line.png")
    Image.new("RGB", (64, 48)).save("in/sound.png")
    result = unetpp("predict", "in", "-o", "out", "--model", model, "--size", "360")
    assert result.exit_code == 1, result.output
    assert "line.png" in result.output
    assert [path.name for path in Path("out").iterdir()] == ["sound.png"]


def test_skipped_masks_of_another_depth_are_pointed_out(pictures: Path) -> None:
    ok("in", "-o", "out", "--depth", "2")
    assert "otherwise" not in ok("in", "-o", "out", "--depth", "2", "--skip-existing")
    output = " ".join(ok("in", "-o", "out", "--depth", "1", "--skip-existing").split())
    assert "made otherwise: Depth 2, not 1" in output
    assert output.count("made otherwise") == 1
