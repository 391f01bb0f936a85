"""A model card out of a weights file's header, as model hubs show it: Markdown under a block of YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unetpp_cli.network.built_in import BUILT_IN
from unetpp_cli.network.cost import macs, parameters
from unetpp_cli.network.header import Header, file_hash, read_header

_SIZE = (360, 480)
"""(height, width) at which GMAC are counted where the model has no size of its own."""


def card(path: Path) -> str:
    """The card of the weights file at `path`. Equal files give equal cards.

    Raises:
        UserError: `path` is no weights file of this program.
    """
    header, _ = read_header(path)
    parts = [
        _front(header),
        _what(header),
        _use(path, header),
        _depths(header),
        _scores(header),
        _training(header),
        _classes(header),
        _terms(header),
        f"SHA-256 of `{path.name}`: `{file_hash(path)}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(header: Header) -> str:
    terms = str(header.data.get("terms", ""))
    facts: dict[str, Any] = {
        "library_name": "unetpp",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", "unet++", "pytorch", header.classes.name],
        **({"license": "other", "license_name": "research-only"} if "non-commercial" in terms else {}),
    }
    return "---\n" + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True) + "---"


def _what(header: Header) -> str:
    a = header.architecture
    heads = f"with one head, at L{a.depth}."
    if len(a.heads) > 1:
        places = ", ".join(f"L{depth}" for depth in a.heads)
        heads = (
            f"with deep supervision: heads at {places}; cut at any of them "
            "it is a smaller, faster network with the same answers of that head."
        )
    return (
        f"# UNet++, width {a.width}, depth {a.depth}: {header.classes.name}\n\n"
        f"Semantic segmentation into {len(header.classes)} classes by UNet++ "
        f"([Zhou et al. 2018](https://arxiv.org/abs/1807.10165)) {heads}"
    )


def _use(path: Path, header: Header) -> str:
    heads = header.architecture.heads
    name = path.stem if path in BUILT_IN.values() else path.name  # either works where the file is
    prune = f"unetpp prune --depth {heads[-2]} {name}\n" if len(heads) > 1 else ""
    return (
        "## Use\n\n```sh\n"
        f"unetpp predict photo.png -o mask.png --model {name}\n"
        f"{prune}```\n\n"
        "```python\nfrom unetpp_cli import Predictor\n\n"
        f'predictor = Predictor.load("{name}")\n'
        'predictor("photo.png").save("mask.png")\n```'
    )


def _depths(header: Header) -> str:
    """Parameters and GMAC of each depth."""
    a, geometry = header.architecture, header.geometry
    height, width = (geometry.height, geometry.width) if geometry.mode == "stretch" else _SIZE
    rows = [
        [f"L{depth}", f"{parameters(a, depth):,}", f"{macs(a, height, width, depth, (depth,)) / 1e9:.2f}"]
        for depth in a.heads
    ]
    return "## Depths\n\n" + _table(["depth", "parameters", f"GMAC at {width}x{height}"], rows)


def _scores(header: Header) -> str:
    """A table per split of the header's metrics."""
    tables = []
    for split, rows in header.metrics.items():
        if not isinstance(rows, Mapping):
            continue
        depths = {key: row for key, row in rows.items() if isinstance(row, Mapping) and "miou" in row}
        if depths:
            shown = [
                [
                    f"L{depth}" if depth.isdigit() else depth,
                    *(_percent(row.get(key)) for key in ("miou", "pixel_accuracy")),
                ]
                for depth, row in sorted(depths.items())
            ]
            tables.append(f"On {split}:\n\n" + _table(["depth", "mIoU %", "pixel accuracy %"], shown))
    if not tables:
        return ""
    return "## Scores\n\nOne confusion matrix over the whole split, void left out.\n\n" + "\n\n".join(tables)


def _training(header: Header) -> str:
    data = {key: value for key, value in header.data.items() if key != "terms"}
    lines = ["## Training\n"]
    if data:
        counts = ", ".join(f"{data[split]} {split}" for split in ("train", "val", "test") if split in data)
        lines.append(
            f"Data: {data.get('layout', 'unknown')} layout, {counts}; split by {data.get('split_by', '?')}."
        )
        if "fingerprint" in data:
            lines.append(f"Fingerprint of the data: `{data['fingerprint']}`.")
    lines.append(f"Input: {header.architecture.in_channels} channels, {header.geometry}.")
    if header.recipe:
        recipe = yaml.safe_dump(dict(header.recipe), sort_keys=False, default_flow_style=None, width=100)
        lines.append(
            "\nThe whole recipe (`unetpp train --config FILE` repeats it):\n\n```yaml\n" + recipe + "```"
        )
    return "\n".join(lines)


def _classes(header: Header) -> str:
    classes = header.classes
    rows = [
        [str(index), name + (" (void)" if index in classes.void else ""), f"{color[0]} {color[1]} {color[2]}"]
        for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
    ]
    return "## Classes\n\n" + _table(["index", "class", "red green blue"], rows)


def _terms(header: Header) -> str:
    terms = str(header.data.get("terms", ""))
    return f"## Terms\n\nOf the training data, and so of these weights: {terms}." if terms else ""


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _percent(value: object) -> str:
    return f"{100 * value:.1f}" if isinstance(value, (int, float)) else ""
