"""A network as an ONNX file: written, checked against torch by onnxruntime, and only then named.

The packages come with `pip install 'unetpp[onnx]'`; `packages` says so when they are missing.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetpp_cli.errors import UserError
from unetpp_cli.export.check import VERSIONS, Check, check
from unetpp_cli.export.graph import Exported, example
from unetpp_cli.export.metadata import metadata
from unetpp_cli.files import replacing
from unetpp_cli.network.header import Header

_CUDA = "CUDAExecutionProvider"

OPSET = 18
"""Old enough for the runtimes that people have installed; the network needs nothing newer."""


def require(*packages: str) -> None:
    """Raises a UserError with pip's command when one of `packages` is not installed."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"ONNX needs the package {package}, which is not installed.", "pip install 'unetpp[onnx]'"
            ) from error


def write_onnx(path: str | os.PathLike[str], exported: Exported, header: Header) -> Check:
    """Writes `exported` to `path` in one step, once it has been found to answer as torch does.

    Args:
        exported: in eval mode, on the CPU.
        header: of the network as it is exported.

    Raises:
        UserError: a package is missing, the answers differ, or the file cannot be written.
    """
    require("onnx", "onnxscript", "onnxruntime")
    proto = _translated(exported)
    for key, value in metadata(header, exported.interface).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    data = proto.SerializeToString()
    session = open_session(data)
    result = check(exported, lambda image: answers(session, image))
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return result


def open_session(model: bytes | str | os.PathLike[str], device: torch.device | None = None) -> Any:
    """An onnxruntime session, with as many threads as torch uses.

    Args:
        model: the file or its bytes.
        device: a GPU is taken where this build of onnxruntime can, in fp32 without TF32; else the CPU.

    Raises:
        UserError: onnxruntime is missing, or cannot read the file.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    wants_gpu = device is not None and device.type == "cuda"
    if wants_gpu and _CUDA in onnxruntime.get_available_providers():
        providers.insert(0, (_CUDA, {"device_id": str(device.index or 0), "use_tf32": "0"}))  # type: ignore[union-attr]
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # onnxruntime has a class of its own for each kind of damage
        name = "The exported model" if isinstance(model, bytes) else str(model)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be read by onnxruntime: {reason}", "Export it anew.") from error


def device_of(session: Any, wished: torch.device) -> torch.device:
    """Where the session computes."""
    return wished if session.get_providers()[0] == _CUDA else torch.device("cpu")


def answers(session: Any, image: Tensor) -> list[Tensor]:
    """All outputs of the session for one input."""
    given = {session.get_inputs()[0].name: image.detach().cpu().contiguous().numpy()}
    found: Sequence[npt.NDArray[Any]] = session.run(None, given)
    return [torch.from_numpy(np.ascontiguousarray(output)) for output in found]


def _translated(exported: Exported) -> Any:
    """The ONNX model, as a protocol buffer."""
    interface, channels = exported.interface, exported.network.in_channels
    dynamic, size = None, interface.size or (50, 70)
    if interface.size is None:
        axes = (0, 1, 2) if interface.normalize else (0, 2, 3)
        dynamic = {"image": dict(zip(axes, ("batch", "height", "width"), strict=True))}
    image = example(interface, channels, *size, batch=1 if interface.size else 2)
    try:
        with _quiet():
            program = torch.onnx.export(
                exported,
                (image,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                input_names=["image"],
                output_names=list(interface.outputs),
                verbose=False,
            )
    except Exception as error:  # of classes that differ from version to version
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"torch.onnx.export failed: {reason}", VERSIONS) from error
    if program is None:
        raise UserError("torch.onnx.export gave no program.", VERSIONS)
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about its own parts, on which nobody can act."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
