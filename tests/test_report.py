"""What people look at: console, history, tables, JSON, plots, sheets and live progress."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from unetpp_cli.data.classes import CAMVID11, CAMVID32, VOID, ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import DepthResult, Scores
from unetpp_cli.report import console, figure, plots, tables, units
from unetpp_cli.report.history import EpochRecord, HeadScore, best_epoch, read_history, write_history
from unetpp_cli.report.progress import TrainingDisplay, track
from unetpp_cli.report.sheet import Sample, sample_sheet, save_sheet

NAN = math.nan


def record(epoch: int, miou: float = 0.5, heads: Sequence[int] = (1, 2, 3, 4)) -> EpochRecord:
    val = {depth: HeadScore(2 / epoch + 0.1 * depth, 0.9, miou + 0.01 * depth) for depth in heads}
    losses = dict.fromkeys(heads, 1.0 / epoch)
    return EpochRecord(epoch, 0.1 / epoch, 1.5 / epoch, 0.8, losses, val, 62, 12.5)


def training(epochs: int) -> list[EpochRecord]:
    return [record(epoch, 0.6 * epoch / epochs) for epoch in range(1, epochs + 1)]


def unscored(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    return [dataclasses.replace(each, val={}) for each in records]


TWO = ClassSet("custom", ("grass", "[sky]", "never"), ((10, 200, 30), (0, 90, 250), (250, 0, 250)))


def two_classes(hit: int = 60) -> Scores:
    """100 pixels of grass, `hit` of them found and the rest called sky; 50 pixels of sky, all found."""
    return Scores(np.array([[hit, 100 - hit, 0], [0, 50, 0], [0, 0, 0]]), TWO)


def two_results() -> list[DepthResult]:
    return [
        DepthResult(1, two_classes(40), 33_723, 2.956, 22.14),
        DepthResult(2, two_classes(80), 2_956_619, 23.102, 144.2),
        DepthResult(None, two_classes(70), 2_958_100, 23.3, None),
    ]


def plain(renderable: object, width: int = 100) -> str:
    stream = StringIO()
    Console(file=stream, width=width).print(renderable)
    return stream.getvalue()


# --- console ------------------------------------------------------------------------------------------------


class Terminal(StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return monkeypatch


@pytest.mark.parametrize(
    "text",
    ["a[0].png", "[red]no markup[/red]", ":smile:", "'quoted' 1/2 /a/b", "long " * 60 + "end"],
)
def test_say_prints_one_literal_line(
    text: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.say(text)
    assert capsys.readouterr() == (text + "\n", "")


def test_say_never_breaks_a_line_of_its_own(environment: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    environment.setattr(sys, "stdout", screen)
    line = json.dumps({"path": "a b " * 100})
    console.say(line)
    assert screen.getvalue() == line + "\n"


def test_say_spells_out_what_no_terminal_should_get(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.say("a\x1b[31mb\udcffc")
    assert capsys.readouterr().out == "a\\x1b[31mb\\udcffc\n"


def test_warn_and_error_go_to_standard_error(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.warn("odd [thing] " + "x" * 300)
    console.error("no file a[1].png.", "Check the path given.")
    assert capsys.readouterr() == (
        "",
        "Warning: odd [thing] " + "x" * 300 + "\nError: no file a[1].png.\nCheck the path given.\n",
    )


def test_the_consoles_follow_their_stream(environment: pytest.MonkeyPatch) -> None:
    for stream in ("stdout", "stderr"):
        screen, pipe = Terminal(), StringIO()
        target = console.out if stream == "stdout" else console.err
        environment.setattr(sys, stream, screen)
        target.print(console.chip((128, 64, 128)))
        environment.setattr(sys, stream, pipe)
        target.print(console.chip((128, 64, 128)))
        assert "\x1b[48;5;" in screen.getvalue()
        assert "\x1b" not in pipe.getvalue()
        assert target.width >= 120


def test_labels_are_coloured_unless_the_user_wants_no_colours(environment: pytest.MonkeyPatch) -> None:
    written = []
    for no_color in ("", "1"):
        environment.setenv("NO_COLOR", no_color)
        screen = Terminal()
        environment.setattr(sys, "stderr", screen)
        console.warn("w")
        console.error("p", "c")
        written.append(screen.getvalue())
    assert "\x1b[1;33mWarning:" in written[0]
    assert "\x1b[1;31mError:" in written[0]
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", written[1])
    assert "Warning:" in written[1]


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", "★"), ("ascii", "*"), ("cp1252", "*")])
def test_glyph_fits_the_stream(encoding: str, expected: str) -> None:
    stream = TextIOWrapper(BytesIO(), encoding=encoding)
    assert console.glyph(Console(file=stream), "★", "*") == expected


def test_importing_the_reports_is_light() -> None:
    code = (
        "import sys, unetpp_cli.report.console, unetpp_cli.report.progress, unetpp_cli.report.tables, "
        "unetpp_cli.report.plots, unetpp_cli.report.sheet, unetpp_cli.report.history\n"
        "print({'torch', 'matplotlib', 'albumentations', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (units.percent, 0.65884, "65.9"),
        (units.percent, NAN, "-"),
        (units.count, 999, "999"),
        (units.count, 33_723, "33.7 k"),
        (units.count, 721_787, "722 k"),
        (units.count, 999_600, "1.00 M"),
        (units.count, 2_956_619, "2.96 M"),
        (units.count, 47_194_379, "47.2 M"),
        (units.count, 3.2e9, "3.20 G"),
        (units.duration, 3.21, "3.2 s"),
        (units.duration, 47.6, "48 s"),
        (units.duration, 59.7, "1:00"),
        (units.duration, 62, "1:02"),
        (units.duration, 3723, "1:02:03"),
        (units.duration, NAN, "-"),
        (units.short, 1.434, "1.43"),
        (units.short, 9.999, "10.0"),
        (units.short, 4354.2, "4354"),
        (units.loss, 0.43119, "0.4312"),
        (units.loss, 123456.0, "1.23e+05"),
        (units.loss, NAN, "nan"),
        (units.column, [2.956, 23.102], ["2.96", "23.10"]),
        (units.column, [22.14, None, 144.2], ["22.1", "-", "144.2"]),
        (units.column, [421.2, NAN], ["421", "-"]),
        (units.column, [], []),
    ],
)
def test_units(function: Callable[[object], object], value: object, expected: object) -> None:
    assert function(value) == expected


# --- history ------------------------------------------------------------------------------------------------

floats = st.floats(allow_nan=True, allow_infinity=True)
scores = st.builds(HeadScore, floats, floats, floats)
records = st.builds(
    EpochRecord,
    epoch=st.integers(1, 10_000),
    lr=floats,
    train_loss=floats,
    train_accuracy=floats,
    train_heads=st.dictionaries(st.integers(1, 12), floats, max_size=5),
    val=st.dictionaries(st.integers(1, 12), scores, max_size=5),
    seconds=floats,
    images_per_second=floats,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=4))
def test_history_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[EpochRecord]) -> None:
    path = tmp_path_factory.mktemp("history") / "history.csv"
    write_history(path, written)

    def exact(each: EpochRecord) -> tuple[object, ...]:
        heads = sorted((depth, repr(value)) for depth, value in each.train_heads.items())
        val = sorted((depth, repr(score)) for depth, score in each.val.items())
        rest = dataclasses.replace(each, train_heads={}, val={})
        return repr(rest), heads, val  # repr: NaN does not equal itself, and -0.0 equals 0.0

    assert [exact(each) for each in read_history(path)] == [exact(each) for each in written]


def test_history_columns_and_numpy_numbers(tmp_path: Path) -> None:
    val = {2: HeadScore(0.3, 0.9, np.float64(0.6))}
    first = EpochRecord(1, np.float64(0.1), np.float64(1.5), 0.5, {1: 2.0, 2: 1.0}, val, 60.5, 12.0)
    write_history(tmp_path / "history.csv", [first, dataclasses.replace(first, epoch=2, val={})])
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,lr,train_loss,train_accuracy,train_loss_L1,train_loss_L2,"
        "val_loss_L2,val_accuracy_L2,val_miou_L2,seconds,images_per_second\n"
        "1,0.1,1.5,0.5,2.0,1.0,0.3,0.9,0.6,60.5,12.0\n"
        "2,0.1,1.5,0.5,2.0,1.0,,,,60.5,12.0\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "epoch,lr,train_loss,train_accuracy,seconds,images_per_second\n1,x,1,1,1,1\n",
        "epoch,lr\n1\n",
    ],
)
def test_what_is_no_history_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "h.csv").write_text(text)
    with pytest.raises(UserError, match=r"h\.csv is no training history"):
        read_history(tmp_path / "h.csv")
    with pytest.raises(UserError, match=r"none\.csv"):
        read_history(tmp_path / "none.csv")


def test_best_epoch_is_the_deepest_heads_and_the_earliest() -> None:
    run = [record(1, 0.2), record(2, 0.5), record(3, 0.5), record(4, NAN)]
    run[0] = dataclasses.replace(run[0], val={1: HeadScore(0, 0, 0.99), 4: HeadScore(0, 0, 0.1)})
    best = best_epoch(run)
    assert best is not None
    assert best.epoch == 2
    assert best_epoch(unscored(run)) is None


# --- tables and JSON ----------------------------------------------------------------------------------------


def test_results_json_is_exact() -> None:
    data = tables.results_json("val", two_results(), {"model": "m", "seconds": NAN})
    # Depth 1: grass 40 of 100 found, sky 50 of 50 found and 60 pixels of grass called sky.
    grass, sky = 40 / 100, 50 / 110
    assert list(data) == ["model", "seconds", "split", "depths", "ensemble"]
    assert data["split"] == "val"
    assert data["seconds"] is None
    assert list(data["depths"]) == ["1", "2"]
    assert data["depths"]["1"] == {
        "miou": pytest.approx((grass + sky) / 2, abs=1e-15),
        "pixel_accuracy": pytest.approx(90 / 150, abs=1e-15),
        "mean_accuracy": pytest.approx((40 / 100 + 1) / 2, abs=1e-15),
        "frequency_weighted_iou": pytest.approx((100 * grass + 50 * sky) / 150, abs=1e-15),
        "dice": pytest.approx((80 / 140 + 100 / 160) / 2, abs=1e-15),
        "iou": {"grass": grass, "[sky]": pytest.approx(sky, abs=1e-15), "never": None},
        "parameters": 33_723,
        "gmac": 2.956,
        "ms": 22.14,
    }
    assert data["ensemble"]["ms"] is None
    assert data["ensemble"]["iou"]["grass"] == 70 / 100
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_results_json_of_a_split_without_a_labelled_pixel() -> None:
    empty = DepthResult(4, Scores(np.zeros((3, 3), np.int64), TWO), 1, 1.0)
    data = tables.results_json("test", [empty])
    assert data["ensemble"] is None
    assert data["depths"]["4"]["miou"] is None
    assert set(data["depths"]["4"]["iou"].values()) == {None}
    json.dumps(data, allow_nan=False)


def test_depth_table_rows_and_best() -> None:
    lines = plain(tables.depth_table(two_results(), "run [1]")).splitlines()
    rows = [line.split() for line in lines if line.strip()]
    star = console.glyph(console.out, "★", "*")
    assert rows[0] == ["run", "[1]"]
    assert rows[-3:] == [
        ["L1", "42.7", "60.0", "70.0", "33.7", "k", "2.96", "22.1"],
        ["L2", star, "75.7", "86.7", "90.0", "2.96", "M", "23.10", "144.2"],
        ["ensemble", "66.2", "80.0", "85.0", "2.96", "M", "23.30", "-"],
    ]
    points = {line.index(".") for line in lines if line.split()[:1] in (["L1"], ["L2"], ["ensemble"])}
    assert len(points) == 1, "the decimal points of mIoU stand below each other"


def test_class_table_marks_absent_classes_and_hides_void() -> None:
    text = plain(tables.class_table(two_results(), TWO))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["grass"] == ["66.7", "40.0", "80.0", "70.0"]
    assert rows["[sky]"] == ["33.3", "45.5", "71.4", "62.5"]
    assert rows["never"] == ["-"] * 4
    assert rows["mean"][-3:] == ["42.7", "75.7", "66.2"]
    hidden = dataclasses.replace(TWO, void=(2,))
    results = [DepthResult(1, Scores(two_classes().confusion, hidden), 1, 1.0)]
    assert "never" not in plain(tables.class_table(results, hidden))


def test_class_table_has_colour_chips() -> None:
    stream = StringIO()
    Console(file=stream, force_terminal=True, color_system="truecolor", width=90).print(
        tables.class_table(two_results(), TWO)
    )
    for red, green, blue in TWO.colors:
        assert f"48;2;{red};{green};{blue}m  " in stream.getvalue()


# --- plots --------------------------------------------------------------------------------------------------


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def spots(picture: np.ndarray, color: str) -> np.ndarray:
    """(rows, columns) of the pixels of a `#rrggbb` colour."""
    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return np.argwhere((np.abs(picture - rgb) <= 2).all(axis=2))


def test_curves_show_every_head_and_follow_the_records(tmp_path: Path) -> None:
    plots.curves(tmp_path / "a.png", training(30), "run")
    plots.curves(tmp_path / "same.png", training(30), "run")
    higher = [dataclasses.replace(each, train_loss=3.0) for each in training(30)]
    plots.curves(tmp_path / "b.png", higher, "run")
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
        plots.curves(tmp_path / "c.png", run, "$odd$ _title_ [1]")
    picture = pixels(tmp_path / "c.png")
    assert picture.shape == (1000, 1600, 3)
    assert (picture < 128).all(axis=2).sum() > 500, "titles and axes are there"


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


# --- sample sheet -------------------------------------------------------------------------------------------


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


# --- progress -----------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands until it is told to move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int) -> Console:
    return Console(file=StringIO(), force_terminal=True, width=width, height=24, color_system="truecolor")


def written(target: Console) -> str:
    assert isinstance(target.file, StringIO)
    return target.file.getvalue()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def show(target: Console, run: Sequence[EpochRecord]) -> str:
    """Two steps and a validation per epoch; returns what was written."""
    best = 0.0
    with TrainingDisplay(target) as display:
        display.start(len(run), 2, (1, 2, 3, 4))
        for each in run:
            for step in (1, 2):
                display.step(each.epoch, step, each.train_loss, each.lr, 12.5, 3 * 2**30)
                if target.is_terminal:
                    time.sleep(0.3)  # longer than a refresh
            if each.val:
                display.validating(5, 10)
            display.epoch_done(each, each.miou > best)
            best = max(best, each.miou)
    return written(target)


@pytest.mark.parametrize("width", [80, 140])
def test_training_on_a_terminal(width: int) -> None:
    text = show(terminal(width), [record(1, 0.2), record(2, 0.5), record(3, 0.4)])
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden and shown again"
    lines = without_codes(text).replace("\r", "\n").split("\n")
    rows = [line for line in lines if re.match(r" *(epoch|\d+/3) ", line)]
    assert [row.split()[0] for row in rows] == ["epoch", "1/3", "2/3", "3/3"]
    assert ["★" in row for row in rows] == [False, True, True, False]
    assert len({len(row.rstrip()) for row in rows}) == 1, "aligned"
    assert max(len(line) for line in lines) <= width
    assert rows[2].split()[3 + (width > 80) :][:6] == ["1.4000", "51.0", "52.0", "53.0", "54.0", "★"]
    live = "\n".join(lines)
    for fact in ("Epoch 1/3 training", "1/2", "loss 1.5000", "lr 0.1", "12.5 img/s", "memory 3.0 GiB", "ETA"):
        assert fact in live


def test_training_in_a_log_is_one_plain_line_per_epoch() -> None:
    target = Console(file=StringIO(), width=40)
    text = show(target, [record(1, 0.2), record(2, 0.5), dataclasses.replace(record(3), val={})])
    assert text.splitlines() == [
        "epoch 1/3  lr 0.1  train loss 1.5000  val loss 2.4000  mIoU % L1 21.0 L2 22.0 L3 23.0 L4 24.0"
        "  1:02  12.5 img/s  * best",
        "epoch 2/3  lr 0.05  train loss 0.7500  val loss 1.4000  mIoU % L1 51.0 L2 52.0 L3 53.0 L4 54.0"
        "  1:02  12.5 img/s  * best",
        "epoch 3/3  lr 0.033  train loss 0.5000  1:02  12.5 img/s",
    ]


def test_training_without_validation_has_no_score_columns() -> None:
    lines = without_codes(show(terminal(80), unscored(training(2)))).replace("\r", "\n")
    assert "mIoU" not in lines
    assert "val loss" not in lines
    assert re.search(r" 2/2 +0.05 +0.7500 +1:02", lines)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("broken"), SystemExit])
@pytest.mark.parametrize("forced", [True, False])
def test_whatever_ends_a_training_passes_and_gives_the_terminal_back(
    error: BaseException | type[BaseException], forced: bool
) -> None:
    target = terminal(80) if forced else Console(file=StringIO())
    streams = sys.stdout, sys.stderr

    def train() -> None:
        with TrainingDisplay(target) as display:
            display.start(3, 10, (1, 2))
            display.step(1, 1, 0.5, 0.1, 10.0)
            assert console.is_live() is forced
            raise error

    with pytest.raises((KeyboardInterrupt, UserError, SystemExit)) as caught:
        train()
    assert caught.type in (error, type(error))
    assert (sys.stdout, sys.stderr) == streams
    assert not console.is_live()
    assert written(target).count("\x1b[?25l") == written(target).count("\x1b[?25h") == int(forced)


def test_time_left() -> None:
    clock = Clock()
    display = TrainingDisplay(Console(file=StringIO()), clock)
    display.start(10, 20, (1,))
    assert display.seconds_left() is None
    clock.now += 30
    display.step(1, 10, 0.5, 0.1, 10.0)
    assert display.seconds_left() == pytest.approx(30 + 9 * 60)
    clock.now += 30
    display.epoch_done(dataclasses.replace(record(1), seconds=80), best=True)
    clock.now += 20
    display.step(2, 5, 0.5, 0.1, 10.0)
    assert display.seconds_left() == pytest.approx(60 + 8 * 80)
    display.epoch_done(dataclasses.replace(record(10), seconds=80), best=False)
    assert display.seconds_left() == 0


def test_time_left_of_a_resumed_training() -> None:
    clock = Clock()
    display = TrainingDisplay(Console(file=StringIO()), clock)
    display.start(10, 20, (1,))
    clock.now += 10
    display.step(9, 10, 0.5, 0.1, 10.0)
    assert display.seconds_left() == pytest.approx(10 + 20)


def test_prose_is_printed_above_the_live_view(environment: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    environment.setattr(sys, "stdout", screen)
    environment.setattr(sys, "stderr", screen)
    with TrainingDisplay() as display:
        display.start(2, 10, (1,))
        console.warn("odd [thing]")
        console.say("saved a[0].png")
        display.epoch_done(record(1, heads=(1,)), best=True)
    text = without_codes(screen.getvalue())
    order = [text.index(words) for words in ("Warning: odd [thing]", "saved a[0].png", "  1/2 ")]
    assert order == sorted(order)
    # Below each of them the view is drawn anew.
    assert all(re.search("Epoch [12]/2", part) for part in re.split(r"Warning:|saved", text)[1:])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only forked workers inherit the view")
def test_a_forked_worker_does_not_draw() -> None:
    with TrainingDisplay(terminal(80)) as display:
        display.start(2, 10, (1,))
        assert hasattr(sys.stderr, "rich_proxied_file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: there are threads
            child = os.fork()
        if child == 0:
            os._exit(sum(hasattr(stream, "rich_proxied_file") for stream in (sys.stdout, sys.stderr)))
        assert os.waitpid(child, 0)[1] == 0


def test_track_on_a_terminal_counts_images() -> None:
    target = terminal(100)
    with track(8, "Predicting [x]", target) as advance:
        for _ in range(4):
            advance(2)
            time.sleep(0.08)
        time.sleep(0.3)
        assert console.is_live()
    text = without_codes(written(target))
    assert "Predicting [x]" in text
    assert "8/8" in text
    assert re.search(r"\d img/s +ETA ", text)
    assert written(target).endswith("\x1b[2K"), "the bar is wiped away"


@pytest.mark.parametrize("live", [False, True])
def test_track_is_silent_in_a_pipe_and_below_another_view(live: bool) -> None:
    target, other = (terminal(80) if live else Console(file=StringIO())), terminal(80)
    with TrainingDisplay(other) as display:
        if live:
            display.start(1, 1, (1,))
        with track(3, "Evaluating", target) as advance:
            advance(3)
    assert written(target) == ""


def test_track_passes_an_interrupt_and_shows_the_cursor() -> None:
    target = terminal(80)
    with pytest.raises(KeyboardInterrupt), track(3, "Evaluating", target):
        raise KeyboardInterrupt
    assert written(target).count("\x1b[?25l") == written(target).count("\x1b[?25h") == 1
    assert not console.is_live()


def test_camvid_tables_fit_eighty_columns() -> None:
    confusion = np.eye(11, dtype=np.int64) * 1000
    scores = Scores(confusion, CAMVID11)
    results = [DepthResult(depth, scores, 47_194_379, 365.354, 4354.0) for depth in (1, 2, 3, 4)]
    results.append(dataclasses.replace(results[-1], depth=None))
    for table in (tables.depth_table(results, "t"), tables.class_table(results, CAMVID11)):
        lines = plain(table, width=80).splitlines()
        assert max(len(line) for line in lines) <= 80
        assert not any("…" in line for line in lines)
        assert len(lines) == len(plain(table, width=200).splitlines()), "nothing had to be wrapped"
