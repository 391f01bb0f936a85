"""A film in, a film of masks out: frame by frame, a few of them in memory at most. Called by `jobs.predict`.

PyAV reads and writes; it comes with `pip install 'unetpp[video]'`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unetpp_cli import masks
from unetpp_cli.data.findings import counted
from unetpp_cli.errors import Stopped, UserError
from unetpp_cli.files import replacing
from unetpp_cli.inference.predictor import Predictor
from unetpp_cli.jobs.outputs import Look
from unetpp_cli.legend import with_legend
from unetpp_cli.report import console
from unetpp_cli.report.progress import track

RGB = npt.NDArray[np.uint8]

SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
"""Names that are taken for films."""

_CODECS = {".webm": ("libvpx-vp9", {"crf": "24", "b:v": "0"})}
_CODEC = ("libx264", {"crf": "16", "preset": "veryfast"})
"""Nearly lossless: flat colours cost little, and blurred edges would be other classes' colours."""

FORMATS = ("color", "overlay")


def is_video(name: str) -> bool:
    """Whether a file of this name is taken for a film."""
    return Path(name).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Film:
    """What is to be made of a film.

    Attributes:
        source: the film.
        output: a film, or a folder for a palette PNG per frame.
        look: `color` or `overlay`, opacity, legend, and the image beside it.
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
    """Paints the film; frame rate, time stamps and length are kept, sound is not.

    Returns:
        The exit code: 1 when the film was damaged and ends early.

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
        if not container.streams.video:
            raise UserError(f"{film.source} has no pictures, only sound.", "Give a film.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if container.streams.audio and not film.is_folder:
            console.say("The sound is left out.")
        frames = _Frames(av, container, stream)
        if film.is_folder:
            done = _write_masks(film, predictor, frames, stop)
        else:
            with replacing(film.output) as temporary:
                done = _write_film(av, film, predictor, frames, temporary, stop)
                if not done:
                    raise UserError(f"{film.source} has no frame that could be read.", "Convert it first.")
    computed = -(-done // film.every)
    some = f", every {film.every}th computed" if film.every > 1 else ""
    console.say(f"{counted(done, 'frame')}{some} ({computed:,} masks): {film.output}")
    if frames.broken:
        console.error(
            f"{film.source} is damaged after frame {done}: {frames.broken}.", "The rest is missing."
        )
    return 1 if frames.broken else 0


class _Frames:
    """The frames of a film, upright, with their time stamps; ends early where the film is damaged."""

    def __init__(self, av: Any, container: Any, stream: Any) -> None:
        self._av, self._container, self.stream = av, container, stream
        self.broken = ""

    @property
    def count(self) -> int:
        """As the film itself says; 0 when it does not."""
        return int(self.stream.frames or 0)

    def __iter__(self) -> Iterator[tuple[RGB, Any]]:
        """(H, W, 3) uint8, and the frame it was."""
        try:
            for frame in self._container.decode(self.stream):
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns)), frame
        except self._av.error.FFmpegError as error:
            self.broken = str(error)


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
    source, number, written = frames.stream, 0, None
    try:
        with av.open(os.fspath(target), "w") as out:
            for image, mask, frame in _masked(film, predictor, frames, stop):
                picture = _even(_picture(film.look, image, mask, predictor))
                if written is None:
                    written = out.add_stream(codec, rate=source.average_rate or 25, options=dict(options))
                    written.height, written.width = picture.shape[:2]
                    written.pix_fmt = "yuv420p"
                    if source.time_base:
                        written.codec_context.time_base = source.time_base
                made = av.VideoFrame.from_ndarray(picture, format="rgb24")
                made.pts, made.time_base = frame.pts, frame.time_base
                out.mux(written.encode(made))
                number += 1
            if written is not None:
                out.mux(written.encode(None))
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"Cannot write {film.output}: {error}.", "Name an .mp4 file.") from error
    return number


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
