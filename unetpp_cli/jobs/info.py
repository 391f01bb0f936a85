"""`unetpp info`: what a weights file says about itself, for people and for machines. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.network.header import Header, TensorInfo, file_hash, read_header
from unetpp_cli.report import console, units

_ESSENTIALS = ("size", "epochs", "batch_size", "optimizer", "lr", "schedule", "loss", "precision", "seed")
_TITLES = {"miou": "mIoU", "pixel_accuracy": "pixel acc.", "mean_accuracy": "mean acc."}
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def info(path: Path, *, json: bool = False) -> None:
    """Prints the header of a weights file; with `json` all of it, and the file's size, hash and tensors.

    Raises:
        UserError: `path` is no weights file of this program.
    """
    header, tensors = read_header(path)
    file = _file_facts(path, tensors)
    if json:
        console.say(dumps(_without_nan({"file": file, **header.to_json()}), indent=2))
    else:
        console.out.print(_panel(header, file))


def _file_facts(path: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the file is, beside what it says."""
    weights = {name: info for name, info in tensors.items() if not name.endswith(_STATISTICS)}
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": file_hash(path),
        "tensors": len(tensors),
        "parameters": sum(info.count for info in weights.values()),
        "dtypes": sorted({info.dtype for info in weights.values()}),
    }


def _panel(header: Header, file: Mapping[str, Any]) -> Panel:
    """The whole answer: a grid of facts, then the metrics."""
    a = header.architecture
    channels = " ".join(str(a.width * 2**i) for i in range(a.depth + 1))
    pruned = f", pruned from depth {a.trained_depth}" if a.trained_depth > a.depth else ""
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (header.mean, header.std))
    facts: list[tuple[str, RenderableType]] = [
        ("network", _plain(f"UNet++ of width {a.width} ({channels}), depth {a.depth}{pruned}")),
        ("heads", _plain(_heads(a.heads))),
        (
            "parameters",
            _plain(f"{file['parameters']:,} ({', '.join(file['dtypes'])}, {_size(file['bytes'])})"),
        ),
        (
            "input",
            _plain(f"{a.in_channels} channels, {header.geometry}, padded to multiples of {a.pad_multiple}"),
        ),
        ("mean / std", _plain(f"{mean} / {std}")),
        ("classes", _classes(header.classes)),
        ("data", _pairs({key: value for key, value in header.data.items() if key != "terms"})),
        ("terms", _plain(str(header.data.get("terms", "")))),
        ("recipe", _pairs({key: header.recipe[key] for key in _ESSENTIALS if key in header.recipe})),
        ("trained", _pairs({key: value for key, value in header.metrics.items() if _is_number(value)})),
        ("origin", _origin(header.origin)),
        ("sha256", _plain(file["sha256"])),
        ("written by", _plain(f"unetpp {header.version}")),
    ]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        if not isinstance(value, Text) or value.plain:
            grid.add_row(name, value)
    tables = [table for table in _metrics(header.metrics) if table.row_count]
    return Panel(
        Group(grid, *(part for table in tables for part in ("", table))),
        title=_plain(Path(file["path"]).name),
        title_align="left",
        expand=False,
    )


def _classes(classes: ClassSet) -> RenderableType:
    """The name of the set and then every class, its index behind a chip of its colour."""
    entries = []
    for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        void = " (void)" if index in classes.void else ""
        entries.append(Text.assemble(console.chip(color), f" {index} ", _plain(name), void))
    return Group(_plain(f"{classes.name}, {len(classes)}"), Columns(entries, padding=(0, 2)))


def _origin(origin: Mapping[str, Any]) -> Text:
    """One line for each step that led to the file, the last one first, and below it what was measured."""
    lines = []
    while origin:
        proof = origin.get("proof", {})
        if "to_depth" in origin:
            start, end = origin.get("from_depth"), origin["to_depth"]
            line = f"kept at depth {end}" if start == end else f"pruned from depth {start} to {end}"
            line += f", file {_short(origin['pruned_from'])}" if "pruned_from" in origin else ""
            if proof.get("identical_logits"):
                line += f"; logits of {_heads(proof.get('heads', []))} proven identical"
                line += " before halving" if "half" in origin else ""
            measured = {"choice": _choice, "half": _half, "cost": _cost}
            facts = [(origin[key], spelled) for key, spelled in measured.items() if origin.get(key)]
            lines += [line, *(f"  {spelled(_Facts(fact))}" for fact, spelled in facts)]
        else:
            lines.append(_pairs({key: value for key, value in origin.items() if key != "parent"}).plain)
        origin = origin.get("parent", {})
    return Text("\n").join(_plain(line) for line in lines)


