"""A film in, a film of masks out: frame by frame, a few of them in memory at most. Called by `jobs.predict`.

PyAV reads and writes; it comes with `pip install 'unetpp[video]'`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetpp_cli import masks
from unetpp_cli.data.findings import counted
from unetpp_cli.errors import Stopped, UserError
from unetpp_cli.files import replacing
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.jobs.painting.outputs import Look
from unetpp_cli.legend import with_legend
from unetpp_cli.report import console
from unetpp_cli.report.progress import track

RGB = npt.NDArray[np.uint8]

SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
"""Names that are taken for films."""

_CODECS = {".webm": ("libvpx-vp9", {"crf": "24", "b:v": "0"})}
_CODEC = ("libx264", {"crf": "16", "preset": "veryfast"})
"""Nearly lossless: flat colours cost little, and blurred edges would be other classes' colours."""

OUTPUTS = (".mp4", ".mov", ".m4v", ".mkv", ".webm")
"""Films that can be written: other containers keep no time stamps, or round them."""

FORMATS = ("color", "overlay")

_MISSING = 1.0
"""Seconds that may lack at the end of a film before it counts as cut off."""


def is_video(name: str) -> bool:
    """Whether a file of this name is taken for a film."""
    return Path(name).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Film:
    """What is to be made of a film.

    Attributes:
        source: the film.
        output: a film, or a folder for a palette PNG per frame.
        look: `color` or `overlay`, opacity, legend, and the image beside it; of films only.
        every: only every so-manyth frame is computed; its mask stands until the next.
    """

    source: str
    output: str
    look: Look
    every: int = 1

    @property
    def is_folder(self) -> bool:
        """Whether masks are written instead of a film."""
        return not is_video(self.output)


def paint_film(film: Film, predictor: Predictor, stop: Callable[[], bool]) -> int:
    """Paints the film; frame rate, time stamps from the first frame on, and length are kept, sound is not.

    Returns:
        The exit code: 1 when the film is damaged: frames that cannot be read are left out.

    Raises:
        UserError: PyAV is missing, the source is no film, or the output cannot be written.
        Stopped: `stop` said so, between two frames; no film is left, but the masks of a folder are.
    """
    av = _av()
    try:
        container = av.open(film.source)
    except av.error.FileNotFoundError as error:
        raise UserError(f"There is no file {film.source}.", "Check the path given.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(
            f"{film.source} is no film that can be read: {error}.", "Convert it first."
        ) from error
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise UserError(f"{film.source} has no pictures, only sound.", "Give a film.")
        stream.thread_type = "AUTO"
        if container.streams.audio and not film.is_folder:
            console.say("The sound is left out.")
        frames = _Frames(av, container, stream)
        if film.is_folder:
            done = _write_masks(film, predictor, frames, stop)
            _refuse_empty(film, done)
        else:
            with replacing(film.output) as temporary:
                done = _write_film(av, film, predictor, frames, temporary, stop)
                _refuse_empty(film, done)
    computed = -(-done // film.every)
    some = f" ({counted(computed, 'mask')}, one for {film.every} frames)" if film.every > 1 else ""
    console.say(f"{counted(done, 'frame')}{some}: {film.output}")
    if problem := frames.problem():
        console.error(f"{film.source} is damaged: {problem}.", "The rest was painted.")
        return 1
    return 0


def _refuse_empty(film: Film, frames: int) -> None:
    if not frames:
        raise UserError(f"{film.source} has no frame that could be read.", "Convert it first.")


class _Frames:
    """The frames of a film, upright; those that cannot be read are counted and left out."""

    def __init__(self, av: Any, container: Any, stream: Any) -> None:
        self._av, self._container, self.stream = av, container, stream
        # Asked now: a container that is closed does not answer.
        self._begin = (container.start_time or 0) / av.time_base
        self._length = (container.duration or 0) / av.time_base
        self._broken, self._end = 0, 0.0

    @property
    def count(self) -> int:
        """As the film itself says; 0 when it does not."""
        return int(self.stream.frames or 0)

    def __iter__(self) -> Iterator[tuple[RGB, Any]]:
        """(H, W, 3) uint8, and the frame it was."""
        for packet in self._container.demux(self.stream):
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError:
                self._broken += 1
                continue
            for frame in decoded:
                self._end = max(self._end, float(frame.time or 0.0))
                turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns)), frame

    def problem(self) -> str:
        """What was wrong with the film, once all of it was read; empty when nothing was."""
        missing = self._begin + self._length - self._end
        problems = []
        if self._broken:
            problems.append(f"{counted(self._broken, 'packet')} could not be decoded")
        if missing > _MISSING and missing > 0.05 * self._length:
            problems.append(f"its last {missing:.1f} of {self._length:.1f} seconds are missing")
        return " and ".join(problems)


