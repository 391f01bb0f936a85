"""Predictions as files: masks, overlays, maps, probabilities. Called by `paint`, in its threads."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli import masks
from unetpp_cli.data.classes import ClassSet
from unetpp_cli.errors import UserError
from unetpp_cli.files import replacing
from unetpp_cli.inference.prediction import Prediction
from unetpp_cli.jobs.painting.inputs import Item
from unetpp_cli.jobs.painting.outputs import Naming
from unetpp_cli.legend import with_legend

Strip = npt.NDArray[np.float16]
"""(rows, W, K) probabilities of some rows of an image."""


@dataclass(frozen=True)
class Writer:
    """Writes the outputs of one picture, each file in one step.

    Attributes:
        naming: where, and what.
        classes: the model's.
        text: what the text chunks say of how it came about.
    """

    naming: Naming
    classes: ClassSet
    text: Mapping[str, str]

    def write(self, item: Item, image: npt.NDArray[np.uint8], prediction: Prediction) -> None:
        """Everything but the probabilities, which are written while they are computed.

        Args:
            image: (H, W, 3) or (H, W) uint8, as decoded.

        Raises:
            UserError: a file cannot be written.
        """
        for kind, path in self.naming.targets(item).items():
            if kind != "probs":
                with writing(path):
                    self._save(kind, path, image, prediction)

    def differs(self, item: Item) -> str:
        """How the files that are there for a picture came about otherwise: `Depth 4, not 1`; empty if they
        did not, or do not tell."""
        for path in self.naming.targets(item).values():
            with contextlib.suppress(OSError, SyntaxError, ValueError), Image.open(path) as picture:
                there = getattr(picture, "text", {})
                return ", ".join(
                    f"{key} {there[key][:12]}, not {wanted[:12]}"
                    for key, wanted in self.text.items()
                    if key != "Software" and there.get(key, wanted) != wanted
                )
        return ""

    def _save(self, kind: str, path: str, image: npt.NDArray[np.uint8], prediction: Prediction) -> None:
        mask, classes = prediction.mask, self.classes
        named = {masks.CLASSES_KEY: json.dumps(list(classes.names), ensure_ascii=False), **self.text}
        if kind == "palette":
            masks.save_mask(path, mask, classes, self.text)
        elif kind == "index":
            masks.save_index(path, mask, named)
        elif kind in {"entropy", "disagreement"}:
            values = prediction.entropy if kind == "entropy" else prediction.disagreement
            if values is not None:
                masks.save_map(path, values, {"Map": kind, **self.text})
        elif kind == "color" and not (self.naming.look.legend or self.naming.look.side_by_side):
            masks.save_color(path, mask, classes, self.text)
        else:
            masks.save_picture(path, self._picture(kind, image, mask), named)

    def _picture(self, kind: str, image: npt.NDArray[np.uint8], mask: masks.Mask) -> masks.RGB:
        look = self.naming.look
        rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        if kind == "overlay":
            picture = masks.overlay(rgb, mask, self.classes, look.opacity)
        else:
            picture = masks.colorize(mask, self.classes)
        if look.side_by_side:
            picture = masks.side_by_side(rgb, picture)
        if look.legend:
            picture = with_legend(picture, self.classes, masks.values_in(mask))
        return picture

    @contextlib.contextmanager
    def probabilities(self, item: Item, height: int, width: int) -> Iterator[Callable[[Strip], None]]:
        """Yields what takes the strips of a picture's probabilities, from top to bottom.

        The .npz holds `classes` (names) and `probs` (H, W, K) float16, uncompressed, and about itself what
        the text chunks of a mask say. No more than a strip of it is in memory.

        Raises:
            UserError: the file cannot be written.
        """
        path, rows = self.naming.targets(item)["probs"], 0
        header = {"descr": "<f2", "fortran_order": False, "shape": (height, width, len(self.classes))}
        with writing(path), replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, value in (
                ("classes", list(self.classes.names)),
                ("about", json.dumps(dict(self.text))),
            ):
                with archive.open(_member(name), "w") as member:
                    np.lib.format.write_array(member, np.array(value), allow_pickle=False)
            with archive.open(_member("probs"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)

                def take(strip: Strip) -> None:
                    nonlocal rows
                    rows += len(strip)
                    member.write(np.ascontiguousarray(strip, dtype="<f2").data)

                yield take
            if rows != height:
                raise ValueError(f"{rows} rows of probabilities were written, not {height}")


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # equal runs give equal bytes


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Whatever the system refuses while `path` is written becomes a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}.",
            "Make room or choose another -o; --skip-existing goes on where it stopped.",
        ) from error
