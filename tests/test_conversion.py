"""Masks of other classes than those asked for: matched by name where that is clear, else refused.

Every case goes through files: index masks that hold each value once, and a classes.txt that names them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import layouts
import numpy as np
import numpy.typing as npt
import pytest
from conftest import TINY, unetpp
from layouts import encode, photo
from networks import header_for, trained

from unetpp_cli.data.classes import CAMVID11, CAMVID32, VOID, ClassSet, palette
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.errors import UserError
from unetpp_cli.masks import read_mask
from unetpp_cli.network.weights import save_model


def model(*names: str, void: tuple[int, ...] = ()) -> ClassSet:
    """A model's class set."""
    return ClassSet("custom", names, palette(len(names)), void)


def stripes(count: int) -> npt.NDArray[np.uint8]:
    """(48, 64): every value below `count`, in columns."""
    return np.tile(np.arange(64, dtype=np.uint8) * count // 64, (48, 1)).astype(np.uint8)


def opened(names: tuple[str, ...], place: Path, classes: ClassSet | str) -> Dataset:
    """The data whose masks hold one value for each of `names`, in the classes asked for."""
    mask = encode(stripes(len(names)))
    files = {"classes.txt": "\n".join(names).encode()}
    for stem in ("a", "b", "c"):
        files |= {f"images/{stem}.png": encode(photo(stem)), f"masks/{stem}.png": mask}
    return open_dataset(layouts.to_folder(files, place / "data"), classes=classes)


BACKWARDS = model(*CAMVID11.names[::-1])

# the data's names, the classes asked for, what each value must become, what must be said
MATCHED: dict[str, tuple[tuple[str, ...], ClassSet, list[int], str]] = {
    "the same": (("a", "b"), model("a", "b"), [0, 1], ""),
    "another order": (("a", "b", "c"), model("c", "a", "b"), [1, 2, 0], "all of the model's 3, in another"),
    "some of the model's": (
        ("road", "sky", "car"),
        CAMVID11,
        [3, 0, 8],
        "the data have 3 of camvid11's 11, not Building, Pole, Pavement, Tree, SignSymbol",
    ),
    "the first of the model's": (("Sky", "Building"), CAMVID11, [0, 1], "2 of camvid11's 11, not Pole"),
    "case, blanks, underscores, hyphens": (
        ("traffic light", "bus-stop", "ROAD_marking"),
        model("other", "roadMarking", "Traffic-Light", "bus stop"),
        [2, 3, 1],
        "3 of the model's 4, not other.",
    ),
    "CamVid's two names for one thing": (
        ("sidewalk", "column_pole"),
        model("Pole", "Pavement"),
        [1, 0],
        "sidewalk is Pavement, column_pole is Pole",
    ),
    "one spelling before one meaning": (
        ("Sidewalk", "pavement"),
        model("Pavement", "Sidewalk"),
        [1, 0],
        "all of the model's 2",
    ),
    "plurals": (
        ("cars", "Tree", "grass", "bus"),
        model("Car", "bus", "Trees", "Grass"),
        [0, 2, 3, 1],
        "cars is Car, Tree is Trees",
    ),
    "some of CamVid's 32 as the 11": (
        ("Road", "LaneMkgsDriv", "Child", "SUVPickupTruck", "Sky"),
        BACKWARDS,
        [7, 7, VOID, 2, 10],
        "LaneMkgsDriv is Road, SUVPickupTruck is Car; void: Child",
    ),
    "void in the data": (("road", "Void", "sky"), model("sky", "road"), [1, VOID, 0], "all of the model's 2"),
    "void in the model": (("road", "rest"), model("rest", "road", void=(0,)), [1, VOID], "void: rest"),
    "void in the model alone": (("road", "sky"), model("road", "sky", "rest", void=(2,)), [0, 1], ""),
}


@pytest.mark.parametrize("case", MATCHED)
def test_classes_are_matched_by_name(case: str, tmp_path: Path) -> None:
    names, classes, expected, note = MATCHED[case]
    data = opened(names, tmp_path, classes)
    assert data.classes == classes
    for pair in data.pairs():
        truth = np.asarray(expected, np.uint8)[stripes(len(names))]
        np.testing.assert_array_equal(data.read_mask(pair), truth)
    said = [text for text in data.warnings if "matched by name" in text]
    assert len(said) == bool(note)
    assert note in "".join(said)


def test_segnets_map_is_named(tmp_path: Path) -> None:
    data = open_dataset(layouts.to_folder(layouts.original()[0], tmp_path), classes="camvid11")
    assert data.warnings == ("CamVid's 32 classes are merged into its 11 by SegNet's map.",)


# the data's names, the classes asked for, why not
REFUSED: dict[str, tuple[tuple[str, ...], ClassSet, str]] = {
    "the model lacks some": (("sky", "house", "rest"), CAMVID11, "no class there is called house, rest"),
    "the model lacks all": (("a", "b"), model("c"), "no class there is called a, b"),
    "two of the data's are one": (("Car", "cars"), model("car", "road"), "both Car and cars would be car"),
    "two of the model's are one": (
        ("trafficlight", "road"),
        model("Traffic-Light", "traffic light", "road"),
        "trafficlight may be Traffic-Light or traffic light",
    ),
    "not all are CamVid's": (
        ("Road", "LaneMkgsDriv", "house"),
        CAMVID11,
        "no class there is called LaneMkgsDriv, house",
    ),
    "nothing to score": (("Train", "Child"), CAMVID11, "none of them would ever be scored"),
    "merged classes as single ones": (CAMVID11.names, CAMVID32, "several of its 32 in one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_is_refused_with_both_lists(case: str, tmp_path: Path) -> None:
    names, classes, reason = REFUSED[case]
    with pytest.raises(UserError, match=re.escape(reason)) as refusal:
        opened(names, tmp_path, classes)
    assert str(tmp_path / "data") in refusal.value.problem
    for name in (*names[:12], *classes.names[:12]):
        assert name in refusal.value.problem
    assert "same class names" in refusal.value.cure


# --- end to end ---------------------------------------------------------------------------------------------

SOME = ("Sky", "Road", "Tree", "Car")


def part_of_camvid(place: Path) -> Path:
    """The test frames of CamVid with four of the 11 classes; all else is 255."""
    table = np.full(256, VOID, np.uint8)
    for value, name in enumerate(SOME):
        table[CAMVID11.names.index(name)] = value
    files = {"classes.txt": "\n".join(name.lower() for name in SOME).encode()}
    for split, stems in layouts.ALL.items():
        for stem in stems:
            files[f"{split}/images/{stem}.png"] = encode(photo(stem))
            files[f"{split}/masks/{stem}.png"] = encode(table[layouts.truth11(stem)])
    return layouts.to_folder(files, place / "part")


def test_eval_on_data_that_lack_classes_counts_them_as_wrong(tmp_path: Path) -> None:
    part = part_of_camvid(tmp_path)
    network = trained(depth=2, width=4)
    weights = tmp_path / "model.safetensors"
    save_model(weights, network, header_for(network))
    result = unetpp("eval", weights, "--data", part, "--split", "test", "--json", "--no-timing")
    assert result.exit_code == 0, result.output
    assert "4 of camvid11's 11, not Building, Pole" in " ".join(result.stderr.split())
    assert (
        unetpp("predict", part / "test/images", "-o", "masks", "-m", weights, "--precision", "fp32").exit_code
        == 0
    )
    truths, predictions = [], []
    for stem in layouts.TEST:
        truth = layouts.truth11(stem)
        wanted = np.isin(truth, [CAMVID11.names.index(name) for name in SOME])
        truths.append(truth[wanted])
        predictions.append(read_mask(f"masks/{stem}.png")[0][wanted])
    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    ious = []
    for index in (CAMVID11.names.index(name) for name in SOME):
        either = (truth == index) | (prediction == index)
        ious.append(((truth == index) & (prediction == index)).sum() / either.sum())
    strangers = ~np.isin(prediction, [CAMVID11.names.index(name) for name in SOME])
    assert strangers.mean() > 0.1, "or the test shows nothing"
    scores = json.loads(result.stdout)["depths"]["2"]
    assert scores["miou"] == pytest.approx(np.mean(ious))
    assert scores["pixel_accuracy"] == pytest.approx((truth == prediction).mean())


def test_eval_refuses_data_of_other_classes(tmp_path: Path, model: Path) -> None:
    result = unetpp("eval", model, "--data", layouts.to_folder(layouts.plain()[0], tmp_path / "plain"))
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "(sky, road, house, car, rest)" in said
    assert "(Sky, Building, Pole, Road, Pavement" in said
    assert "no class there is called house, rest" in said


@pytest.mark.parametrize("weights", ["enet", "median-frequency"])
def test_training_in_a_class_set_of_which_the_data_have_a_part(weights: str, tmp_path: Path) -> None:
    options = ["--classes", "camvid11", "--loss", "ce+dice", "--set", f"class_weights={weights}"]
    result = unetpp("train", "--data", part_of_camvid(tmp_path), "--out", "out", *TINY, *options)
    assert result.exit_code == 0, result.output
    assert "4 of camvid11's 11, not Building, Pole" in " ".join(result.output.split())
    last = json.loads(Path("out/history.jsonl").read_text().splitlines()[-1])
    assert last["train"]["loss"] > 0, "a number, not null"
    scored = {name for name, iou in last["val"]["2"]["iou"].items() if iou is not None}
    assert scored == set(SOME)
