"""A network as a torch.export program (.pt2): torch alone loads it, without this package. Checked."""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from unetpp_cli.export.check import Check, check
from unetpp_cli.export.graph import Exported, example
from unetpp_cli.export.metadata import metadata
from unetpp_cli.files import replacing
from unetpp_cli.network.header import Header


def write_program(path: str | os.PathLike[str], exported: Exported, header: Header) -> Check:
    """Writes `exported` to `path` in one step, once it has been found to answer as torch does.

    The metadata are the archive's extra files: `torch.export.load(path, extra_files={"classes": ""})`.

    Raises:
        UserError: the answers differ, or the file cannot be written.
    """
    interface, channels = exported.interface, exported.network.in_channels
    dynamic: Any = None
    if interface.size is None:
        axes = (0, 1, 2) if interface.normalize else (0, 2, 3)
        dynamic = {"image": dict.fromkeys(axes, torch.export.Dim.DYNAMIC)}
    image = example(interface, channels, *(interface.size or (50, 70)), batch=1 if interface.size else 2)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            exported,
            (image,),
            dynamic_shapes=dynamic,
            # What it assumes about sizes is then asserted where it matters, not guessed from the example.
            prefer_deferred_runtime_asserts_over_guards=interface.size is None,
        )
        torch.export.save(program, stream, extra_files=metadata(header, interface))
        stream.seek(0)
        module = torch.export.load(stream).module()  # what a reader gets

    def run(given: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            found = module(given)
        return [found] if isinstance(found, Tensor) else list(found)

    result = check(exported, run)
    with replacing(path) as temporary:
        temporary.write_bytes(stream.getvalue())
    return result
