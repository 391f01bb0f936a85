"""Which file holds the mask that was predicted for an image: by name, and by folders where names repeat.

Called by `data.predictions`. `data.pairing` does the same for data sets, whose rules are stricter.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterable, Mapping, Sequence

from unetpp_cli.data.findings import counted
from unetpp_cli.data.images import is_picture
from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.data.named_masks import names_in
from unetpp_cli.data.pairing import SUFFIXES
from unetpp_cli.data.source import Source
from unetpp_cli.errors import UserError, listed

ENDINGS = (
    *SUFFIXES[1:],
    *("_pred", "_prediction", "_output", "_out", "_result", "_color", "_colors", "_index", "_labelTrainIds"),
)
"""What may follow an image's name in its mask's, in capital or small letters; nothing may, too."""

_LOSSY = (".jpg", ".jpeg")


def match(source: Source, data: Dataset, pairs: Sequence[Pair]) -> dict[Pair, str]:
    """The file of every pair: the one with its name; where names repeat, the folders tell whose a file is.

    Raises:
        UserError: masks are missing, one pair has several, or several have one.
    """
    named: dict[str, list[Pair]] = {}
    for pair in data.pairs():
        named.setdefault(posixpath.basename(_stem(pair.image)), []).append(pair)
    found: dict[Pair, list[str]] = {}
    for file in source.files:
        if is_picture(file):
            for pair in _owners(file, named):
                found.setdefault(pair, []).append(file)
    missing = [pair.stem for pair in pairs if pair not in found]
    if missing:
        raise UserError(
            f"{source.label} lacks the masks of {len(missing)} of {counted(len(pairs), 'image')}: "
            f"{listed(missing)}.",
            "The mask of NAME.jpg is NAME.png, NAME_mask.png or NAME_pred.png. Add what is missing, or "
            "choose the --split that was predicted.",
        )
    files = {pair: _choose(source, pair, found[pair]) for pair in pairs}
    owner: dict[str, Pair] = {}
    for pair, file in files.items():
        twin = owner.setdefault(file, pair)
        if twin != pair:
            raise UserError(
                f"{source.where(file)} may be the mask of {twin.image} or of {pair.image}.",
                "Put the masks into folders as the images are.",
            )
    return files


def _owners(file: str, named: Mapping[str, Sequence[Pair]]) -> list[Pair]:
    """The pairs whose mask the file may be: of those with its name, the ones in the folders most like its."""
    for key in _keys(file):
        likeness = {
            pair: _common_end(key, _stem(pair.image)) for pair in named.get(posixpath.basename(key), ())
        }
        if likeness:
            most = max(likeness.values())
            return [pair for pair, parts in likeness.items() if parts == most]
    return []


def _keys(file: str) -> Iterable[str]:
    """The image paths, without suffix, that the file's own may be made of."""
    stem = _stem(file)
    names = [stem, *(stem[: -len(ending)] for ending in ENDINGS if stem.lower().endswith(ending.lower()))]
    for name in names:
        yield name
        if is_picture(name):  # NAME.jpg.png and NAME.jpg_mask.png
            inner = _stem(name)
            yield inner
            yield from (inner[: -len(end)] for end in ENDINGS if inner.lower().endswith(end.lower()))


def _choose(source: Source, pair: Pair, candidates: Sequence[str]) -> str:
    files = [file for file in candidates if not file.lower().endswith(_LOSSY)] or candidates
    if len(files) > 1:  # predict writes its masks beside the images
        own = [file for file in files if names_in(source, file) is not None]
        exact = [file for file in own if _name(file) == _name(pair.image)]  # the first of several formats
        files = exact if len(exact) == 1 else own if len(own) == 1 else files
    if len(files) > 1:
        raise UserError(
            f"{source.label} has {len(files)} files that may be the mask of {pair.image}: {listed(files)}.",
            "Give the folder of one tool, with one mask for each image.",
        )
    return files[0]


def _name(path: str) -> str:
    return posixpath.basename(_stem(path))


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _common_end(first: str, second: str) -> int:
    """How many last parts two paths have in common."""
    parts = zip(reversed(first.split("/")), reversed(second.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], parts))
