"""Masks in every encoding come out as the same class indices; label files say the same in every form."""

from __future__ import annotations

import io

import layouts
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from unetpp_cli.data.classes import CAMVID32, VOID
from unetpp_cli.data.encoding import Encoding, RawMask, pack, read_raw, survey, unpack
from unetpp_cli.data.labels import Label, parse_labels
from unetpp_cli.errors import UserError

INDICES = np.random.default_rng(0).integers(0, 5, (7, 9), dtype=np.uint8)
BY_VALUE = Encoding(False, ((0, 2), (1, 0), (2, 1), (3, 3), (4, VOID), (255, VOID)))
DECODED = np.asarray([2, 0, 1, 3, VOID], np.uint8)[INDICES]
COLORS = ((128, 64, 128), (0, 0, 192), (192, 128, 128), (255, 255, 255), (0, 0, 0))
PAINTED = np.asarray(COLORS, np.uint8)[INDICES]
BY_COLOR = Encoding(
    True, tuple((pack(color), BY_VALUE.table[index][1]) for index, color in enumerate(COLORS))
)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def with_alpha(colors: npt.NDArray[np.uint8], alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([colors, np.full(colors.shape[:2], alpha, np.uint8)]))


INDEX_FILES = {
    "L": layouts.encode(INDICES),
    "L BMP": layouts.encode(INDICES, "BMP"),
    "P": layouts.palette_png(INDICES, COLORS),
    "P whose palette is random": layouts.palette_png(
        INDICES, [(9, 8, 7), (6, 5, 4), (3, 2, 1), (1, 1, 1), (2, 2, 2)]
    ),
    "LA": layouts.encode(INDICES, mode="LA"),
    "I;16": layouts.encode(INDICES.astype(np.uint16)),
    "I": layouts.encode(INDICES.astype(np.int32), "TIFF"),
    "F": layouts.encode(INDICES.astype(np.float32), "TIFF"),
    "grey RGB": layouts.encode(INDICES, mode="RGB"),
    "grey RGBA": layouts.encode(INDICES, mode="RGBA"),
    "transparent grey": saved(with_alpha(np.dstack([INDICES] * 3), 0)),
}
COLOR_FILES = {
    "RGB": layouts.encode(PAINTED),
    "RGB TIFF": layouts.encode(PAINTED, "TIFF"),
    "RGBA": saved(with_alpha(PAINTED, 255)),
    "transparent": saved(with_alpha(PAINTED, 0)),
    "palette in another order": layouts.palette_png((4 - INDICES).astype(np.uint8), COLORS[::-1]),
}


@pytest.mark.parametrize("form", INDEX_FILES)
def test_index_masks_decode_alike_in_every_mode(form: str) -> None:
    mask = BY_VALUE.decode(read_raw(INDEX_FILES[form], form), form)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, DECODED)


@pytest.mark.parametrize("form", COLOR_FILES)
def test_colour_masks_decode_alike_in_every_mode(form: str) -> None:
    np.testing.assert_array_equal(BY_COLOR.decode(read_raw(COLOR_FILES[form], form), form), DECODED)


def test_a_palette_gives_indices_not_its_red_values() -> None:
    raw = read_raw(INDEX_FILES["P"], "x")
    assert not raw.colored
    np.testing.assert_array_equal(raw.values, INDICES)


def test_one_bit_masks_are_zeros_and_ones() -> None:
    bits = INDICES % 2
    raw = read_raw(saved(Image.fromarray((bits * 255).astype(np.uint8)).convert("1")), "x")
    np.testing.assert_array_equal(raw.values, bits)


