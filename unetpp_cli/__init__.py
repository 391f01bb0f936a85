"""UNet++ for semantic segmentation: train it, see how good each depth is, prune it, paint masks.

The names below are the public Python API; each is imported when it is first used, so that importing the
package stays instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unetpp_cli.version import __version__

if TYPE_CHECKING:
    from unetpp_cli.data.classes import ClassSet
    from unetpp_cli.data.geometry import Geometry
    from unetpp_cli.data.layouts import Dataset, open_dataset
    from unetpp_cli.errors import UserError
    from unetpp_cli.inference.metrics import Scores
    from unetpp_cli.inference.passes import Passes
    from unetpp_cli.inference.prediction import Prediction
    from unetpp_cli.inference.predictor import Predictor
    from unetpp_cli.inference.segmentation import Segmentation
    from unetpp_cli.inference.tiles import Tiling
    from unetpp_cli.network.header import Header, read_header
    from unetpp_cli.network.pruning import prune
    from unetpp_cli.network.unetpp import UNetPlusPlus
    from unetpp_cli.network.weights import Model, load_model, save_model

_HOMES = {
    "ClassSet": "data.classes",
    "Dataset": "data.layouts",
    "Geometry": "data.geometry",
    "Header": "network.header",
    "Model": "network.weights",
    "Passes": "inference.passes",
    "Prediction": "inference.prediction",
    "Predictor": "inference.predictor",
    "Scores": "inference.metrics",
    "Segmentation": "inference.segmentation",
    "Tiling": "inference.tiles",
    "UNetPlusPlus": "network.unetpp",
    "UserError": "errors",
    "load_model": "network.weights",
    "open_dataset": "data.layouts",
    "prune": "network.pruning",
    "read_header": "network.header",
    "save_model": "network.weights",
}

__all__ = [
    "ClassSet",
    "Dataset",
    "Geometry",
    "Header",
    "Model",
    "Passes",
    "Prediction",
    "Predictor",
    "Scores",
    "Segmentation",
    "Tiling",
    "UNetPlusPlus",
    "UserError",
    "__version__",
    "load_model",
    "open_dataset",
    "prune",
    "read_header",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unetpp_cli' has no attribute '{name}'")
    return getattr(importlib.import_module(f"unetpp_cli.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
