"""The sample sheet: a few images beside truth, prediction and errors, with a legend.

train leaves one in the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.masks import RGB, Mask, colorize, font, legend, legend_row, save_picture, values_in
from unetpp_cli.report import units

_WRONG = (213, 94, 0)  # vermilion: stands out from grey for the colour-blind, too
_NOT_SCORED = (40, 40, 40)
_CAPTION = (85, 85, 85)


@dataclass(frozen=True, eq=False)
class Sample:
    """One row of the sheet.

    Attributes:
        name: the caption.
        image: (H, W, 3) uint8.
        truth: (H, W) uint8 class indices with `VOID`, or None where nobody labelled the image.
        prediction: (H, W) uint8 class indices.
    """

    name: str
    image: RGB
    truth: Mask | None
    prediction: Mask


def sample_sheet(rows: Sequence[Sample], classes: ClassSet, cell_width: int = 400) -> RGB:
    """Image | truth | prediction | errors, a row per sample, and a legend of the classes that occur.

    Every picture is scaled to fit a cell of `cell_width` pixels; the row is as high as the picture asks for.
    Errors are vermilion on the grey image, pixels that are not scored dark. Without any truth the sheet is
    image | prediction.

    Returns:
        (H, W, 3) uint8.
    """
    labelled = any(sample.truth is not None for sample in rows)
    headings = ["image", "truth", "prediction", "errors"] if labelled else ["image", "prediction"]
    letters = font(max(12, cell_width // 25))
    gap, line = max(6, cell_width // 40), round(letters.size * 1.7)
    width = gap + len(headings) * (cell_width + gap)
    heights = [_fit(sample.image, cell_width, is_photo=True).height for sample in rows]
    strip = _legend_strip(rows, classes, width - 2 * gap, letters.size)
    height = line + sum(line + high + gap for high in heights) + strip.shape[0] + gap

    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, heading in enumerate(headings):
        center = gap + column * (cell_width + gap) + cell_width // 2
        draw.text((center, line // 2 + gap // 2), heading, fill="black", font=letters, anchor="mm")
    top = line
    for sample, high in zip(rows, heights, strict=True):
        draw.text((gap, top + line // 2), sample.name, fill=_CAPTION, font=letters, anchor="lm")
        if sample.truth is not None:
            wrong = units.percent(_error_rate(sample.truth, sample.prediction, classes))
            place = (width - gap, top + line // 2)
            draw.text(place, f"{wrong} % wrong", fill=_CAPTION, font=letters, anchor="rm")
        top += line
        for column, picture in enumerate(_cells(sample, classes, labelled)):
            left, middle = gap + column * (cell_width + gap), top + high // 2
            if picture is None:
                draw.rectangle((left, top, left + cell_width - 1, top + high - 1), fill=(240, 240, 240))
                place = (left + cell_width // 2, middle)
                draw.text(place, "not labelled", fill=_CAPTION, font=letters, anchor="mm")
                continue
            fitted = _fit(picture, cell_width, is_photo=column == 0)
            canvas.paste(fitted, (left + (cell_width - fitted.width) // 2, top))
        top += high + gap
    canvas.paste(Image.fromarray(strip), (gap, top))
    return np.array(canvas)


def save_sheet(path: str | os.PathLike[str], rows: Sequence[Sample], classes: ClassSet) -> None:
    """Draws the sheet and writes it as PNG or JPEG, by the suffix, in one step."""
    save_picture(path, sample_sheet(rows, classes))


def _cells(sample: Sample, classes: ClassSet, labelled: bool) -> list[RGB | None]:
    prediction = colorize(sample.prediction, classes)
    if not labelled:
        return [sample.image, prediction]
    if sample.truth is None:
        return [sample.image, None, prediction, None]
    truth = colorize(sample.truth, classes)
    return [sample.image, truth, prediction, _errors(sample.image, sample.truth, sample.prediction, classes)]


def _errors(image: RGB, truth: Mask, prediction: Mask, classes: ClassSet) -> RGB:
    """The image in pale grey, vermilion where the prediction is wrong, dark where nothing is scored."""
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.uint16)
    picture = np.repeat((128 + grey // 2).astype(np.uint8)[..., None], 3, axis=2)
    scored = np.isin(truth, classes.scored)
    picture[scored & (truth != prediction)] = _WRONG
    picture[~scored] = _NOT_SCORED
    return picture


def _error_rate(truth: Mask, prediction: Mask, classes: ClassSet) -> float:
    scored = np.isin(truth, classes.scored)
    return float((truth != prediction)[scored].mean()) if scored.any() else 0.0


def _fit(picture: RGB, cell_width: int, is_photo: bool) -> Image.Image:
    """The picture as wide as a cell, but at most 1.5 times as high; colours that mean classes never mix."""
    height, width = picture.shape[:2]
    scale = min(cell_width / width, 1.5 * cell_width / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.LANCZOS if is_photo else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize(size, how)


def _legend_strip(rows: Sequence[Sample], classes: ClassSet, width: int, size: float) -> RGB:
    """The legend of all classes on the sheet, in as few lines as fit the width."""
    masks = [mask for sample in rows for mask in (sample.truth, sample.prediction) if mask is not None]
    present = sorted({value for mask in masks for value in values_in(mask)})
    letters = font(round(size))
    strip = np.full((1, width, 3), 255, dtype=np.uint8)
    for lines in range(1, len(present) + 1):
        strip = legend(classes, present, round((lines + 0.7) * legend_row(letters)), round(size))
        if strip.shape[1] <= width:
            break
    return strip[:, :width]