def _masked(
    film: Film, predictor: Predictor, frames: _Frames, stop: Callable[[], bool]
) -> Iterator[tuple[RGB, masks.Mask, Any]]:
    """Each frame with the mask that stands for it."""
    mask: masks.Mask | None = None
    with track(frames.count, "Painting") as advance:
        for number, (image, frame) in enumerate(frames):
            if stop():
                raise Stopped
            if mask is None or number % film.every == 0 or mask.shape != image.shape[:2]:
                shown = image if predictor.channels == 3 else _grey(image)
                mask = predictor.predict([shown], stop=stop)[0].mask
            yield image, mask, frame
            advance(1)


def _grey(image: RGB) -> npt.NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))


def _write_masks(film: Film, predictor: Predictor, frames: _Frames, stop: Callable[[], bool]) -> int:
    """A palette PNG per frame, numbered from 1."""
    folder, stem, number = Path(film.output), Path(film.source).stem, 0
    for number, (_, mask, _) in enumerate(_masked(film, predictor, frames, stop), start=1):
        masks.save_mask(folder / f"{stem}_{number:06d}.png", mask, predictor.header.classes, predictor.text)
    return number


def _write_film(
    av: Any,
    film: Film,
    predictor: Predictor,
    frames: _Frames,
    target: Path,
    stop: Callable[[], bool],
) -> int:
    """The film at `target`; returns its number of frames."""
    codec, options = _CODECS.get(target.suffix.lower(), _CODEC)
    source, number, written, times = frames.stream, 0, None, _Times(frames.stream)
    try:
        with av.open(os.fspath(target), "w") as out:
            for image, mask, frame in _masked(film, predictor, frames, stop):
                picture = _even(_picture(film.look, image, mask, predictor))
                if written is None:
                    written = out.add_stream(codec, rate=source.average_rate or 25, options=dict(options))
                    written.height, written.width = picture.shape[:2]
                    written.pix_fmt = "yuv420p"
                    written.codec_context.time_base = times.base
                    ratio = source.sample_aspect_ratio
                    if ratio and picture.shape[1] <= image.shape[1] + 1:  # nothing stands beside it
                        written.codec_context.sample_aspect_ratio = ratio
                elif picture.shape[:2] != (written.height, written.width):
                    raise UserError(
                        f"{film.source} changes its size after {counted(number, 'frame')}.",
                        "Cut it there, or give a folder: -o masks/.",
                    )
                made = av.VideoFrame.from_ndarray(picture, format="rgb24")
                made.pts, made.time_base = times.next(frame.pts), times.base
                out.mux(written.encode(made))
                number += 1
            if written is not None:
                out.mux(written.encode(None))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(
            f"Cannot write {film.output}: {error}.", f"Choose another place, or one of {', '.join(OUTPUTS)}."
        ) from error
    return number


class _Times:
    """The frames' time stamps, from 0 on and ever rising: some films begin late, some leave stamps out."""

    def __init__(self, stream: Any) -> None:
        rate = stream.average_rate or Fraction(25)
        self.base: Fraction = stream.time_base or 1 / Fraction(rate)
        self._step = max(1, round(1 / (rate * self.base)))
        self._first: int | None = None
        self._last = -self._step

    def next(self, stamp: int | None) -> int:
        """The stamp of the next frame, whose own is `stamp`."""
        if self._first is None:
            self._first = stamp or 0
        wanted = self._last + self._step if stamp is None else stamp - self._first
        self._last = wanted if wanted > self._last else self._last + self._step
        return self._last


def _picture(look: Look, image: RGB, mask: masks.Mask, predictor: Predictor) -> RGB:
    classes = predictor.header.classes
    if "overlay" in look.formats:
        picture = masks.overlay(image, mask, classes, look.opacity)
    else:
        picture = masks.colorize(mask, classes)
    if look.side_by_side:
        picture = masks.side_by_side(image, picture)
    if look.legend:  # of all classes: the film must not change its width
        picture = with_legend(picture, classes, range(len(classes)))
    return picture


def _even(picture: RGB) -> RGB:
    """With even sides, as the film's format asks; the last row or column is doubled."""
    high, wide = picture.shape[0] % 2, picture.shape[1] % 2
    return np.pad(picture, ((0, high), (0, wide), (0, 0)), mode="edge") if high or wide else picture


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(
            "Films need the package av, which is not installed.", "pip install 'unetpp[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's remarks are ours to make
    return av
