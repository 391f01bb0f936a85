"""What an exported file says about itself, and reading it back. Imports no torch.

One key holds the weights file's whole header, so that nothing is lost; the others are for people and for
programs that know nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from unetpp_cli.errors import UserError
from unetpp_cli.export.interface import Interface
from unetpp_cli.network.header import Header

HEADER, INTERFACE = "unetpp", "unetpp_interface"


def metadata(header: Header, interface: Interface) -> dict[str, str]:
    """Keys and texts for the file."""
    classes = header.classes
    taken = (
        "uint8, N x H x W x C, as decoded"
        if interface.normalize
        else "float32, N x C x H x W, (x/255-mean)/std"
    )
    return {
        HEADER: header.dumps(),
        INTERFACE: json.dumps(interface.to_json(), sort_keys=True),
        "classes": json.dumps(list(classes.names), ensure_ascii=False),
        "colors": json.dumps([list(color) for color in classes.colors]),
        "void": json.dumps(list(classes.void)),
        "input": taken,
        "geometry": str(header.geometry),
        "mean": json.dumps(list(header.mean)),
        "std": json.dumps(list(header.std)),
        **({"terms": str(header.data["terms"])} if header.data.get("terms") else {}),
    }


def read_metadata(texts: Mapping[str, str], name: str) -> tuple[Header, Interface]:
    """The inverse of `metadata`.

    Args:
        name: of the file, for messages.

    Raises:
        UserError: another program wrote the file, or it is damaged.
    """
    if HEADER not in texts or INTERFACE not in texts:
        raise UserError(
            f"{name} says nothing about its classes and its input: unetpp did not write it.",
            "Export it anew: unetpp export model.safetensors -o model.onnx.",
        )
    try:
        return Header.from_json(json.loads(texts[HEADER])), Interface.from_json(json.loads(texts[INTERFACE]))
    except (AttributeError, LookupError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"What {name} says about itself is damaged ({error!r}).", "Export it anew."
        ) from error
