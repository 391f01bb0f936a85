"""Which mask belongs to which image: by stem, whatever the extensions, with one suffix rule for all.

Used by `data.folders`; the file lists of `data.lists` name their pairs themselves.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unetpp_cli.data.findings import Findings, counted
from unetpp_cli.errors import UserError, listed

SUFFIXES = ("", "_L", "_P", "_mask", "_masks", "_label", "_labels", "_labelIds", "_gt", "_seg")
"""What circulates between an image's stem and its mask's: CamVid has _L, fast.ai _P, Roboflow _mask."""


@dataclass(frozen=True)
class Pair:
    """One image and its mask.

    Attributes:
        stem: the image's path below its folder, without extension: what names the sample.
        image: the image's path within the source.
        mask: the mask's path within the source; None where there is none.
    """

    stem: str
    image: str
    mask: str | None


Splits = Mapping[str, tuple[Pair, ...]]
"""`train`, `val`, `test`, or `""` for pairs that are in no split yet -> pairs, sorted by stem."""


@dataclass(frozen=True)
class Part:
    """A folder of images and a folder of masks that belong together, before pairing.

    Attributes:
        split: as in `Splits`.
        image_folder, mask_folder: within the source.
        images, masks: stem -> path within the source.
    """

    split: str
    image_folder: str
    mask_folder: str
    images: Mapping[str, str]
    masks: Mapping[str, str]


def by_stem(paths: Iterable[str], folder: str) -> dict[str, str]:
    """Path below `folder` without extension -> path.

    Raises:
        UserError: two files differ in nothing but their extension.
    """
    stems: dict[str, str] = {}
    for path in sorted(paths):
        stem = posixpath.splitext(posixpath.relpath(path, folder or "."))[0]
        if stem in stems:
            raise UserError(
                f"{stems[stem]} and {path} have one stem: which of them is meant?", "Move one of them away."
            )
        stems[stem] = path
    return stems


def pair_up(parts: Sequence[Part], findings: Findings) -> dict[str, tuple[Pair, ...]]:
    """Pairs the images and masks of all parts by the one suffix rule that pairs most of them.

    Raises:
        UserError: images or masks are left over (unless `findings` collects that), or nothing pairs at all.
    """
    suffix = _suffix(parts)
    splits: dict[str, list[Pair]] = {}
    orphans: list[str] = []
    widows: list[str] = []
    for part in parts:
        expected = {stem + suffix: stem for stem in part.images}
        pairs = [
            Pair(stem, part.images[stem], part.masks[wanted])
            for wanted, stem in expected.items()
            if wanted in part.masks
        ]
        splits.setdefault(part.split, []).extend(pairs)
        orphans += [part.images[stem] for wanted, stem in expected.items() if wanted not in part.masks]
        widows += [path for stem, path in part.masks.items() if stem not in expected]
    if orphans or widows:
        rule = f"the mask of NAME is NAME{suffix}"
        if not any(splits.values()):
            raise UserError(
                f"No mask in {parts[0].mask_folder or 'the data'} belongs to an image: there are, for "
                f"example, {orphans[0]} and {widows[0] if widows else 'no masks'}.",
                "Give image and mask the same name, or NAME and NAME_L, NAME_mask.",
            )
        lost = [f"{counted(len(orphans), 'image')} without mask ({listed(orphans)})"] if orphans else []
        lost += [f"{counted(len(widows), 'mask')} without image ({listed(widows)})"] if widows else []
        findings.refuse(
            f"Images and masks do not pair: {' and '.join(lost)}, where {rule}.",
            "Add what is missing or move the rest away.",
        )
    return {split: tuple(sorted(pairs, key=lambda pair: pair.stem)) for split, pairs in splits.items()}


def pair_mixed(paths: Sequence[str], folder: str, split: str) -> Part | None:
    """Images and masks that lie in one folder as X and X_L (or another suffix); None if they do not."""
    if len(paths) < 2:
        return None
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(posixpath.splitext(posixpath.relpath(path, folder or "."))[0], []).append(path)
    suffix, count = "", 0
    for candidate in SUFFIXES[1:]:
        found = sum(stem.removesuffix(candidate) in stems for stem in stems if stem.endswith(candidate))
        if found > count:
            suffix, count = candidate, found
    if not count:
        return None
    masks = [path for stem, twins in stems.items() if stem.endswith(suffix) for path in twins]
    images = [path for path in paths if path not in set(masks)]
    return Part(split, folder, folder, by_stem(images, folder), by_stem(masks, folder))


def _suffix(parts: Sequence[Part]) -> str:
    """The suffix that pairs most images: a usual one, or what the first image's name is followed by."""
    usual = list(SUFFIXES)
    first = next((part for part in parts if part.images), parts[0])
    stem = min(first.images, default="")
    usual += sorted({mask.removeprefix(stem) for mask in first.masks if mask.startswith(stem)}, key=len)[:3]

    def paired(suffix: str) -> int:
        return sum(stem + suffix in part.masks for part in parts for stem in part.images)

    return max(dict.fromkeys(usual), key=paired)
