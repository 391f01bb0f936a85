"""`unetpp export`: a weights file as ONNX or as a torch.export program, checked before it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from unetpp_cli.data.dataset import chw
from unetpp_cli.data.geometry import Geometry
from unetpp_cli.errors import UserError
from unetpp_cli.export.check import Check
from unetpp_cli.export.graph import Exported
from unetpp_cli.export.interface import Interface
from unetpp_cli.export.onnx_file import require, write_onnx
from unetpp_cli.export.onnx_network import open_model
from unetpp_cli.export.program import write_program
from unetpp_cli.export.quantize import quantize
from unetpp_cli.files import write_bytes
from unetpp_cli.inference.logits import normalize
from unetpp_cli.inference.predictor import check_depth
from unetpp_cli.jobs.scoring.bench import Bench
from unetpp_cli.jobs.scoring.measure import Measured, Way, block_of, measure
from unetpp_cli.network import pruning
from unetpp_cli.network.header import Header
from unetpp_cli.network.weights import Model, load_model
from unetpp_cli.report import console

SUFFIXES = (".onnx", ".pt2")

CALIBRATION_IMAGES = 64
"""Training images whose activations set the ranges of the integers; taken evenly from the split."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ExportRequest:
    """The options of `unetpp export`.

    Attributes:
        model: a weights file.
        output: the file to write; its suffix is the format.
        depth: of the deepest head that is kept.
        all_depths: every head up to it is an output.
        argmax: outputs are masks.
        normalize: the input is a picture as it is decoded.
        dynamic: inputs of any size and number.
        size: the one size of all inputs.
        int8: quantise, and measure what that costs on `data`.
        overwrite: replace `output`.
    """

    model: Path
    output: Path
    depth: int | None = None
    all_depths: bool = False
    argmax: bool = False
    normalize: bool = False
    dynamic: bool = False
    size: str | None = None
    int8: bool = False
    data: str | None = None
    split: str | None = None
    split_by: str | None = None
    hold_out: str | None = None
    overwrite: bool = False


def export(request: ExportRequest) -> Path:
    """Writes the file, and says how far it is from torch.

    Raises:
        UserError: options that do not go together, a package that is missing, an output that exists, or an
            exported network that does not answer as torch's.
    """
    _refuse(request)
    model = load_model(request.model)
    depth = check_depth(request.depth, model.network.head_depths)
    size = _size(request, model.header.geometry)
    network, header = pruning.prune(model, depth, single_head=not request.all_depths, may_stay=True)
    if size is not None:
        header = replace(header, geometry=Geometry("stretch", size[1], size[0]))
    interface = Interface(network.head_depths, request.argmax, request.normalize, size)
    exported = Exported(network, header, interface).eval()
    if request.int8:
        _export_int8(request, model, exported, header)
    else:
        write = write_onnx if request.output.suffix == ".onnx" else write_program
        console.explain(_agreement(write(request.output, exported, header), request.argmax))
    console.say(_description(interface, network.in_channels, len(header.classes)))
    console.say(f"Wrote {request.output} ({request.output.stat().st_size / 1e6:.2f} MB)")
    return request.output


def _refuse(request: ExportRequest) -> None:
    suffix = request.output.suffix
    if suffix not in SUFFIXES:
        raise UserError(
            f"-o {request.output}: there is no format '{suffix}'.", "End its name with .onnx or .pt2."
        )
    if suffix == ".onnx":
        require("onnx", "onnxscript", "onnxruntime")
    if request.output.exists() and not request.overwrite:
        raise UserError(f"{request.output} exists already.", "Choose another -o, or add --overwrite.")
    if request.dynamic and request.size:
        raise UserError("--dynamic and --size exclude each other.", "Leave one of them away.")
    if request.int8:
        if suffix != ".onnx":
            raise UserError("--int8 is for ONNX files.", "End the name of -o with .onnx.")
        if request.argmax:
            raise UserError(
                "--int8 measures the logits, and --argmax leaves none.", "Leave one of them away."
            )
    unread = {
        "--data": request.data,
        "--split": request.split,
        "--split-by": request.split_by,
        "--hold-out": request.hold_out,
    }
    if not request.int8 and (named := [option for option, value in unread.items() if value]):
        raise UserError(
            f"{' and '.join(named)} without --int8: nothing would be read.", "Leave it away, or add --int8."
        )


def _size(request: ExportRequest, own: Geometry) -> tuple[int, int] | None:
    """The (height, width) of all inputs, or None for any."""
    if request.dynamic:
        return None
    geometry = Geometry.parse(request.size) if request.size else own
    if geometry.mode == "stretch":
        return geometry.height, geometry.width
    if request.size:
        raise UserError(f"--size {request.size} is no single size.", "Write --size 480x360, or --dynamic.")
    console.say(f"Inputs of any size: '{own}' is no single one (--size 480x360 would fix it).")
    return None


