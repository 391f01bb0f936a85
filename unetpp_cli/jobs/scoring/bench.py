"""Where, how and on what prune scores and times networks. Called by `jobs.prune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.data.layouts import Dataset, Pair
from unetpp_cli.devices import autocast, device_name, place
from unetpp_cli.errors import UserError
from unetpp_cli.inference.metrics import DepthResult
from unetpp_cli.jobs.scoring.measure import Way, block_of, measure, open_data_of
from unetpp_cli.network.cost import milliseconds
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model
from unetpp_cli.report import console

_SAMPLE = (360, 480)
"""(H, W) of the image whose cost is shown where there are no data, before the geometry: CamVid's frames."""


@dataclass(frozen=True)
class Bench:
    """What every measurement of one command shares.

    Attributes:
        device, precision: as `devices` resolved them.
        geometry: of the model, or what overrides it.
        data: None where nothing is scored.
        split: of `data`, on which networks are scored.
    """

    device: torch.device
    precision: str
    geometry: Geometry
    data: Dataset | None = None
    split: str = ""

    def with_data(
        self,
        model: Model,
        where: str | None,
        split: str | None,
        split_by: str | None,
        hold_out: str | None,
    ) -> Bench:
        """The bench with data to score `model` on, which it announces: by default its run's, and val.

        Raises:
            UserError: there are no data, or they have no such split, or their classes do not fit.
        """
        data = open_data_of(model, where, split_by, hold_out)
        split = split or "val"
        if split not in data.splits:
            raise UserError(
                f"{data.name} has no {split} split to measure on.",
                f"Choose --split {' or '.join(data.splits)}.",
            )
        ready = replace(self, data=data, split=split)
        console.say(f"Data: {data.name}: {data.summary()}")
        held = f" ({data.split_by})" if data.hold_out else ""
        console.say(
            f"Split: {split}, {len(ready.pairs)} images{held}, on {device_name(self.device)} in "
            f"{self.precision}"
        )
        for text in data.warnings:
            console.warn(text)
        return ready

    @property
    def pairs(self) -> Sequence[Pair]:
        """What is scored."""
        return self.data.splits[self.split] if self.data else ()

    def size(self) -> tuple[int, int]:
        """(H, W) at which an image meets the network: the first of the split, if there is one."""
        return self.geometry.size(*(self.data.image_size(self.pairs[0]) if self.data else _SAMPLE))

    def rows(self, model: Model, *, timing: bool = False) -> list[DepthResult]:
        """What each depth of `model` is worth. Its network comes back as it was loaded, for the proof."""
        assert self.data is not None
        try:
            way = Way(self.device, self.precision, self.geometry, block=block_of(self.data), timing=timing)
            return measure(model, self.data, self.pairs, way).rows
        finally:
            model.network.to("cpu").to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def milliseconds(self, network: UNetPlusPlus) -> float:
        """Per image, in the memory layout in which eval and predict run; moves the network there."""
        with autocast(self.device, self.precision):
            return milliseconds(place(network, self.device), *self.size())

    def conditions(self) -> dict[str, Any]:
        """What a time depends on beside the network and the size, for the header."""
        if self.device.type == "cuda":
            return {"precision": self.precision, "device": torch.cuda.get_device_name(self.device)}
        return {"precision": self.precision, "device": "CPU", "threads": torch.get_num_threads()}
