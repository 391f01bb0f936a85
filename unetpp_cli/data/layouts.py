"""`--data PATH` -> what is in it: pairs of images and masks, splits, classes, and how to read them.

`open_dataset` is what every job calls. The steps have their own files: `source` (bytes), `lists`, `folders`
and `pairing` (pairs), `splits`, `examine` (what the masks mean), `encoding` (pixels), `conversion` (classes).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetpp_cli.data import images
from unetpp_cli.data.classes import BUILT_IN, CAMVID11, VOID, ClassSet, built_in
from unetpp_cli.data.conversion import convert
from unetpp_cli.data.encoding import Encoding, MaskFacts, read_raw, survey
from unetpp_cli.data.examine import check_sizes, look_into_masks
from unetpp_cli.data.findings import Findings
from unetpp_cli.data.folders import find_structure
from unetpp_cli.data.labels import find_labels
from unetpp_cli.data.lists import read_pair_lists
from unetpp_cli.data.meaning import Context, Meaning
from unetpp_cli.data.pairing import Pair, Splits, pair_up
from unetpp_cli.data.source import MemorySource, Source, open_source
from unetpp_cli.data.splits import choose_splits, is_camvid, segnet_split
from unetpp_cli.errors import UserError
from unetpp_cli.values import DEMO

__all__ = ["Dataset", "Pair", "inspect_dataset", "open_dataset"]

CAMVID_TERMS = (
    "non-commercial research only; cite Brostow et al., ECCV 2008 and Pattern Recognition Letters 30(2), 2009"
)
"""What CamVid's owners ask of those who use it, and so what is made of it."""


@dataclass(frozen=True)
class Dataset:
    """Images with masks, recognised and ready to be read. Can be pickled; every process reads for itself.

    Attributes:
        name: short name of the data, for run folders: `camvid`, `demo`, the folder's or archive's name.
        source: the files.
        layout: what people call this layout: `SegNet`, `original CamVid`, `Kaggle CamVid`, `fast.ai`, ...
        classes: the class set in which masks are decoded.
        splits: pairs per split; keys among `train`, `val`, `test`, in that order, none of them empty.
        split_by: where the splits come from, in words.
        void: what is never scored, in words.
        warnings: what the user should know, in sentences.
        encoding: how the masks store the classes.
        hold_out: what is val by wish, as `open_dataset` was told; empty without one.
        terms: what the owners of the data ask of those who use them, where that is known.
    """

    name: str
    source: Source
    layout: str
    classes: ClassSet
    splits: Mapping[str, tuple[Pair, ...]]
    split_by: str
    void: str
    warnings: tuple[str, ...]
    encoding: Encoding
    hold_out: str = ""
    terms: str = ""

    def summary(self) -> str:
        """One line: `SegNet layout, 11 classes + void 11, 367 train / 101 val`."""
        if self.void == "no void":
            void = ", no void"
        else:
            void = f" {'incl.' if self.classes.void else '+'} {self.void}"
        counts = " / ".join(f"{len(pairs)} {split}" for split, pairs in self.splits.items())
        return f"{self.layout} layout, {len(self.classes)} classes{void}, {counts}"

    def read_image(self, pair: Pair, channels: int = 3) -> npt.NDArray[np.uint8]:
        """The image: (H, W, 3) uint8 RGB, or (H, W) grey with one channel.

        Raises:
            UserError: it cannot be read.
        """
        return images.decode_image(self.source.read(pair.image), channels, self.source.where(pair.image))

    def read_mask(self, pair: Pair) -> npt.NDArray[np.uint8]:
        """The mask: (H, W) uint8 class indices, `VOID` (255) on every pixel that is never scored.

        Raises:
            UserError: it cannot be read, or holds values or colours that are no class.
        """
        name = self._mask_of(pair)
        where = self.source.where(name)
        return self.encoding.decode(read_raw(self.source.read(name), where), where)

    def image_size(self, pair: Pair) -> tuple[int, int]:
        """The image's (height, width), from its header alone.

        Raises:
            UserError: it cannot be read.
        """
        with self.source.open(pair.image) as stream:
            return images.image_size(stream, self.source.where(pair.image))

    def mask_size(self, pair: Pair) -> tuple[int, int]:
        """The mask's (height, width), from its header alone.

        Raises:
            UserError: it cannot be read.
        """
        name = self._mask_of(pair)
        with self.source.open(name) as stream:
            return images.image_size(stream, self.source.where(name))

    def survey_mask(self, pair: Pair) -> MaskFacts:
        """What the mask holds, before any interpretation.

        Raises:
            UserError: it cannot be read.
        """
        name = self._mask_of(pair)
        where = self.source.where(name)
        return survey(read_raw(self.source.read(name), where), where)

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all splits, stems and files; the same in a folder, a zip and a tar."""
        digest = hashlib.sha256()
        for split, pairs in self.splits.items():
            for pair in pairs:
                content = [self.source.read(name) for name in (pair.image, self._mask_of(pair))]
                parts = [
                    split,
                    pair.stem,
                    *(f"{len(data)} {hashlib.sha256(data).hexdigest()}" for data in content),
                ]
                digest.update("\0".join(parts).encode() + b"\n")
        return digest.hexdigest()

    def pairs(self) -> Iterator[Pair]:
        """All pairs of all splits."""
        for pairs in self.splits.values():
            yield from pairs

    def _mask_of(self, pair: Pair) -> str:
        if pair.mask is None:
            raise UserError(f"{self.source.where(pair.image)} has no mask.", "Leave it out, or add the mask.")
        return pair.mask


def open_dataset(
    path: str | Path,
    *,
    classes: str | ClassSet | None = None,
    split_by: str | None = None,
    hold_out: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Finds out what the data at `path` is.

    Sizes are compared for every pair, by their headers; of the masks, a sample of 50 is looked into.

    Args:
        path: a folder, a .zip, a plain .tar, or `demo` for the embedded scenes.
        classes: the class set to decode masks in: a name of `classes.BUILT_IN`, a model's class set, or None
            for the data's own.
        split_by: `segnet` or `random` instead of the data's own split.
        hold_out: sequences, prefixes of names or names, separated by commas, that become val.
        seed: of a random split.

    Raises:
        UserError: it is not recognised, does not pair, contradicts itself, or has no such classes.
    """
    return inspect_dataset(
        path, classes=classes, split_by=split_by, hold_out=hold_out, seed=seed, findings=Findings()
    )


