"""An ONNX file in 8-bit integers: static quantisation with pictures to calibrate on."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from unetpp_cli.export.onnx_file import require
from unetpp_cli.files import replacing


def quantize(
    source: str | os.PathLike[str], target: str | os.PathLike[str], images: Iterable[Tensor]
) -> None:
    """Writes the 8-bit form of `source` to `target` in one step; its metadata come along.

    Weights become int8, a scale per output channel; activations uint8, with the range that they have on the
    calibration images. Quantise-dequantise pairs (QDQ) mark what runs in integers; transposed convolutions
    stay in floating point, since onnxruntime has no integer kernel for them.

    Args:
        images: inputs as the file takes them, one image each.

    Raises:
        UserError: a package is missing, or the file cannot be written.
    """
    require("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(os.fspath(source))
    texts = {entry.key: entry.value for entry in model.metadata_props}
    with tempfile.TemporaryDirectory(prefix="unetpp-int8-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.level
        logging.root.setLevel(logging.ERROR)  # advice to preprocess, which such a graph does not need
        try:
            made = Path(folder) / "int8.onnx"
            quantize_static(
                os.fspath(source),
                os.fspath(made),
                _Reader(model.graph.input[0].name, images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv", "Relu", "MaxPool", "Concat"],
            )
        finally:
            logging.root.setLevel(before)
        result = onnx.load(os.fspath(made))
    del result.metadata_props[:]
    for key, value in texts.items():
        entry = result.metadata_props.add()
        entry.key, entry.value = key, value
    with replacing(target) as temporary:
        temporary.write_bytes(result.SerializeToString())


class _Reader:
    """The calibration images as onnxruntime asks for them."""

    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self._given: Iterator[dict[str, Any]] = ({name: image.numpy()} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        """The next input by its name; None after the last."""
        return next(self._given, None)
