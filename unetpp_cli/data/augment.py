"""Augmentation out of the recipe: albumentations transforms by name. Imported by training only.

What happens to a sample is a function of (seed, epoch, index) alone, never of which worker met it when.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unetpp_cli.data.geometry import resized
from unetpp_cli.data.progression import Progression
from unetpp_cli.errors import UserError, nearest

# albumentations asks the network for newer versions when it is imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A

Image = npt.NDArray[np.uint8]


class Augmentation:
    """A pipeline of transforms, drawn anew for each sample.

    Args:
        spec: the recipe's list: `[{"HorizontalFlip": {"p": 0.5}}, ...]`, or plain names for defaults.
        seed: the training's seed.
        progression: in which epochs samples are shrunk afterwards, and how far.

    Raises:
        UserError: a transform that albumentations does not have, or an argument that it does not take.
    """

    def __init__(self, spec: Sequence[Any], seed: int, progression: Progression | None = None) -> None:
        self.seed, self.progression = seed, progression or Progression()
        self.compose = A.Compose([_transform(entry) for entry in spec])

    def __call__(self, image: Image, mask: Image, epoch: int, index: int) -> tuple[Image, Image]:
        """Augments one sample: image (H, W, C) and mask (H, W), both uint8, to images of the new size.

        One generator is shared by all transforms: `Compose.set_random_seed` would give each transform the
        same seed, and so correlate the draws of different transforms.
        """
        sequence = np.random.SeedSequence([self.seed, epoch, index])
        python_seed, numpy_seed = sequence.spawn(2)
        self.compose.set_random_state(
            np.random.default_rng(numpy_seed),
            random.Random(int.from_bytes(python_seed.generate_state(4).tobytes(), "little")),
        )
        out = self.compose(image=image, mask=mask)
        image, mask = out["image"], out["mask"]
        high, wide = mask.shape
        height, width = self.progression.size(high, wide, epoch)
        if (height, width) != (high, wide):
            return resized(image, height, width, "BOX"), resized(mask, height, width, "NEAREST")
        return image, mask


def _transform(entry: Any) -> Any:
    """One transform out of `Name` or `{Name: {argument: value}}`."""
    single = isinstance(entry, Mapping) and len(entry) == 1
    name, given = next(iter(entry.items())) if single else (entry, None)
    given = given or {}
    if not isinstance(name, str) or not isinstance(given, Mapping):
        raise UserError(
            f"augment: {entry!r} is no transform.", "Write '- HorizontalFlip: {p: 0.5}', one a line."
        )
    known = {
        key
        for key in dir(A)
        if isinstance(getattr(A, key), type) and issubclass(getattr(A, key), A.BasicTransform)
    }
    if name not in known:
        raise UserError(
            f"augment: albumentations has no transform '{name}'.{nearest(name, known)}",
            "" if nearest(name, known) else "Its documentation lists them all.",
        )
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an argument it does not know is only a warning to albumentations
        try:
            return getattr(A, name)(**arguments)
        except Exception as error:
            raise UserError(f"augment: {name} does not accept its arguments: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """What is wrong in a few words; albumentations wraps pydantic's reports, a paragraph per argument."""
    for one in (error, error.__cause__, error.__context__):
        if callable(details := getattr(one, "errors", None)):
            return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in details())
    return " ".join(str(error).split()).rstrip(".")
