"""Sheets of pictures: images beside truth, predictions and errors; training images as they are augmented.

train leaves one of each in the run folder, samples.png and augment.png; eval draws the best images and the
worst.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.legend import font, legend, legend_row
from unetpp_cli.masks import (
    RGB,
    Mask,
    colorize,
    overlay,
    save_picture,
    strips,
    values_in,
)
from unetpp_cli.report import units

_WRONG = (213, 94, 0)  # vermilion: stands out from grey for the colour-blind, too
_NOT_SCORED = (40, 40, 40)
_CAPTION = (85, 85, 85)


@dataclass(frozen=True, eq=False)
class Sample:
    """One row of the sample sheet.

    Attributes:
        name: the caption: `0016E5_07959, mIoU 43.1 %`, say.
        image: (H, W, 3) uint8, or (H, W) grey.
        truth: (H, W) uint8 class indices with `VOID`, or None where nobody labelled the image.
        prediction: (H, W) uint8 class indices.
        earlier: (H, W) uint8, what was predicted at an earlier time; None where nothing was.
    """

    name: str
    image: RGB
    truth: Mask | None
    prediction: Mask
    earlier: Mask | None = None


def sample_sheet(
    rows: Sequence[Sample],
    classes: ClassSet,
    cell_width: int = 400,
    prediction: str = "prediction",
    earlier: str = "earlier",
) -> RGB:
    """Image | truth | earlier | prediction | errors, a row per sample, and a legend of what occurs.

    Every picture is scaled to fit a cell of `cell_width` pixels; the row is as high as the picture asks for.
    Errors are vermilion on the grey image, pixels that are not scored dark. Columns that no row has anything
    for are left out: without truth and earlier predictions the sheet is image | prediction.

    Args:
        prediction, earlier: the headings of these columns: "epoch 30" and "epoch 1", say.

    Returns:
        (H, W, 3) uint8.
    """
    is_labelled = any(sample.truth is not None for sample in rows)
    is_compared = any(sample.earlier is not None for sample in rows)
    headings = ["image", *["truth"] * is_labelled, *[earlier] * is_compared, prediction]
    headings += ["errors"] * is_labelled
    painted = []
    for sample in rows:
        nothing = _Cell(None, note="not labelled")
        image = _fitted(sample.image, cell_width, is_photo=True)
        truth = None if sample.truth is None else _fitted(sample.truth, cell_width)
        cells = [_Cell(image)]
        if is_labelled:
            cells.append(nothing if truth is None else _Cell(colorize(truth, classes)))
        if is_compared:
            cells.append(_guess(sample.earlier, sample.truth, classes, cell_width))
        cells.append(_guess(sample.prediction, sample.truth, classes, cell_width))
        if is_labelled:
            guess = _fitted(sample.prediction, cell_width)
            cells.append(nothing if truth is None else _errors(image, truth, guess, classes))
        painted.append((sample.name, cells))
    masks = [mask for sample in rows for mask in (sample.truth, sample.earlier, sample.prediction)]
    return _paint(headings, painted, [mask for mask in masks if mask is not None], classes, cell_width)


def save_sheet(
    path: str | os.PathLike[str],
    rows: Sequence[Sample],
    classes: ClassSet,
    prediction: str = "prediction",
    earlier: str = "earlier",
) -> None:
    """Draws the sample sheet and writes it as PNG or JPEG, by the suffix, in one step."""
    save_picture(path, sample_sheet(rows, classes, prediction=prediction, earlier=earlier))


@dataclass(frozen=True, eq=False)
class Drawn:
    """One row of the augmentation sheet.

    Attributes:
        name: the caption.
        image, mask: as decoded: (H, W, 3) or grey (H, W), and (H, W) class indices with `VOID`, both uint8.
        draws: the same, as augmentation left them; their sizes need not be the image's.
    """

    name: str
    image: RGB
    mask: Mask
    draws: Sequence[tuple[RGB, Mask]]


def augment_sheet(rows: Sequence[Drawn], classes: ClassSet, cell_width: int = 300) -> RGB:
    """Image | draw 1 | draw 2 ..: training images and what the network gets of them, their masks laid over.

    What is void, and so never trained, is dark. Each picture is scaled to its cell; its size stands above it.

    Returns:
        (H, W, 3) uint8.
    """
    most = max((len(row.draws) for row in rows), default=0)
    headings = ["image", *(f"draw {number}" for number in range(1, most + 1))]
    painted = []
    for row in rows:
        pairs = [(row.image, row.mask), *row.draws]
        cells = [
            _Cell(_trained(image, mask, classes, cell_width), f"{mask.shape[1]}x{mask.shape[0]}")
            for image, mask in pairs
        ]
        painted.append((row.name, cells))
    masks = [mask for row in rows for mask in (row.mask, *(mask for _, mask in row.draws))]
    return _paint(headings, painted, masks, classes, cell_width)


def save_augment_sheet(path: str | os.PathLike[str], rows: Sequence[Drawn], classes: ClassSet) -> None:
    """Draws the augmentation sheet and writes it as PNG or JPEG, by the suffix, in one step."""
    save_picture(path, augment_sheet(rows, classes))


@dataclass(frozen=True, eq=False)
class _Cell:
    """A picture that fits, with a note above its right end; or an empty cell with the note in it."""

    picture: RGB | None
    note: str = ""


def _paint(
    headings: Sequence[str],
    rows: Sequence[tuple[str, Sequence[_Cell]]],
    masks: Iterable[Mask],
    classes: ClassSet,
    cell_width: int,
) -> RGB:
    """The cells below their headings, a caption above each row, and a legend of what occurs in `masks`."""
    letters = font(max(12, cell_width // 25))
    gap, line = max(6, cell_width // 40), round(letters.size * 1.7)
    width = gap + len(headings) * (cell_width + gap)
    heights = [
        max((len(cell.picture) for cell in cells if cell.picture is not None), default=1) for _, cells in rows
    ]
    strip = _legend_strip(masks, classes, width - 2 * gap, letters.size)
    height = line + sum(line + high + gap for high in heights) + strip.shape[0] + gap

    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, heading in enumerate(headings):
        center = gap + column * (cell_width + gap) + cell_width // 2
        draw.text((center, line // 2 + gap // 2), heading, fill="black", font=letters, anchor="mm")
    top = line
    for (name, cells), high in zip(rows, heights, strict=True):
        draw.text((gap, top + line // 2), name, fill=_CAPTION, font=letters, anchor="lm")
        for column, cell in enumerate(cells):
            left = gap + column * (cell_width + gap)
            place, anchor = (left + cell_width, top + line // 2), "rm"
            if cell.picture is None:
                box = (left, top + line, left + cell_width - 1, top + line + high - 1)
                draw.rectangle(box, fill=(240, 240, 240))
                place, anchor = (left + cell_width // 2, top + line + high // 2), "mm"
            else:
                picture = Image.fromarray(cell.picture)
                room = cell_width - picture.width, high - picture.height
                canvas.paste(picture, (left + room[0] // 2, top + line + room[1] // 2))
            draw.text(place, cell.note, fill=_CAPTION, font=letters, anchor=anchor)
        top += line + high + gap
    canvas.paste(Image.fromarray(strip), (gap, top))
    return np.array(canvas)


def _guess(mask: Mask | None, truth: Mask | None, classes: ClassSet, cell_width: int) -> _Cell:
    """A predicted mask in colours, with its share of errors where there is a truth."""
    if mask is None:
        return _Cell(None, "none")
    note = "" if truth is None else f"{units.percent(_error_rate(truth, mask, classes))} % wrong"
    return _Cell(colorize(_fitted(mask, cell_width), classes), note)


def _errors(image: RGB, truth: Mask, prediction: Mask, classes: ClassSet) -> _Cell:
    """The image in pale grey, vermilion where the prediction is wrong, dark where nothing is scored."""
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.uint16)
    picture = np.repeat((128 + grey // 2).astype(np.uint8)[..., None], 3, axis=2)
    scored = np.isin(truth, classes.scored)
    picture[scored & (truth != prediction)] = _WRONG
    picture[~scored] = _NOT_SCORED
    return _Cell(picture)


def _error_rate(truth: Mask, prediction: Mask, classes: ClassSet) -> float:
    wrong = total = 0
    for rows in strips(truth):
        scored = np.isin(truth[rows], classes.scored)
        wrong += np.count_nonzero(scored & (truth[rows] != prediction[rows]))
        total += np.count_nonzero(scored)
    return wrong / total if total else 0.0


def _trained(image: RGB, mask: Mask, classes: ClassSet, cell_width: int) -> RGB:
    """The image with its mask laid over, fitted; a quarter as bright where nothing is trained."""
    image, mask = _fitted(image, cell_width, is_photo=True), _fitted(mask, cell_width)
    picture = np.array(Image.fromarray(image).convert("RGB"))
    ignored = (mask == VOID) | np.isin(mask, classes.void)
    laid: RGB = overlay(picture, mask, classes, opacity=0.4)
    laid[ignored] = picture[ignored] // 4
    return laid


def _fitted(picture: RGB, cell_width: int, is_photo: bool = False) -> RGB:
    """The picture or mask as wide as a cell, but at most 1.5 times as high. Class indices never mix.

    This comes before all that is done to the pixels, so that an aerial photograph costs no more than a frame.
    """
    height, width = picture.shape[:2]
    scale = min(cell_width / width, 1.5 * cell_width / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if is_photo:
        # Every n-th pixel of a huge photograph still leaves more than eight times what is shown.
        step = max(1, int(1 / (8 * scale)))
        return np.array(Image.fromarray(picture[::step, ::step]).resize(size, Image.Resampling.LANCZOS))
    rows, columns = (
        np.minimum((np.arange(shown) + 0.5) * there / shown, there - 1).astype(np.intp)
        for shown, there in zip(size[::-1], (height, width), strict=True)
    )
    fitted: RGB = picture[rows[:, None], columns]
    return fitted


def _legend_strip(masks: Iterable[Mask], classes: ClassSet, width: int, size: float) -> RGB:
    """The legend of all classes on the sheet, in as few lines as fit the width."""
    present = sorted({value for mask in masks for value in values_in(mask)})
    letters = font(round(size))
    strip = np.full((1, width, 3), 255, dtype=np.uint8)
    for lines in range(1, len(present) + 1):
        strip = legend(classes, present, round((lines + 0.7) * legend_row(letters)), round(size))
        if strip.shape[1] <= width:
            break
    return strip[:, :width]
