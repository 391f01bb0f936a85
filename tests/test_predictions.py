"""Masks that any tool has predicted: each is found for its image and read as meant, or refused by name."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import numpy.typing as npt
import pytest
from layouts import HEIGHT, TEST, WIDTH, Files, encode, palette_png, photo, scene, truth11, truth32

from unetpp_cli.data.classes import CAMVID11, CAMVID32, VOID, ClassSet, palette
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.data.named_masks import written_classes
from unetpp_cli.data.predictions import Predictions, find_predictions
from unetpp_cli.errors import UserError
from unetpp_cli.masks import save_mask

Mask = npt.NDArray[np.uint8]
SIZE = (HEIGHT, WIDTH)


def guess11(stem: str) -> Mask:
    """A prediction of the 11 classes that is not the truth; void where it says nothing."""
    return np.roll(truth11(stem), 3, axis=1)


def guess32(stem: str) -> Mask:
    """The same of the 32 classes."""
    return np.roll(truth32(stem), 3, axis=1)


def data_of(files: Files, place: Path, classes: str | ClassSet | None = None) -> Dataset:
    return open_dataset(layouts.to_folder(files, place / "data"), classes=classes)


def found(data: Dataset, masks: Files, place: Path, split: str = "test") -> Predictions:
    """The predictions in these files, for one split."""
    return find_predictions(layouts.to_folder(masks, place / "masks"), data, data.splits[split])


def read_all(data: Dataset, masks: Files, place: Path) -> None:
    """Finds and reads every mask of the test split."""
    predictions = found(data, masks, place)
    for pair in data.splits["test"]:
        predictions.read(pair, SIZE)


def ours(mask: Mask, classes: ClassSet, place: Path) -> bytes:
    """The mask as this program writes it."""
    file = place / "ours.png"
    save_mask(file, mask, classes, {"Model": "x"})
    return file.read_bytes()


# --- read as meant ------------------------------------------------------------------------------------------


def void_as(mask: Mask, value: int) -> Mask:
    return np.where(mask == VOID, value, mask).astype(np.uint8)


def in_colors(mask: Mask, classes: ClassSet = CAMVID11) -> npt.NDArray[np.uint8]:
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.colors
    return table[mask]


def renumbered(mask: Mask) -> bytes:
    """A palette PNG of the class colours that occur, numbered anew, as programs that save space do."""
    values, numbers = np.unique(mask, return_inverse=True)
    colors = [(0, 0, 0) if value == VOID else CAMVID11.colors[value] for value in values]
    # Backwards: no value may mean by chance what its colour means.
    return palette_png((len(values) - 1 - numbers).reshape(mask.shape).astype(np.uint8), colors[::-1])


def with_strays(mask: Mask) -> npt.NDArray[np.uint8]:
    """Colours, of which three pixels in 3,072 are no class's."""
    picture = in_colors(mask)
    picture[0, :3] = (1, 2, 3)
    return picture


PALETTE_OF_11 = [*CAMVID11.colors, *[(0, 0, 0)] * 245]

FORMS: dict[str, Callable[[Mask], bytes]] = {
    "grey, 255 void": encode,
    "grey, SegNet's 11 void": lambda mask: encode(void_as(mask, 11)),
    "16 bits": lambda mask: encode(mask.astype(np.uint16)),
    "grey as RGB": lambda mask: encode(mask, mode="RGB"),
    "TIFF": lambda mask: encode(mask, "TIFF"),
    "a general palette": lambda mask: palette_png(mask, palette(256)),
    "a palette of the classes": lambda mask: palette_png(mask, PALETTE_OF_11),
    "a palette numbered anew": renumbered,
    "colours": lambda mask: encode(in_colors(mask)),
    "colours with alpha": lambda mask: encode(np.dstack([in_colors(mask), mask * 0 + 9])),
}