def inspect_dataset(
    path: str | Path,
    *,
    classes: str | ClassSet | None,
    split_by: str | None,
    hold_out: str | None,
    seed: int,
    findings: Findings,
) -> Dataset:
    """`open_dataset` for `unetpp check`: `findings` may collect what the rest can be read in spite of."""
    wanted = built_in(classes) if isinstance(classes, str) else classes
    source = _open(path)
    findings.opened = True
    layout, found, own = _find_pairs(source, findings)
    splits, words = choose_splits(found, own, source, split_by, seed, findings, hold_out or "")
    camvid = is_camvid(pair.stem for pairs in splits.values() for pair in pairs)
    if not splits:
        raise UserError(f"There is no image with a mask in {source.label}.", "Look at it with unetpp check.")
    draft = Dataset(
        name=_name(path, camvid),
        source=source,
        layout=layout,
        classes=CAMVID11,
        splits=splits,
        split_by=words,
        void="",
        warnings=(),
        encoding=Encoding(False, ()),
    )
    check_sizes(draft, findings)
    meaning = look_into_masks(draft, find_labels(source), Context(layout, camvid), wanted, findings)
    if layout == "Kaggle CamVid" and meaning.classes.name not in BUILT_IN:
        layout = "split folders"  # the same folders, but other data
    elif layout == "Kaggle CamVid" and not camvid:
        findings.warn(
            "Kaggle's split of CamVid mixes neighbouring frames into train, val and test: scores on it are "
            "too good, and no published score compares."
        )
    target = wanted or meaning.classes
    conversion = convert(meaning.classes, target, source.label)
    if conversion.note:
        findings.warn(conversion.note)
    return Dataset(
        name=draft.name,
        source=source,
        layout=DEMO if str(path) == DEMO else layout,
        classes=target,
        splits=splits,
        split_by=words,
        void=_void_after(meaning, target, conversion.mapping),
        warnings=tuple(findings.warnings),
        encoding=meaning.encoding.mapped(conversion.mapping),
        hold_out=hold_out or "",
        terms=CAMVID_TERMS if camvid else "",
    )


def _open(path: str | Path) -> Source:
    if str(path) == DEMO:
        from unetpp_cli.data.demo import demo_files  # drawn on demand

        return MemorySource(DEMO, demo_files())
    return open_source(path)


def _find_pairs(source: Source, findings: Findings) -> tuple[str, Splits, str]:
    """The layout's name, the pairs (what lists name, else what folders hold), and who split them."""
    lists = read_pair_lists(source, findings)
    if lists is None:
        structure = find_structure(source, findings)
        layout, found = structure.layout, pair_up(structure.parts, findings)
        names = {name.rpartition("/")[2].lower() for name in source.files}
        if layout == "images + labels" and "codes.txt" in names:
            layout = "fast.ai"
        if layout == "one folder" and any(
            segnet_split(pair.stem) for pairs in found.values() for pair in pairs
        ):
            layout = "CamSeq01"
        return layout, found, "its own folders"
    return _layout_of_lists(source, lists.files, lists.splits), lists.splits, "its own lists"


def _layout_of_lists(source: Source, files: Sequence[str], splits: Splits) -> str:
    pair = next(pair for pairs in splits.values() for pair in pairs)
    image_folder, mask_folder = (str(Path(path).parent.as_posix()) for path in (pair.image, pair.mask or ""))
    if mask_folder == f"{image_folder}annot":
        has_colors = any(name.endswith("label_colors.txt") for name in source.files)
        return "CVAT" if has_colors or "" in splits else "SegNet"
    return "PIDNet" if any(name.endswith(".lst") for name in files) else "listed pairs"


def _void_after(meaning: Meaning, target: ClassSet, mapping: Mapping[int, int]) -> str:
    """What is void once the masks are converted to `target`, in words."""
    own = meaning.classes
    lost = sum(reached == VOID and index not in own.void for index, reached in mapping.items())
    if lost:
        names = ", ".join(own.names[index] for index in own.void)
        before = f"void {names}" if names else meaning.void
        some = f"{lost} of the {len(own)} classes"
        return f"void {some}" if before == "no void" else f"{before} and {some}"
    if own.void == target.void or not target.void:
        return meaning.void
    return "void " + ", ".join(f"{target.names[index]} ({index})" for index in target.void)


def _name(path: str | Path, camvid: bool) -> str:
    """A short name for run folders."""
    if str(path) == DEMO:
        return DEMO
    place = Path(path).resolve()
    stem = place.name if place.is_dir() else place.stem
    return "camvid" if camvid else re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "data"