class _Facts(dict[str, Any]):
    """Facts out of a header, which may lack some: text and numbers with `?` where there is none."""

    def figure(self, key: str, form: str, factor: float = 1.0) -> str:
        """The number under `key`, times `factor`, as `form` spells it."""
        value = self.get(key)
        return format(factor * value, form) if isinstance(value, (int, float)) else "?"

    def text(self, key: str) -> str:
        """Whatever stands under `key`."""
        return str(self.get(key, "?"))


def _choice(facts: _Facts) -> str:
    """`chosen on val (101 images): max drop 0.5; mIoU L1 43.80 %, L2 54.60 %`."""
    limits = ", ".join(
        f"{key.replace('_', ' ')} {facts.figure(key, 'g')}" for key in facts if key.startswith("max_")
    )
    scores = _Facts(facts.get("miou", {}))
    depths = sorted(scores, key=lambda depth: (len(depth), depth))
    each = ", ".join(f"L{depth} {scores.figure(depth, '.2f', 100)} %" for depth in depths)
    return f"chosen on {facts.text('split')} ({facts.text('images')} images): {limits}; mIoU {each}"


def _half(facts: _Facts) -> str:
    """What half storage changed, on the probe images and, where it was measured, on a split."""
    line = f"convolutions halved: logits change by at most {facts.figure('logits', '.3g', 100)} %, "
    line += f"{facts.figure('pixels', '.3g', 100)} % of the pixels their class"
    if "split" in facts:
        before, after = (facts.figure(key, ".2f", 100) for key in ("miou_before", "miou_after"))
        line += f"; mIoU on {facts.text('split')} {before} % before, {after} % after"
    return line


def _cost(facts: _Facts) -> str:
    """`costs 181,763 parameters, 0.73 MB of tensors, 0.24 GMAC and 12.3 ms at 128x96 (fp32 on CPU)`."""
    line = f"costs {facts.figure('parameters', ',.0f')} parameters, "
    line += f"{facts.figure('file_bytes', ',.2f', 1e-6)} MB of tensors, {facts.figure('gmac', ',.2f')} GMAC"
    line += f" and {facts.figure('ms', ',.1f')} ms" if "ms" in facts else ""
    line += f" at {facts.text('size')}"
    if "ms" in facts:
        count = facts.text("threads")
        threads = f", {count} thread{'' if count == '1' else 's'}" if "threads" in facts else ""
        line += f" ({facts.text('precision')} on {facts.text('device')}{threads})"
    return line


def _heads(depths: Sequence[int]) -> str:
    return ", ".join(f"L{depth}" for depth in depths)


def _short(digest: object) -> str:
    """The first 12 digits name a file well enough for people."""
    return f"{str(digest)[:12]}..."


def _metrics(metrics: Mapping[str, Any]) -> list[Table]:
    """One table per split (or one, when rows stand at the top): a row per depth, a column per number."""
    rows = {key: row for key, row in metrics.items() if _is_row(key, row)}
    tables = [_metric_table("", rows)]
    for split, inner in metrics.items():
        if isinstance(inner, Mapping) and split not in rows:
            tables.append(_metric_table(split, {key: row for key, row in inner.items() if _is_row(key, row)}))
    return tables


def _is_row(key: str, row: object) -> bool:
    return isinstance(row, Mapping) and (key.isdigit() or key == "ensemble")


def _metric_table(split: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per depth. All numbers but losses are fractions, shown in per cent."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(_plain(split or "depth"))
    columns = list(
        dict.fromkeys(key for row in rows.values() for key, value in row.items() if _is_number(value))
    )
    for column in columns:
        title = _TITLES.get(column, column.replace("_", " "))
        table.add_column(_plain(title if "loss" in column else f"{title} %"), justify="right")
    for depth, row in sorted(rows.items()):  # digits come before "ensemble"
        cells = [
            (units.loss if "loss" in column else units.percent)(row.get(column, math.nan))
            for column in columns
        ]
        table.add_row(f"L{depth}" if depth.isdigit() else depth, *cells)
    return table


def _pairs(facts: Mapping[str, Any]) -> Text:
    """`layout SegNet, train 367, val 101`: a mapping in one line, long numbers in hexadecimal cut short."""

    def shown(value: object) -> str:
        if isinstance(value, Mapping):
            return "(" + ", ".join(f"{key} {shown(inner)}" for key, inner in value.items()) + ")"
        if isinstance(value, Sequence) and not isinstance(value, str):
            return " ".join(shown(inner) for inner in value)
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return _short(text) if len(text) == 64 and not text.strip("0123456789abcdef") else text

    return _plain(", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in facts.items()))


def _plain(text: str) -> Text:
    """Literal text: control characters and what the stream cannot show are spelled out.

    Files come from anywhere, and so do the names in their headers.
    """
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return Text(shown.encode(console.out.encoding, "backslashreplace").decode(console.out.encoding))


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a score of a class that never occurred is null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
