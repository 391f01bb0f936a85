"""The pictures: training curves, plots of scores and classes, sheets of images."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from records import (
    NAN,
    TWO,
    full_results,
    pixels,
    record,
    spots,
    training,
    two_classes,
    two_results,
    unscored,
)

from unetpp_cli.data.classes import CAMVID32, VOID
from unetpp_cli.inference.metrics import Interval, Scores
from unetpp_cli.report import figure, plots
from unetpp_cli.report.curves import curves
from unetpp_cli.report.history import EpochRecord, HeadScore
from unetpp_cli.report.labels import Label, place_labels
from unetpp_cli.report.sheet import Drawn, Sample, augment_sheet, sample_sheet, save_augment_sheet, save_sheet


def test_curves_show_every_head_and_follow_the_records(tmp_path: Path) -> None:
    curves(tmp_path / "a.png", training(30), "run")
    curves(tmp_path / "same.png", training(30), "run")
    higher = [dataclasses.replace(each, train_loss=3.0) for each in training(30)]
    curves(tmp_path / "b.png", higher, "run")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (1000, 1600, 3)
    for depth in (1, 2, 3, 4):
        assert len(spots(picture, figure.head_color(depth))) > 100
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert (pixels(tmp_path / "b.png") != picture).any()


@pytest.mark.parametrize(
    "run",
    [
        [],
        training(1),
        unscored(training(5)),
        [*training(3), dataclasses.replace(record(4, NAN), train_loss=math.inf), record(5)],
        [dataclasses.replace(record(1, NAN), train_loss=NAN, train_accuracy=NAN, lr=NAN)],
        [record(1, heads=(3,)), record(2, heads=(3,))],
        [dataclasses.replace(each, train_loss=10.0**-each.epoch) for each in training(5)],
    ],
    ids=["no epoch", "one epoch", "no val", "a NaN epoch", "only NaN", "one head", "log scale"],
)
def test_curves_of_unusual_trainings(tmp_path: Path, run: list[EpochRecord]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning, module="unetpp_cli")
        warnings.simplefilter("error", RuntimeWarning)
        curves(tmp_path / "c.png", run, "$odd$ _title_ [1]")
    picture = pixels(tmp_path / "c.png")
    assert picture.shape == (1000, 1600, 3)
    assert (picture < 128).all(axis=2).sum() > 500, "titles and axes are there"


CHANGES = {
    "training loss": (lambda each: {"train_heads": {**each.train_heads, 2: 0.05}}, (0, 0)),
    "validation loss": (lambda each: {"val": _with(each, 2, loss=0.05)}, (1, 0)),
    "mIoU": (lambda each: {"val": _with(each, 2, miou=0.55)}, (0, 1)),
    "accuracy": (lambda each: {"train_accuracy": 0.83}, (1, 1)),
    "learning rate": (lambda each: {"lr": 0.09}, (1, 1)),
}


def _with(each: EpochRecord, depth: int, **values: float) -> dict[int, HeadScore]:
    return {**each.val, depth: dataclasses.replace(each.val[depth], **values)}


@pytest.mark.parametrize("changed", CHANGES)
def test_every_figure_has_its_panel(tmp_path: Path, changed: str) -> None:
    run = training(6)
    change, (row, column) = CHANGES[changed]
    other = [dataclasses.replace(each, **change(each)) if each.epoch == 3 else each for each in run]
    curves(tmp_path / "a.png", run, "run")
    curves(tmp_path / "b.png", other, "run")
    differs = np.argwhere((pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any(axis=2))
    assert len(differs) > 20
    assert set(differs[:, 0] // 530) == {row}, "in the upper or the lower half"
    assert set(differs[:, 1] // 800) == {column}, "left or right"


def test_a_head_on_its_own_is_what_is_minimised(tmp_path: Path) -> None:
    run = unscored([record(epoch, heads=(3,)) for epoch in range(1, 9)])
    grey = []
    for extra in (0, 1):
        each = [dataclasses.replace(one, train_loss=one.train_heads[3] + extra) for one in run]
        curves(tmp_path / "c.png", each)
        grey.append(len(spots(pixels(tmp_path / "c.png")[:, :780], figure.FAINT)))
    assert grey[1] > grey[0] + 200, "only another loss has a line of its own"


def test_a_resumption_is_marked_before_its_epoch(tmp_path: Path) -> None:
    grey, inside = "#d0d0d0", np.s_[140:480, :790]
    curves(tmp_path / "none.png", training(4))
    assert len(spots(pixels(tmp_path / "none.png")[inside], grey)) < 100
    for epoch in (1, 3):
        curves(tmp_path / "c.png", training(4), resumed=[epoch])
        picture = pixels(tmp_path / "c.png")
        # The panel of the training loss reaches from 5 % to 48.5 % of the width, its epochs from 0.1 to 4.9.
        expected = 80 + (epoch - 0.5 - 0.1) / 4.8 * (0.485 - 0.05) * 1600
        found = spots(picture[inside], grey)
        assert len(found) > 200
        assert np.median(found[:, 1]) == pytest.approx(expected, abs=2)


def test_depth_plot_puts_the_points_where_the_numbers_are(tmp_path: Path) -> None:
    plots.depth_plot(tmp_path / "d.png", [r for r in two_results() if r.depth], "run")
    picture = pixels(tmp_path / "d.png")
    (row1, column1), (row2, column2) = (
        spots(picture, figure.head_color(depth)).mean(axis=0) for depth in (1, 2)
    )
    assert row2 < row1, "the better head is higher"
    assert column1 < column2, "the faster head is further left"
    left = 0.085 * picture.shape[1]
    assert (column2 - left) / (column1 - left) == pytest.approx(144.2 / 22.14, rel=0.05)


def test_depth_plot_without_times_and_with_the_ensemble(tmp_path: Path) -> None:
    plots.depth_plot(tmp_path / "d.png", two_results())
    picture = pixels(tmp_path / "d.png")
    assert len(spots(picture, figure.head_color(None))) > 50
    left = 0.085 * picture.shape[1]
    first, second = (spots(picture, figure.head_color(depth)).mean(axis=0)[1] for depth in (1, 2))
    assert (second - left) / (first - left) == pytest.approx(23.102 / 2.956, rel=0.05)


def test_depth_plot_draws_the_intervals(tmp_path: Path) -> None:
    first, second = full_results()[:2]
    for name, low in (("near", 0.41), ("far", 0.36)):
        wide = dataclasses.replace(first, interval=Interval(low, 0.44))
        plots.depth_plot(tmp_path / f"{name}.png", [wide, second])
    plots.depth_plot(tmp_path / "none.png", [dataclasses.replace(r, interval=None) for r in (first, second)])
    unknown = [dataclasses.replace(r, interval=Interval(NAN, NAN)) for r in (first, second)]
    plots.depth_plot(tmp_path / "nan.png", unknown)
    assert (tmp_path / "none.png").read_bytes() == (tmp_path / "nan.png").read_bytes()
    spans = {}
    for name in ("none", "near", "far"):
        picture = pixels(tmp_path / f"{name}.png")
        upper, lower = (spots(picture, figure.head_color(depth))[:, 0] for depth in (2, 1))
        # Heights in units of the distance between the two points, which the axis may scale as it likes.
        distance = np.median(lower) - np.median(upper)
        spans[name] = (lower.max() - np.median(lower)) / distance
    miou1, miou2 = first.scores.miou, second.scores.miou
    assert spans["far"] == pytest.approx((miou1 - 0.36) / (miou2 - miou1), rel=0.1)
    assert spans["none"] < spans["near"] < spans["far"]


@pytest.mark.parametrize(
    ("times", "mious"),
    [
        ([20, 50, 95, 105, 110], [52, 60, 62.1, 62.2, 62.25]),
        ([22, 24, 26, 28, 29], [62, 62, 62, 62, 62]),
        ([22, 50, 95, 150, 151], [65, 63, 60, 59, 59]),
        ([1.2, 1.9, 2.8, 3.9, 4.1, 4.4, 4.5], [42, 55, 61.5, 63.1, 63.2, 63.3, 63.5]),
        ([150], [62]),
        ([], []),
    ],
    ids=["near", "equal", "falling", "seven", "one", "none"],
)
def test_labels_hide_neither_each_other_nor_the_points(times: list[float], mious: list[float]) -> None:
    drawn = figure.new(9.6, 6.4)
    axes = figure.panel(drawn, drawn.add_gridspec(1, 1)[0, 0], "")
    axes.plot(times, mious)
    axes.margins(y=0.28)
    axes.set_xlim(0, 1.2 * max(times, default=1))
    labels = [Label(f"L{x}  62.0 %\n17.3 M params", x, y) for x, y in zip(times, mious, strict=True)]
    place_labels(axes, labels, [])
    drawn.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert sorted(text.get_text() for text in axes.texts) == sorted(label.text for label in labels)
    for number, box in enumerate(boxes):
        assert box.x0 >= axes.bbox.x0
        assert box.x1 <= drawn.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:number])
        for x, y in axes.transData.transform([*zip(times, mious, strict=True)]):
            assert not box.contains(x, y)


def test_confusion_plot_leaves_out_what_never_occurs(tmp_path: Path) -> None:
    plots.confusion_plot(tmp_path / "two.png", two_classes(), "run")
    many = np.diag(np.arange(1, 33)) * 10
    plots.confusion_plot(tmp_path / "many.png", Scores(many, CAMVID32), "run")
    small, big = pixels(tmp_path / "two.png"), pixels(tmp_path / "many.png")
    dark = "#08306b"  # the full end of the colour map: a class found entirely
    assert big.shape[0] > 2 * small.shape[0]
    # Sky, one of two classes, is found entirely; of the 31 scored classes all are.
    assert 0.5 < len(spots(small, dark)) / (0.55 * figure.DPI) ** 2 < 1.1
    assert 31 * 0.6 < len(spots(big, dark)) / (0.42 * figure.DPI) ** 2 < 31.5


def test_class_bars_are_as_long_as_the_scores(tmp_path: Path) -> None:
    plots.class_bars(tmp_path / "b.png", two_results()[1:2], "run")
    picture = pixels(tmp_path / "b.png")
    grass, sky = (np.ptp(spots(picture, figure.hex_color(color))[:, 1]) for color in TWO.colors[:2])
    assert grass / sky == pytest.approx((80 / 100) / (50 / 70), rel=0.02)
    assert len(spots(picture, figure.hex_color(TWO.colors[2]))) == 0, "no bar for a class without pixels"
    plots.class_bars(tmp_path / "c.png", two_results(), "run")
    assert len(spots(pixels(tmp_path / "c.png"), figure.head_color(1))) > 50, "dots of the other depths"
    with pytest.raises(ValueError, match="no result"):
        plots.class_bars(tmp_path / "d.png", [])


def test_class_shares_are_as_long_as_the_counts(tmp_path: Path) -> None:
    plots.class_shares(tmp_path / "s.png", {"train": [100, 300, 0], "val": [50, 50, 0]}, TWO, "run")
    picture = pixels(tmp_path / "s.png")
    grass, sky = (spots(picture, figure.hex_color(color)) for color in TWO.colors[:2])
    assert np.ptp(sky[:, 1]) / np.ptp(grass[:, 1]) == pytest.approx(3, rel=0.02)
    assert sky[:, 0].max() < grass[:, 0].min(), "the more frequent class is on top"
    assert len(spots(picture, figure.hex_color(TWO.colors[2]))) == 0


def test_class_shares_mark_the_other_splits(tmp_path: Path) -> None:
    for name, val in (("a", [50, 50, 0]), ("b", [40, 60, 0])):
        shares = {"train": [100, 300, 0], "val": val}
        plots.class_shares(tmp_path / f"{name}.png", shares, TWO, "run")
    a, b = (pixels(tmp_path / f"{name}.png") for name in "ab")
    left, room = round((0.1 + figure.text_width(TWO.names)) * figure.DPI), 5.6 * figure.DPI
    plot = slice(left, round(left + room))
    columns = np.flatnonzero((a != b)[:, plot].any(axis=(0, 2)))
    # The marks move from 50 % to 40 % and to 60 %; sky's bar of 75 % leaves 5 % of room.
    assert columns.min() == pytest.approx(room * 40 / 78.75, abs=8)
    assert columns.max() == pytest.approx(room * 60 / 78.75, abs=8)


def test_class_shares_leave_void_out_and_write_weights(tmp_path: Path) -> None:
    hidden = dataclasses.replace(TWO, void=(2,))
    plots.class_shares(tmp_path / "a.png", {"train": [100, 300, 0]}, hidden)
    plots.class_shares(tmp_path / "b.png", {"train": [100, 300, 10**6]}, hidden)
    plots.class_shares(tmp_path / "c.png", {"train": [100, 300, 0]}, hidden, weights=[0.5, 1.5, 0.0])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    a, c = pixels(tmp_path / "a.png"), pixels(tmp_path / "c.png")
    assert c.shape[1] - a.shape[1] == pytest.approx(0.85 * figure.DPI, abs=2), "one column more"
    right = c[:, -round(0.9 * figure.DPI) :]
    assert (right < 128).all(axis=2).sum() > 100, "with something in it"


def test_class_shares_of_many_classes_show_those_that_occur(tmp_path: Path) -> None:
    counts = [0] * 32
    counts[4], counts[17] = 10, 30
    plots.class_shares(tmp_path / "many.png", {"train": counts}, CAMVID32)
    plots.class_shares(tmp_path / "none.png", {"train": [0] * 32}, CAMVID32)
    picture = pixels(tmp_path / "many.png")
    assert picture.shape[0] == pytest.approx((1.9 + 2 * 0.32) * figure.DPI, abs=2)
    for index in (4, 17):
        assert len(spots(picture, figure.hex_color(CAMVID32.colors[index]))) > 1000
    with pytest.raises(ValueError, match="no split"):
        plots.class_shares(tmp_path / "x.png", {}, CAMVID32)


# --- sheets -------------------------------------------------------------------------------------------------


def sample(height: int, width: int, wrong: bool = False, labelled: bool = True, void: bool = False) -> Sample:
    truth = np.zeros((height, width), np.uint8)
    truth[height // 2 :] = 1
    prediction = truth.copy()
    if wrong:
        prediction[: height // 4] = 1
    if void:
        truth[: height // 4] = VOID
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample("name[0]", image, truth if labelled else None, prediction)


WRONG = "#d55e00"


def test_sheet_marks_errors_and_only_errors() -> None:
    right = sample_sheet([sample(40, 60)], TWO).astype(int)
    wrong = sample_sheet([sample(40, 60, wrong=True)], TWO).astype(int)
    unscored_ = sample_sheet([sample(40, 60, wrong=True, void=True)], TWO).astype(int)
    assert right.shape == wrong.shape
    assert len(spots(right, WRONG)) == len(spots(unscored_, WRONG)) == 0
    assert len(spots(wrong, WRONG)) == pytest.approx(400 * 267 / 4, rel=0.05)
    assert spots(wrong, WRONG)[:, 1].min() > 0.7 * wrong.shape[1], "in the fourth column"


def test_sheet_fits_images_of_unequal_size(tmp_path: Path) -> None:
    rows = [sample(40, 60), sample(300, 50), sample(20, 400, labelled=False), sample(1, 1)]
    save_sheet(tmp_path / "sheet.png", rows, TWO)
    picture = pixels(tmp_path / "sheet.png")
    assert picture.shape[1] == 4 * 400 + 5 * 10
    assert picture.shape[0] > 267 + 600 + 20 + 400
    for color in TWO.colors[:2]:
        assert len(spots(picture, figure.hex_color(color))) > 10_000
    assert len(spots(picture, figure.hex_color(TWO.colors[2]))) == 0, "the legend holds what occurs"


def test_sheet_without_truth_has_two_columns() -> None:
    picture = sample_sheet([sample(40, 60, labelled=False)], TWO)
    assert picture.shape[1] == 2 * 400 + 3 * 10
    assert sample_sheet([], TWO).shape[1] == 2 * 400 + 3 * 10


def test_sheet_wraps_a_long_legend() -> None:
    mask = np.arange(32, dtype=np.uint8).repeat(8).reshape(8, 32)
    image = np.zeros((8, 32, 3), np.uint8)
    picture = sample_sheet([Sample("all", image, None, mask)], CAMVID32).astype(int)
    legend = picture[20 + 100 + 40 :]
    for color in CAMVID32.colors:
        assert len(spots(legend, figure.hex_color(color))) > 50


def flat(value: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def test_sheet_shows_the_earlier_prediction_in_a_column_of_its_own() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    rows = [Sample("a", image, flat(0), flat(1), flat(2)), Sample("b", image, flat(0), flat(0))]
    picture = sample_sheet(rows, TWO).astype(int)
    assert picture.shape[1] == 5 * 400 + 6 * 10
    drawn = picture[: 27 + 2 * (27 + 267 + 10)]  # without the legend
    never = spots(drawn, figure.hex_color(TWO.colors[2]))
    assert (never[:, 1].min(), never[:, 1].max()) == (2 * 410 + 10, 3 * 410 - 1), "the third column"
    assert len(never) == 400 * 267, "in the first row; the second has no earlier prediction"
    assert len(spots(drawn, figure.hex_color(TWO.colors[1]))) == 400 * 267
    wrong = spots(drawn, WRONG)
    assert wrong[:, 1].min() == 4 * 410 + 10, "the errors are those of the later one"
    assert len(wrong) == 400 * 267


def test_sheet_headings_are_what_is_given() -> None:
    rows = [Sample("a", np.zeros((40, 60, 3), np.uint8), flat(0), flat(1), flat(2))]
    plain = sample_sheet(rows, TWO)
    named = sample_sheet(rows, TWO, prediction="epoch 30", earlier="epoch 1")
    differs = np.argwhere((plain != named).any(axis=2))
    assert differs[:, 0].max() < 30
    assert set((differs[:, 1] - 5) // 410) == {2, 3}


def test_sheet_scales_large_images_down_before_all_else() -> None:
    truth = np.zeros((3000, 6000), np.uint8)
    truth[1500:] = 1
    prediction = truth.copy()
    prediction[:600] = 1  # a fifth of the picture
    image = np.zeros((3000, 6000, 3), np.uint8)
    image[:, 3000:] = 250
    rows = [Sample("large, mIoU 43.1 %", image, truth, prediction)]
    tracemalloc.start()
    try:
        picture = sample_sheet(rows, TWO).astype(int)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < image.nbytes / 2, "no copy of the image and no mask in colours"
    photo = picture[27 + 27 : 27 + 27 + 200, 10:410]
    assert (photo[:, :195].max(), photo[:, 205:].min()) == (0, 250), "the picture stays sharp"
    assert len(spots(picture, WRONG)) == pytest.approx(400 * 200 / 5, rel=0.02)
    small = [Sample("small", *(part[::15, ::15] for part in (image, truth, prediction)))]
    assert sample_sheet(small, TWO).shape == picture.shape


@pytest.mark.parametrize("grey", [False, True])
def test_augment_sheet_lays_masks_over_and_darkens_void(tmp_path: Path, grey: bool) -> None:
    shape = (60, 80) if grey else (60, 80, 3)
    image, mask = np.full(shape, 200, np.uint8), flat(0, 60, 80)
    mask[:, 40:] = VOID
    crop = np.full((50, 50) if grey else (50, 50, 3), 200, np.uint8)
    hidden = dataclasses.replace(TWO, void=(2,))
    rows = [Drawn("a", image, mask, [(crop, flat(1, 50, 50)), (crop, flat(2, 50, 50))])]
    save_augment_sheet(tmp_path / "a.png", rows, hidden)
    picture = pixels(tmp_path / "a.png")
    assert picture.shape[1] == 3 * 300 + 4 * 7

    def middle(column: int, across: float) -> list[int]:
        return picture[20 + 20 + 150, round(7 + column * 307 + across * 300)].tolist()

    def laid(color: tuple[int, ...]) -> list[float]:
        return [pytest.approx(0.6 * 200 + 0.4 * part, abs=1.5) for part in color]

    assert middle(0, 0.25) == laid(TWO.colors[0])
    assert middle(0, 0.75) == [50, 50, 50], "void, a quarter as bright"
    assert middle(1, 0.5) == laid(TWO.colors[1])
    assert middle(2, 0.5) == [50, 50, 50], "a class that is void"


def test_augment_sheet_takes_rows_of_any_length() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    rows = [Drawn("a", image, flat(0), []), Drawn("b", image, flat(0), [(image, flat(0))] * 3)]
    assert augment_sheet(rows, TWO).shape[1] == 4 * 300 + 5 * 7
    assert augment_sheet([], TWO).shape[2] == 3
