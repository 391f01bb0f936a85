"""The folder structures in which data sets come, and the pairs of images and masks in them.

A structure is a pair of folder names, per split or for all images together. Called by `data.layouts` where no
lists name the pairs.
"""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from unetpp_cli.data.findings import Findings, counted
from unetpp_cli.data.images import is_picture
from unetpp_cli.data.lists import SPLIT_WORDS
from unetpp_cli.data.pairing import Part, by_stem, pair_mixed
from unetpp_cli.data.source import Source
from unetpp_cli.errors import UserError, listed

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt")

_PLAIN = [
    (f"{images} + {masks}", images, masks) for images, masks in itertools.product(IMAGE_FOLDERS, MASK_FOLDERS)
]

PER_SPLIT = (
    ("blog", "{split}_images", "{split}_labels"),
    ("blog", "{split}_images", "{split}_masks"),
    ("Kaggle CamVid", "{split}", "{split}_labels"),
    ("split folders", "{split}", "{split}_masks"),
    ("SegNet", "{split}", "{split}annot"),
    ("mmseg", "img_dir/{split}", "ann_dir/{split}"),
    *((name, f"{images}/{{split}}", f"{masks}/{{split}}") for name, images, masks in _PLAIN),
    *((name, f"{{split}}/{images}", f"{{split}}/{masks}") for name, images, masks in _PLAIN),
)
"""Layout, folder of the images, folder of the masks; `{split}` is any of `SPLIT_WORDS`."""

UNSPLIT = (
    ("original CamVid", "701_StillsRaw_full", "LabeledApproved_full"),
    ("original CamVid", "CamVid_RGB", "CamVid_Label"),
    ("original CamVid", "CamVid_RGB", "CamVidColor11"),
    ("original CamVid", "CamVid_RGB", "CamVidGray"),
    ("original CamVid", "RAW", "labels"),
    ("original CamVid", "raw", "label"),
    ("CamSeq01", "CamSeq01_Raw", "CamSeq01_Labeled"),
    ("VOC", "JPEGImages", "SegmentationClass"),
    ("mmseg", "img_dir", "ann_dir"),
    *_PLAIN,
)
"""The same for structures that hold all images in one folder."""

DEEPEST = 3
"""How many folders may lie around a data set: an archive's top folder, a repository's `data/camvid`."""

WHAT_IS_UNDERSTOOD = (
    "Simplest are two folders, images/ and masks/, with equal file names; CamVid is understood in every form "
    "in which it is published."
)


@dataclass(frozen=True)
class Structure:
    """Folders that belong together.

    Attributes:
        layout: what people call this structure.
        root: the folder it lies in, `""` for the top.
        parts: images and masks, per split or all under `""`.
    """

    layout: str
    root: str
    parts: tuple[Part, ...]

    @property
    def mask_folders(self) -> str:
        """The folders of the masks, for messages."""
        return listed((part.mask_folder or "the top folder" for part in self.parts), 3)


class _Tree:
    """The folders of a source and the pictures below each."""

    def __init__(self, source: Source) -> None:
        self.inside: dict[str, list[str]] = {}
        self.below: dict[str, list[str]] = {}
        for name in source.files:
            if not is_picture(name):
                continue
            folder = posixpath.dirname(name)
            self.inside.setdefault(folder, []).append(name)
            while folder:
                self.below.setdefault(folder, []).append(name)
                folder = posixpath.dirname(folder)
            self.below.setdefault("", []).append(name)

    def roots(self, depth: int) -> list[str]:
        """The folders with `depth` folders above them."""
        return [folder for folder in self.below if (folder.count("/") + 1 if folder else 0) == depth]

    def within(self, root: str) -> dict[str, str]:
        """Lower-case path below `root` -> folder."""
        start = f"{root}/" if root else ""
        return {folder[len(start) :].lower(): folder for folder in self.below if folder.startswith(start)}


