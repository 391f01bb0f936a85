"""What people look at in a terminal: console, units, tables and live progress; and the tables' JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO, TextIOWrapper

import numpy as np
import pytest
from records import (
    NAN,
    TWO,
    full_results,
    record,
    training,
    two_classes,
    two_differences,
    two_results,
    unscored,
)
from rich.console import Console

from unetpp_cli.data.classes import CAMVID11, CAMVID33, ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import Cost, DepthResult, Interval, Scores
from unetpp_cli.report import comparison, console, tables, units
from unetpp_cli.report.history import EpochRecord
from unetpp_cli.report.progress import TrainingDisplay, track


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
        "import sys, unetpp_cli.report.console, unetpp_cli.report.progress, unetpp_cli.report.comparison, "
        "unetpp_cli.report.plots, unetpp_cli.report.curves, unetpp_cli.report.sheet, "
        "unetpp_cli.report.history, unetpp_cli.report.receipt, unetpp_cli.report.tensorboard\n"
        "unetpp_cli.report.receipt.versions()\n"
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
        "interval": None,
        "frequency_weighted_iou": pytest.approx((100 * grass + 50 * sky) / 150, abs=1e-15),
        "dice": pytest.approx((80 / 140 + 100 / 160) / 2, abs=1e-15),
        "boundary_f1": None,
        "iou": {"grass": grass, "[sky]": pytest.approx(sky, abs=1e-15), "never": None},
        "class_dice": {"grass": 80 / 140, "[sky]": 100 / 160, "never": None},
        "class_accuracy": {"grass": 0.4, "[sky]": 1.0, "never": None},
        "class_boundary_f1": None,
        "parameters": 33_723,
        "gmac": 2.956,
        "file_bytes": 140_000,
        "ms": 22.14,
        "peak_bytes": None,
    }
    assert data["ensemble"]["ms"] is None
    assert data["ensemble"]["iou"]["grass"] == 70 / 100
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_results_json_of_a_split_without_a_labelled_pixel() -> None:
    empty = DepthResult(4, Scores(np.zeros((3, 3), np.int64), TWO), Cost(1, 1.0, 4))
    data = tables.results_json("test", [empty])
    assert data["ensemble"] is None
    assert data["depths"]["4"]["miou"] is None
    assert set(data["depths"]["4"]["iou"].values()) == {None}
    json.dumps(data, allow_nan=False)


def test_results_json_of_all_that_can_be_measured() -> None:
    results = [*full_results(), DepthResult(None, two_classes(), name="masks/")]
    data = tables.results_json("val", results)
    second = data["depths"]["2"]
    miou = (80 / 100 + 50 / 70) / 2
    assert second["interval"] == pytest.approx([miou - 0.02, miou + 0.02])
    assert second["boundary_f1"] == pytest.approx((0.7 + 0.45) / 2)
    assert second["class_boundary_f1"] == {
        "grass": pytest.approx(0.7),
        "[sky]": pytest.approx(0.45),
        "never": None,
    }
    assert (second["file_bytes"], second["ms"], second["peak_bytes"]) == (11_900_000, 40.0, 600_000_000)
    assert data["ensemble"]["peak_bytes"] == 900_000_000
    assert list(data["masks"]) == ["masks/"], "masks are no ensemble"
    assert data["masks"]["masks/"]["gmac"] is None
    unknown = dataclasses.replace(results[0], interval=Interval(NAN, NAN))
    assert tables.results_json("val", [unknown])["depths"]["1"]["interval"] is None


def test_results_csv_reads_back_as_the_json() -> None:
    quoted = dataclasses.replace(TWO, names=("grass", 'a, "b"\nc', "never"))
    scores = dataclasses.replace(two_classes(), classes=quoted)
    results = [*full_results(), DepthResult(None, scores, name="masks, mine")]
    results = [dataclasses.replace(r, scores=dataclasses.replace(r.scores, classes=quoted)) for r in results]
    text = tables.results_csv([("a model", results[:1]), ("it, too", results[1:])])
    data = tables.results_json("val", results)
    rows = list(csv.DictReader(StringIO(text)))
    entries = [*data["depths"].values(), data["ensemble"], data["masks"]["masks, mine"]]
    assert [row["name"] for row in rows] == ["a model", *["it, too"] * 3]
    assert [row["row"] for row in rows] == ["L1", "L2", "ensemble", "masks, mine"]
    for row, entry in zip(rows, entries, strict=True):
        for key, value in entry.items():
            if key in row:
                assert row[key] == ("" if value is None else str(value))
        assert [row["miou_low"], row["miou_high"]] == [str(end) for end in entry["interval"] or ("", "")]
        for name, value in entry["iou"].items():
            assert row[f"iou {name}"] == ("" if value is None else str(value))
    plain_figures = {key for key, value in entries[0].items() if not isinstance(value, (dict, list))}
    assert plain_figures <= set(rows[0])
    assert "nan" not in text
    assert tables.results_csv([]).startswith("name,row,miou,")


def body(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def test_depth_table_rows_and_best() -> None:
    text = plain(tables.depth_table(two_results(), "run [1]"))
    star = console.glyph(console.out, "★", "*")
    assert body(text)[0] == ["run", "[1]"]
    # Grass 40, 80 and 70 of 100, sky 50 of 50: the scores by hand are those of the JSON's test.
    assert body(text)[-3:] == [
        ["L1", "42.7", "60.0", "70.0", "41.8", "59.8", "33.7", "k", "2.96", "0.14", "22.1"],
        ["L2", star, "75.7", "86.7", "90.0", "77.1", "86.1", "2.96", "M", "23.10", "11.90", "144.2"],
        ["ensemble", "66.2", "80.0", "85.0", "67.5", "79.6", "2.96", "M", "23.30", "11.95", "-"],
    ]
    rows = [line for line in text.splitlines() if line.split()[:1] in (["L1"], ["L2"], ["ensemble"])]
    assert len({line.index(".") for line in rows}) == 1, "the decimal points of mIoU stand below each other"
    for left_out in ("95 %", "BF", "peak"):
        assert left_out not in text, "no row has any"


def test_depth_table_with_all_that_can_be_measured() -> None:
    text = plain(tables.depth_table(full_results()), 120)
    assert [name for name in ("95 %", "BF", "peak", "ms/") if name in text] == ["95 %", "BF", "peak", "ms/"]
    first = body(text)[-3]
    assert first[1:3] == ["42.7", "40.7-43.7"]
    assert (first[7], first[-2:]) == ("47.5", ["20.0", "300"]), "boundary F1, milliseconds, memory"
    unknown = dataclasses.replace(full_results()[0], interval=Interval(NAN, NAN))
    assert body(plain(tables.depth_table([unknown, full_results()[1]]), 120))[-2][2] == "-"


def test_depth_tables_are_two_where_the_terminal_is_narrow() -> None:
    wide = tables.depth_tables(full_results(), "run [1]", 120)
    assert [str(table.title) for table in wide] == ["run [1]"]
    assert tables.full_width(wide[0]) > 80
    narrow = tables.depth_tables(full_results(), "run [1]", 80)
    assert [str(table.title) for table in narrow] == [
        "run [1]: what each depth gives",
        "run [1]: what it costs",
    ]
    gives, costs = (plain(table, 80) for table in narrow)
    assert max(len(line) for line in (gives + costs).splitlines()) <= 80
    assert "…" not in gives + costs
    whole = body(plain(wide[0], 120))[-3:]
    for line, left, right in zip(whole, body(gives)[-3:], body(costs)[-3:], strict=True):
        assert line == left + right[1:], "the same cells"
    alone = [dataclasses.replace(result, cost=None) for result in full_results()]
    assert len(tables.depth_tables(alone, "run", 20)) == 1, "nothing is known of what they cost"


def test_depth_table_of_masks_has_a_name_and_no_star() -> None:
    masks = DepthResult(None, two_classes(40), name="[other] tool")
    text = plain(tables.depth_table([masks]))
    assert body(text)[-1] == ["[other]", "tool", "42.7", "60.0", "70.0", "41.8", "59.8"]
    assert "masks" in text
    beside = body(plain(tables.depth_table([*two_results(), masks])))[-1]
    assert beside[2:] == ["42.7", "60.0", "70.0", "41.8", "59.8", *"----"], (
        "dashes for what masks do not cost"
    )


@pytest.mark.parametrize("classes", [CAMVID11, CAMVID33], ids=lambda classes: classes.name)
def test_tables_of_many_classes_fit_80_columns(classes: ClassSet) -> None:
    counts = np.full((len(classes), len(classes)), 12_345)
    results = [DepthResult(depth, Scores(counts, classes)) for depth in (1, 2, 3, 4, 5, None)]
    text = plain(tables.class_table(results, classes), 80)
    assert "…" not in text
    for index in classes.scored:
        assert f" {classes.names[index]} " in text


def test_class_table_marks_absent_classes_and_hides_void() -> None:
    text = plain(tables.class_table(two_results(), TWO))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["grass"] == ["66.7", "40.0", "80.0", "70.0"]
    assert rows["[sky]"] == ["33.3", "45.5", "71.4", "62.5"]
    assert rows["never"] == ["-"] * 4
    assert rows["mean"][-3:] == ["42.7", "75.7", "66.2"]
    hidden = dataclasses.replace(TWO, void=(2,))
    results = [DepthResult(1, Scores(two_classes().confusion, hidden), Cost(1, 1.0, 4))]
    assert "never" not in plain(tables.class_table(results, hidden))


def test_class_table_has_colour_chips() -> None:
    stream = StringIO()
    Console(file=stream, force_terminal=True, color_system="truecolor", width=90).print(
        tables.class_table(two_results(), TWO)
    )
    for red, green, blue in TWO.colors:
        assert f"48;2;{red};{green};{blue}m  " in stream.getvalue()


# --- two models ---------------------------------------------------------------------------------------------


def test_comparison_table_marks_what_excludes_nought() -> None:
    first, second = DepthResult(4, two_classes(60)), DepthResult(4, two_classes(63))
    text = plain(comparison.comparison_table(first, second, two_differences(), TWO, "a [1]"), 80)
    up = console.glyph(console.out, "▲", "^")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["grass"] == ["60.0", "63.0", up, "+3.0", "+0.02", "to", "+5.00"]
    assert rows["[sky]"] == ["55.6", "57.5", "-0.5", "-3.1", "to", "+1.2"]
    assert "never" not in rows
    assert rows["mean"] == ["IoU", "%", "57.8", "60.2", up, "+1.2", "+0.4", "to", "+1.9"]
    assert "a[1].safetensors" in text
    worse = dataclasses.replace(two_differences(-0.02, -0.001), miou=-0.01)
    down = console.glyph(console.out, "▼", "v")
    last = body(plain(comparison.comparison_table(first, second, worse, TWO), 80))[-1]
    assert last[5:] == [down, "-1.0", "-2.0", "to", "-0.1"]


def test_comparison_table_folds_long_names_and_needs_no_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    long = dataclasses.replace(two_differences(), first="runs/" + "q" * 60, second="runs/" + "z" * 60)
    result = DepthResult(4, two_classes())
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), encoding="ascii"))
    text = plain(comparison.comparison_table(result, result, long, TWO), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("q") == text.count("z") == 60
    assert "^ +3.0" in text


@pytest.mark.parametrize(
    ("low", "high", "sequences", "words"),
    [
        (0.004, 0.019, 3, "differs on these sequences (95 % interval +0.4 to +1.9)."),
        (-0.019, -0.004, 3, "differs on these sequences (95 % interval -1.9 to -0.4)."),
        (-0.004, 0.019, 3, "no difference shown on these sequences (95 % interval -0.4 to +1.9)."),
        (0.0, 0.0, 3, "no difference shown on these sequences (95 % interval +0.0 to +0.0)."),
        (0.0001, 0.019, 3, "differs on these sequences (95 % interval +0.01 to +1.90)."),
        (
            0.004,
            0.019,
            1,
            "differs on this one sequence (95 % interval +0.4 to +1.9).",
        ),
        (NAN, NAN, 3, "too few blocks"),
    ],
)
def test_verdict(low: float, high: float, sequences: int, words: str) -> None:
    sentence = comparison.verdict(two_differences(low, high), sequences)
    assert sentence.startswith("b.safetensors against a[1].safetensors, mean IoU +1.2 points: ")
    assert words in sentence
    assert "\n" not in sentence
    for flattering in ("real", "significan"):
        assert flattering not in sentence


def test_verdict_without_a_score() -> None:
    assert "no mean IoU" in comparison.verdict(dataclasses.replace(two_differences(), miou=NAN), 3)


def test_comparison_json_is_exact() -> None:
    data = comparison.comparison_json(two_differences(), TWO)
    assert data == {
        "first": "a[1].safetensors",
        "second": "b.safetensors",
        "miou": 0.0123,
        "interval": [0.004, 0.019],
        "differs": True,
        "iou": {
            "grass": {"difference": 0.03, "interval": [0.0002, 0.05], "differs": True},
            "[sky]": {"difference": -0.0054, "interval": [-0.031, 0.012], "differs": False},
            "never": {"difference": None, "interval": None, "differs": None},
        },
    }
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    unknown = comparison.comparison_json(two_differences(NAN, NAN), TWO)
    assert (unknown["interval"], unknown["differs"]) == (None, None)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.0123, -0.003], ["+1.2", "-0.3"]),
        ([0.0001, 0.02], ["+0.01", "+2.00"]),
        ([0.0, NAN], ["+0.0", "-"]),
        ([-0.0], ["+0.0"]),
        ([-1e-9, 0.01], ["+0.00", "+1.00"]),
    ],
)
def test_points(shares: list[float], expected: list[str]) -> None:
    assert comparison.points(shares) == expected


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


def test_time_left_of_a_training_resumed_within_an_epoch() -> None:
    clock = Clock()
    display = TrainingDisplay(Console(file=StringIO()), clock)
    display.start(10, 20, (1,), epoch=9, done=14)
    clock.now += 2
    assert display.seconds_left() is None
    clock.now += 10
    display.step(9, 17, 0.5, 0.1, 10.0)  # three batches in 12 seconds: 80 a whole epoch
    assert display.seconds_left() == pytest.approx(3 * 4 + 80)
    clock.now += 12
    display.step(9, 20, 0.5, 0.1, 10.0)
    assert display.seconds_left() == pytest.approx(80)
    display.validating(1, 5)
    clock.now += 10
    display.validating(5, 5)
    assert display.seconds_left() == pytest.approx(90), "80 of training, 10 of validation"
    display.epoch_done(dataclasses.replace(record(9), seconds=34), best=True)
    assert display.seconds_left() == pytest.approx(90), "not the 34 that this start took"
    clock.now += 40
    display.step(10, 10, 0.5, 0.1, 10.0)
    assert display.seconds_left() == pytest.approx(50)


def test_time_left_when_only_the_validation_was_missing() -> None:
    clock = Clock()
    display = TrainingDisplay(Console(file=StringIO()), clock)
    display.start(10, 20, (1,), epoch=9, done=20)
    display.validating(1, 5)
    clock.now += 10
    assert display.seconds_left() is None, "nothing tells how long training takes"
    display.epoch_done(dataclasses.replace(record(9), seconds=10), best=True)
    assert display.seconds_left() is None
    clock.now += 10
    display.step(10, 5, 0.5, 0.1, 10.0)
    assert display.seconds_left() == pytest.approx(30)


def test_a_resumed_training_shows_where_it_goes_on() -> None:
    target = terminal(80)
    with TrainingDisplay(target) as display:
        display.start(10, 20, (1, 2, 3, 4), epoch=9, done=14)
        target.print("a note")  # and the view below it anew
        assert re.search(r"Epoch 9/10 training .* 14/20", without_codes(written(target)))
        display.epoch_done(record(9), best=False)
    lines = without_codes(written(target)).replace("\r", "").split("\n")
    rows = [line.split()[0] for line in lines if re.match(r" +(epoch|9/10) ", line)]
    assert rows == ["epoch", "9/10"], "the table begins with its head"


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
    cost = Cost(47_194_379, 365.354, 188_900_000, 4354.0)
    results = [DepthResult(depth, scores, cost) for depth in (1, 2, 3, 4)]
    results.append(dataclasses.replace(results[-1], depth=None))
    for table in (*tables.depth_tables(results, "t", 80), tables.class_table(results, CAMVID11)):
        lines = plain(table, width=80).splitlines()
        assert max(len(line) for line in lines) <= 80
        assert not any("…" in line for line in lines)
        assert len(lines) == len(plain(table, width=200).splitlines()), "nothing had to be wrapped"
