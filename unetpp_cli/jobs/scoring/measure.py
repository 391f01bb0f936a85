"""What every depth of a model, or a folder of masks, is worth on some pairs. Called by eval and prune."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unetpp_cli.data.dataset import EvaluationExamples, Example
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, Pair, open_dataset
from unetpp_cli.data.predictions import Predictions
from unetpp_cli.devices import place
from unetpp_cli.errors import UserError
from unetpp_cli.inference.bootstrap import BLOCK, blocks_of, difference, interval
from unetpp_cli.inference.counting import Counter, Tally
from unetpp_cli.inference.evaluation import evaluate
from unetpp_cli.inference.metrics import Cost, DepthResult, Difference
from unetpp_cli.inference.passes import Passes
from unetpp_cli.inference.tiles import Tiling
from unetpp_cli.jobs.afar import local
from unetpp_cli.jobs.runs import data_of_run
from unetpp_cli.network.cost import macs, parameters, side_by_side
from unetpp_cli.network.pruning import pruned_header
from unetpp_cli.network.weights import Model, predicted_bytes, stores_half
from unetpp_cli.report.progress import track
from unetpp_cli.values import DEMO


@dataclass(frozen=True)
class Way:
    """How scores are taken: the same for everything that is to be compared.

    Attributes:
        device, precision: where and in which arithmetic networks compute, as `resolve_precision` gives it.
        geometry: overrides the one in a model's header.
        tta, tiling: as for `Passes`.
        block: consecutive frames that the bootstrap draws together.
        boundary: measure the boundary F1, too.
        timing: time each depth, one after the other and apart from the scoring, at the first image's size.
    """

    device: torch.device
    precision: str
    geometry: Geometry | None = None
    tta: tuple[str, ...] = ()
    tiling: Tiling | None = None
    block: int = BLOCK
    boundary: bool = False
    timing: bool = True


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found out about one model, or about one folder of masks.

    Attributes:
        name: what tables call it.
        rows: a model's heads, shallowest first, then their ensemble if there are several; one row for masks.
        tallies: what each row was computed from, by its label.
    """

    name: str
    rows: list[DepthResult]
    tallies: dict[str, Tally]

    @property
    def main(self) -> DepthResult:
        """The row that stands for it: the deepest head, or the masks."""
        return [row for row in self.rows if row.depth is not None or row.name][-1]

    @property
    def tally(self) -> Tally:
        """Of `main`."""
        return self.tallies[self.main.label]

    def steps(self) -> list[Difference]:
        """How each shallower head differs from the deepest one."""
        heads = [row for row in self.rows if row.depth is not None]
        return [between(self, self.main, self, row) for row in heads[:-1]]


def block_of(data: Dataset, wish: int | None = None) -> int:
    """Images that the bootstrap draws together: 20, but 1 of the demo, whose scenes are no film."""
    return wish or (1 if data.layout == DEMO else BLOCK)


def open_data_of(model: Model, where: str | None, split_by: str | None, hold_out: str | None) -> Dataset:
    """The data at `where`, or without it those of the model's run, in the model's classes.

    Unless `split_by` says otherwise, a run's own data are split as the run split them. What the training held
    out is held out here, too, wherever there are images of these names: they are what the model never saw.

    Args:
        hold_out: empty for nothing; None for what the training held out.

    Raises:
        UserError: there are no data, or their classes do not fit.
    """
    own = data_of_run(model.path)
    where = where or own
    if not where:
        raise UserError(
            f"--data is missing: what should {model.path} be scored on?",
            "Add --data ./camvid, or --data demo for a run on the demo.",
        )
    recipe = model.header.recipe
    if split_by is None and own and Path(own).resolve() == Path(where).resolve():
        split_by = str(recipe.get("split_by") or "") or None
    remembered = "" if split_by == "random" else str(recipe.get("hold_out") or "")
    if hold_out is None and remembered:
        with contextlib.suppress(UserError):  # other data than the model's
            return _opened(model, where, split_by, remembered)
    return _opened(model, where, split_by, hold_out)


def _opened(model: Model, where: str, split_by: str | None, hold_out: str | None) -> Dataset:
    return open_dataset(
        local(where),
        classes=model.header.classes,
        split_by=split_by,
        hold_out=hold_out,
        seed=int(model.header.recipe.get("seed", 0)),  # of a random split
    )


def between(one: Measured, first: DepthResult, other: Measured, second: DepthResult) -> Difference:
    """How `second`, a row of `other`, differs from `first`, a row of `one`, on the same images."""
    names = (first.label, second.label) if one is other else (one.name, other.name)
    return difference(one.tallies[first.label], other.tallies[second.label], names, first.scores.classes)


