"""`unetpp relabel`: data in any recognised layout, written as another one and read back to be sure.

Images are copied byte for byte. Masks are decoded and written anew; what is written is opened as any data
are, and has its name only when every mask came out as it went in.
"""

from __future__ import annotations

import io
import posixpath
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli.data.classes import CAMVID11, VOID, ClassSet, Color
from unetpp_cli.data.findings import counted
from unetpp_cli.data.layouts import Dataset, Pair, open_dataset
from unetpp_cli.errors import UserError, listed, nearest
from unetpp_cli.jobs.afar import local
from unetpp_cli.report import console
from unetpp_cli.report.progress import track

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Labels:
    """The classes as a layout writes them: a row each, and where void pixels go.

    Attributes:
        rows: (name, colour) in the order of the mask's values.
        void: the value of void pixels.
    """

    rows: tuple[tuple[str, Color], ...]
    void: int

    @staticmethod
    def of(classes: ClassSet, has_void: bool) -> Labels:
        """Of a class set; with a row for void at the end where there is none and the masks need one."""
        rows = tuple(zip(classes.names, classes.colors, strict=True))
        if classes.void:
            return Labels(rows, classes.void[0])
        if not has_void:
            return Labels(rows, VOID)
        shades = ((level, level, level) for level in range(256))
        free = next(color for color in shades if color not in classes.colors)
        return Labels((*rows, ("Void", free)), len(rows))

    def index(self, mask: Mask) -> Mask:
        """(H, W) uint8 as a layout of indices stores it."""
        return np.where(mask == VOID, self.void, mask).astype(np.uint8)

    def color(self, mask: Mask) -> Mask:
        """(H, W, 3) uint8 as a layout of colours stores it."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.rows)] = [color for _, color in self.rows]
        return table[self.index(mask)]


@dataclass(frozen=True)
class Layout:
    """How a layout names and stores things.

    Attributes:
        image, mask: from split and name to a path; the mask's without suffix, which is .png.
        stored: how a mask's pixels are stored.
        labels: the file that names the classes, and its text.
        lists: from split and the names of its images to a file and its lines; None where folders say it.
        splits: that the layout knows.
    """

    image: Callable[[str, str], str]
    mask: Callable[[str, str], str]
    stored: Callable[[Labels, Mask], bytes]
    labels: Callable[[Labels, ClassSet], tuple[str, str] | None]
    lists: Callable[[str, list[tuple[str, str]]], tuple[str, list[str]]] | None = None
    splits: tuple[str, ...] = ("train", "val", "test")


def relabel(source: str, output: Path, to: str, classes: str | None, split_by: str | None) -> Path:
    """Writes the data at `source` to the new folder `output` in the layout `to`.

    Raises:
        UserError: the data are not understood, `output` exists, or what was written does not read back.
    """
    if to not in LAYOUTS:
        raise UserError(
            f"--to {to}: there is no such layout.{nearest(to, LAYOUTS)}", f"There are {', '.join(LAYOUTS)}."
        )
    if output.exists():
        raise UserError(f"{output} exists already.", "Name a new folder.")
    data = open_dataset(local(source), classes=classes, split_by=split_by)
    console.say(f"Data: {data.name}: {data.summary()}")
    for text in data.warnings:
        console.warn(text)
    layout = LAYOUTS[to]
    kept = {split: pairs for split, pairs in data.splits.items() if split in layout.splits}
    for split in data.splits.keys() - kept.keys():
        console.warn(f"{to} has no {split} split: {counted(len(data.splits[split]), 'image')} left out.")
    if not kept:
        raise UserError(f"Nothing is left of {source} for {to}.", "Choose another layout.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".relabel-") as folder:
            made = Path(folder) / "data"
            names = _write(data, kept, layout, made)
            _read_back(data, kept, names, made, to)
            made.rename(output)
    except OSError as error:
        raise UserError(
            f"Cannot write {output}: {error.strerror or error}.", "Choose another place with -o."
        ) from error
    if to == "fastai":
        console.say("fast.ai's codes.txt names the classes without their colours.")
    total = sum(map(len, kept.values()))
    console.say(f"Wrote {output}: {to}, {counted(total, 'image')} with masks, read back equal.")
    return output


def _write(
    data: Dataset, splits: Mapping[str, tuple[Pair, ...]], layout: Layout, folder: Path
) -> dict[Pair, str]:
    """Writes everything; returns the name of each pair."""
    labels = Labels.of(data.classes, data.void != "no void")
    names = _names([pair for pairs in splits.values() for pair in pairs])
    if found := layout.labels(labels, data.classes):
        _put(folder / found[0], found[1].encode())
    with track(len(names), "Writing") as advance:
        for split, pairs in splits.items():
            files = []
            for pair in pairs:
                suffix = posixpath.splitext(pair.image)[1]
                image = layout.image(split, names[pair]) + suffix
                mask = layout.mask(split, names[pair]) + ".png"
                _put(folder / image, data.source.read(pair.image))
                _put(folder / mask, layout.stored(labels, data.read_mask(pair)))
                files.append((image, mask))
                advance(1)
            if layout.lists is not None:
                file, lines = layout.lists(split, files)
                if lines:
                    _put(folder / file, "".join(f"{line}\n" for line in lines).encode())
    return names


def _names(pairs: list[Pair]) -> dict[Pair, str]:
    """A name for each pair: its own without folders, or with them where two are called alike.

    Blanks become underscores: most lists are read word by word.

    Raises:
        UserError: two images would get one name.
    """
    short = ["_".join(posixpath.basename(pair.stem).split()) for pair in pairs]
    if len(set(short)) < len(short):
        short = ["_".join(pair.stem.replace("/", "_").split()) for pair in pairs]
    if twice := sorted({name for name in short if short.count(name) > 1}):
        raise UserError(f"Several images would be called {listed(twice)}.", "Rename all but one of each.")
    return dict(zip(pairs, short, strict=True))


def _read_back(
    data: Dataset, splits: Mapping[str, tuple[Pair, ...]], names: Mapping[Pair, str], folder: Path, to: str
) -> None:
    """Raises a UserError unless what lies in `folder` is what was to be written."""
    made = open_dataset(folder, classes=None if data.classes.name == "custom" else data.classes)
    for split, pairs in splits.items():
        there = {posixpath.basename(pair.stem): pair for pair in made.splits.get(split, ())}
        wanted = {names[pair]: pair for pair in pairs}
        if there.keys() != wanted.keys():
            odd = sorted(there.keys() ^ wanted.keys())
            raise UserError(
                f"As {to} the {split} split would read back otherwise ({', '.join(odd[:3])}).",
                "Choose another layout.",
            )
        for name, pair in wanted.items():
            if not np.array_equal(made.read_mask(there[name]), data.read_mask(pair)):
                raise UserError(
                    f"As {to} the mask of {name} would read back otherwise.", "Choose another layout."
                )


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _png(pixels: Mask, colors: tuple[Color, ...] = ()) -> bytes:
    image = Image.fromarray(pixels)
    if colors:
        image.putpalette(bytes(level for color in colors for level in color))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _index(labels: Labels, mask: Mask) -> bytes:
    return _png(labels.index(mask))


def _palette(labels: Labels, mask: Mask) -> bytes:
    return _png(labels.index(mask), tuple(color for _, color in labels.rows))


def _color(labels: Labels, mask: Mask) -> bytes:
    return _png(labels.color(mask))


def _no_labels_for_eleven(labels: Labels, classes: ClassSet) -> tuple[str, str] | None:
    """SegNet's folders name no classes; those of other data need names."""
    return None if classes == CAMVID11 else _classes_txt(labels, classes)