def test_an_all_grey_mask_of_a_colour_set_is_read_as_colours() -> None:
    grey = np.full((4, 4, 3), 255, np.uint8)
    grey[2:] = 0
    expected = [[3] * 4] * 2 + [[VOID] * 4] * 2
    assert BY_COLOR.decode(read_raw(layouts.encode(grey), "x"), "x").tolist() == expected
    assert BY_COLOR.decode(read_raw(layouts.encode(grey[..., 0]), "x"), "x").tolist() == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (layouts.encode(PAINTED, "JPEG"), "road.png is a JPEG"),
        (layouts.encode(INDICES, "JPEG"), "road.png is a JPEG"),
        (layouts.encode(INDICES + np.float32(0.5), "TIFF"), "road.png holds fractions"),
        (layouts.encode(INDICES.astype(np.int32) - 1, "TIFF"), "road.png holds values from -1"),
        (saved(Image.fromarray(PAINTED).convert("CMYK"), "TIFF"), "road.png has mode CMYK"),
        (b"nothing", "road.png is no picture"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_raw(data, "road.png")


def test_stray_values_are_refused_however_few() -> None:
    stray = np.zeros((200, 200), np.uint8)
    stray[5, 7] = 9
    with pytest.raises(UserError, match=r"m\.png holds the value 9 \(1 pixel\).*0\.\.3"):
        BY_VALUE.decode(RawMask(stray, colored=False), "m.png")


@pytest.mark.parametrize(("strays", "refused"), [(1, False), (40, False), (41, True), (4000, True)])
def test_off_list_colours_are_void_up_to_a_thousandth(strays: int, refused: bool) -> None:
    colors = np.full((200, 200), pack((128, 64, 128)), np.uint32)
    colors.ravel()[:strays] = pack((26, 26, 27))
    raw = RawMask(colors, colored=True)
    if refused:
        with pytest.raises(UserError, match=r"m\.png has .*on no list: \(26, 26, 27\)"):
            BY_COLOR.decode(raw, "m.png")
    else:
        mask = BY_COLOR.decode(raw, "m.png")
        assert (mask.ravel()[:strays] == VOID).all()
        assert (mask.ravel()[strays:] == 2).all()
    assert BY_COLOR.strays(survey(raw, "m.png")) == {pack((26, 26, 27)): strays}


def test_a_colour_mask_among_index_masks_is_refused() -> None:
    raw = read_raw(COLOR_FILES["RGB"], "m.png")
    with pytest.raises(UserError, match=r"m\.png holds colours"):
        BY_VALUE.decode(raw, "m.png")
    with pytest.raises(UserError, match=r"m\.png holds colours"):
        BY_VALUE.strays(survey(raw, "m.png"))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
@settings(deadline=None)
def test_a_survey_counts_pixels_and_finds_their_rows(values: npt.NDArray[np.uint8]) -> None:
    facts = survey(RawMask(values, colored=False), "x")
    rows = np.repeat(np.linspace(0, 1, len(values)) if len(values) > 1 else [0.0], values.shape[1])
    assert facts.pixels == values.size
    assert set(facts.counts) == set(values.ravel().tolist())
    for value, count in facts.counts.items():
        assert count == (values == value).sum()
        assert facts.rows[value] == pytest.approx(rows[values.ravel() == value].mean())


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_packing_a_colour_is_invertible_and_is_what_files_give(color: tuple[int, int, int]) -> None:
    assert unpack(pack(color)) == color
    picture = np.asarray([[color, (1, 2, 3)]], np.uint8)
    assert read_raw(layouts.encode(picture), "x").as_colors().tolist() == [[pack(color), pack((1, 2, 3))]]


ROAD_AND_VOID = (Label("Road", (128, 64, 128), 0), Label("Void", (0, 0, 0), 1))
NAMES = (Label("Road", None, 0), Label("Void", None, 1))


@pytest.mark.parametrize(
    ("text", "form", "rows"),
    [
        ("128 64 128\t\tRoad\n0 0 0 \t Void", "label_colors.txt", ROAD_AND_VOID),
        ("# mine\n128 64 128 Road\n\n0 0 0 Void\n", "label_colors.txt", ROAD_AND_VOID),
        ("Road\nVoid", "label_colors.txt", NAMES),
        ("name,r,g,b\r\nRoad,128,64, 128\r\nVoid,0,0,0", "class_dict.csv", ROAD_AND_VOID),
        ("Road, 128, 64, 128\nVoid, 0, 0, 0", "class_palette.csv", ROAD_AND_VOID),
        ("r,g,b,name\n128,64,128,Road\n0,0,0,Void", "class_palette.csv", ROAD_AND_VOID),
        ("# label:color_rgb:parts:actions\nRoad:128,64,128::\nVoid:0,0,0::", "labelmap.txt", ROAD_AND_VOID),
        ("Pixel Value, Class\n0, Road\n1, Void\n", "_classes.csv", NAMES),
        ("Road\nVoid\n", "codes.txt", NAMES),
        ("Road 128 64 128\nVoid 0 0 0\n", "classes.txt", ROAD_AND_VOID),
        ("a wide road 1 2 3", "classes.txt", (Label("a wide road", (1, 2, 3), 0),)),
        ("1, cat\n254, the dog", "_classes.csv", (Label("cat", None, 1), Label("the dog", None, 254))),
    ],
)
def test_label_files_are_read_in_every_form(text: str, form: str, rows: tuple[Label, ...]) -> None:
    assert parse_labels(text, "f", form).rows == rows


@pytest.mark.parametrize("separator", ["\t", "\t\t", " ", "    "])
def test_label_colors_gives_the_32_classes(separator: str) -> None:
    labels = parse_labels(layouts.label_colors(separator).decode(), "f", "label_colors.txt")
    assert tuple(row.name for row in labels.rows) == CAMVID32.names
    assert tuple(row.color for row in labels.rows) == CAMVID32.colors
    assert [row.value for row in labels.rows if row.void] == [30]


@pytest.mark.parametrize(
    ("text", "form", "reason"),
    [
        ("", "classes.txt", "lists no class"),
        ("# nothing\n", "codes.txt", "lists no class"),
        ("road 1 2 3\nroad 4 5 6", "classes.txt", "the name road more than once"),
        ("road 1 2 300", "classes.txt", "line 1.*0 to 255"),
        ("ok\n1 2 3", "classes.txt", "line 2.*no name"),
        ("0, a\nb, 1", "_classes.csv", "line 2"),
        ("0, a\n0, b", "_classes.csv", "the value 0 more than once"),
        ("300, a", "_classes.csv", "line 1"),
    ],
)
def test_label_files_that_make_no_sense_are_refused(text: str, form: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"data/{form}.*{reason}"):
        parse_labels(text, f"data/{form}", form)