def measure(model: Model, data: Dataset, pairs: Sequence[Pair], way: Way, name: str = "") -> Measured:
    """Scores every head of `model`, and their ensemble, and says what each depth costs.

    Args:
        data: decoded in the model's classes; `pairs` are some of its.
    """
    geometry = way.geometry or model.header.geometry
    network = place(model.network, way.device)
    passes = Passes(network, way.precision, way.tta, way.tiling)
    examples = EvaluationExamples(data, pairs, geometry, network.in_channels)
    cuda = way.device.type == "cuda"
    loader: DataLoader[Example] = DataLoader(
        examples,
        batch_size=8 if cuda else 1,
        collate_fn=list,
        num_workers=min(8, os.cpu_count() or 1) if cuda else 1 if len(pairs) > 16 else 0,
    )
    with track(len(pairs), "Scoring") as advance:
        evaluation = evaluate(
            passes.heads,
            network.head_depths,
            loader,
            data.classes,
            model.header.mean,
            model.header.std,
            way.device,
            with_ensemble=len(network.head_depths) > 1,
            blocks=blocks_of([pair.stem for pair in pairs], way.block),
            boundary=way.boundary,
            on_images=advance,
        )
    height, width = geometry.size(*data.image_size(pairs[0]))
    tallies: list[tuple[int | None, Tally]] = [*evaluation.heads.items()]
    if evaluation.ensemble is not None:
        tallies.append((None, evaluation.ensemble))
    costs = _costs(model, passes, height, width, [depth for depth, _ in tallies], way)
    rows = [_row(depth, tally, data, cost) for (depth, tally), cost in zip(tallies, costs, strict=True)]
    return Measured(name, rows, {row.label: tally for row, (_, tally) in zip(rows, tallies, strict=True)})


def measure_masks(masks: Predictions, data: Dataset, pairs: Sequence[Pair], way: Way, name: str) -> Measured:
    """Scores the masks that somebody made of the pairs' images."""
    counter = Counter(
        data.classes,
        torch.device("cpu"),
        blocks_of([p.stem for p in pairs], way.block),
        boundary=way.boundary,
    )
    with track(len(pairs), "Scoring") as advance:
        for index, pair in enumerate(pairs):
            truth = data.read_mask(pair)
            prediction = masks.read(pair, truth.shape)
            counter.add([index], torch.from_numpy(truth)[None], torch.from_numpy(prediction)[None])
            advance(1)
    tally = counter.tally()
    row = _row(None, tally, data, None, name)
    return Measured(name, [row], {row.label: tally})


def _row(depth: int | None, tally: Tally, data: Dataset, cost: Cost | None, name: str = "") -> DepthResult:
    return DepthResult(
        depth=depth,
        scores=tally.scores(data.classes),
        cost=cost,
        boundary=tally.boundary,
        interval=interval(tally, data.classes),
        name=name,
    )


def _costs(
    model: Model, passes: Passes, height: int, width: int, depths: Sequence[int | None], way: Way
) -> list[Cost]:
    """Of each head, or with no depth of all of them, for one image of the size given."""
    architecture = model.header.architecture
    heads = [architecture.heads if depth is None else (depth,) for depth in depths]
    times: list[float | None] = [None] * len(heads)
    peaks: list[int | None] = [None] * len(heads)
    # An exported network computes all its heads whatever is asked for: only the whole has a time.
    timed = [n for n, some in enumerate(heads) if not model.is_exported or some[-1] == heads[-1][-1]]
    if way.timing:

        def asked(some: tuple[int, ...]) -> Callable[[Tensor], object]:
            return lambda image: passes.heads(image, some)

        def note_memory(number: int) -> None:
            if way.device.type == "cuda":
                peaks[timed[number]] = torch.cuda.max_memory_allocated(way.device)
                torch.cuda.reset_peak_memory_stats(way.device)

        if way.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(way.device)
        runs = [asked(heads[number]) for number in timed]
        for number, took in zip(
            timed, side_by_side(passes.network, height, width, runs, on_warm=note_memory), strict=True
        ):
            times[number] = took
    half = not model.is_exported and stores_half(model)
    return [
        Cost(
            parameters=parameters(architecture, some[-1], some),
            gmac=macs(architecture, height, width, some[-1], some) / 1e9 * passes.work(height, width, some),
            file_bytes=_file_bytes(model, some[-1], half),
            milliseconds=took,
            peak_bytes=peak,
        )
        for some, took, peak in zip(heads, times, peaks, strict=True)
    ]


def _file_bytes(model: Model, depth: int, half: bool) -> int:
    """Of the weights file that `unetpp prune --depth` would leave, or of the model's own."""
    if model.is_exported or depth == model.network.depth:
        return model.path.stat().st_size
    return predicted_bytes(pruned_header(model, depth), half=half)