def find_structure(source: Source, findings: Findings) -> Structure:
    """The structure of a data set, at its top or up to `DEEPEST` folders down.

    Raises:
        UserError: there is none, there are two, or a split has images but no masks.
    """
    tree = _Tree(source)
    for search in (_in_folders, _mixed):
        for depth in range(DEEPEST + 1):
            found = [structure for root in tree.roots(depth) for structure in search(tree, root, findings)]
            if len(found) > 1:
                _refuse_two(found[0], found[1], source)
            if found:
                return found[0]
    folders = sorted((folder, len(paths)) for folder, paths in tree.inside.items())
    if not folders:
        raise UserError(f"There are no pictures in {source.label}.", _inside_archive(source))
    shown = listed((f"{folder or 'the top folder'} ({count})" for folder, count in folders), 6)
    raise UserError(
        f"No images with masks are recognised in {source.label}; there are pictures in {shown}.",
        WHAT_IS_UNDERSTOOD,
    )


def _in_folders(tree: _Tree, root: str, findings: Findings) -> Iterator[Structure]:
    """Structures of an image folder and a mask folder directly below `root`."""
    folders = tree.within(root)
    split = False
    for layout, images, masks in PER_SPLIT:
        names = [(word, images.format(split=word), masks.format(split=word)) for word in SPLIT_WORDS]
        if any(image in folders and mask in folders for _, image, mask in names):
            parts = [
                _part(tree, SPLIT_WORDS[word], folders[image], folders[mask])
                for word, image, mask in names
                if image in folders and mask in folders
            ]
            for word, image, mask in names:
                _check_partner(tree, word, folders.get(image), folders.get(mask), image, mask, findings)
            split = True
            yield Structure(layout, root, tuple(parts))
    if not split:
        for layout, image, mask in UNSPLIT:
            if image.lower() in folders and mask.lower() in folders:
                part = _part(tree, "", folders[image.lower()], folders[mask.lower()])
                if layout == "VOC" and part.masks.keys() < part.images.keys():  # few have masks, by design
                    seen = {stem: path for stem, path in part.images.items() if stem in part.masks}
                    lost = counted(len(part.images) - len(seen), "image")
                    findings.warn(f"Left out for want of a mask: {lost} of {part.image_folder}.")
                    part = dataclasses.replace(part, images=seen)
                yield Structure(layout, root, (part,))


def _mixed(tree: _Tree, root: str, findings: Findings) -> Iterator[Structure]:
    """Structures with images and masks side by side: a folder per split (Roboflow), or one (CamSeq01)."""
    folders = tree.within(root)
    found = [
        pair_mixed(tree.inside.get(folders[word], []), folders[word], split)
        for word, split in SPLIT_WORDS.items()
        if word in folders
    ]
    parts = [part for part in found if part is not None]
    if parts:
        yield Structure("Roboflow", root, tuple(parts))
    elif root in tree.inside and (part := pair_mixed(tree.inside[root], root, "")):
        yield Structure("one folder", root, (part,))


def _part(tree: _Tree, split: str, image_folder: str, mask_folder: str) -> Part:
    return Part(
        split,
        image_folder,
        mask_folder,
        by_stem(tree.below[image_folder], image_folder),
        by_stem(tree.below[mask_folder], mask_folder),
    )


def _check_partner(
    tree: _Tree, word: str, images: str | None, masks: str | None, image: str, mask: str, findings: Findings
) -> None:
    """A split with images and no masks is a hidden test set, or a loss; masks without images are a loss."""
    if images is not None and masks is None:
        text = f"{images} holds {counted(len(tree.below[images]), 'image')}, but there is no folder {mask}"
        if SPLIT_WORDS[word] == "test":
            findings.warn(f"{text}: the test images are left out.")
        else:
            findings.refuse(f"{text}.", f"Add the masks, or move {images} away.")
    elif masks is not None and images is None:
        findings.refuse(
            f"{masks} holds {counted(len(tree.below[masks]), 'mask')}, but there is no folder {image}.",
            f"Add the images, or move {masks} away.",
        )


def _refuse_two(one: Structure, other: Structure, source: Source) -> None:
    if one.root != other.root:
        raise UserError(
            f"{source.label} holds more than one data set: {one.root} and {other.root}.",
            "Give the folder of the one that is meant.",
        )
    raise UserError(
        f"{source.label} can be read in two ways: with the masks in {one.mask_folders}, or with those in "
        f"{other.mask_folders}.",
        "Move away the ones that are not meant.",
    )


def _inside_archive(source: Source) -> str:
    archives = [name for name in source.files if name.lower().endswith((".zip", ".tar"))]
    if archives:
        return f"There is an archive in it: --data {source.where(archives[0])}"
    return WHAT_IS_UNDERSTOOD
