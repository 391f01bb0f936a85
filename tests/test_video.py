"""Films through `unetpp predict`: frames, times and colours kept, bounded memory, damage and refusals."""

from __future__ import annotations

import sys
import weakref
from fractions import Fraction
from pathlib import Path

import networks
import numpy as np
import pytest
from conftest import unetpp

from unetpp_cli import Predictor, load_model
from unetpp_cli.data.classes import CAMVID11
from unetpp_cli.errors import UserError
from unetpp_cli.inference.prediction import Prediction
from unetpp_cli.jobs.painting.outputs import Look
from unetpp_cli.jobs.painting.video import Film, _even, _Frames, _Times, paint_film
from unetpp_cli.masks import read_mask

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.saved(tmp_path_factory.mktemp("weights"), width=4, depth=2)


def film(
    path: str,
    frames: int = 12,
    height: int = 48,
    width: int = 64,
    rate: Fraction = Fraction(25),
    sound: bool = False,
) -> list[np.ndarray]:
    """Writes a film of big blocks that wander, and returns its frames as a decoder sees them."""
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        noise = out.add_stream("aac", rate=8000) if sound else None
        blocks = np.random.default_rng(0).integers(
            0, 256, (height // 16, width // 16 + frames, 3), dtype=np.uint8
        )
        for number in range(frames):
            part = blocks[:, number : number + width // 16]
            picture = part.repeat(16, axis=0).repeat(16, axis=1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if noise is not None:
            samples = np.zeros((1, 1024), np.float32)
            for number in range(8):
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 8000, 1024 * number
                out.mux(noise.encode(frame))
            out.mux(noise.encode(None))
        out.mux(stream.encode(None))
    return decoded(path)


def decoded(path: str) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times(path: str) -> list[float]:
    with av.open(path) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def painted(*args: object, code: int = 0) -> str:
    result = unetpp("predict", *args, "--precision", "fp32")
    assert result.exit_code == code, result.output
    return result.output


def test_every_frame_has_its_mask_at_its_time(weights: Path) -> None:
    frames = film("drive.mp4", rate=Fraction(30000, 1001), sound=True)
    said = painted("drive.mp4", "-o", "masks.mp4", "-m", weights)
    assert "12 frames" in said
    assert "sound is left out" in said
    assert times("masks.mp4") == pytest.approx(times("drive.mp4"), abs=1e-3)
    with av.open("masks.mp4") as container, av.open("drive.mp4") as source:
        assert not container.streams.audio
        assert container.streams.video[0].average_rate == source.streams.video[0].average_rate
        assert container.duration == pytest.approx(
            source.streams.video[0].duration * source.streams.video[0].time_base * 1e6, rel=0.02
        )
    predictor = Predictor.load(weights, precision="fp32")
    colors = np.array(CAMVID11.colors, np.int32)
    wanted = [predictor.mask(frame) for frame in frames]
    for number, shown in enumerate(decoded("masks.mp4")):
        nearest = ((shown[:, :, None].astype(np.int32) - colors) ** 2).sum(-1).argmin(-1)
        agreement = [np.mean(nearest == mask) for mask in wanted]
        assert np.argmax(agreement) == number
        assert agreement[number] > 0.7  # a film halves the resolution of colour, and these masks are speckled


def test_a_folder_gets_the_masks_themselves(weights: Path) -> None:
    frames = film("drive.mp4", frames=3)
    painted("drive.mp4", "-o", "masks", "-m", weights)
    assert sorted(path.name for path in Path("masks").iterdir()) == [f"drive_{n:06d}.png" for n in (1, 2, 3)]
    predictor = Predictor.load(weights, precision="fp32")
    for number, frame in enumerate(frames, start=1):
        mask, text = read_mask(f"masks/drive_{number:06d}.png")
        assert np.array_equal(mask, predictor.mask(frame))
        assert text["Model"] == predictor.hash


def test_of_every_nth_frame_the_mask_stands(weights: Path) -> None:
    film("drive.mp4", frames=7)
    said = painted("drive.mp4", "-o", "masks", "-m", weights, "--every", 3)
    assert "3 masks" in said
    masks = [read_mask(f"masks/drive_{number:06d}.png")[0] for number in range(1, 8)]
    assert np.array_equal(masks[0], masks[2])
    assert np.array_equal(masks[3], masks[5])
    assert not np.array_equal(masks[2], masks[3])
    assert not np.array_equal(masks[5], masks[6])


def test_overlays_show_the_film(weights: Path) -> None:
    frames = film("drive.mp4", frames=4, height=48, width=64)
    painted("drive.mp4", "-o", "o.mp4", "-m", weights, "--overlay", "--opacity", 0.2)
    shown = decoded("o.mp4")
    assert len(shown) == 4
    assert np.abs(shown[0].astype(int) - frames[0]).mean() < 60
    painted("drive.mp4", "-o", "s.mp4", "-m", weights, "--overlay", "--side-by-side", "--legend")
    assert decoded("s.mp4")[0].shape[1] > 128


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mov"])
def test_other_containers(suffix: str, weights: Path) -> None:
    film("drive.mp4", frames=3)
    painted("drive.mp4", "-o", f"masks{suffix}", "-m", weights)
    assert len(decoded(f"masks{suffix}")) == 3


def test_odd_sides_become_even_by_a_row_more() -> None:
    for height, width in ((3, 4), (4, 5), (5, 7), (6, 8)):
        picture = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
        even = _even(picture)
        assert even.shape == (height + height % 2, width + width % 2, 3)
        assert np.array_equal(even[:height, :width], picture)
        assert np.array_equal(even[-1], even[height - 1])


def test_times_begin_at_nothing_and_rise() -> None:
    class Stream:
        average_rate, time_base = Fraction(25), Fraction(1, 100)

    times = _Times(Stream())
    assert [times.next(stamp) for stamp in (900, 904, None, 902, 920)] == [0, 4, 8, 12, 20]


def test_a_film_that_begins_late_and_out_of_order(weights: Path) -> None:
    """B-frames in an AVI come with stamps in disorder; a transport stream begins at 1.4 seconds or later."""
    for name in ("b.avi", "late.ts"):
        frames = film(name, frames=12)
        painted(name, "-o", "m.mp4", "-m", weights)
        shown = times("m.mp4")
        assert len(shown) == len(frames)
        assert shown[0] == 0
        assert np.all(np.diff(shown) > 0)
        assert shown[-1] == pytest.approx(11 / 25, abs=0.1)


def test_a_damaged_film_is_painted_as_far_as_it_can_be(weights: Path) -> None:
    film("whole.mkv", frames=100)
    data = Path("whole.mkv").read_bytes()
    Path("cut.mkv").write_bytes(data[: len(data) // 3])
    said = painted("cut.mkv", "-o", "m.mp4", "-m", weights, code=1)
    assert "cut.mkv is damaged: its last" in said
    assert 5 < len(decoded("m.mp4")) < 60
    Path("head.mp4").write_bytes(data[:100])
    assert "is no film that can be read" in painted("head.mp4", "-o", "n.mp4", "-m", weights, code=2)
    assert not Path("n.mp4").exists()


def test_packets_that_cannot_be_decoded_are_left_out() -> None:
    class Error(Exception):
        pass

    class Frame:
        time, rotation = 0.1, -90

        def to_ndarray(self, format: str) -> np.ndarray:  # noqa: A002
            return np.arange(6, dtype=np.uint8).reshape(1, 2, 3)

    class Packet:
        def __init__(self, broken: bool) -> None:
            self.broken = broken

        def decode(self) -> list[Frame]:
            if self.broken:
                raise Error
            return [Frame()]

    class Container:
        start_time, duration = 0, 120_000

        def demux(self, stream: object) -> list[Packet]:
            return [Packet(False), Packet(True), Packet(False)]

    class Av:
        time_base = 1_000_000
        error = type("error", (), {"FFmpegError": Error})

    frames = _Frames(Av, Container(), None)
    pictures = [picture for picture, _ in frames]
    assert [picture.shape for picture in pictures] == [(2, 1, 3)] * 2  # upright
    assert frames.problem() == "1 packet could not be decoded"


def test_memory_does_not_grow_with_the_film(weights: Path) -> None:
    """Frames are let go: of 40 that went through, few are alive at any time."""
    film("drive.mp4", frames=40)
    predictor = Predictor.load(weights, precision="fp32")
    alive: list[int] = []
    seen: list[weakref.ref[np.ndarray]] = []

    class Watching(Predictor):
        def predict(self, images: list[np.ndarray], **options: object) -> list[Prediction]:  # type: ignore[override]
            seen.extend(weakref.ref(image) for image in images)
            alive.append(sum(one() is not None for one in seen))
            return predictor.predict(images, **options)  # type: ignore[arg-type]

    watching = Watching(load_model(weights))
    assert paint_film(Film("drive.mp4", "m.mp4", Look(("color",))), watching, lambda: False) == 0
    assert len(seen) == 40
    assert max(alive) <= 3


def test_an_interruption_leaves_no_half_film(weights: Path) -> None:
    film("drive.mp4", frames=6)
    predictor = Predictor.load(weights, precision="fp32")
    asked = iter([False, False, False, False, True, True, True])
    from unetpp_cli.errors import Stopped

    with pytest.raises(Stopped):
        paint_film(Film("drive.mp4", "m.mp4", Look(("color",))), predictor, lambda: next(asked))
    assert sorted(path.name for path in Path().iterdir()) == ["drive.mp4"]


REFUSED = [
    (["drive.mp4", "-o", "m.avi"], "a film becomes a film"),
    (["drive.mp4", "-o", "m.png"], "a film becomes a film"),
    (["drive.mp4", "-o", "masks", "--overlay"], "which gets palette PNGs"),
    (["drive.mp4", "-o", "masks", "--legend", "--format", "color"], "which gets palette PNGs"),
    (["drive.mp4", "-o", "masks", "--skip-existing"], "--skip-existing: not for films"),
    (["drive.mp4", "-o", "m.mp4", "--batch-size", "2"], "--batch-size: not for films"),
    (["none.mp4", "-o", "m.mp4"], "no file none.mp4"),
    (["text.mp4", "-o", "m.mp4"], "text.mp4 is no film"),
    (["drive.mp4", "b.png", "-o", "m.mp4"], "painted by itself"),
    (["drive.mp4", "-o", "drive.mp4"], "is the film itself"),
    (["drive.mp4", "-o", "m.mp4", "--format", "probs"], "a film shows one of"),
    (["drive.mp4", "-o", "m.mp4", "--format", "color,overlay"], "a film shows one of"),
    (["drive.mp4", "-o", "m.mp4", "--confidence"], "--confidence: not for films"),
    (["b.png", "-o", "m.png", "--every", "2"], "--every is for films"),
]


@pytest.mark.parametrize(("args", "named"), REFUSED)
def test_refusals(args: list[str], named: str, weights: Path) -> None:
    film("drive.mp4", frames=2)
    before = Path("drive.mp4").read_bytes()
    Path("text.mp4").write_text("no film", encoding="utf-8")
    assert named in painted(*args, "-m", weights, code=2)
    assert Path("drive.mp4").read_bytes() == before
    assert {path.name for path in Path().iterdir()} == {"drive.mp4", "text.mp4"}


def test_under_torchrun_a_film_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film("drive.mp4", frames=2)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    assert "Start it without torchrun" in painted("drive.mp4", "-o", "m.mp4", "-m", weights, code=2)


def test_a_missing_package_is_named_with_the_cure(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film("drive.mp4", frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="not installed"):
        paint_film(Film("drive.mp4", "m.mp4", Look(("color",))), Predictor.load(weights), lambda: False)
    assert "pip install 'unetpp[video]'" in painted("drive.mp4", "-o", "m.mp4", "-m", weights, code=2)
