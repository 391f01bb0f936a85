"""What people look at in a terminal: console, units, tables and live progress; and the tables' JSON."""

from __future__ import annotations

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
from records import NAN, TWO, record, training, two_classes, two_results, unscored
from rich.console import Console

from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import Cost, DepthResult, Scores
from unetpp_cli.report import console, tables, units
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
        "import sys, unetpp_cli.report.console, unetpp_cli.report.progress, unetpp_cli.report.tables, "
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
    empty = DepthResult(4, Scores(np.zeros((3, 3), np.int64), TWO), Cost(1, 1.0, 4))
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
    results = [DepthResult(1, Scores(two_classes().confusion, hidden), Cost(1, 1.0, 4))]
    assert "never" not in plain(tables.class_table(results, hidden))


def test_class_table_has_colour_chips() -> None:
    stream = StringIO()
    Console(file=stream, force_terminal=True, color_system="truecolor", width=90).print(
        tables.class_table(two_results(), TWO)
    )
    for red, green, blue in TWO.colors:
        assert f"48;2;{red};{green};{blue}m  " in stream.getvalue()


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
    for table in (tables.depth_table(results, "t"), tables.class_table(results, CAMVID11)):
        lines = plain(table, width=80).splitlines()
        assert max(len(line) for line in lines) <= 80
        assert not any("…" in line for line in lines)
        assert len(lines) == len(plain(table, width=200).splitlines()), "nothing had to be wrapped"
