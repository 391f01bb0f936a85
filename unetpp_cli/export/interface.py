"""What an exported file takes and gives. Imports no torch: the file's metadata say it, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interface:
    """What an exported file takes and gives.

    Attributes:
        depths: of the heads that are outputs, shallowest first.
        argmax: outputs are uint8 class indices (N, H, W), else float32 logits (N, K, H, W).
        normalize: the input is uint8 (N, H, W, C) as pictures are decoded, else float32 (N, C, H, W) that was
            scaled to 0..1 and normalised with the header's mean and std.
        size: (height, width) that every input has; None where any will do.
    """

    depths: tuple[int, ...]
    argmax: bool = False
    normalize: bool = False
    size: tuple[int, int] | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs' names: `logits`, `mask`, or with several heads `logits_1`, `logits_2`, ..."""
        kind = "mask" if self.argmax else "logits"
        return (kind,) if len(self.depths) == 1 else tuple(f"{kind}_{depth}" for depth in self.depths)

    def to_json(self) -> dict[str, object]:
        """For the file's metadata."""
        return {
            "depths": list(self.depths),
            "argmax": self.argmax,
            "normalize": self.normalize,
            "size": None if self.size is None else list(self.size),
        }

    @staticmethod
    def from_json(data: dict[str, object]) -> Interface:
        """The inverse of `to_json`."""
        size = data["size"]
        return Interface(
            depths=tuple(int(depth) for depth in _sequence(data["depths"])),
            argmax=bool(data["argmax"]),
            normalize=bool(data["normalize"]),
            size=None if size is None else (int(_sequence(size)[0]), int(_sequence(size)[1])),
        )


def _sequence(value: object) -> Sequence[int]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value