def _classes_txt(labels: Labels, classes: ClassSet) -> tuple[str, str]:
    lines = [f"{name} {color[0]} {color[1]} {color[2]}" for name, color in labels.rows]
    return "classes.txt", "\n".join(lines) + "\n"


def _label_colors(labels: Labels, classes: ClassSet) -> tuple[str, str]:
    lines = [f"{color[0]} {color[1]} {color[2]}\t\t{name}" for name, color in labels.rows]
    return "label_colors.txt", "\n".join(lines) + "\n"


def _class_dict(labels: Labels, classes: ClassSet) -> tuple[str, str]:
    lines = [f"{name},{color[0]},{color[1]},{color[2]}" for name, color in labels.rows]
    return "class_dict.csv", "\n".join(["name,r,g,b", *lines]) + "\n"


def _codes(labels: Labels, classes: ClassSet) -> tuple[str, str]:
    return "codes.txt", "\n".join(name for name, _ in labels.rows) + "\n"


def _stems(split: str, files: list[tuple[str, str]]) -> tuple[str, list[str]]:
    return f"{split}.txt", [posixpath.splitext(posixpath.basename(image))[0] for image, _ in files]


LAYOUTS = {
    "segnet": Layout(
        image=lambda split, name: f"{split}/{name}",
        mask=lambda split, name: f"{split}annot/{name}",
        stored=_index,
        labels=_no_labels_for_eleven,
        lists=lambda split, files: (
            f"{split}.txt",
            [f"/SegNet/CamVid/{image} /SegNet/CamVid/{mask}" for image, mask in files],
        ),
    ),
    "original": Layout(
        image=lambda split, name: f"701_StillsRaw_full/{name}",
        mask=lambda split, name: f"LabeledApproved_full/{name}_L",
        stored=_color,
        labels=_label_colors,
        lists=_stems,
    ),
    "kaggle": Layout(
        image=lambda split, name: f"{split}/{name}",
        mask=lambda split, name: f"{split}_labels/{name}_L",
        stored=_color,
        labels=_class_dict,
    ),
    "fastai": Layout(
        image=lambda split, name: f"images/{name}",
        mask=lambda split, name: f"labels/{name}_P",
        stored=_index,
        labels=_codes,
        lists=lambda split, files: (
            "valid.txt",
            [posixpath.basename(image) for image, _ in files] if split == "val" else [],
        ),
        splits=("train", "val"),
    ),
    "cvat": Layout(
        image=lambda split, name: f"{split}/{name}",
        mask=lambda split, name: f"{split}annot/{name}",
        stored=_color,
        labels=_label_colors,
        lists=lambda split, files: (f"{split}.txt", [f'"/{image}" "/{mask}"' for image, mask in files]),
    ),
    "plain": Layout(
        image=lambda split, name: f"images/{name}",
        mask=lambda split, name: f"masks/{name}",
        stored=_palette,
        labels=_classes_txt,
        lists=_stems,
    ),
}
"""By the names that `--to` takes."""