@pytest.mark.parametrize(
    ("layout", "form"),
    # CVAT's masks hold the 32 classes: only colours are the same for the 11.
    [(layout, form) for layout in ("segnet", "segnet_colors") for form in FORMS]
    + [("cvat_default", "colours")],
)
def test_every_form_is_read_as_the_same_classes(layout: str, form: str, tmp_path: Path) -> None:
    data = data_of(layouts.LAYOUTS[layout]()[0], tmp_path, "camvid11")
    suffix = "tif" if form == "TIFF" else "png"
    masks = {f"{stem}.{suffix}": FORMS[form](guess11(stem)) for stem in TEST}
    predictions = pickle.loads(pickle.dumps(found(data, masks, tmp_path)))
    for pair in data.splits["test"]:
        mask = predictions.read(pair, SIZE)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, guess11(Path(pair.stem).name))


def test_values_are_those_of_the_datas_own_masks(tmp_path: Path) -> None:
    """Roboflow's start at 3, with 0 for void; CVAT's at Void, in data that are asked for in other classes."""
    data = data_of(layouts.roboflow()[0], tmp_path / "roboflow")
    masks = {
        f"{s}.png": encode(np.where(guess11(s) == VOID, 0, guess11(s) + 3).astype(np.uint8)) for s in TEST
    }
    predictions = found(data, masks, tmp_path / "roboflow")
    assert predictions.how == "by the values of the data's masks"
    for pair in data.splits["test"]:
        np.testing.assert_array_equal(predictions.read(pair, SIZE), guess11(pair.stem))
    data = data_of(layouts.cvat_default()[0], tmp_path / "cvat", "camvid11")
    void_first = np.asarray([*range(1, 31), 0, 31], dtype=np.uint8)
    masks = {f"{s}.png": encode(np.roll(void_first[scene(s)], 3, axis=1)) for s in TEST}
    predictions = found(data, masks, tmp_path / "cvat")
    for pair in data.splits["test"]:
        np.testing.assert_array_equal(predictions.read(pair, SIZE), guess11(pair.stem))


@pytest.mark.parametrize("form", ["values", "colours"])
def test_the_32_classes(form: str, tmp_path: Path) -> None:
    data = data_of(layouts.original()[0], tmp_path)
    save = encode if form == "values" else lambda mask: encode(in_colors(mask, CAMVID32))
    predictions = found(data, {f"{stem}.png": save(guess32(stem)) for stem in TEST}, tmp_path)
    assert predictions.how == ("by class index" if form == "values" else "by the classes' colours")
    for pair in data.splits["test"]:
        np.testing.assert_array_equal(predictions.read(pair, SIZE), guess32(Path(pair.stem).name))


def test_a_few_stray_colours_say_nothing(tmp_path: Path) -> None:
    data = data_of(layouts.segnet()[0], tmp_path)
    masks = {f"{stem}.png": encode(with_strays(guess11(stem))) for stem in TEST}
    predictions = found(data, masks, tmp_path)
    for pair in data.splits["test"]:
        expected = guess11(pair.stem)
        expected[0, :3] = VOID
        np.testing.assert_array_equal(predictions.read(pair, SIZE), expected)


def test_one_grey_mask_among_colours_is_colours(tmp_path: Path) -> None:
    """All sky, which is grey, beside others that are not."""
    data = data_of(layouts.segnet()[0], tmp_path)
    masks = {f"{stem}.png": encode(in_colors(guess11(stem))) for stem in TEST}
    masks[f"{TEST[0]}.png"] = encode(in_colors(np.zeros(SIZE, np.uint8)))
    predictions = found(data, masks, tmp_path)
    first = next(pair for pair in data.splits["test"] if pair.stem == TEST[0])
    assert (predictions.read(first, SIZE) == CAMVID11.names.index("Sky")).all()


def test_binary_masks_of_binary_data(tmp_path: Path) -> None:
    road = {stem: np.where(scene(stem) == 17, 255, 0).astype(np.uint8) for stem in "abcdef"}
    files: Files = {"classes.txt": b"background 0 0 0\nobject 255 255 255"}
    for split in ("train", "val"):
        files |= {f"{split}/images/{stem}.png": encode(photo(stem)) for stem in road}
        files |= {f"{split}/masks/{stem}.png": encode(mask) for stem, mask in road.items()}
    data = data_of(files, tmp_path)
    masks = {f"val/{stem}.png": encode(255 - mask) for stem, mask in road.items()}
    predictions = found(data, masks, tmp_path, "val")
    for pair in data.splits["val"]:
        np.testing.assert_array_equal(predictions.read(pair, SIZE), road[pair.stem] == 0)


