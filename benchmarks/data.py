"""Speed of the input: decoding, the cache, augmentation; by how many processes. No network runs.

python benchmarks/data.py --data CamVid --markdown table.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.article import ArticleData
from benchmarks.measure import PACKAGES, environment, environment_line, interleaved, quartiles, table
from benchmarks.scenes import write_scenes
from unetpp_cli.allocator import keep_pages
from unetpp_cli.config import read_recipe, resolve
from unetpp_cli.data.augment import Augmentation
from unetpp_cli.data.dataset import Decoded
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, open_dataset
from unetpp_cli.data.loading import TrainingBatches, training_loader
from unetpp_cli.parallel import World

import torch  # isort: skip
from torch.utils.data import DataLoader  # isort: skip


def main() -> int:
    """The command line."""
    options = _arguments()
    kept = keep_pages()  # as our command line does
    facts = environment("cpu", PACKAGES)
    with tempfile.TemporaryDirectory(prefix="unetpp-benchmark-") as folder:
        options.cache = folder
        place = Path(options.data) if options.data else write_scenes(Path(folder) / "scenes", options.images)
        runs, counts = _runs(place, options)
        for name, run in runs.items():
            run()  # decodes into the caches, starts the workers
            _say(f"{name} is ready")
        seconds = interleaved(runs, options.rounds, _say)
    rows = []
    for name, taken in seconds.items():
        slow, fast = (counts[name] / value for value in reversed(quartiles(taken)))
        rate = counts[name] / statistics.median(taken)
        rows.append([name, f"{rate:.0f}", f"{slow:.0f}-{fast:.0f}", f"{1000 / rate:.3f}"])
    text = f"{len(next(iter(seconds.values())))} rounds in turn, batches of {options.batch}, "
    text += f"{'drawn scenes of 480x360 in PNG' if not options.data else Path(options.data).name}.\n\n"
    text += environment_line(facts) + "\n\n"
    text += table(["input", "images/s", "quartiles", "ms an image"], rows)
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(text, encoding="utf-8")
    if options.json:
        report = {"environment": facts, "allocator": "kept" if kept else "system", "images": counts}
        Path(options.json).write_text(json.dumps({**report, "seconds": seconds}, indent=1) + "\n", "utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of the input. See benchmarks/README.md.")
    add = parser.add_argument
    add("--data", help="a folder in SegNet's layout; drawn scenes when left out")
    add("--images", type=int, default=128, help="training images that are used")
    add("--size", type=int, default=224, help="side of the crop")
    add("--batch", type=int, default=8)
    add("--workers", default="0,1,2", help="processes that load, one row each")
    add("--rounds", type=int, default=7)
    add("--json", help="file for everything that was measured")
    add("--markdown", help="file for the table")
    options = parser.parse_args()
    if options.images < options.batch:
        parser.error(f"--images {options.images} do not fill a batch of {options.batch}")
    return options


def _runs(
    folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """Per row a function that loads every image once, and how many images that are."""
    data = open_dataset(str(folder))
    pairs = data.splits["train"][: options.images]
    everyone = range(len(pairs))
    runs: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}

    def add(name: str, run: Callable[[], object], count: int) -> None:
        runs[name], counts[name] = run, count

    def each(read: Callable[[int], object]) -> Callable[[], object]:
        def run() -> None:
            for index in everyone:
                read(index)

        return run

    native = Geometry.parse("native")
    add("decode image and mask", each(Decoded(data, pairs, native, 3).__getitem__), len(pairs))
    cache = Decoded(data, pairs, native, 3, options.cache)
    add("read both from the cache, whole", each(cache.__getitem__), len(pairs))
    crop = [{"RandomCrop": {"height": options.size, "width": options.size}}, {"HorizontalFlip": {"p": 0.5}}]
    recipes: list[tuple[str, str, list[Any]]] = [(f"crop {options.size} + flip", "native", crop)]
    for name in ("blog", "camvid"):
        recipe = read_recipe(name)
        recipes.append((f"recipe {name}", recipe["size"], recipe["augment"]))
    for name, size, augment in recipes:
        for workers in map(int, options.workers.split(",")):
            run, count = _loader(data, options, size, augment, workers)
            add(f"cache, {name}, {workers} workers", run, count)
    plain = DataLoader(
        ArticleData(folder, options.images, options.size), options.batch, shuffle=True, drop_last=True
    )
    add(
        "the article's loader: decode, resize, flips, normalise",
        lambda: sum(1 for _ in plain),
        len(plain) * options.batch,
    )
    return runs, counts


def _loader(
    data: Dataset, options: argparse.Namespace, size: str, augment: list[Any], workers: int
) -> tuple[Callable[[], object], int]:
    """Our loader over the cache, as the training job builds it; its workers stay between epochs."""
    config = resolve(
        ("benchmark", {"size": size, "augment": augment, "batch_size": options.batch, "workers": workers})
    )
    geometry, world = Geometry.parse(size), World(torch.device("cpu"))
    name = f"decoded-{size.replace(' ', '-')}"
    decoded = Decoded(data, data.splits["train"][: options.images], geometry, 3, options.cache, name=name)
    batches = TrainingBatches(len(decoded), options.batch, config.seed, drop_last=True)
    loader = training_loader(decoded, Augmentation(augment, config.seed), batches, config, world)

    def run() -> None:
        for batch in loader:
            assert batch.images.dtype == batch.masks.dtype == torch.uint8
        batches.epoch += 1

    return run, len(batches) * options.batch


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