def _agreement(found: Check, argmax: bool = False) -> str:
    shapes = ", ".join("x".join(map(str, shape)) for shape in found.shapes)
    same = (
        f"{100 * found.pixels:.2g} % of the pixels have another class" if found.pixels else "no pixel differs"
    )
    far = "" if argmax else f"the largest difference is {found.difference:.1e} of the largest logit, "
    return f"Checked against torch on {len(found.shapes)} inputs ({shapes}): {far}{same}."


def _description(interface: Interface, channels: int, classes: int) -> str:
    """Input and outputs with their shapes."""
    height, width = interface.size or ("H", "W")
    batch = 1 if interface.size else "N"
    given = f"uint8 {batch}x{height}x{width}x{channels}" if interface.normalize else ""
    given = given or f"float32 {batch}x{channels}x{height}x{width}"
    shape = f"uint8 {batch}x{height}x{width}" if interface.argmax else ""
    shape = shape or f"float32 {batch}x{classes}x{height}x{width}"
    return f"Input image: {given}. Output {', '.join(interface.outputs)}: {shape}."


def _export_int8(request: ExportRequest, model: Model, exported: Exported, header: Header) -> None:
    """Writes the 8-bit file, and a table of what it costs and wins beside the other two."""
    geometry = header.geometry
    bench = Bench(_CPU, "fp32", geometry).with_data(
        model, request.data, request.split, request.split_by, request.hold_out
    )
    assert bench.data is not None
    way = Way(_CPU, "fp32", geometry, block=block_of(bench.data))
    measured: list[tuple[str, Measured, int]] = []

    def row(name: str, one: Model, size: int) -> None:
        measured.append((name, measure(one, bench.data, bench.pairs, way), size))  # type: ignore[arg-type]

    row(
        "weights, torch, fp32",
        replace(model, network=exported.network, header=header),
        model.path.stat().st_size,
    )
    with tempfile.TemporaryDirectory(prefix="unetpp-export-") as folder:
        whole = Path(folder) / "fp32.onnx"
        console.explain(_agreement(write_onnx(whole, exported, header)))
        row("ONNX, fp32", open_model(whole), whole.stat().st_size)
        small = Path(folder) / "int8.onnx"
        quantize(whole, small, _calibration(bench, exported, header))
        row("ONNX, int8", open_model(small), small.stat().st_size)
        write_bytes(request.output, small.read_bytes())
    console.out.print(
        _table(measured, f"{bench.data.name} {bench.split}, {len(bench.pairs)} images, {geometry}")
    )
    if loss := loss_sentence(*(one.main.scores.miou for _, one, _ in measured)):
        console.warn(loss)


def loss_sentence(torch_miou: float, onnx_miou: float, int8_miou: float) -> str:
    """What to say when 8 bits cost more than a point of mIoU; empty when they do not. All in 0..1."""
    lost, whole = 100 * (torch_miou - int8_miou), 100 * (torch_miou - onnx_miou)
    if lost <= 1:
        return ""
    return f"In 8 bits it loses {lost:.1f} points of mIoU; the fp32 file loses {max(0.0, whole):.1f}."


def _calibration(bench: Bench, exported: Exported, header: Header) -> Iterator[Tensor]:
    """Training images (those of the split measured on where there are none), as the file takes them."""
    data = bench.data
    assert data is not None
    pairs = data.splits.get("train", ())
    if not pairs:
        console.warn(f"There is no train split: calibrated on {bench.split}, on which it is also measured.")
        pairs = tuple(bench.pairs)
    for index in np.linspace(0, len(pairs) - 1, min(CALIBRATION_IMAGES, len(pairs))).astype(int):
        image = header.geometry.image(data.read_image(pairs[index], exported.network.in_channels))
        pixels = chw(image)[None]
        if exported.interface.normalize:
            yield pixels.permute(0, 2, 3, 1).contiguous()
        else:
            yield normalize(pixels, header.mean, header.std, _CPU).contiguous()


def _table(measured: Sequence[tuple[str, Measured, int]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("", "mIoU %", "pixel acc %", "ms/image", "MB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, one, size in measured:
        scores, cost = one.main.scores, one.main.cost
        took = "" if cost is None or cost.milliseconds is None else f"{cost.milliseconds:.1f}"
        table.add_row(
            name, f"{100 * scores.miou:.2f}", f"{100 * scores.pixel_accuracy:.2f}", took, f"{size / 1e6:.2f}"
        )
    return table