# --- masks that name their classes --------------------------------------------------------------------------

LACKING = ClassSet("custom", ("dog", "sky", "roads", "Void"), palette(4), void=(3,))
BACKWARDS = ClassSet("custom", CAMVID11.names[::-1], CAMVID11.colors[::-1])


@pytest.mark.parametrize(
    ("classes", "table"),
    [
        (CAMVID11, range(11)),
        (BACKWARDS, range(10, -1, -1)),
        (CAMVID32, [CAMVID11.names.index(n) if n in CAMVID11.names else None for n in CAMVID32.names]),
        (LACKING, [VOID, 0, 3, VOID]),
    ],
    ids=["the data's", "another order", "the 32", "one that the data lack"],
)
def test_our_masks_are_read_by_their_names(
    classes: ClassSet, table: list[int | None], tmp_path: Path
) -> None:
    data = data_of(layouts.segnet()[0], tmp_path)
    mask = np.tile(np.arange(WIDTH, dtype=np.uint8) * len(classes) // WIDTH, (HEIGHT, 1)).astype(np.uint8)
    mask[:4] = VOID
    masks = {f"{stem}.png": ours(mask, classes, tmp_path) for stem in TEST}
    predictions = found(data, masks, tmp_path)
    assert predictions.how == "by the class names in the files"
    expected = {index: reached for index, reached in enumerate(table) if reached is not None} | {VOID: VOID}
    for pair in data.splits["test"]:
        read = predictions.read(pair, SIZE)
        for index, reached in expected.items():
            assert (read[mask == index] == reached).all(), index
    if classes == CAMVID32:  # by SegNet's map
        for name, eleven in {"SUVPickupTruck": "Car", "Wall": "Building", "Column_Pole": "Pole"}.items():
            assert (read[mask == CAMVID32.names.index(name)] == CAMVID11.names.index(eleven)).all()
        assert (read[mask == CAMVID32.names.index("Train")] == VOID).all()


@pytest.mark.parametrize("classes", [CAMVID11, CAMVID32, BACKWARDS, LACKING], ids=lambda one: one.names[0])
def test_the_class_set_of_our_masks_comes_back_from_them(classes: ClassSet, tmp_path: Path) -> None:
    mask = ours(np.zeros(SIZE, np.uint8), classes, tmp_path)
    files = {"a.jpg": encode(photo("a"), "JPEG"), "b.png": b"broken", "c_mask.png": mask}
    assert written_classes(layouts.to_folder(files, tmp_path / "ours")) == classes
    theirs = {"a.png": encode(np.zeros(SIZE, np.uint8))}
    assert written_classes(layouts.to_folder(theirs, tmp_path / "theirs")) is None


# --- found for its image ------------------------------------------------------------------------------------

NAMES = [
    "{}.png",
    "{}.bmp",
    "{}.jpg.png",
    "{}.jpg_mask.png",
    "{}_mask.png",
    "{}_pred.png",
    "{}_L.png",
    "{}_labelids.png",
    "test/{}.png",
    "deep/CamVid/test/{}_color.png",
]


@pytest.mark.parametrize("pack", [layouts.to_folder, layouts.to_zip, layouts.to_tar])
@pytest.mark.parametrize("name", NAMES)
def test_the_mask_of_an_image_is_found(
    name: str, pack: Callable[[Files, Path], Path], tmp_path: Path
) -> None:
    data = data_of(layouts.segnet()[0], tmp_path)
    kind = name.rpartition(".")[2].upper()
    masks = {name.format(stem): encode(guess11(stem), kind) for stem in TEST}
    masks |= {"notes.txt": b"ours", "strange.png": b"", f"{TEST[0]}_overlay.png": encode(photo("x"))}
    place = pack(masks, tmp_path / ("masks.zip" if pack is layouts.to_zip else "masks.tar"))
    predictions = find_predictions(place, data, data.splits["test"])
    for pair in data.splits["test"]:
        np.testing.assert_array_equal(predictions.read(pair, SIZE), guess11(pair.stem))


def test_masks_beside_the_images_are_those_that_predict_wrote(tmp_path: Path) -> None:
    data = data_of(layouts.segnet()[0], tmp_path)
    masks = {f"{stem}.png": encode(photo(stem)) for stem in TEST}
    masks |= {f"{stem}_mask.png": ours(guess11(stem), CAMVID11, tmp_path) for stem in TEST}
    predictions = found(data, masks, tmp_path)
    for pair in data.splits["test"]:
        np.testing.assert_array_equal(predictions.read(pair, SIZE), guess11(pair.stem))


def numbered(place: Path) -> Dataset:
    """Images whose names repeat: 0 and 1 in two sequences of each of two splits."""
    files: Files = {"classes.txt": b"sky\nroad\nhouse\ncar\nrest"}
    for split in ("train", "val"):
        for stem in ("p/0", "p/1", "q/0", "q/1"):
            files[f"{split}/images/{stem}.png"] = encode(photo(f"{split}{stem}"))
            files[f"{split}/masks/{stem}.png"] = encode(layouts.five(f"{split}{stem}"))
    return data_of(files, place)


@pytest.mark.parametrize("tree", ["{pair.stem}.png", "{split}/images/{pair.stem}.png"])
def test_folders_tell_images_of_one_name_apart(tree: str, tmp_path: Path) -> None:
    data = numbered(tmp_path)
    masks: Files = {}
    for split, shift in (("train", 1), ("val", 2)):
        for pair in data.splits[split]:
            mask = np.roll(layouts.five(split + pair.stem), shift, axis=1)
            masks[tree.format(pair=pair, split=split)] = encode(mask)
    predictions = found(data, masks, tmp_path, "val")
    for pair in data.splits["val"]:
        expected = np.roll(layouts.five("val" + pair.stem), 2, axis=1)
        np.testing.assert_array_equal(predictions.read(pair, SIZE), expected)


# --- refused ------------------------------------------------------------------------------------------------


def plus(masks: Files, **more: bytes | None) -> Files:
    """The masks with some of another content, name (`__` for `/`, a dot before the suffix) or left out."""
    return {name: data for name, data in (masks | more).items() if data is not None}


GOOD: Files = {f"{stem}.png": encode(guess11(stem)) for stem in TEST}
PAINTED: Files = {f"{stem}.png": encode(in_colors(guess11(stem))) for stem in TEST}
FIRST = f"{TEST[0]}.png"
SMOOTH = encode(
    ((in_colors(guess11(TEST[0])).astype(int) + in_colors(guess11(TEST[1]))) // 2).astype(np.uint8)
)

# the files, what must be said, and the cure
REFUSED: dict[str, tuple[Files, str, str]] = {
    "one is missing": (
        plus(GOOD, **{FIRST: None}),
        rf"masks lacks the masks of 1 of 3 images: {TEST[0]}\.",
        "NAME_mask.png or NAME_pred.png",
    ),
    "all are missing": (
        {"a.png": GOOD[FIRST]},
        f"3 of 3 images: {', '.join(TEST)}",
        "--split that was predicted",
    ),
    "one has two": (
        plus(GOOD, **{f"{TEST[0]}_pred.png": GOOD[FIRST]}),
        rf"2 files that may be the mask of CamVid/test/{FIRST}: {FIRST}, {TEST[0]}_pred\.png",
        "one tool",
    ),
    "two tools": (
        {f"{tool}/{name}": data for tool in ("a", "b") for name, data in GOOD.items()},
        rf"2 files .* a/{FIRST}, b/{FIRST}",
        "one tool",
    ),
    "another size": (
        plus(GOOD, **{FIRST: encode(guess11(TEST[0])[::2, ::2])}),
        rf"masks/{FIRST} is 32x24, the mask it is scored against 64x48",
        "image's own size",
    ),
    "a value of no class": (
        plus(GOOD, **{FIRST: encode(void_as(guess11(TEST[0]), 77))}),
        rf"{FIRST} holds the value 77 \(\d+ pixels\), which is no class",
        "0 Sky, 1 Building, .* 10 Bicyclist; 255 stands for nothing",
    ),
    "16 bits of no class": (
        plus(GOOD, **{FIRST: encode(guess11(TEST[0]).astype(np.uint16) * 256)}),
        rf"{FIRST} holds the value .*256",
        "0 Sky",
    ),
    "smoothed colours": (
        plus(PAINTED, **{FIRST: SMOOTH}),
        rf"{FIRST} has .* pixels \(.* %\) of colours on no list: \(\d+, \d+, \d+\)",
        r"exactly.*Sky \(128, 128, 128\)",
    ),
    "JPEG": (
        {f"{stem}.jpg": encode(in_colors(guess11(stem)), "JPEG") for stem in TEST},
        rf"{TEST[0]}\.jpg is a JPEG",
        "PNG",
    ),
    "a palette of few colours that are other classes' by chance": (
        {f"{stem}.png": palette_png(np.full(SIZE, 3, np.uint8), palette(256)) for stem in TEST},
        "the value 3 in the colour of Tree: does the value count, or the colour",
        "grey PNGs",
    ),
    "broken": (plus(GOOD, **{FIRST: b"no picture"}), f"{FIRST} is no picture", "Replace"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_scored_wrongly_is_refused_with_names_and_cure(case: str, tmp_path: Path) -> None:
    masks, problem, cure = REFUSED[case]
    data = data_of(layouts.segnet()[0], tmp_path)
    with pytest.raises(UserError, match=problem) as refusal:
        read_all(data, masks, tmp_path)
    assert re.search(cure, refusal.value.cure), refusal.value.cure
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("dog", "cat"), "they have no name in common"),
        (("Car", "cars", "sky"), "both Car and cars would be Car"),
    ],
)
def test_our_masks_of_other_classes_are_refused_with_both_lists(
    names: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    data = data_of(layouts.segnet()[0], tmp_path)
    mask = ours(np.zeros(SIZE, np.uint8), ClassSet("custom", names, palette(len(names))), tmp_path)
    predictions = found(data, {f"{stem}.png": mask for stem in TEST}, tmp_path)
    with pytest.raises(UserError, match=reason) as refusal:
        predictions.read(data.splits["test"][0], SIZE)
    assert ", ".join(names) in refusal.value.problem
    assert ", ".join(CAMVID11.names) in refusal.value.problem


def test_our_masks_of_the_11_are_no_masks_of_the_32(tmp_path: Path) -> None:
    data = data_of(layouts.original()[0], tmp_path)
    predictions = found(data, {f"{s}.png": ours(guess11(s), CAMVID11, tmp_path) for s in TEST}, tmp_path)
    with pytest.raises(UserError, match="several of its 32 in one"):
        predictions.read(data.splits["test"][0], SIZE)


def test_one_mask_for_two_images_is_refused(tmp_path: Path) -> None:
    data = numbered(tmp_path)
    flat = {f"{number}.png": encode(layouts.five("x")) for number in (0, 1)}
    with pytest.raises(
        UserError, match=r"0\.png may be the mask of val/images/p/0\.png or of val/images/q/0"
    ):
        found(data, flat, tmp_path, "val")


def test_the_mask_of_another_splits_image_of_the_same_name_is_none(tmp_path: Path) -> None:
    data = numbered(tmp_path)
    masks = {f"train/images/{pair.stem}.png": encode(layouts.five("x")) for pair in data.splits["train"]}
    with pytest.raises(UserError, match="lacks the masks of 4 of 4 images: p/0, p/1"):
        found(data, masks, tmp_path, "val")


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    data = data_of(layouts.segnet()[0], tmp_path)
    with pytest.raises(UserError, match=r"There is no folder or archive nowhere\. .*--pred"):
        find_predictions("nowhere", data, data.splits["test"])
