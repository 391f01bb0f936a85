"""When each image stops, simulated: policies, what they cost and give, and mixtures of fixed depths.

`adaptive.py` records and reports; here is the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.quality import Counts, miou

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Records:
    """What every head gave on every image. I images, D heads, C classes.

    Attributes:
        depths: (D,) of the heads.
        counts: (I, D, C, C) confusion.
        sureness: by criterion (I, D); the larger, the surer. -inf where a head cannot tell.
        fixed: (I, D) GMAC of a pass to this head alone.
        stopped: (I, D) GMAC of a pass that stops here, having asked every head on its way.
    """

    depths: tuple[int, ...]
    counts: Counts
    sureness: dict[str, Floats]
    fixed: Floats
    stopped: Floats

    def some(self, images: slice) -> Records:
        """The same of some of the images."""
        sureness = {name: values[images] for name, values in self.sureness.items()}
        return Records(self.depths, self.counts[images], sureness, self.fixed[images], self.stopped[images])


@dataclass(frozen=True)
class Policy:
    """Stop at the first head whose sureness reaches the threshold; the deepest is always sure enough."""

    criterion: str
    threshold: float

    def heads(self, records: Records) -> Numbers:
        """(I,) number of the head at which each image stops."""
        sure = records.sureness[self.criterion] >= self.threshold
        sure[:, -1] = True
        first: Numbers = sure.argmax(1)
        return first

    def outcome(self, records: Records) -> tuple[float, float]:
        """Mean GMAC and mIoU."""
        chosen = self.heads(records)
        images = np.arange(len(chosen))
        cost = float(records.stopped[images, chosen].mean())
        return cost, miou(records.counts[images, chosen].sum(0))


@dataclass(frozen=True)
class Trial:
    """A policy chosen on one part of the images and applied to the other. mIoU as fractions, GMAC as means.

    Attributes:
        shares: of the images, by the head at which they stop.
        deepest: mIoU and GMAC of the deepest head for all.
        mixture: mIoU of the mixture of two fixed depths with the same mean cost.
    """

    policy: Policy
    chosen_on: str
    applied_to: str
    shares: tuple[float, ...]
    gmac: float
    miou: float
    deepest_gmac: float
    deepest_miou: float
    mixture: float

    @property
    def gain(self) -> float:
        """Over the mixture, in points."""
        return 100 * (self.miou - self.mixture)

    @property
    def saved(self) -> float:
        """Share of the arithmetic."""
        return 1 - self.gmac / self.deepest_gmac


def cross(records: Records, criterion: str, max_drop: float) -> list[Trial]:
    """The threshold chosen on the first half of the images and applied to the second, and the reverse.

    Halves, not every other image: neighbouring frames of a drive are nearly the same.
    """
    middle = len(records.counts) // 2
    halves = {"first half": records.some(slice(0, middle)), "second half": records.some(slice(middle, None))}
    (a, first), (b, second) = halves.items()
    return [
        apply(choose(one, criterion, max_drop), one, other, names)
        for one, other, names in ((first, second, (a, b)), (second, first, (b, a)))
    ]


def choose(records: Records, criterion: str, max_drop: float) -> Policy:
    """The cheapest threshold that loses at most `max_drop` points of mIoU against the deepest head."""
    allowed = miou(records.counts[:, -1].sum(0)) - max_drop / 100
    values = records.sureness[criterion]
    candidates = [Policy(criterion, threshold) for threshold in np.unique(values[np.isfinite(values)])]
    outcomes = [(policy.outcome(records), policy) for policy in candidates]
    kept = [(cost, policy.threshold, policy) for (cost, score), policy in outcomes if score >= allowed]
    if not kept:
        return Policy(criterion, np.inf)  # never sure: the deepest head for all
    return min(kept, key=lambda one: one[:2])[2]


def apply(policy: Policy, chosen: Records, held_out: Records, names: tuple[str, str]) -> Trial:
    """What a policy that was chosen on some images gives on others."""
    cost, score = policy.outcome(held_out)
    heads = policy.heads(held_out)
    *_, (_, deepest_cost, deepest_score) = fixed_depths(held_out)
    return Trial(
        policy,
        *names,
        shares=tuple(float((heads == number).mean()) for number in range(len(held_out.depths))),
        gmac=cost,
        miou=score,
        deepest_gmac=deepest_cost,
        deepest_miou=deepest_score,
        mixture=mixed(held_out, best_mixture(chosen, cost), cost),
    )


def fixed_depths(records: Records) -> list[tuple[int, float, float]]:
    """Depth, mean GMAC and mIoU of each head for all images."""
    costs = records.fixed.mean(0)
    scores = [miou(counts) for counts in records.counts.sum(0)]
    return [(d, float(cost), score) for d, cost, score in zip(records.depths, costs, scores, strict=True)]


def best_mixture(records: Records, cost: float) -> tuple[int, int]:
    """The two heads between which to throw dice, for the best mIoU at that mean cost; may be one twice."""
    costs = records.fixed.mean(0)
    affordable = [head for head in range(len(costs)) if costs[head] <= cost] or [0]  # 0: nothing is cheaper
    pairs = [(low, high) for low in affordable for high in range(low, len(costs))]
    return max(pairs, key=lambda pair: (mixed(records, pair, cost), -pair[1]))


def mixed(records: Records, pair: tuple[int, int], cost: float) -> float:
    """mIoU to be expected when the deeper of two heads takes as many images as `cost` allows, at random."""
    low, high = pair
    cheap, dear = records.fixed.mean(0)[[low, high]]
    share = float(np.clip((cost - cheap) / (dear - cheap), 0, 1)) if dear > cheap else 0.0
    return miou((1 - share) * records.counts[:, low].sum(0) + share * records.counts[:, high].sum(0))
