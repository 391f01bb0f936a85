"""Masks as files and as pictures."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp_cli import legend as legends
from unetpp_cli import masks
from unetpp_cli.colors import uncertainty_palette, void_color
from unetpp_cli.data.classes import CAMVID11, CAMVID32, CAMVID33, VOID, ClassSet, palette
from unetpp_cli.errors import UserError

BUILT_IN = pytest.mark.parametrize("classes", [CAMVID11, CAMVID32, CAMVID33], ids=lambda c: c.name)


def random_mask(classes: ClassSet, height: int = 23, width: int = 31, seed: int = 0) -> masks.Mask:
    values = np.array([*range(len(classes)), VOID], dtype=np.uint8)
    return np.random.default_rng(seed).choice(values, size=(height, width))


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    count=st.integers(1, 255),
    text=st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=20),
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=30),
        max_size=4,
    ),
    seed=st.integers(0, 1000),
)
def test_mask_file_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    count: int,
    text: dict[str, str],
    seed: int,
) -> None:
    classes = ClassSet("custom", tuple(f"class_{i}" for i in range(count)), palette(count))
    mask = random_mask(classes, height, width, seed)
    path = tmp_path_factory.mktemp("mask") / "m.png"
    masks.save_mask(path, mask, classes, text)
    again, found = masks.read_mask(path)
    assert np.array_equal(again, mask)
    assert again.dtype == np.uint8
    assert json.loads(found.pop(masks.CLASSES_KEY)) == list(classes.names)
    assert found == text


@BUILT_IN
def test_other_programs_see_indices_and_colours(tmp_path: Path, classes: ClassSet) -> None:
    mask = random_mask(classes)
    masks.save_mask(tmp_path / "m.png", mask, classes, {"depth": "3"})
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.format == "PNG"
        assert picture.mode == "P"
        assert picture.info["depth"] == "3"
        assert np.array_equal(np.asarray(picture), mask)
        colors = np.asarray(picture.convert("RGB"))
    assert np.array_equal(colors, masks.colorize(mask, classes))
    for index, color in enumerate(classes.colors):
        assert (colors[mask == index] == color).all()


@BUILT_IN
def test_the_colour_of_void_belongs_to_no_class(classes: ClassSet) -> None:
    assert void_color(classes) not in classes.colors
    assert void_color(CAMVID11) == (0, 0, 0)


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    mask = random_mask(CAMVID11)
    for name in ("a.png", "b.png"):
        masks.save_mask(tmp_path / name, mask, CAMVID11, {"model": "abc"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "mask",
    [
        np.full((4, 4), 11, dtype=np.uint8),
        np.zeros((4, 4), dtype=np.int64),
        np.zeros((4, 4, 3), dtype=np.uint8),
    ],
    ids=["no such class", "wrong type", "colours"],
)
def test_a_wrong_mask_leaves_the_old_file(tmp_path: Path, mask: masks.Mask) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="mask"):
        masks.save_mask(path, mask, CAMVID11)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.png"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "Cannot read the mask"),
        (lambda path: path.write_bytes(b"not a picture"), "Cannot read the mask"),
        (lambda path: Image.new("RGB", (4, 4)).save(path), "holds colours"),
    ],
    ids=["missing", "no picture", "colours"],
)
def test_what_is_no_mask_is_refused_by_name(tmp_path: Path, make: object, words: str) -> None:
    make(tmp_path / "m.png")  # type: ignore[operator]
    with pytest.raises(UserError, match=words) as caught:
        masks.read_mask(tmp_path / "m.png")
    assert "m.png" in caught.value.problem


def test_a_cut_off_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    masks.save_mask(path, random_mask(CAMVID11, 200, 200), CAMVID11)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="Cannot read the mask"):
        masks.read_mask(path)


def test_a_grey_mask_of_another_program_is_read(tmp_path: Path) -> None:
    mask = random_mask(CAMVID11)
    Image.fromarray(mask).save(tmp_path / "m.png")
    again, text = masks.read_mask(tmp_path / "m.png")
    assert np.array_equal(again, mask)
    assert text == {}


def text_of(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return dict(picture.text)


@BUILT_IN
def test_a_colour_file_holds_the_colours_and_the_names(tmp_path: Path, classes: ClassSet) -> None:
    mask = random_mask(classes)
    masks.save_color(tmp_path / "c.png", mask, classes, {"Depth": "3"})
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), masks.colorize(mask, classes))
    assert text_of(tmp_path / "c.png") == {masks.CLASSES_KEY: json.dumps(classes.names), "Depth": "3"}


def test_an_index_file_is_grey_and_reads_back(tmp_path: Path) -> None:
    mask = random_mask(CAMVID33)
    masks.save_index(tmp_path / "i.png", mask, {"Depth": "é3"})
    with Image.open(tmp_path / "i.png") as picture:
        assert picture.mode == "L"
    again, text = masks.read_mask(tmp_path / "i.png")
    assert np.array_equal(again, mask)
    assert text == {"Depth": "é3"}


@pytest.mark.parametrize("save", [masks.save_index, masks.save_map])
def test_an_index_or_a_map_of_another_kind_is_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    for wrong in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            save(tmp_path / "i.png", wrong)
    with pytest.raises(ValueError, match="there are 11"):
        masks.save_color(tmp_path / "i.png", np.full((4, 4), 11, np.uint8), CAMVID11)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["rows", "columns", "cut out", "read-only"])
def test_files_do_not_depend_on_where_the_pixels_lie(tmp_path: Path, layout: str) -> None:
    whole = random_mask(CAMVID11, 40, 60)
    mask = {"columns": np.asfortranarray(whole), "cut out": whole[3:30:2, 5:50:3]}.get(layout, whole)
    mask.setflags(write=layout != "read-only")
    masks.save_mask(tmp_path / "p.png", mask, CAMVID11)
    masks.save_index(tmp_path / "i.png", mask)
    masks.save_map(tmp_path / "m.png", mask)
    for name in ("p.png", "i.png", "m.png"):
        assert np.array_equal(masks.read_mask(tmp_path / name)[0], mask)
    assert masks.values_in(mask) == tuple(np.unique(mask))


def test_a_map_keeps_its_values_and_shows_them_darker_where_sure(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    masks.save_map(tmp_path / "u.png", values, {"Kind": "entropy"})
    with Image.open(tmp_path / "u.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), values)
        grey = np.asarray(picture.convert("L"), dtype=int).ravel()
    assert text_of(tmp_path / "u.png") == {"Kind": "entropy"}
    assert grey[0] < 20
    assert grey[255] > 235
    assert (np.diff(grey) >= 0).all()


def test_the_ramp_of_uncertainty_is_even() -> None:
    linear = uncertainty_palette() / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    # CIELAB written out: X, Y and Z relative to D65, then cube roots with a straight foot.
    x = linear @ [0.4124, 0.3576, 0.1805] / 0.9505
    y = linear @ [0.2126, 0.7152, 0.0722]
    z = linear @ [0.0193, 0.1192, 0.9505] / 1.089
    x, y, z = (np.where(part > 216 / 24389, np.cbrt(part), part * 841 / 108 + 16 / 116) for part in (x, y, z))
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    steps = np.linalg.norm(lab[:, 8:] - lab[:, :-8], axis=0)  # 8 values apart: rounding to 8 bits is small
    assert steps.min() > 0.8 * steps.mean()
    assert steps.max() < 1.2 * steps.mean()
    assert (np.diff(lab[0]) > -0.1).all(), "lighter and lighter"


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_overlay_mixes_and_leaves_void_alone(opacity: float) -> None:
    mask = random_mask(CAMVID11)
    image = np.random.default_rng(1).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    mixed = masks.overlay(image, mask, CAMVID11, opacity)
    exact = image * (1 - opacity) + masks.colorize(mask, CAMVID11) * opacity
    labelled = mask != VOID
    assert np.abs(mixed[labelled] - exact[labelled]).max() <= 1.01
    assert np.array_equal(mixed[~labelled], image[~labelled])
    if opacity == 0:
        assert np.array_equal(mixed, image)
    if opacity == 1:
        assert np.array_equal(mixed[labelled], masks.colorize(mask, CAMVID11)[labelled])


@pytest.mark.parametrize(("shape", "opacity"), [((5, 4, 3), 0.5), ((4, 4), 0.5), ((4, 4, 3), 1.5)])
def test_overlay_refuses_what_does_not_fit(shape: tuple[int, ...], opacity: float) -> None:
    with pytest.raises(ValueError, match=r"opacity|do not match"):
        masks.overlay(np.zeros(shape, np.uint8), np.zeros((4, 4), np.uint8), CAMVID11, opacity)


def test_large_pictures_are_worked_on_in_strips() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2100, 1500, 3), dtype=np.uint8)  # 3.15 million pixels: 13 strips
    mask = random_mask(CAMVID11, 2100, 1500)
    mixed = masks.overlay(image, mask, CAMVID11, 0.4)
    painted = masks.colorize(mask, CAMVID11)
    for top in range(0, 2100, 50):
        rows = slice(top, top + 50)
        assert np.array_equal(mixed[rows], masks.overlay(image[rows], mask[rows], CAMVID11, 0.4))
        assert np.array_equal(painted[rows], masks.colorize(mask[rows], CAMVID11))
    for work, result in (
        (lambda: masks.overlay(image, mask, CAMVID11, 0.4), image.nbytes),
        (lambda: masks.colorize(mask, CAMVID11), image.nbytes),
        (lambda: masks.values_in(mask), 0),
    ):
        tracemalloc.start()
        try:
            work()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # Of a strip's 262,000 pixels: the indices in 64 bits, two times three colours in 16 bits.
        assert peak < result + 2**18 * (8 + 2 * 6) * 1.3
    alone = np.zeros((2100, 1500), np.uint8)
    alone[2099, 1499] = 7
    assert masks.values_in(alone) == (0, 7)
    assert masks.values_in(np.zeros((0, 5), np.uint8)) == ()


def test_side_by_side() -> None:
    first, second = np.full((4, 5, 3), 10, np.uint8), np.full((4, 7, 3), 20, np.uint8)
    joined = masks.side_by_side(first, second)
    assert joined.shape == (4, 12, 3)
    assert (joined[:, :5] == 10).all()
    assert (joined[:, 5:] == 20).all()
    for wrong in (second[:3], second[..., 0], second.astype(np.float32)):
        with pytest.raises(ValueError, match="picture"):
            masks.side_by_side(first, wrong)


def test_values_in() -> None:
    assert masks.values_in(np.array([[3, 3], [255, 0]], dtype=np.uint8)) == (0, 3, 255)


def colours_in(picture: masks.RGB) -> set[tuple[int, ...]]:
    packed = np.unique(picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32))
    return {(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in packed}


@pytest.mark.parametrize("height", [60, 224, 360, 1440])
@BUILT_IN
def test_legend_shows_every_class_and_cuts_none_off(classes: ClassSet, height: int) -> None:
    picture = legends.legend(classes, range(len(classes)), height)
    assert picture.shape[0] == height
    assert set(classes.colors) <= colours_in(picture)
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == 255).all()


def test_legend_shows_only_what_is_present() -> None:
    shown = colours_in(legends.legend(CAMVID11, [3, VOID, 3], 200))
    assert CAMVID11.colors[3] in shown
    assert not shown & (set(CAMVID11.colors) - {CAMVID11.colors[3]})
    assert legends.legend_entries(CAMVID11, [VOID, 3, 3]) == [
        ("Road", CAMVID11.colors[3]),
        ("void", (0, 0, 0)),
    ]


@pytest.mark.parametrize("size", [(32, 48), (360, 480), (100, 2000), (1500, 200)], ids=str)
def test_with_legend_keeps_the_picture(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 250, (*size, 3), dtype=np.uint8)
    joined = legends.with_legend(picture, CAMVID11, range(11))
    assert np.array_equal(joined[: size[0], : size[1]], picture)
    assert joined.shape[1] > size[1] + 40
    assert set(CAMVID11.colors) <= colours_in(joined[:, size[1] :])
    assert (joined[size[0] :, : size[1]] == 255).all()
    assert np.array_equal(legends.with_legend(picture, CAMVID11, []), picture)


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")])
def test_save_picture_by_suffix(tmp_path: Path, name: str, kind: str) -> None:
    picture = np.full((20, 30, 3), (128, 64, 128), dtype=np.uint8)
    masks.save_picture(tmp_path / name, picture)
    with Image.open(tmp_path / name) as again:
        assert again.format == kind
        assert np.abs(np.asarray(again).astype(int) - picture).max() <= 2


def test_a_picture_carries_text(tmp_path: Path) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    masks.save_picture(tmp_path / "a.png", picture, {"Depth": "3"})
    masks.save_picture(tmp_path / "a.jpg", picture, {"Depth": "3"})
    assert text_of(tmp_path / "a.png") == {"Depth": "3"}


def test_save_picture_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.bmp") as caught:
        masks.save_picture(tmp_path / "a.bmp", np.zeros((2, 2, 3), np.uint8))
    assert ".png" in caught.value.cure
    assert list(tmp_path.iterdir()) == []
