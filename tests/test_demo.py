"""The embedded scenes: the same everywhere, in SegNet's layout, with every class in plausible amounts."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp_cli.data import demo
from unetpp_cli.data.classes import CAMVID11, VOID
from unetpp_cli.data.layouts import open_dataset
from unetpp_cli.data.scenery.painter import farthest_first, sight
from unetpp_cli.data.scenery.view import Camera
from unetpp_cli.errors import UserError

Scene = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

# Per cent of all pixels, from and to: around CamVid's own.
SHARES = {
    "Sky": (12, 24),
    "Building": (15, 30),
    "Pole": (1, 4),
    "Road": (25, 38),
    "Pavement": (4, 9),
    "Tree": (6, 14),
    "SignSymbol": (0.8, 3),
    "Fence": (0.7, 3),
    "Car": (3, 8),
    "Pedestrian": (0.8, 3),
    "Bicyclist": (0.6, 3),
}
OFTEN = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Car", "Pedestrian")


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    """Image and mask of every pair of every split, read the way training reads them."""
    dataset = open_dataset("demo")
    return {
        split: [(dataset.read_image(pair), dataset.read_mask(pair)) for pair in pairs]
        for split, pairs in dataset.splits.items()
    }


def every(scenes: dict[str, list[Scene]]) -> Iterator[Scene]:
    for split in scenes.values():
        yield from split


def test_opens_as_a_data_set() -> None:
    dataset = open_dataset("demo")
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {
        "train": 144,
        "val": 24,
        "test": 24,
    }
    assert (dataset.classes, dataset.void) == (CAMVID11, "void 11")
    assert dataset.warnings == ()
    stems = [pair.stem for pair in dataset.pairs()]
    assert stems == [f"scene_{seed:03}" for seed in range(192)]


def test_the_files_are_what_segnet_ships() -> None:
    files = demo.demo_files()
    image, mask = (Image.open(io.BytesIO(files[f"{name}/scene_170.png"])) for name in ("test", "testannot"))
    assert (image.mode, image.size) == ("RGB", (240, 180))
    assert (mask.mode, mask.size) == ("L", (240, 180))
    assert set(np.unique(mask)) <= set(range(12))
    assert files["val.txt"].splitlines()[0] == b"val/scene_144.png valannot/scene_144.png"
    named = [path for split in demo.SPLITS for path in files[f"{split}.txt"].decode().split()]
    assert sorted([*named, "train.txt", "val.txt", "test.txt"]) == sorted(files)
    assert demo.demo_files() is files  # drawn once in a process


def test_what_is_read_is_what_was_drawn(scenes: dict[str, list[Scene]]) -> None:
    for split, index in (("train", 5), ("val", 0), ("test", 23)):
        image, mask = demo.render_scene(demo.SPLITS[split][index])
        np.testing.assert_array_equal(image, scenes[split][index][0])
        np.testing.assert_array_equal(mask, scenes[split][index][1])


def test_every_process_draws_the_same() -> None:
    script = (
        "import hashlib; from unetpp_cli.data.demo import render_scene\n"
        "for seed in (3, 141): print(*(hashlib.sha256(a.tobytes()).hexdigest() for a in render_scene(seed)))"
    )
    drawn = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = [[hashlib.sha256(a.tobytes()).hexdigest() for a in demo.render_scene(seed)] for seed in (3, 141)]
    assert drawn == {"".join(" ".join(hashes) + "\n" for hashes in here)}


def test_drawing_needs_no_torch() -> None:
    script = (
        "import sys; from unetpp_cli.data.demo import render_scene; render_scene(0)\n"
        "assert not {'torch', 'albumentations', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_two_scenes_are_alike(scenes: dict[str, list[Scene]]) -> None:
    images = [image.astype(np.float32) for image, _ in every(scenes)]
    small = np.stack([image.reshape(20, 9, 20, 12, 3).mean(axis=(1, 3)).ravel() for image in images])
    distances = np.abs(small[:, None] - small[None]).mean(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 5.0


@pytest.mark.parametrize("split", demo.SPLITS)
def test_every_class_is_there_to_learn_and_to_score(scenes: dict[str, list[Scene]], split: str) -> None:
    masks = np.stack([mask for _, mask in scenes[split]])
    for index, name in enumerate(CAMVID11.names):
        pixels = (masks == index).sum(axis=(1, 2))
        scenes_with_it = float((pixels > 30).mean())
        assert scenes_with_it > (0.6 if name in OFTEN else 1 / 3), (
            f"{name}: in {scenes_with_it:.0%} of {split}"
        )


def test_shares_are_plausible(scenes: dict[str, list[Scene]]) -> None:
    masks = np.stack([mask for _, mask in every(scenes)])
    counts = np.bincount(masks.ravel(), minlength=256)
    assert counts.sum() == counts[:11].sum() + counts[VOID]
    shares = dict(zip(CAMVID11.names, 100 * counts[:11] / counts.sum(), strict=True))
    assert {
        name: round(share, 2)
        for name, share in shares.items()
        if not SHARES[name][0] <= share <= SHARES[name][1]
    } == {}
    assert 1.0 <= 100 * counts[VOID] / counts.sum() <= 4.0


def test_the_sky_is_up_and_the_road_is_down(scenes: dict[str, list[Scene]]) -> None:
    rows = np.arange(180)[:, None] / 180
    for _, mask in every(scenes):
        mean = [float((rows * (mask == index)).sum() / max(1, (mask == index).sum())) for index in range(11)]
        assert mean[CAMVID11.names.index("Sky")] < 0.45 < 0.6 < mean[CAMVID11.names.index("Road")]


def test_people_and_poles_are_big_enough_to_see(scenes: dict[str, list[Scene]]) -> None:
    """The tallest run of pedestrian pixels in a column is a person; the widest run of pole pixels a post."""
    tall, wide = [], []
    pole, pedestrian = CAMVID11.names.index("Pole"), CAMVID11.names.index("Pedestrian")
    for _, mask in every(scenes):
        tall.append(_longest_run((mask == pedestrian).T).max())
        wide.append(np.sort(_longest_run(mask == pole))[-20])  # over at least 20 rows
    assert np.median(tall) >= 20
    assert np.median(wide) >= 3


def _longest_run(there: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The longest run of True in each row. (rows,)"""
    longest = run = np.zeros(len(there), np.int64)
    for column in there.T:
        run = (run + 1) * column
        longest = np.maximum(longest, run)
    return longest


