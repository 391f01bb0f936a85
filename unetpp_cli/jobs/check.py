"""`unetpp check`: everything about a data set that would otherwise come to light in the middle of a training.

Reads every image and every mask once. `check` finds out, `show` prints it, for people or as JSON.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from json import dumps
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from unetpp_cli.data.classes import VOID, ClassSet
from unetpp_cli.data.encoding import MaskFacts
from unetpp_cli.data.examine import judge
from unetpp_cli.data.findings import Findings, counted
from unetpp_cli.data.images import decode_image
from unetpp_cli.data.layouts import Dataset, Pair, inspect_dataset
from unetpp_cli.data.splits import looks_like_video, sequence
from unetpp_cli.errors import UserError, listed
from unetpp_cli.jobs.afar import local
from unetpp_cli.report import console


@dataclass
class SplitReport:
    """What one split holds.

    Attributes:
        pairs: number of images with masks.
        sizes: (width, height) -> number of images.
        pixels: per class, the number of its pixels.
        masks: per class, the number of masks it occurs in.
        void: number of pixels that are never scored.
    """

    pairs: int
    sizes: dict[tuple[int, int], int]
    pixels: list[int]
    masks: list[int]
    void: int = 0

    @property
    def void_share(self) -> float:
        """The share of all pixels that are never scored."""
        total = self.void + sum(self.pixels)
        return self.void / total if total else 0.0

    def share(self, index: int) -> float:
        """The share of the scored pixels that belong to the class `index`."""
        total = sum(self.pixels)
        return self.pixels[index] / total if total else 0.0


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        path: as given.
        data: the data set; None when it is refused as a whole.
        splits: per split, what it holds.
        problems: what must be mended: training refuses the data, or stumbles over it.
        warnings: what the user should know.
        notes: what the user may like to know.
    """

    path: str
    data: Dataset | None
    splits: Mapping[str, SplitReport] = field(default_factory=dict)
    problems: tuple[UserError, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the data can be trained on as they are."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The report as plain lists, strings and numbers; shares are fractions."""
        data = self.data
        classes = data.classes if data else None
        return {
            "path": self.path,
            "ok": self.ok,
            "summary": data.summary() if data else None,
            "name": data.name if data else None,
            "layout": data.layout if data else None,
            "classes": classes.to_json() if classes else None,
            "void": data.void if data else None,
            "split_by": data.split_by if data else None,
            "splits": {
                name: {
                    "pairs": split.pairs,
                    "sizes": {f"{width}x{height}": count for (width, height), count in split.sizes.items()},
                    "void_share": split.void_share,
                    "classes": {
                        class_name: {"share": split.share(index), "masks": split.masks[index]}
                        for index, class_name in enumerate(classes.names if classes else ())
                        if classes and index in classes.scored
                    },
                }
                for name, split in self.splits.items()
            },
            "problems": [{"problem": error.problem, "cure": error.cure} for error in self.problems],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Seen:
    """What reading one pair brought to light."""

    size: tuple[int, int] | None
    digest: str
    facts: MaskFacts | None
    errors: tuple[UserError, ...]


def check(
    path: str | os.PathLike[str],
    classes: str | ClassSet | None = None,
    split_by: str | None = None,
    hold_out: str | None = None,
    seed: int = 0,
) -> Report:
    """Reads all of the data at `path` and reports what is in it and what is wrong with it.

    Args: as `open_dataset`.

    Raises:
        UserError: there is nothing at `path` that could be looked at, or an argument makes no sense.
    """
    findings = Findings(collect=True)
    shown = local(os.fspath(path))
    try:
        data = inspect_dataset(
            shown, classes=classes, split_by=split_by, hold_out=hold_out, seed=seed, findings=findings
        )
    except UserError as error:
        if not findings.opened:
            raise
        return Report(shown, None, {}, (*findings.refusals, error), tuple(findings.warnings))
    pairs = list(data.pairs())
    seen = dict(zip(pairs, _read_all(data, pairs), strict=True))
    for one in seen.values():
        for refusal in one.errors:
            findings.add(refusal)
    judge(data.encoding, [one.facts for one in seen.values() if one.facts is not None], findings)
    splits = {
        name: _report_split(data, [seen[pair] for pair in members]) for name, members in data.splits.items()
    }
    _find_copies(data, seen, findings)
    return Report(
        path=shown,
        data=data,
        splits=splits,
        problems=tuple(findings.refusals),
        warnings=tuple(findings.warnings),
        notes=tuple(_notes(data, splits)),
    )


def show(report: Report, *, json: bool = False) -> None:
    """Prints the report for people or, with `json`, for machines."""
    if json:
        print(dumps(report.to_json(), indent=2, allow_nan=False))
        return
    data = report.data
    if data is None:
        console.say(f"{report.path}: not understood")
    else:
        console.say(f"{report.path}: {data.summary()}; split by {data.split_by}")
        console.out.print(_sizes(report.splits))
        console.out.print(_shares(data.classes, report.splits))
    problems = [f"{error.problem} {error.cure}".strip() for error in report.problems]
    for heading, style, texts in (
        ("Problems", "bold red", problems),
        ("Warnings", "bold yellow", report.warnings),
        ("Notes", "bold", report.notes),
    ):
        if texts:
            console.out.print(Text(heading, style))
            for text in texts:
                console.say(f"- {text}")
    if report.ok:
        console.say("No problems: this data can be trained on.")
    else:
        console.say(f"{counted(len(problems), 'problem')} to be mended before training.")


def _read_all(data: Dataset, pairs: Sequence[Pair]) -> Iterator[_Seen]:
    """Reads every pair, in order, with a bar on a terminal. Decoding releases the interpreter's lock."""
    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal)
    with progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        task = progress.add_task("", total=len(pairs))
        for one in pool.map(lambda pair: _read(data, pair), pairs):
            progress.advance(task)
            yield one


def _read(data: Dataset, pair: Pair) -> _Seen:
    errors: list[UserError] = []
    size, digest, facts = None, "", None
    try:
        content = data.source.read(pair.image)
        height, width = decode_image(content, name=data.source.where(pair.image)).shape[:2]
        size, digest = (width, height), hashlib.sha256(content).hexdigest()
    except UserError as error:
        errors.append(error)
    try:
        facts = data.survey_mask(pair)
    except UserError as error:
        errors.append(error)
    return _Seen(size, digest, facts, tuple(errors))


def _report_split(data: Dataset, members: Sequence[_Seen]) -> SplitReport:
    """Adds up what the masks hold, by the table that decodes them."""
    table = dict(data.encoding.table)
    count = len(data.classes)
    report = SplitReport(len(members), {}, [0] * count, [0] * count)
    for one in members:
        if one.size is not None:
            report.sizes[one.size] = report.sizes.get(one.size, 0) + 1
        pixels = np.zeros(VOID + 1, dtype=np.int64)
        if one.facts is not None:
            stored = one.facts.colors() if data.encoding.colored else one.facts.counts
            for key, number in stored.items():
                pixels[table.get(key, VOID)] += number
        report.void += int(pixels[VOID])
        for index in range(count):
            report.pixels[index] += int(pixels[index])
            report.masks[index] += int(pixels[index] > 0)
    return report


def _find_copies(data: Dataset, seen: Mapping[Pair, _Seen], findings: Findings) -> None:
    """Warns of images that are in two splits under whatever names, and of copies within one."""
    first: dict[str, tuple[str, Pair]] = {}
    across: list[str] = []
    within: list[str] = []
    for split, pairs in data.splits.items():
        for pair in pairs:
            digest = seen[pair].digest
            if not digest:
                continue
            before, twin = first.setdefault(digest, (split, pair))
            if before != split:
                across.append(f"{twin.image} ({before}) = {pair.image} ({split})")
            elif twin != pair:
                within.append(f"{twin.image} = {pair.image}")
    if across:
        findings.warn(
            f"The same in two splits: {counted(len(across), 'image')}, {listed(across, 3)}. Scores on them "
            "are too good."
        )
    if within:
        findings.warn(f"The same under two names: {counted(len(within), 'image')}, {listed(within, 3)}.")


def _notes(data: Dataset, splits: Mapping[str, SplitReport]) -> Iterator[str]:
    """Sequences on both sides of the split, and classes that cannot be learnt or scored."""
    stems = {name: [pair.stem for pair in pairs] for name, pairs in data.splits.items()}
    every = [stem for members in stems.values() for stem in members]
    trained = {sequence(stem) for stem in stems.get("train", ())}
    if looks_like_video(every) and len(set(map(sequence, every))) > 1:
        for name in (name for name in stems if name != "train"):
            shared = trained & {sequence(stem) for stem in stems[name]}
            if shared:
                yield f"Of the same sequence as training frames: {name} frames of {listed(sorted(shared))}."
    for name, split in splits.items():
        absent = [data.classes.names[index] for index in data.classes.scored if not split.masks[index]]
        if absent:
            yield f"In no {name} mask: {listed(absent)}."


def _sizes(splits: Mapping[str, SplitReport]) -> Table:
    table = Table("split", "images", "sizes", "void", box=None, padding=(0, 2, 0, 0))
    table.columns[1].justify = table.columns[3].justify = "right"
    for name, split in splits.items():
        often = sorted(split.sizes, key=lambda size: -split.sizes[size])
        sizes = listed((f"{width}x{height} ({split.sizes[width, height]})" for width, height in often), 4)
        table.add_row(name, f"{split.pairs:,}", sizes, f"{100 * split.void_share:.2f} %")
    return table


def _shares(classes: ClassSet, splits: Mapping[str, SplitReport]) -> Table:
    """Per class and split: its share of the labelled pixels, and how many masks show it."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("class")
    for name in splits:
        table.add_column(f"{name} %", justify="right")
        table.add_column("masks", justify="right", style="dim")
    for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        cells: list[str | Text] = [console.chip(color), Text(f"{index:>2} {name}")]
        for split in splits.values():
            if index in classes.void:
                cells += [Text("void"), ""]
            else:
                share = 100 * split.share(index)
                digits = 2 if share >= 0.01 or not share else 4
                cells += [f"{share:.{digits}f}" if share else "-", str(split.masks[index] or "-")]
        table.add_row(*cells)
    return table
