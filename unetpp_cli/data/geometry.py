"""At which size an image meets the network: one rule, the same in training, predict and eval.

The rule stands in the header of the weights file. Images are resized to it, logits (never masks) are
brought back to the original size. Imports numpy and Pillow only where it touches pixels: the header and the
command line need the rule alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetpp_cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_SIDE = 65_536

_MANY, _TIMES = 1 << 24, 64
"""Pixels that are too many for a picture that has less than a 64th of them: nothing of it would be seen."""


@dataclass(frozen=True)
class Geometry:
    """`stretch WxH`: to exactly that size. `fit N`: the short side becomes N, the aspect is kept.
    `native`: left as it is.

    Attributes:
        mode: `stretch`, `fit` or `native`.
        width, height: pixels. For `fit` both are N; for `native` both are 0.
    """

    mode: str
    width: int = 0
    height: int = 0

    @staticmethod
    def parse(text: str) -> Geometry:
        """Reads `stretch 224x224`, `fit 360`, `native`, or the short forms `224x224` and `360`.

        Raises:
            UserError: it is none of these.
        """
        if text.strip().lower() == "native":
            return Geometry("native")
        if match := re.fullmatch(r"(?:stretch\s+)?(\d+)\s*[xX×]\s*(\d+)", text.strip()):
            width, height = int(match[1]), int(match[2])
            if 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE:
                return Geometry("stretch", width, height)
        if match := re.fullmatch(r"(?:fit\s+)?(\d+)", text.strip()):
            side = int(match[1])
            if 0 < side <= MAX_SIDE:
                return Geometry("fit", side, side)
        raise UserError(
            f"'{text}' is no size.",
            "Write 480x360 (stretch to width x height), 360 (short side, aspect kept) or native.",
        )

    def __str__(self) -> str:
        if self.mode == "stretch":
            return f"stretch {self.width}x{self.height}"
        return f"fit {self.width}" if self.mode == "fit" else "native"

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) at which an image of (height, width) meets the network.

        Raises:
            UserError: `fit` would make a tiny or a very narrow image enormous.
        """
        if self.mode == "stretch":
            return self.height, self.width
        if self.mode == "fit":
            scale = self.height / min(height, width)
            high, wide = max(1, round(height * scale)), max(1, round(width * scale))
            if max(high, wide) > MAX_SIDE or high * wide > max(_MANY, _TIMES * height * width):
                raise UserError(
                    f"An image of {width}x{height} pixels would meet the network at {wide}x{high}: "
                    f"'{self}' is not for so small or narrow a picture.",
                    "Leave it out, or choose --size native or a fixed one like --size 480x360.",
                )
            return high, wide
        return height, width

    def image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resizes a (H, W) or (H, W, C) uint8 image: by area when it shrinks, bilinearly when it grows.

        Halving CamVid's 960x720 frames by area gives the benchmark's 480x360 frames.
        """
        height, width = self.size(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        shrinks = height <= image.shape[0] and width <= image.shape[1]
        return resized(image, height, width, "BOX" if shrinks else "BILINEAR")

    def mask(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resizes a (H, W) uint8 mask of class indices; every pixel keeps a value that was there."""
        height, width = self.size(*mask.shape)
        if (height, width) == mask.shape:
            return mask
        return resized(mask, height, width, "NEAREST")


def resized(pixels: npt.NDArray[np.uint8], height: int, width: int, how: str) -> npt.NDArray[np.uint8]:
    """A (H, W) or (H, W, C) uint8 array at (`height`, `width`), by one of Pillow's ways, such as `BOX`."""
    import numpy as np
    from PIL import Image

    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling[how]))
