"""Pictures of every mode become upright uint8 arrays, their sizes are read cheaply, damage is named."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp_cli.data import images
from unetpp_cli.data.images import decode_image, image_size
from unetpp_cli.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREY = RGB[..., 0]
GREY3 = np.dstack([GREY] * 3)


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_alpha() -> Image.Image:
    alpha = np.zeros((6, 4, 1), np.uint8)  # transparent: what lies under it must not vanish
    return Image.fromarray(np.concatenate([RGB, alpha], axis=2))


def cmyk() -> Image.Image:
    inks = [Image.fromarray(255 - RGB[..., channel]) for channel in range(3)]
    return Image.merge("CMYK", [*inks, Image.new("L", (4, 6), 0)])


def grey_palette() -> Image.Image:
    image = Image.frombytes("P", (4, 6), (GREY // 64).tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


PALETTE_COLORS = np.asarray([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)[GREY // 64]
BITS = np.where(GREY > 127, 255, 0).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(png(Image.fromarray(RGB)), RGB, id="RGB"),
        pytest.param(png(Image.fromarray(GREY)), GREY3, id="L"),
        pytest.param(png(Image.fromarray(GREY).convert("LA")), GREY3, id="LA"),
        pytest.param(png(with_alpha()), RGB, id="RGBA"),
        pytest.param(png(grey_palette()), PALETTE_COLORS, id="P"),
        pytest.param(png(Image.fromarray(BITS).convert("1")), np.dstack([BITS] * 3), id="1"),
        pytest.param(png(Image.fromarray(DEEP)), GREY3, id="I;16"),
        pytest.param(png(Image.fromarray(DEEP), "TIFF"), GREY3, id="I;16 TIFF"),
        pytest.param(png(Image.fromarray(GREY.astype(np.int32)), "TIFF"), GREY3, id="I, 0..255"),
        pytest.param(png(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), GREY3, id="I, 0..65535"),
        pytest.param(png(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), GREY3, id="F, 0..1"),
        pytest.param(png(Image.fromarray(GREY.astype(np.float32)), "TIFF"), GREY3, id="F, 0..255"),
        pytest.param(png(cmyk(), "TIFF"), RGB, id="CMYK"),
    ],
)
def test_every_mode_becomes_rgb(data: bytes, expected: npt.NDArray[np.uint8]) -> None:
    image = decode_image(data)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)
    assert image_size(data) == expected.shape[:2]
    assert image.flags.writeable


def plainly_scaled(values: npt.NDArray[Any], mode: str) -> npt.NDArray[np.uint8]:
    """What `decode_image` promises of deep pixels, computed at once in float64."""
    deep = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(min=0)
    ranges = [1.0] * (mode == "F") + [255.0] * (mode in "IF") + [65_535.0, deep.max(initial=0)]
    full = ranges[0] if mode not in "IF" else next(bound for bound in ranges if deep.max(initial=0) <= bound)
    scaled: npt.NDArray[np.uint8] = (deep * (255 / full)).round().astype(np.uint8)
    return scaled


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bits_are_scaled_like_float64(
    piece: int, big_endian: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_PIECE", piece)
    values = np.arange(65_536, dtype=">u2" if big_endian else "<u2").reshape(128, 512)[
        :: 64 // min(piece, 64)
    ]
    mode = "I;16B" if big_endian else "I;16"
    np.testing.assert_array_equal(images._to_8_bits(values, mode), plainly_scaled(values, mode))


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
@pytest.mark.parametrize("top", [0, 1, 3, 255, 256, 65_535, 65_536, 2**31 - 1])
@pytest.mark.parametrize("mode", ["I", "F"])
def test_integers_and_floats_are_scaled_in_pieces(
    mode: str, top: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_PIECE", piece)
    values = np.random.default_rng(top).uniform(-top / 4, top, (9, 13))
    values[8, 11] = top  # not in the first piece
    deep = values.astype(np.int32 if mode == "I" else np.float32)
    if mode == "F":
        deep[3, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(images._to_8_bits(deep, mode), plainly_scaled(deep, mode))
    assert images._to_8_bits(deep[:0], mode).shape == (0, 13)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
def test_scaling_deep_pixels_takes_little_memory(mode: str, kind: type) -> None:
    values = np.full((3000, 3000), 200, kind)
    tracemalloc.start()
    try:
        images._to_8_bits(values, mode)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * values.size, "the result has a byte a pixel, float64 would have eight"


def test_a_lack_of_memory_is_not_the_pictures_fault() -> None:
    def reserve(size: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        decode_image(png(Image.fromarray(RGB)), reserve=reserve)


def test_a_jpeg_is_near_what_was_saved() -> None:
    smooth = np.dstack([np.tile(np.linspace(0, 255, 64), (48, 1))] * 3).astype(np.uint8)
    data = png(Image.fromarray(smooth), "JPEG", quality=95)
    assert np.abs(decode_image(data).astype(int) - smooth).max() < 6
    cmyk = png(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_image(cmyk).astype(int) - smooth).mean() < 6


def test_one_channel_is_grey() -> None:
    grey = decode_image(png(Image.fromarray(RGB)), channels=1)
    np.testing.assert_array_equal(grey, np.asarray(Image.fromarray(RGB).convert("L")))
    np.testing.assert_array_equal(decode_image(png(Image.fromarray(GREY)), channels=1), GREY)
    np.testing.assert_array_equal(decode_image(png(Image.fromarray(DEEP)), channels=1), GREY)
    assert decode_image(png(grey_palette()), channels=1)[GREY // 64 == 1].tolist()[0] == 76  # red's luma


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(UserError, match=f"not with {channels}"):
        decode_image(png(Image.fromarray(RGB)), channels=channels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(orientation: int, kind: str) -> None:
    corners = np.zeros((32, 48), np.uint8)  # as stored; the bright corner marks where the picture's start is
    corners[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png(Image.fromarray(np.dstack([corners] * 3)), kind, exif=exif)
    upright = {
        1: corners, 2: corners[:, ::-1], 3: corners[::-1, ::-1], 4: corners[::-1], 5: corners.T,
        6: corners[::-1].T, 7: corners[::-1, ::-1].T, 8: corners[:, ::-1].T,
    }[orientation]  # fmt: skip
    image = decode_image(data, channels=1)
    assert image.shape == upright.shape == image_size(data)
    assert np.abs(image.astype(int) - upright).mean() < 5


def test_a_nonsensical_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(decode_image(png(Image.fromarray(RGB), exif=exif)), RGB)


@pytest.mark.parametrize(("channels", "size"), [(3, 72), (1, 24)])
def test_room_is_asked_for_before_a_pixel_is_decoded(channels: int, size: int) -> None:
    asked: list[int] = []
    data = png(Image.fromarray(RGB))
    assert decode_image(data, channels, reserve=asked.append).nbytes == size
    assert asked == [size]
    with pytest.raises(UserError, match="damaged one"):
        decode_image(b"no picture", channels, reserve=asked.append)
    assert asked == [size]
    with pytest.raises(UserError):
        decode_image(data[:-40], channels, reserve=asked.append)  # the header is sound
    assert asked == [size] * 2


def test_a_reason_of_the_system_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read the picture .*: Is a directory\."):
        decode_image(tmp_path)


def test_paths_and_streams_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(Image.fromarray(RGB)))
    for picture in (path, str(path), path.open("rb")):
        np.testing.assert_array_equal(decode_image(picture), RGB)
    assert image_size(path) == (6, 4)


def test_the_size_needs_only_the_header() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        data = png(Image.fromarray(noise), kind)
        assert image_size(data[: len(data) // 10]) == (300, 200)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "no picture": lambda data: b"hello",
    "nothing": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut header": lambda data: data[:20],
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_by_name(kind: str, damage: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    path = tmp_path / "road.png"
    path.write_bytes(DAMAGE[damage](png(Image.fromarray(noise), kind)))
    for picture, name in ((path, None), (path.read_bytes(), "archive.zip/road.png")):
        with pytest.raises(UserError, match=name or "road.png"):
            decode_image(picture, name=name)


@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "GIF"]), st.integers(0, 400))
@settings(deadline=None, max_examples=150)
def test_no_damage_escapes_as_anything_but_a_user_error(junk: bytes, kind: str, at: int) -> None:
    data = png(Image.fromarray(RGB), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks about damaged metadata
        for read in (decode_image, image_size):
            with contextlib.suppress(UserError):
                read(data[:at] + junk + data[at + len(junk) :], name="junk.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*nothing\.png"):
        decode_image(tmp_path / "nothing.png")


def test_big_pictures_are_read_without_a_warning_and_enormous_ones_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = png(Image.fromarray(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # far below: Pillow alone would refuse this picture
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(data).shape == (6, 4, 3)
    assert Image.MAX_IMAGE_PIXELS == 5
    monkeypatch.setattr(images, "MAX_PIXELS", 20)
    with pytest.raises(UserError, match="4x6 pixels; 20 is the limit"):
        decode_image(data, name="x.png")