@pytest.mark.parametrize("name", CAMVID11.names)
def test_no_class_is_a_flat_colour(scenes: dict[str, list[Scene]], name: str) -> None:
    """Within one scene a class varies, and from scene to scene its mean colour does."""
    index = CAMVID11.names.index(name)
    inside = [image[mask == index] for image, mask in every(scenes) if (mask == index).sum() > 100]
    spread = [float(pixels.std(axis=0).mean()) for pixels in inside]
    means = np.stack([pixels.mean(axis=0) for pixels in inside])
    assert np.median(spread) > 8.0
    assert min(spread) > 2.0
    assert means.std(axis=0).mean() > 8.0


def test_colour_alone_does_not_tell_the_class(scenes: dict[str, list[Scene]]) -> None:
    """The best guess from a pixel's colour (8 levels a channel) is no segmentation."""
    counts = np.zeros((512, 11), np.int64)
    for image, mask in every(scenes):
        known = mask != VOID
        level = (image[known] >> 5).astype(np.intp)
        np.add.at(counts, (level[:, 0] * 64 + level[:, 1] * 8 + level[:, 2], mask[known]), 1)
    guess = counts.argmax(axis=1)
    ious = []
    for index in range(11):
        hits = counts[guess == index, index].sum()
        ious.append(hits / (counts[guess == index].sum() + counts[:, index].sum() - hits))
    assert np.mean(ious) < 0.3


Plan = tuple[tuple[float, float], tuple[float, float]]


def _apart(a: Plan, b: Plan) -> bool:
    return any(a[axis][0] > b[axis][1] + 0.05 or b[axis][0] > a[axis][1] + 0.05 for axis in (0, 1))


def _reached(plan: Plan, direction: float) -> float | None:
    """The z at which the ray x = direction * z enters a box, or None if it misses it."""
    (left, right), (near, far) = plan
    if direction:
        ends = sorted((left / direction, right / direction))
        near, far = max(near, ends[0]), min(far, ends[1])
    elif not left < 0 < right:
        return None
    return near if near < far else None


@given(
    corners=st.lists(
        st.tuples(st.floats(-20, 20), st.floats(0.1, 9), st.floats(2, 60), st.floats(0.1, 20)), max_size=20
    )
)
@settings(deadline=None)
def test_what_is_nearer_is_painted_later(corners: list[tuple[float, float, float, float]]) -> None:
    """Along every ray, boxes that stand apart are painted from far to near."""
    plans: list[Plan] = []
    for x, wide, z, deep in corners:
        plan = ((x, x + wide), (z, z + deep))
        if all(_apart(plan, other) for other in plans):
            plans.append(plan)
    camera = Camera(width=480, height=360, focal=450, centre=240, horizon=170, eye=1.4, bend=0.0)
    order = farthest_first([sight(camera, *plan) for plan in plans])
    assert sorted(order) == list(range(len(plans)))
    for direction in np.linspace(-3, 3, 121):
        reached = [_reached(plans[index], float(direction)) for index in order]
        distances = [z for z in reached if z is not None]
        assert distances == sorted(distances, reverse=True)


@given(seed=st.integers(0, 2**32), width=st.integers(32, 400), height=st.integers(32, 300))
@settings(max_examples=15, deadline=None)
def test_any_seed_and_size(seed: int, width: int, height: int) -> None:
    image, mask = demo.render_scene(seed, width, height)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((height, width), np.uint8)
    assert set(np.unique(mask)) <= {*range(11), VOID}


def test_a_stamp_is_no_scene() -> None:
    with pytest.raises(ValueError, match="32 x 32"):
        demo.render_scene(0, 240, 20)


@pytest.mark.parametrize("exists", [False, True])
def test_written_files_are_the_data_set(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "deep" / "scenes"
    if exists:
        folder.mkdir(parents=True)
    written = demo.write_demo(folder)
    assert written == sorted(path for path in folder.rglob("*") if path.is_file())
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in written} == demo.demo_files()
    assert list(folder.parent.iterdir()) == [folder]  # nothing left over
    dataset = open_dataset(folder)
    assert dataset.layout == "SegNet"
    assert dataset.classes == CAMVID11
    assert dataset.splits == open_dataset("demo").splits


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("finished")
    with pytest.raises(UserError, match="mine exists and is not empty"):
        demo.write_demo(tmp_path / "mine")
    with pytest.raises(UserError, match=r"thesis\.txt is a file"):
        demo.write_demo(tmp_path / "mine" / "thesis.txt")
    with pytest.raises(UserError, match="Cannot write"):
        demo.write_demo(tmp_path / "mine" / "thesis.txt" / "scenes")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "thesis.txt"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where a folder must be stops the writing halfway."""
    broken = {"train/a.png": b"1", "train.txt": b"2", "train.txt/b.png": b"3"}
    monkeypatch.setattr(demo, "demo_files", lambda: broken)
    with pytest.raises(UserError, match="Cannot write"):
        demo.write_demo(tmp_path / "scenes")
    assert list(tmp_path.iterdir()) == []
