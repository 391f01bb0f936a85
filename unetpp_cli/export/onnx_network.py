"""An exported network behind the interface of the real one, so that predict and eval need not know."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from unetpp_cli.errors import UserError
from unetpp_cli.export.metadata import read_metadata
from unetpp_cli.export.onnx_file import answers, device_of, open_session
from unetpp_cli.network.header import file_hash
from unetpp_cli.network.unetpp import UNetPlusPlus
from unetpp_cli.network.weights import Model, load_model

SUFFIX = ".onnx"


class OnnxNetwork(UNetPlusPlus):
    """The heads of an ONNX file, computed by onnxruntime. It has no nodes: it cannot be trained or cut.

    Args:
        path: a file that `unetpp export` wrote, with logits as outputs.
        device: a GPU is taken where this build of onnxruntime can; else the CPU.

    Attributes:
        device: where it computes.
        interface: what the file takes and gives.

    Raises:
        UserError: it is no such file, or onnxruntime is missing.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        nn.Module.__init__(self)
        self.path, self.session = path, open_session(path, device)
        self.device = device_of(self.session, device)
        texts = dict(self.session.get_modelmeta().custom_metadata_map)
        self.header, self.interface = read_metadata(texts, str(path))
        if self.interface.argmax:
            raise UserError(
                f"{path} gives masks, no logits: there is nothing to score or to resize in it.",
                "Export it without --argmax for predict and eval.",
            )
        architecture = self.header.architecture
        self.num_classes, self.in_channels = architecture.num_classes, architecture.in_channels
        self.width, self.depth = architecture.width, architecture.depth
        self.head_depths, self.pad_multiple = self.interface.depths, architecture.pad_multiple
        # Whoever wants to know where a network is asks its first parameter.
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)

    def heads(self, image: Tensor, depth: int | None = None) -> list[Tensor]:
        """As of `UNetPlusPlus`; all outputs of the file are computed."""
        logits = self._run(image)
        wanted = self._checked(depth)
        return [one for at, one in zip(self.head_depths, logits, strict=True) if at <= wanted]

    def forward(self, image: Tensor, depth: int | None = None) -> Tensor:
        """As of `UNetPlusPlus`; all outputs of the file are computed."""
        return self.heads(image, depth)[-1]

    def _run(self, image: Tensor) -> list[Tensor]:
        size = self.interface.size
        if size is not None and tuple(image.shape[-2:]) != size:
            height, width = image.shape[-2:]
            raise UserError(
                f"{self.path} takes {size[1]}x{size[0]} pixels only, not {width}x{height}.",
                f"Add --size {size[1]}x{size[0]}, or export with --dynamic.",
            )
        given = self._pixels(image) if self.interface.normalize else image.float()
        parts = [given] if size is None else [given[index : index + 1] for index in range(len(given))]
        found = [answers(self.session, part) for part in parts]
        return [torch.cat(outputs).to(image.device) for outputs in zip(*found, strict=True)]

    def _pixels(self, image: Tensor) -> Tensor:
        """What the image was before it was normalised: (N, H, W, C) uint8."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.header.mean, self.header.std))
        pixels = ((image.float().cpu() * std + mean) * 255).round().clamp(0, 255)
        return pixels.to(torch.uint8).permute(0, 2, 3, 1)


def open_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Model:
    """A weights file, or what was exported from one, ready to be asked.

    Raises:
        UserError: as `load_model`; or it is an ONNX file that cannot be asked here.
    """
    file, place = Path(path), torch.device(device)
    if file.suffix.lower() != SUFFIX:
        return load_model(file, place)
    network = OnnxNetwork(file, place)
    return Model(network.eval(), network.header, file, file_hash(file), is_exported=True)
