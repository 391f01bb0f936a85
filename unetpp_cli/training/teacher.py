"""A trained network that another one learns from (knowledge distillation). Called by the training loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unetpp_cli.data.classes import ClassSet
from unetpp_cli.devices import autocast, place
from unetpp_cli.errors import UserError, listed
from unetpp_cli.inference.logits import normalize
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model


@dataclass(frozen=True)
class Teacher:
    """The deepest head of `network`, in evaluation mode, asked about the very samples of the training.

    Attributes:
        mean, std: what the network's input is normalised with.
        hash: of its weights file.
        terms: that go with it, and so with what learns from it.
    """

    network: UNetPlusPlus
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    hash: str = ""
    terms: str = ""

    @staticmethod
    def of(model: Model, classes: ClassSet, channels: int, device: torch.device) -> Teacher:
        """The teacher that `model` is.

        Args:
            classes, channels: of the network that is to learn.

        Raises:
            UserError: the model knows other classes, or images of other channels.
        """
        header = model.header
        if header.classes.names != classes.names:
            raise UserError(
                f"--teacher {model.path} knows the classes {listed(header.classes.names, 12)}, the data have "
                f"{listed(classes.names, 12)}.",
                "Take one that was trained on the same classes.",
            )
        if model.network.in_channels != channels:
            raise UserError(
                f"--teacher {model.path} takes {model.network.in_channels} channels, not {channels}.",
                f"Add --set channels={model.network.in_channels}, or take another teacher.",
            )
        network = place(model.network.eval().requires_grad_(False), device)
        terms = str(header.data.get("terms", ""))
        return Teacher(network, header.mean, header.std, device, model.hash, terms)

    @torch.no_grad()
    def __call__(self, images: Tensor, precision: str) -> Tensor:
        """Logits (N, classes, H, W) of uint8 images (N, C, H, W)."""
        with autocast(self.device, precision):
            logits: Tensor = self.network(normalize(images, self.mean, self.std, self.device))
        return logits
