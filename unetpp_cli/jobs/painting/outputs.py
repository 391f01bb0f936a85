"""What predict writes for a picture, under which names, and that no file is written over another.

Called by `jobs.predict` before anything is read; `jobs.painting.encoding` writes what is named here.
"""

# Paths are text here: a million of them are joined, split and compared.
# ruff: noqa: PTH112, PTH118, PTH122

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unetpp_cli.data.images import is_picture
from unetpp_cli.errors import UserError, listed, nearest

if TYPE_CHECKING:
    from unetpp_cli.jobs.painting.inputs import Item

ENDINGS = {
    "palette": "_mask.png",
    "color": "_color.png",
    "index": "_index.png",
    "overlay": "_overlay.png",
    "probs": "_probs.npz",
    "entropy": "_entropy.png",
    "disagreement": "_disagreement.png",
}
"""What each kind of output is called beside its picture: NAME and this."""

FORMATS = ("palette", "color", "index", "overlay", "probs")
"""What `--format` takes. `entropy` and `disagreement` come with `--confidence`."""


@dataclass(frozen=True)
class Look:
    """What is to be written, and how it looks.

    Attributes:
        formats: of `FORMATS`, each once; the first one is named without its ending in a folder of its own.
        confidence: also the maps of entropy and of the heads' disagreement.
        legend, side_by_side: names beside the pictures of colours, and the image to their left.
        opacity: of an overlay's colours, 0 to 1.
    """

    formats: tuple[str, ...] = ("palette",)
    confidence: bool = False
    legend: bool = False
    side_by_side: bool = False
    opacity: float = 0.5
    several_heads: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """The keys of `ENDINGS` that are written for every picture. One head alone cannot disagree."""
        maps = ("entropy", "disagreement") if self.several_heads else ("entropy",)
        return self.formats + (maps if self.confidence else ())

    def check(self) -> None:
        """Raises `UserError` for options that would have no effect, or none that makes sense."""
        if not 0 <= self.opacity <= 1:
            raise UserError(f"--opacity {self.opacity:g} is not within 0 (image) to 1 (colours).")
        colourful = {"color", "overlay"} & set(self.formats)
        for option, wanted in (("--legend", self.legend), ("--side-by-side", self.side_by_side)):
            if wanted and not colourful:
                raise UserError(
                    f"{option} is for overlays and colour pictures, and --format names neither.",
                    f"Add one: --format {','.join(self.formats)},overlay.",
                )
        if self.opacity != Look.opacity and "overlay" not in self.formats:
            raise UserError(
                "--opacity is for overlays, and --format names none.",
                f"Add it: --format {','.join(self.formats)},overlay.",
            )


def parse_formats(text: str) -> tuple[str, ...]:
    """`palette,overlay` as a tuple, each format once.

    Raises:
        UserError: there is no such format.
    """
    words = [word.strip().lower() for word in text.split(",")]
    for word in words:
        if word not in FORMATS:
            raise UserError(
                f"--format {text}: there is no format '{word}'.{nearest(word, FORMATS)}",
                f"Choose among {', '.join(FORMATS)}, separated by commas.",
            )
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class Naming:
    """Where the outputs of a picture go.

    Beside the picture as NAME_mask.png, NAME_overlay.png ...; below the folder of `-o` (for an archive also
    without it) in the tree of the inputs, where the first format is NAME.png; or, with `-o NAME.png` for a
    single picture, there. NAME has the picture's suffix (a.jpg.png) where it needs it to be told from
    another's.

    Attributes:
        look: says what is written.
        output: `-o`, or None.
        is_file: whether `-o` names the file of a single picture.
    """

    look: Look
    output: str | None = None
    is_file: bool = False

    @staticmethod
    def choose(look: Look, output: str | None) -> Naming:
        """The rule that `-o` asks for.

        Raises:
            UserError: it is a file of another kind than the first format.
        """
        if not output or output.endswith(("/", os.sep)) or os.path.isdir(output):
            return Naming(look, output or None)
        suffix = os.path.splitext(output)[1].lower()
        wanted = os.path.splitext(ENDINGS[look.formats[0]])[1]
        if suffix == wanted:
            return Naming(look, output, is_file=True)
        if is_picture(output) or suffix == ".npz":
            what = "probabilities are .npz" if wanted == ".npz" else "masks are PNG"
            raise UserError(f"-o {output}: {what} files.", f"Give a name that ends in {wanted}.")
        return Naming(look, output)

    def targets(self, item: Item) -> dict[str, str]:
        """Kind of output -> path of its file."""
        first = self.look.formats[0]
        stem = item.below if item.keeps_suffix else os.path.splitext(item.below)[0]
        if self.output is None and item.source is None:
            stem = os.path.join(item.home, stem.rpartition("/")[2])
            return {kind: stem + ENDINGS[kind] for kind in self.look.kinds}
        if self.output is not None and self.is_file:
            stem, plain = os.path.splitext(self.output)[0].removesuffix("_mask"), self.output
        else:
            stem = os.path.join(item.home if self.output is None else self.output, stem)
            plain = stem + os.path.splitext(ENDINGS[first])[1]
        return {kind: plain if kind == first else stem + ENDINGS[kind] for kind in self.look.kinds}

    def for_heads(self, heads: int) -> Naming:
        """The same for a network that gives so many heads' opinions."""
        return replace(self, look=replace(self.look, several_heads=heads > 1))

    def place(self, items: Sequence[Item]) -> str:
        """In words, where the outputs of several pictures are."""
        folders = {item.home for item in items if item.source} if self.output is None else {self.output}
        if self.output is None and any(item.source is None for item in items):
            return "beside the images" + (f" and in {listed(sorted(folders))}" if folders else "")
        return f"in {listed(os.path.join(folder, '') for folder in sorted(folders))}"


def refuse_collisions(items: Iterable[Item], naming: Naming) -> None:
    """Makes sure that every output has a place of its own, and that none is an input.

    Folders are resolved, files only where they are known to be links: that costs nothing per file.

    Raises:
        UserError: two outputs would be one file, or an output would replace a picture.
    """
    real = functools.cache(os.path.realpath)

    def one_spelling(path: str) -> str:
        folder, name = os.path.split(path)
        return os.path.normcase(os.path.join(real(folder or "."), name))

    sources: set[str] = set()
    owners: dict[str, str] = {}
    folder = os.path.dirname
    for item in items:
        if item.source is None:
            sources.add(one_spelling(os.path.realpath(item.name) if item.is_link else item.name))
        for target in naming.targets(item).values():
            place = one_spelling(target)
            if place in owners:
                raise UserError(
                    f"{owners[place]} and {item.name} would both write {target}.",
                    "Rename one of them, or write each format with an -o of its own."
                    if real(folder(owners[place]) or ".") == real(folder(item.name) or ".")
                    else "Predict them one after the other, each with an -o of its own.",
                )
            owners[place] = item.name
    for place in owners.keys() & sources:
        raise UserError(
            f"The output of {owners[place]} would replace the image {place}.", "Choose another -o."
        )


class Existing:
    """Says which files exist, by listing each folder once: quick on a network's file system, too."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def all(self, paths: Iterable[str]) -> bool:
        """Whether every one of the files exists."""
        return all(self._has(*os.path.split(path)) for path in paths)

    def _has(self, folder: str, name: str) -> bool:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder or "."))  # noqa: PTH208 - names only
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]
