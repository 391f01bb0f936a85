"""Does early exit per image pay: stop at the first head that is sure, instead of one depth for all images?

    python benchmarks/adaptive.py --model best.safetensors --data CamVid --split val

Every head looks at every image once; all policies are simulated from that. README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks.measure import table
from benchmarks.policies import Policy, Records, Trial, best_mixture, cross, fixed_depths, mixed
from benchmarks.processes import say
from benchmarks.quality import Images, confusion, open_images
from unetpp_cli.inference.logits import labels, restore
from unetpp_cli.network.cost import macs

SURE = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
CERTAINTY, AGREEMENT = "low mean entropy", "agreement with the head before"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Does early exit per image pay? See benchmarks/README.md.")
    add = parser.add_argument
    add("--model", required=True, help="a weights file with several heads")
    add("--data", required=True, help="what `unetpp train --data` takes")
    add("--split", default="val")
    add(
        "--max-drop", type=float, default=0.5, help="points of mIoU that may be lost against the deepest head"
    )
    add("--worth", type=float, default=0.2, help="points over a mixture of fixed depths from which it pays")
    add("--json", help="file for all figures")
    add("--markdown", help="file for the tables")
    options = parser.parse_args()
    images = open_images(options.model, options.data, options.split)
    if len(images.model.network.head_depths) < 2 or len(images) < 4:
        parser.error("at least two heads and four images are needed")
    records = record(images)
    trials = [trial for name in records.sureness for trial in cross(records, name, options.max_drop)]
    text = report(records, trials, images.name, options)
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(text + "\n", encoding="utf-8")
    if options.json:
        found = [{**asdict(trial), "gain": trial.gain, "saved": trial.saved} for trial in trials]
        fixed = [
            {"depth": depth, "gmac": cost, "miou": score} for depth, cost, score in fixed_depths(records)
        ]
        content = {"data": images.name, "images": len(images), "fixed": fixed, "trials": found}
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


@torch.inference_mode()
def record(images: Images) -> Records:
    """Runs every head over every image, in fp32."""
    network, header = images.model.network, images.model.header
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    depths, classes = network.head_depths, header.classes
    counts, fixed, stopped = [], [], []
    sureness: dict[str, list[list[float]]] = {}
    for number, (x, mask) in enumerate(images, start=1):
        height, width = x.shape[-2:]
        asked = [[one for one in depths if one <= depth] for depth in depths]
        costs = [macs(header.architecture, height, width, heads[-1], heads) / 1e9 for heads in asked]
        stopped.append(costs)
        fixed.append([macs(header.architecture, height, width, one, (one,)) / 1e9 for one in depths])
        restored = [restore(head, *mask.shape) for head in network.heads(x)]
        for name, values in sure_of(restored).items():
            sureness.setdefault(name, []).append(values)
        said = [labels(scores)[0] for scores in restored]
        counts.append([confusion(mask, one, len(classes), tuple(classes.scored)) for one in said])
        if number % 20 == 0 or number == len(images):
            say(f"{number} of {len(images)} images")
    arrays = {name: np.asarray(values) for name, values in sureness.items()}
    return Records(depths, np.asarray(counts), arrays, np.asarray(fixed), np.asarray(stopped))


def sure_of(heads: list[Tensor]) -> dict[str, list[float]]:
    """How sure each head is of one image, by every criterion. heads: (1, C, H, W) logits each."""
    found: dict[str, list[float]] = {}
    before: Tensor | None = None
    for logits in heads:
        log = logits.log_softmax(1)
        probability = log.exp()
        best = probability.max(1)
        for level in SURE:
            share = float((best.values > level).float().mean())
            found.setdefault(f"share of pixels surer than {level}", []).append(share)
        found.setdefault(CERTAINTY, []).append(float((probability * log).sum(1).mean()))
        agreed = -np.inf if before is None else float((best.indices == before).float().mean())
        found.setdefault(AGREEMENT, []).append(agreed)
        before = best.indices
    return found


def report(records: Records, trials: list[Trial], name: str, options: argparse.Namespace) -> str:
    """Tables and verdict, as Markdown."""
    fixed = [
        [f"L{depth}", f"{cost:.3f}", f"{100 * score:.2f}"] for depth, cost, score in fixed_depths(records)
    ]
    best = best_criterion(trials)
    ladder = "/".join(f"L{depth}" for depth in records.depths)
    header = ["sure by", "chosen on", "threshold", f"images that stop at {ladder}, %", "GMAC", "saved"]
    header += ["mIoU, %", "lost", "a mixture of that cost", "gain, points"]
    columns = ["threshold", "GMAC", "mIoU, %", "a mixture of that cost", "gain, points"]
    return "\n".join(
        [
            f"{name}, {len(records.counts)} images, fp32.\n",
            "One depth for all images:\n",
            table(["depth", "GMAC", "mIoU, %"], fixed),
            "Early exit, by the cheapest threshold that on one half of the images loses at most"
            f" {options.max_drop} points, applied to the other half:\n",
            table(header, [_row(trial) for trial in trials]),
            f"All thresholds of '{best}' on all images, chosen with hindsight:\n",
            table(columns, sweep(records, best)),
            verdict([trial for trial in trials if trial.policy.criterion == best], options.worth),
        ]
    )


def _row(trial: Trial) -> list[str]:
    shares = "/".join(f"{100 * share:.0f}" for share in trial.shares)
    lost = 100 * (trial.deepest_miou - trial.miou)
    return [
        *[trial.policy.criterion, trial.chosen_on, f"{trial.policy.threshold:.4f}", shares],
        *[f"{trial.gmac:.3f}", f"{100 * trial.saved:.0f} %", f"{100 * trial.miou:.2f}", f"{lost:+.2f}"],
        *[f"{100 * trial.mixture:.2f}", f"{trial.gain:+.2f}"],
    ]


def sweep(records: Records, criterion: str, steps: int = 9) -> list[list[str]]:
    """Rows for thresholds at equal steps of the sureness that occurs."""
    values = records.sureness[criterion]
    rows = []
    for threshold in np.quantile(values[np.isfinite(values)], np.linspace(0, 1, steps)):
        cost, score = Policy(criterion, float(threshold)).outcome(records)
        other = mixed(records, best_mixture(records, cost), cost)
        figures = [100 * score, 100 * other]
        rows.append([f"{threshold:.4f}", f"{cost:.3f}", *[f"{figure:.2f}" for figure in figures]])
        rows[-1].append(f"{100 * (score - other):+.2f}")
    return rows


def best_criterion(trials: list[Trial]) -> str:
    """The one whose worse half gains most; with hindsight, which is in favour of early exit."""
    worst: dict[str, float] = {}
    for trial in trials:
        name = trial.policy.criterion
        worst[name] = min(worst.get(name, np.inf), trial.gain)
    return max(worst, key=lambda name: worst[name])


def verdict(trials: list[Trial], worth: float) -> str:
    """One sentence about the two halves of one criterion."""
    gains = " and ".join(f"{trial.gain:+.2f}" for trial in trials)
    saved = " and ".join(f"{100 * trial.saved:.0f} %" for trial in trials)
    pays = all(trial.gain >= worth and trial.saved > 0 for trial in trials)
    how = (
        f"by its best criterion ({trials[0].policy.criterion}) it saves {saved} of the arithmetic on the two"
        f" halves held out, and differs by {gains} points of mIoU from a mixture of fixed depths of that cost"
    )
    if pays:
        return f"Early exit per image pays here: {how}."
    return f"Early exit per image does not pay here: {how} (worth it from {worth:+.2f} on both)."


if __name__ == "__main__":
    raise SystemExit(main())
