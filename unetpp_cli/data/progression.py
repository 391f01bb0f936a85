"""Low resolution first: at which scale of its pixels an epoch trains (progressive resizing).

A sample of half the side costs a quarter of the time and shows the same scene, so a training that begins
small sees each picture several times more often in the same hours (EfficientNetV2, arXiv 2104.00298,
section 4, does so for classification). Called by `data.augment`; `config` checks with it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from unetpp_cli.errors import UserError


@dataclass(frozen=True)
class Progression:
    """Stages of a training, in order; after them come the samples as augmentation leaves them.

    Attributes:
        stages: (last epoch of the stage, factor on the sides of its samples).
    """

    stages: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def parse(text: str, epochs: int) -> Progression:
        """Reads `0.5:0.6,0.75:0.2`: the first 60 % of the epochs at half the side, the next 20 % at 3/4.

        Args:
            text: empty for none.
            epochs: of the whole training.

        Raises:
            UserError: it is no such list, a factor is not between 0 and 1, or the shares add up to over 1.
        """
        stages, passed = [], 0.0
        for stage in text.split(",") if text.strip() else ():
            factor, share = _pair(text, stage)
            passed += share
            stages.append((round(passed * epochs), factor))
        if passed > 1 + 1e-9:  # 0.05 + 0.55 + 0.3 + 0.1 is a little more than 1
            raise UserError(
                f"progressive cannot be '{text}': its shares add up to {passed:g} of the epochs.",
                "Leave some for the full size: 0.5:0.6,0.75:0.2.",
            )
        return Progression(tuple(stages))

    @property
    def full(self) -> int:
        """The first epoch at full size; one after the last when there is none."""
        return self.stages[-1][0] + 1 if self.stages else 1

    def cost(self, epochs: int) -> float:
        """Pixels of a training of `epochs`, as a share of those at full size throughout."""
        return sum(self.factor(epoch) ** 2 for epoch in range(1, epochs + 1)) / epochs

    def factor(self, epoch: int) -> float:
        """The factor on both sides of a sample in `epoch`, which counts from 1."""
        return next((factor for last, factor in self.stages if epoch <= last), 1.0)

    def size(self, height: int, width: int, epoch: int) -> tuple[int, int]:
        """The (height, width) at which a sample of (height, width) meets the network in `epoch`."""
        factor = self.factor(epoch)
        return max(1, round(factor * height)), max(1, round(factor * width))


def _pair(text: str, stage: str) -> tuple[float, float]:
    """`0.5:0.6` as a factor and a share."""
    try:
        factor, share = map(float, stage.split(":"))
    except ValueError:
        factor = share = -1.0
    if not (0 < factor <= 1 and 0 <= share <= 1):
        raise UserError(
            f"progressive cannot be '{text}'.",
            "Write SCALE:SHARE, both from 0 to 1, one for each stage: 0.5:0.6,0.75:0.2.",
        )
    return factor, share
