"""Every layout is recognised, paired, split and decoded as meant; what would train garbage is refused."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import ALL, FRAMES, LAYOUTS, TRAIN, VAL, Files, encode, photo, scene, truth11

from unetpp_cli.data.classes import CAMVID11, CAMVID32, VOID, ClassSet
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.data.splits import SEGNET_SPLIT, looks_like_video, segnet_split, sequence
from unetpp_cli.errors import UserError


def opened(files: Files, place: Path, **options: Any) -> Dataset:
    """The data set of these files, in a folder."""
    return open_dataset(layouts.to_folder(files, place / "data"), **options)


def stems(data: Dataset) -> dict[str, list[str]]:
    return {split: [pair.stem for pair in pairs] for split, pairs in data.splits.items()}


def masked(mask: Callable[[str], npt.NDArray[np.generic]], names: tuple[str, ...] = FRAMES) -> Files:
    """images/ and masks/ of these frames."""
    files = {f"images/{stem}.png": encode(photo(stem)) for stem in names}
    return files | {f"masks/{stem}.png": encode(mask(stem)) for stem in names}


# --- recognised ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_found_split_and_decoded(name: str, tmp_path: Path) -> None:
    files, expected = LAYOUTS[name]()
    data = opened(files, tmp_path)
    assert (data.layout, data.classes.name, data.void) == (expected.layout, expected.classes, expected.void)
    assert stems(data) == {split: sorted(names) for split, names in expected.splits.items()}
    assert list(data.splits) == [split for split in ("train", "val", "test") if split in expected.splits]
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), expected.mask(pair.stem), err_msg=pair.stem)
        if pair.image.endswith(".png"):
            np.testing.assert_array_equal(data.read_image(pair), photo(pair.stem))
        assert data.image_size(pair) == data.mask_size(pair) == (layouts.HEIGHT, layouts.WIDTH)
    assert len(data.warnings) == len(expected.warned)
    for warning, part in zip(data.warnings, expected.warned, strict=True):
        assert part in warning


@pytest.mark.parametrize("name", ["original", "kaggle", "segnet", "cvat_colors", "plain"])
def test_an_archive_gives_what_the_folder_gives(name: str, tmp_path: Path) -> None:
    files, _ = LAYOUTS[name]()
    folder = opened(files, tmp_path)
    archives = [layouts.to_zip(files, tmp_path / "a.zip"), layouts.to_tar(files, tmp_path / "a.tar")]
    deeper = {f"__MACOSX/Top/{file}": b"litter" for file in files} | {
        f"Top/{file}": files[file] for file in files
    }
    archives.append(layouts.to_zip(deeper, tmp_path / "deeper.zip"))
    for path in archives:
        data = open_dataset(path)
        assert data.summary() == folder.summary()
        assert data.fingerprint() == folder.fingerprint()
        for ours, theirs in zip(data.pairs(), folder.pairs(), strict=True):
            np.testing.assert_array_equal(data.read_mask(ours), folder.read_mask(theirs))


def test_the_fingerprint_knows_a_changed_mask_and_a_moved_frame(tmp_path: Path) -> None:
    files, _ = layouts.segnet_folders()
    prints = {opened(files, tmp_path / "0").fingerprint()}
    changed = {**files, f"CamVid/trainannot/{TRAIN[0]}.png": files[f"CamVid/trainannot/{TRAIN[1]}.png"]}
    prints.add(opened(changed, tmp_path / "1").fingerprint())
    moved = {name.replace(f"val/{VAL[0]}", f"test/{VAL[0]}"): data for name, data in files.items()}
    moved = {name.replace(f"valannot/{VAL[0]}", f"testannot/{VAL[0]}"): data for name, data in moved.items()}
    prints.add(opened(moved, tmp_path / "2").fingerprint())
    assert len(prints) == 3


def test_camvids_two_zips_in_a_folder(tmp_path: Path) -> None:
    files, expected = layouts.original()
    top = "LabeledApproved_full/"
    labels = {name.removeprefix(top): data for name, data in files.items() if name.startswith(top)}
    stills = {name: data for name, data in files.items() if name.startswith("701")}
    layouts.to_zip(stills, tmp_path / "701_StillsRaw_full.zip")
    layouts.to_zip(labels, tmp_path / "LabeledApproved_full.zip")
    data = open_dataset(tmp_path)
    assert (
        data.summary() == "original CamVid layout, 32 classes incl. void Void (30), 5 train / 2 val / 3 test"
    )
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), expected.mask(pair.stem))


@pytest.mark.parametrize("separator", [None, "\t", "\t\t", "  "])
def test_original_camvid_with_any_label_colors(separator: str | None, tmp_path: Path) -> None:
    files, expected = layouts.original(separator)
    data = opened(files, tmp_path)
    assert data.classes == CAMVID32
    np.testing.assert_array_equal(data.read_mask(data.splits["val"][0]), expected.mask(VAL[0]))


def test_the_summary_is_one_line(tmp_path: Path) -> None:
    files, _ = layouts.segnet()
    data = opened({name: content for name, content in files.items() if "test" not in name}, tmp_path)
    assert data.summary() == "SegNet layout, 11 classes + void 11, 5 train / 2 val"
    assert data.split_by == "its own lists"


def test_names_for_run_folders(tmp_path: Path) -> None:
    files, _ = layouts.plain()
    assert opened(files, tmp_path / "My streets, 2024").name == "data"
    assert open_dataset(layouts.to_folder(files, tmp_path / "My streets, 2024")).name == "My-streets-2024"
    assert open_dataset(layouts.to_zip(files, tmp_path / "streets.v2.zip")).name == "streets.v2"
    assert opened(layouts.original()[0], tmp_path / "other").name == "camvid"


def test_a_data_set_can_be_pickled(tmp_path: Path) -> None:
    data = open_dataset(layouts.to_zip(layouts.original()[0], tmp_path / "a.zip"))
    pair = data.splits["train"][0]
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.read_mask(pair), data.read_mask(pair))
    np.testing.assert_array_equal(copy.read_image(pair, 1).shape, (layouts.HEIGHT, layouts.WIDTH))


# --- encodings ----------------------------------------------------------------------------------------------


def segnet_values(stem: str) -> npt.NDArray[np.uint8]:
    mask = truth11(stem)
    return np.where(mask == VOID, 11, mask).astype(np.uint8)


def alphabetical(stem: str) -> npt.NDArray[np.uint8]:
    """The 11 classes by the alphabet of their 32-class names, as mmsegmentation ports have them; void 255."""
    order = ("Bicyclist", "Building", "Car", "Pole", "Fence", "Pedestrian", "Road", "Pavement", "SignSymbol")
    table = np.full(256, VOID, np.uint8)
    for index, name in enumerate((*order, "Sky", "Tree")):
        table[CAMVID11.names.index(name)] = index
    return table[truth11(stem)]


ALPHABET_FILE = (
    b"Bicyclist\nBuilding\nCar\nColumn_Pole\nFence\nPedestrian\nRoad\nSidewalk\nSignSymbol\nSky\nTree\n"
)


@pytest.mark.parametrize(
    ("mask", "classes", "void"),
    [
        (segnet_values, "camvid11", "void 11"),
        (truth11, "camvid11", "void 255"),
        (lambda stem: segnet_values(stem).astype(np.uint16), "camvid11", "void 11"),
        (scene, "camvid32", "void Void (30)"),
        (lambda stem: np.where(scene(stem) == 4, 32, scene(stem)), "camvid33", "void Void (30), unk (32)"),
        (lambda stem: np.where(scene(stem) == 4, 33, scene(stem)), "camvid33", "void Void (30), unk (32)"),
        (lambda stem: scene(stem) + 1, "camvid32", "void Void (30)"),
    ],
)
def test_nameless_index_masks_of_camvid_are_recognised_by_their_values(
    mask: Callable[[str], npt.NDArray[np.uint8]], classes: str, void: str, tmp_path: Path
) -> None:
    data = opened(masked(lambda stem: mask(stem).astype(np.uint8)), tmp_path)
    assert (data.classes.name, data.void) == (classes, void)
    sky = data.classes.names.index("Sky")
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair) == sky, scene(pair.stem) == 21)


def test_the_alphabetical_order_is_refused_without_names_and_read_with_them(tmp_path: Path) -> None:
    files = masked(alphabetical)
    with pytest.raises(UserError, match="fit the alphabetical order") as refusal:
        opened(files, tmp_path)
    assert "Bicyclist, Building, Car, Pole" in refusal.value.cure
    data = opened(files | {"classes.txt": ALPHABET_FILE}, tmp_path)
    assert data.classes == CAMVID11
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), truth11(pair.stem))


def test_the_order_is_checked_in_segnets_layout_under_any_names(tmp_path: Path) -> None:
    files = {}
    for stem in ("a", "b", "c"):
        upside_down = segnet_values(stem)[::-1]
        files |= {f"train/{stem}.png": encode(photo(stem)), f"trainannot/{stem}.png": encode(upside_down)}
    with pytest.raises(UserError, match="SegNet's order does not fit"):
        opened(files, tmp_path)


def test_palette_masks_give_indices_whatever_their_palette(tmp_path: Path) -> None:
    odd = np.random.default_rng(1).integers(0, 256, (12, 3)).tolist()
    for number, colors in enumerate((odd, [*CAMVID11.colors, (0, 0, 0)])):
        files = masked(segnet_values)
        files |= {f"masks/{stem}.png": layouts.palette_png(segnet_values(stem), colors) for stem in FRAMES}
        data = opened(files, tmp_path / str(number))
        for pair in data.pairs():
            np.testing.assert_array_equal(data.read_mask(pair), truth11(pair.stem))


def test_palettes_renumbered_file_by_file_are_read_by_colour(tmp_path: Path) -> None:
    files = masked(segnet_values)
    for stem in FRAMES:  # as a program does that writes RGB masks as small palette files
        values, numbers = np.unique(segnet_values(stem)[:, ::-1].ravel()[:: len(stem)], return_inverse=True)
        values = np.concatenate([values, np.setdiff1d(np.arange(12), values)])
        values = np.random.default_rng(numbers.size).permutation(values)
        renumbered = np.argsort(values)[segnet_values(stem)].astype(np.uint8)
        colors = [(*CAMVID11.colors, (0, 0, 0))[value] for value in values]
        files[f"masks/{stem}.png"] = layouts.palette_png(renumbered, colors)
    data = opened(files, tmp_path)
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), truth11(pair.stem))


def test_palettes_of_camvids_colours_are_known_under_any_names_and_others_are_not(tmp_path: Path) -> None:
    names = tuple("uvwxyz")
    files = masked(segnet_values, names)
    backwards = [*CAMVID11.colors, (0, 0, 0)][::-1]
    for stem in names:
        files[f"masks/{stem}.png"] = layouts.palette_png(11 - segnet_values(stem), backwards)
    data = opened(files, tmp_path)
    assert data.classes == CAMVID11
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), truth11(pair.stem))
    for stem in names:  # Pascal VOC's first colours, black and dark red, are CamVid's Void and Building
        road = (scene(stem) == 17).astype(np.uint8)
        files[f"masks/{stem}.png"] = layouts.palette_png(road, [(0, 0, 0), (128, 0, 0)])
    two = opened(files, tmp_path / "2")
    assert two.classes.names == ("class_0", "class_1")
    np.testing.assert_array_equal(two.read_mask(next(two.pairs())) == 1, scene(next(two.pairs()).stem) == 17)


def test_colours_without_a_label_file_tell_11_from_32_classes(tmp_path: Path) -> None:
    eleven = opened(masked(layouts.colors11), tmp_path / "11")
    assert eleven.classes == CAMVID11
    assert not any("too few" in text for text in eleven.warnings)
    np.testing.assert_array_equal(eleven.read_mask(eleven.splits["val"][0]), truth11(VAL[0]))
    assert opened(masked(layouts.colors32), tmp_path / "32").classes == CAMVID32


def test_too_few_colour_masks_to_tell_are_said_to_be_guessed(tmp_path: Path) -> None:
    assert any("too few" in text for text in opened(masked(layouts.colors11, FRAMES[:8]), tmp_path).warnings)


def test_segnets_display_pavement_counts_as_pavement_beside_a_label_file_too(tmp_path: Path) -> None:
    files, _ = layouts.kaggle_of_eleven()
    mask = layouts.colors11(VAL[0])
    mask[truth11(VAL[0]) == CAMVID11.names.index("Pavement")] = (60, 40, 222)
    data = opened(files | {f"val_labels/{VAL[0]}_L.png": encode(mask)}, tmp_path)
    np.testing.assert_array_equal(data.read_mask(data.splits["val"][0]), truth11(VAL[0]))


def test_kaggles_folders_with_other_data_are_not_called_kaggles_camvid(tmp_path: Path) -> None:
    files = {"classes.txt": b"a\nb\nc\nd\ne"}
    for stem in "xyz":
        files |= {
            f"train/{stem}.png": encode(photo(stem)),
            f"train_labels/{stem}.png": encode(layouts.five(stem)),
        }
    data = opened(files, tmp_path)
    assert (data.layout, data.warnings) == ("split folders", ())


def test_of_several_label_files_the_users_own_nearest_to_the_top_counts(tmp_path: Path) -> None:
    files = masked(layouts.five, tuple("abcd"))
    files |= {"codes.txt": b"k\nl\nm\nn\no", "x/classes.txt": b"f\ng\nh\ni\nj"}
    assert opened(files, tmp_path / "0").classes.names == tuple("fghij")
    files["classes.txt"] = b"p\nq\nr\ns\nt"
    assert opened(files, tmp_path / "1").classes.names == tuple("pqrst")


@pytest.mark.parametrize("suffix", ["", "_L", "_mask", "_labelIds", "-annotated"])
def test_masks_pair_by_one_suffix_whatever_the_extensions(suffix: str, tmp_path: Path) -> None:
    files = {"classes.txt": b"a\nb\nc\nd\ne"}
    for stem in ("a.1", "a.12", "b"):
        files[f"images/{stem}.jpeg"] = encode(photo(stem), "JPEG")
        files[f"masks/{stem}{suffix}.bmp"] = encode(layouts.five(stem), "BMP")
    data = opened(files, tmp_path)
    pairs = {pair.stem: pair.mask for pair in data.pairs()}
    assert pairs == {stem: f"masks/{stem}{suffix}.bmp" for stem in ("a.1", "a.12", "b")}


def test_own_classes_named_in_a_file(tmp_path: Path) -> None:
    files = masked(layouts.five) | {"classes.txt": b"sky 1 2 3\nroad 4 5 6\nVoid\ncar 7 8 9\nrest 9 9 9\n"}
    data = opened(files, tmp_path)
    assert data.classes.names == ("sky", "road", "car", "rest")
    assert data.void == "void Void (2)"
    table = np.asarray([0, 1, VOID, 2, 3], np.uint8)
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), table[layouts.five(pair.stem)])


def test_own_classes_without_names_are_numbered_loudly(tmp_path: Path) -> None:
    names = tuple(f"own_{number}" for number in range(60))
    files = masked(layouts.five, names)
    last = layouts.five("own_59")
    last[0, 0] = 6
    files["masks/own_59.png"] = files["masks/own_58.png"]
    files["masks/own_31.png"] = encode(last)  # only a look at every mask finds this value
    data = opened(files, tmp_path)
    assert data.classes.names == tuple(f"class_{number}" for number in range(7))
    assert any("class_0 to class_6" in text and "classes.txt" in text for text in data.warnings)
    five = ClassSet("streets", ("a", "b", "c", "d", "e", "f", "g"), tuple((n, n, n) for n in range(7)))
    assert opened(files, tmp_path, classes=five).classes == five


def test_binary_masks_are_refused_until_a_file_says_what_they_are(tmp_path: Path) -> None:
    def binary(stem: str) -> npt.NDArray[np.uint8]:
        return np.where(scene(stem) == 17, 255, 0).astype(np.uint8)

    files = masked(binary)
    for number, names in enumerate((None, b"background\nobject\n")):
        extra = {} if names is None else {"classes.txt": names}
        with pytest.raises(UserError, match="nothing but 0 and 255") as refusal:
            opened(files | extra, tmp_path / str(number))
        assert "'object 255 255 255'" in refusal.value.cure
    data = opened(files | {"classes.txt": b"background 0 0 0\nobject 255 255 255\n"}, tmp_path)
    assert data.classes.names == ("background", "object")
    np.testing.assert_array_equal(data.read_mask(data.splits["val"][0]), binary(VAL[0]) // 255)


def test_stray_values_beyond_the_sample_are_refused_when_they_are_read(tmp_path: Path) -> None:
    names = tuple(f"own_{number:03d}" for number in range(120))
    files = masked(layouts.five, names) | {"classes.txt": b"a\nb\nc\nd\ne\n"}
    mask = layouts.five(names[1])
    mask[3, 3] = 77
    files[f"masks/{names[1]}.png"] = encode(mask)
    data = opened(files, tmp_path)
    stray = next(pair for pair in data.pairs() if pair.stem == names[1])
    with pytest.raises(UserError, match=rf"masks/{names[1]}\.png holds the value 77"):
        data.read_mask(stray)


def test_a_few_off_list_colours_are_void_and_said_with_counts(tmp_path: Path) -> None:
    files, _ = layouts.original()
    mask = layouts.colors32(VAL[0])
    mask[30, 40] = mask[30, 41] = mask[31, 41] = (26, 26, 26)  # 3 of 3,072 pixels
    files[f"LabeledApproved_full/{VAL[0]}_L.png"] = encode(mask)
    data = opened(files, tmp_path)
    assert [text for text in data.warnings if f"{VAL[0]}_L.png (3 pixels)" in text and "1 mask:" in text]
    assert data.read_mask(data.splits["val"][0])[30, 40] == VOID


# --- splits -------------------------------------------------------------------------------------------------


SPLIT_HASH = "37c086a3542817fe4048d3d1a31a552d683482672bbf637373accf00f1c1c23f"
"""SHA-256 of the published lists, a line `split,frame` for each frame, by frame."""


def test_the_benchmarks_lists_are_the_published_ones() -> None:
    counts = {name: list(SEGNET_SPLIT.values()).count(name) for name in ("train", "val", "test")}
    assert counts == {"train": 367, "val": 101, "test": 233}
    text = "".join(f"{split},{frame}\n" for frame, split in sorted(SEGNET_SPLIT.items()))
    assert hashlib.sha256(text.encode()).hexdigest() == SPLIT_HASH
    assert segnet_split("0016E5_00901") == "train"  # the one frame off the beat
    assert segnet_split("0016E5_00900") is None


def test_frames_off_the_benchmarks_lists_go_nowhere_and_are_counted(tmp_path: Path) -> None:
    files, _ = layouts.original()
    for stem in ("0016E5_00391", "0001TP_000001"):
        files[f"701_StillsRaw_full/{stem}.png"] = encode(photo(stem))
        files[f"LabeledApproved_full/{stem}_L.png"] = encode(layouts.colors32(stem))
    data = opened(files, tmp_path)
    assert stems(data) == {split: sorted(names) for split, names in ALL.items()}
    assert data.split_by == "SegNet's frame lists"
    assert any("2 of 12 images (0001TP_000001, 0016E5_00391)" in text for text in data.warnings)


def test_kaggles_folders_can_be_split_by_segnet(tmp_path: Path) -> None:
    files, _ = layouts.kaggle()
    data = opened(files, tmp_path, split_by="segnet")
    assert stems(data) == {split: sorted(names) for split, names in ALL.items()}
    assert (data.split_by, data.warnings) == ("SegNet's frame lists", ())


def test_kaggles_split_is_warned_about_whatever_the_frames_are_called(tmp_path: Path) -> None:
    files, _ = layouts.kaggle()
    renamed = {name: name for name in files}
    for number, stem in enumerate(FRAMES):
        renamed = {old: new.replace(stem, f"scene {number}") for old, new in renamed.items()}
    data = opened({renamed[name]: content for name, content in files.items()}, tmp_path)
    assert any("Kaggle's split" in text for text in data.warnings)


@pytest.mark.parametrize(
    ("names", "leaks"),
    [(FRAMES, True), (tuple(f"drive_{n:04d}" for n in range(10)), True), (tuple("abcdefghij"), False)],
)
def test_a_random_split_is_seeded_and_warned_about_for_video(
    names: tuple[str, ...], leaks: bool, tmp_path: Path
) -> None:
    files = masked(segnet_values if names == FRAMES else layouts.five, names)
    files |= {} if names == FRAMES else {"classes.txt": b"a\nb\nc\nd\ne"}
    one, same, other = (opened(files, tmp_path, split_by="random", seed=seed) for seed in (3, 3, 4))
    assert stems(one) == stems(same) != stems(other)
    assert {name: len(pairs) for name, pairs in one.splits.items()} == {"train": 8, "val": 2}
    assert sorted(pair.stem for pair in one.pairs()) == sorted(names)
    assert one.split_by == "a random 80/20 split (seed 3)"
    assert any("neighbouring frames" in text for text in one.warnings) == leaks


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"val.txt": "c\nd"}, {"train": "abef", "val": "cd"}),
        ({"train.txt": "images/a.png\nimages/b.png"}, {"train": "ab", "val": "cdef"}),
        ({"train.txt": "a b c".replace(" ", "\n"), "valid.txt": "d.png"}, {"train": "abc", "val": "d"}),
        ({"lists/test.txt": "f"}, {"train": None, "val": None, "test": "f"}),
        (
            {"train.txt": "a", "val.txt": "b", "test.txt": "c", "notes.txt": "a\nb"},
            {"train": "a", "val": "b", "test": "c"},
        ),
    ],
)
def test_lists_of_names_split_plain_folders(
    lists: dict[str, str], expected: dict[str, str | None], tmp_path: Path
) -> None:
    files = masked(layouts.five, tuple("abcdef")) | {"classes.txt": b"a\nb\nc\nd\ne"}
    found = stems(opened(files | {name: text.encode() for name, text in lists.items()}, tmp_path))
    assert found.keys() == expected.keys()
    for split, names in expected.items():
        assert names is None or found[split] == list(names)


def test_a_frame_on_two_lists_is_warned_about(tmp_path: Path) -> None:
    files = masked(layouts.five, tuple("abcd")) | {"classes.txt": b"a\nb\nc\nd\ne"}
    data = opened(files | {"train.txt": b"a\nb", "val.txt": b"b\nc\nd"}, tmp_path)
    assert any("In two splits: 1 image, b (train and val)" in text for text in data.warnings)


def test_a_test_split_without_masks_is_left_out(tmp_path: Path) -> None:
    files, _ = layouts.segnet_folders()
    data = opened({name: content for name, content in files.items() if "testannot" not in name}, tmp_path)
    assert list(data.splits) == ["train", "val"]
    assert any("test images are left out" in text for text in data.warnings)


def test_listed_paths_may_have_lost_their_extension_or_beginning(tmp_path: Path) -> None:
    files, _ = layouts.segnet()
    files = {
        name.replace("/train/", "/train/").replace(".png", ".PNG"): content for name, content in files.items()
    }
    data = opened(files, tmp_path)  # the lists still say .png
    assert stems(data) == {split: sorted(names) for split, names in ALL.items()}


@given(st.sampled_from(FRAMES))
def test_sequences_are_read_from_names(stem: str) -> None:
    assert sequence(stem) == stem.split("_")[0]


@pytest.mark.parametrize(
    ("names", "video"), [(["a1", "b2"], False), ([f"f{n:05d}" for n in range(9)], True), (["x", "y"], False)]
)
def test_video_is_known_by_numbered_names(names: list[str], video: bool) -> None:
    assert looks_like_video(names) == video


# --- classes asked for --------------------------------------------------------------------------------------


def test_the_32_classes_become_the_11_by_segnets_map(tmp_path: Path) -> None:
    data = opened(layouts.original()[0], tmp_path, classes="camvid11")
    assert data.classes == CAMVID11
    assert data.summary().startswith(
        "original CamVid layout, 11 classes + void Void and 9 of the 32 classes, "
    )
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), truth11(pair.stem))


def test_the_32_become_the_33_and_back(tmp_path: Path) -> None:
    data = opened(layouts.original()[0], tmp_path, classes="camvid33")
    assert (len(data.classes), data.void) == (33, "void Void (30), unk (32)")
    np.testing.assert_array_equal(data.read_mask(data.splits["val"][0]), layouts.truth32(VAL[0]))
    unk = masked(lambda stem: np.where(scene(stem) == 4, 32, scene(stem)).astype(np.uint8))
    back = opened(unk, tmp_path / "33", classes="camvid32")
    expected = np.where(scene(VAL[0]) == 4, VOID, layouts.truth32(VAL[0]))
    np.testing.assert_array_equal(back.read_mask(back.splits["val"][0]), expected)


def test_a_models_class_set_reorders_the_same_names(tmp_path: Path) -> None:
    model = ClassSet("custom", CAMVID11.names[::-1], CAMVID11.colors[::-1])
    data = opened(layouts.segnet()[0], tmp_path, classes=model)
    assert data.classes == model
    expected = truth11(VAL[0])
    np.testing.assert_array_equal(
        data.read_mask(data.splits["val"][0]), np.where(expected == VOID, VOID, 10 - expected)
    )
    from_32 = opened(layouts.original()[0], tmp_path / "32", classes=model)
    np.testing.assert_array_equal(
        from_32.read_mask(from_32.splits["val"][0]), data.read_mask(data.splits["val"][0])
    )


def test_a_models_colours_read_nameless_colour_masks(tmp_path: Path) -> None:
    colors = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (9, 9, 9), (200, 200, 0))
    model = ClassSet("custom", tuple("abcde"), colors)
    files = masked(lambda stem: np.asarray(colors, np.uint8)[layouts.five(stem)], tuple("uvwxyz"))
    with pytest.raises(UserError, match="what the 5 colours of the masks mean"):
        opened(files, tmp_path)
    data = opened(files, tmp_path, classes=model)
    for pair in data.pairs():
        np.testing.assert_array_equal(data.read_mask(pair), layouts.five(pair.stem))


# --- refused ------------------------------------------------------------------------------------------------


def changed(files: Files, **changes: bytes | None) -> Files:
    """The files with some replaced or (None) left out; `__` stands for `/`."""
    return {name: data for name, data in (files | changes).items() if data is not None}


def half(stem: str) -> bytes:
    return encode(scene(stem)[::2, ::2])


SEGNET, ORIGINAL, PLAIN = layouts.segnet()[0], layouts.original()[0], layouts.plain()[0]
FOLDERS = layouts.segnet_folders()[0]
GREYS = np.asarray([(3 * r + 6 * g + b) // 10 for r, g, b in CAMVID32.colors], np.uint8)
SMOOTH = encode(
    np.asarray(
        (layouts.colors32(VAL[0]).astype(int) + np.roll(layouts.colors32(VAL[0]), 1, 1)) // 2, np.uint8
    )
)

REFUSED: dict[str, tuple[Files, dict[str, Any], str, str]] = {
    "image without mask": (
        changed(ORIGINAL, **{f"LabeledApproved_full/{VAL[0]}_L.png": None}),
        {},
        rf"1 image without mask \(701_StillsRaw_full/{VAL[0]}\.png\)",
        "Add what is missing",
    ),
    "mask without image": (
        changed(FOLDERS, **{f"CamVid/val/{VAL[0]}.png": None}),
        {},
        rf"1 mask without image \(CamVid/valannot/{VAL[0]}\.png\)",
        "Add what is missing",
    ),
    "nothing pairs": (
        {"images/a.png": encode(photo("a")), "masks/b.png": encode(scene("b"))},
        {},
        "images/a.png and masks/b.png",
        "same name",
    ),
    "another size": (
        changed(SEGNET, **{f"CamVid/valannot/{VAL[0]}.png": half(VAL[0])}),
        {},
        rf"{VAL[0]}\.png 32x24 for CamVid/val/{VAL[0]}\.png 64x48",
        "Bring image and mask to one size",
    ),
    "list of missing files": (
        changed(SEGNET, **{f"CamVid/val/{VAL[0]}.png": None}),
        {},
        rf"val\.txt lists what is not there: 1 file \(/SegNet/CamVid/val/{VAL[0]}\.png\)",
        "Add the files",
    ),
    "list of missing names": (
        changed(PLAIN, **{"val.txt": b"d\nzebra"}),
        {},
        r"val\.txt lists what is not there: 1 image \(zebra\)",
        "Add the images",
    ),
    "two lists for one split": (
        changed(SEGNET, **{"CamVid/camvid_val_list.txt": SEGNET["CamVid/val.txt"].splitlines()[0]}),
        {},
        "list different pairs for val",
        "Remove one",
    ),
    "two sets of masks": (
        changed(PLAIN, **{"labels/a.png": PLAIN["masks/a.png"]}),
        {},
        "two ways: with the masks in masks, or with those in labels",
        "Move away",
    ),
    "two data sets": (
        {f"{top}/{name}": data for top in ("one", "two") for name, data in PLAIN.items()},
        {},
        "more than one data set: one and two",
        "Give the folder",
    ),
    "no pictures": ({"readme.txt": b"hello"}, {}, "no pictures", "images/ and masks/"),
    "a packed data set": ({"camvid.zip": b"PK"}, {}, "no pictures", r"--data .*camvid\.zip"),
    "no masks": (
        {f"photos/{stem}.png": encode(photo(stem)) for stem in "ab"},
        {},
        r"pictures in photos \(2\)",
        "images/ and masks/",
    ),
    "train without masks": (
        {name: data for name, data in FOLDERS.items() if "trainannot" not in name},
        {},
        "CamVid/train holds 5 images, but there is no folder trainannot",
        "Add the masks",
    ),
    "one stem twice": (
        changed(PLAIN, **{"images/a.bmp": encode(photo("a"), "BMP")}),
        {},
        r"images/a\.bmp and images/a\.jpg",
        "Move one",
    ),
    "one channel of colours": (
        masked(lambda stem: layouts.colors32(stem)[..., 0]),
        {},
        "values 0, 64, 128, 192",
        "as they were before",
    ),
    "greys of colours": (
        masked(lambda stem: GREYS[scene(stem)]),
        {},
        "greys, or one channel",
        "as they were",
    ),
    "empty masks": (masked(lambda stem: scene(stem) * 0), {}, "nothing but 0 ", "how they were saved"),
    "stray value": (
        changed(PLAIN, **{"masks/d.png": encode(np.full((48, 64), 9, np.uint8))}),
        {},
        r"masks/d\.png holds the value 9",
        "classes.txt",
    ),
    "resized with interpolation": (
        changed(ORIGINAL, **{f"LabeledApproved_full/{VAL[0]}_L.png": SMOOTH}),
        {},
        rf"{VAL[0]}_L\.png has .* of colours on no list",
        "resized with interpolation",
    ),
    "JPEG masks": (
        changed(PLAIN, **{"masks/d.png": None, "masks/d.jpg": encode(layouts.five("d"), "JPEG")}),
        {},
        r"masks/d\.jpg is a JPEG",
        "as PNG",
    ),
    "a damaged mask": (
        changed(PLAIN, **{"masks/d.png": b"no"}),
        {},
        r"masks/d\.png is no picture",
        "Replace",
    ),
    "colours among indices": (
        changed(PLAIN, **{"masks/d.png": encode(layouts.colors32("d"))}),
        {},
        r"classes\.txt has names without colours",
        "colours behind the names",
    ),
    "names without colours": (
        masked(lambda stem: layouts.colors32(stem) // 2) | {"codes.txt": b"a\nb\nc"},
        {},
        r"codes\.txt has names without colours",
        "colours behind the names",
    ),
    "one colour for two": (
        masked(layouts.colors32) | {"classes.txt": b"a 1 2 3\nb 1 2 3"},
        {},
        r"gives a and b the colour \(1, 2, 3\)",
        "Give each its own",
    ),
    "colours that are CamVid's by chance": (
        masked(
            lambda stem: np.where(scene(stem)[..., None] == 17, [128, 0, 0], [0, 0, 0]).astype(np.uint8),
            ("a", "b"),
        ),
        {},
        r"what the 2 colours of the masks mean: \(0, 0, 0\), \(128, 0, 0\)",
        "'name r g b' a line",
    ),
    "nothing but void": (
        masked(scene) | {"classes.txt": b"Void\nignore"},
        {},
        "nothing but void",
        "Name the others",
    ),
    "SegNet's masks with the 32 names": (
        changed(SEGNET, **{"class_dict.csv": layouts.class_dict()}),
        {},
        r"class_dict\.csv lists 32 classes, but the masks look like SegNet's 11",
        "Remove",
    ),
    "the 11 as the 32": (
        SEGNET,
        {"classes": "camvid32"},
        "has 11 classes .*Sky.* 32 of camvid32 .*Animal",
        "same class names",
    ),
    "own classes as camvid11": (PLAIN, {"classes": "camvid11"}, "has 5 classes .*sky", "same class names"),
    "an unknown class set": (PLAIN, {"classes": "camvid12"}, "no class set 'camvid12'", "Built in"),
    "an unknown split": (PLAIN, {"split_by": "segnett"}, "Did you mean 'segnet'", "segnet, random"),
    "SegNet's split of other frames": (PLAIN, {"split_by": "segnet"}, "None of 5 images", "Leave out"),
    "one image alone": (
        masked(layouts.five, ("a",)) | {"classes.txt": b"a\nb\nc\nd\ne"},
        {},
        "one image with a mask",
        "Add more",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_train_garbage_is_refused_with_names_and_cure(case: str, tmp_path: Path) -> None:
    files, options, problem, cure = REFUSED[case]
    with pytest.raises(UserError, match=problem) as refusal:
        opened(files, tmp_path, **options)
    assert re.search(cure, refusal.value.cure), refusal.value.cure
    assert "\n" not in str(refusal.value)
