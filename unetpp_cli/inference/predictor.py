"""From an image to its mask, probabilities and doubts, at its own size. Used by predict, eval and training.

The network knows no images and the jobs know no logits; what lies between is here: normalisation, the
geometry, tiles when memory asks for them, the way back to the original size, depth and ensemble.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unetpp_cli.data.geometry import Geometry
from unetpp_cli.devices import place, resolve_precision, set_arithmetic
from unetpp_cli.errors import Stopped, UserError
from unetpp_cli.export.onnx_network import OnnxNetwork, open_model
from unetpp_cli.inference.logits import (
    ensemble,
    normalize,
    restore,
)
from unetpp_cli.inference.passes import Passes, Window
from unetpp_cli.inference.prediction import OnProbabilities, Prediction, predictions
from unetpp_cli.inference.segmentation import ImageLike, Images, Segmentation, as_pixels
from unetpp_cli.inference.tiles import Tiling, automatic_tiling, check_tiling
from unetpp_cli.memory import memory_left
from unetpp_cli.network.built_in import BUILT_IN, CAMVID11
from unetpp_cli.network.weights import Model
from unetpp_cli.version import __version__

Bytes = npt.NDArray[np.uint8]

BATCH = {"cpu": 1, "cuda": 8}
"""Images of one size that go through the network together: on a CPU one at a time is as fast."""


_STRIP = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Logits of a head that are brought to the image's size at once. Those of a 960x720 image of 11 classes are
still within the CPU's share: whole they take two thirds of the time that they take in strips."""

_BUDGET, _UNKNOWN_LEFT = 0.5, 4 << 30
"""The share of the memory left that a pass may take: other threads want some, too, and decoded pictures. And
what is taken to be left, in bytes, where nothing tells."""


class Predictor:
    """A model that takes images as they come. Nothing in it changes: several threads may use it at once.

        predictor = Predictor.load("model.safetensors")
        predictor("street.jpg").save("mask.png")

    Args:
        model: what to use.
        device: where; the network is moved there.
        precision: as `devices.resolve_precision` gives it.
        depth: the head to use, the deepest by default.
        use_ensemble: average all heads up to `depth` instead.
        size: overrides the geometry in the model's header.
        tta: as `passes.parse_tta` gives it.
        tiling: how images that are larger than a tile are cut.
        tile_automatically: without `tiling`, cut those for which memory would not do.

    Raises:
        UserError: the model has no head at `depth`, or `tiling` cannot be.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        *,
        precision: str = "fp32",
        depth: int | None = None,
        use_ensemble: bool = False,
        size: Geometry | None = None,
        tta: Sequence[str] = (),
        tiling: Tiling | None = None,
        tile_automatically: bool = True,
    ) -> None:
        self.header, self.hash = model.header, model.hash
        self.device = torch.device(device)
        if isinstance(model.network, OnnxNetwork):
            self.device, precision = model.network.device, "fp32"  # or what the file computes in
            tile_automatically = tile_automatically and model.network.interface.size is None
            _refuse_views(model.network, tta, tiling)
        self.network = place(model.network.eval(), self.device)
        self.precision, self.use_ensemble, self.tta = precision, use_ensemble, tuple(tta)
        self.geometry = size or model.header.geometry
        self.depth = check_depth(depth, self.network.head_depths)
        self.tiling = tiling
        if tiling is not None:
            check_tiling(tiling, self.network.pad_multiple, self.depth)
        # Asked once: an image must not be cut on one day and whole on the next, in the middle of a run.
        left = memory_left(self.device)
        self._budget = _BUDGET * (_UNKNOWN_LEFT if left is None else left) if tile_automatically else None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = CAMVID11,
        device: torch.device | str | None = None,
        *,
        precision: str = "auto",
        **options: Any,
    ) -> Predictor:
        """The predictor of a weights file, ready to be called.

        On a GPU it sets torch's process-wide switches for TF32 and for repeatable algorithms, as the command
        line does: fp32 is exact there, too.

        Args:
            model: a weights file, or the name of built-in weights; the built-in CamVid weights by default.
            device: `cpu`, `cuda`, `cuda:1`; by default the first GPU if there is one, else the CPU. An ONNX
                file is computed by onnxruntime: on the CPU, but for builds of it that know GPUs.
            precision: `fp32`, `bf16`, `fp16`, `tf32`; `auto` is bf16 where the hardware has it natively.
            options: of the class.

        Raises:
            UserError: the file is no weights file, has no such head, or the hardware no such precision.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        where = torch.device(device)
        path = Path(model)
        if not path.exists():
            path = BUILT_IN.get(str(model), path)
        resolved = resolve_precision(precision, where)
        if where.type == "cuda":
            set_arithmetic(where, resolved, deterministic=False, training=False)
        return cls(open_model(path, where), where, precision=resolved, **options)

    @overload
    def __call__(self, images: ImageLike) -> Segmentation: ...
    @overload
    def __call__(self, images: Images) -> list[Segmentation]: ...
    def __call__(self, images: ImageLike | Images) -> Segmentation | list[Segmentation]:
        """Segments an image, or several: those of one size go through the network together.

        Args:
            images: a path, the bytes of a file, a Pillow image, a uint8 array (H, W, 3), (H, W, 4) or (H, W);
                or a list or tuple of them.

        Raises:
            UserError: a file that cannot be read.
            ValueError: an array of another shape or type.
        """
        if not isinstance(images, (list, tuple)):
            return self([images])[0]
        pixels = [as_pixels(image, self.channels) for image in images]
        found: dict[int, Bytes] = {}
        for numbers in self._batches(pixels):
            for number, prediction in zip(
                numbers, self.predict([pixels[number] for number in numbers]), strict=True
            ):
                found[number] = prediction.mask
        return [self._segmentation(image, found[number]) for number, image in enumerate(pixels)]

    def _batches(self, images: Sequence[Bytes]) -> Iterator[list[int]]:
        """The numbers of images that make a batch: of one size at the network, none of them tiled."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            if self.is_tiled(*image.shape[:2]):
                yield [number]
            else:
                sizes.setdefault(self.network_size(*image.shape[:2]), []).append(number)
        for numbers in sizes.values():
            size = BATCH.get(self.device.type, 1)
            for start in range(0, len(numbers), size):
                yield numbers[start : start + size]

    def _segmentation(self, image: Bytes, mask: Bytes) -> Segmentation:
        def probabilities() -> npt.NDArray[np.float32]:
            scores = self.scores(image)
            found: npt.NDArray[np.float32] = (
                (scores if self.use_ensemble else scores.softmax(0)).cpu().numpy()
            )
            return found

        return Segmentation(image, mask, self.header.classes, self.text, probabilities)

    @property
    def text(self) -> dict[str, str]:
        """How its masks come about: what stands in the text chunks of their files."""
        depth = f"ensemble of {', '.join(map(str, self.heads))}" if self.use_ensemble else str(self.depth)
        text = {
            "Software": f"unetpp {__version__}",
            "Model": self.hash,
            "Depth": depth,
            "Precision": self.precision,
            "Geometry": str(self.geometry),
        }
        if self.tta:
            text["TTA"] = ",".join(self.tta)
        if self.tiling is not None:
            text["Tile"] = str(self.tiling)
        return text

    @property
    def channels(self) -> int:
        """Channels of the images it takes: 3 (RGB) or 1 (grey)."""
        return self.network.in_channels

    @property
    def heads(self) -> tuple[int, ...]:
        """The depths of all heads up to `depth`."""
        return tuple(depth for depth in self.network.head_depths if depth <= self.depth)

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) at which the network meets an image of (height, width)."""
        return self.geometry.size(height, width)

    def is_tiled(self, height: int, width: int) -> bool:
        """Whether an image of (height, width) is cut, by wish or because memory would not do."""
        return self.passes(height, width).is_cut(*self.network_size(height, width), (self.depth,))

    def passes(self, height: int, width: int) -> Passes:
        """How the network is asked about an image of (height, width)."""
        whole = Passes(self.network, self.precision, self.tta, self.tiling)
        if self.tiling is not None or self._budget is None:
            return whole
        # As if every head were asked for, so that the answer is one for all questions.
        per_pixel, values = whole.bytes_per_pixel(self.heads), self.network.num_classes * len(self.heads)
        size, multiple = self.network_size(height, width), self.network.pad_multiple
        tiling = automatic_tiling(*size, multiple, self.depth, self._budget, per_pixel, values)
        return Passes(self.network, self.precision, self.tta, tiling)

    @torch.inference_mode()
    def predict(
        self,
        images: Sequence[Bytes],
        *,
        uncertainty: bool = False,
        on_probabilities: OnProbabilities | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Prediction]:
        """Masks, and on request how sure they are and the probabilities.

        Whatever the size of an image, its K x H x W logits or probabilities are never held at once; when it
        is tiled, nothing but the image and its maps grows with its height.

        Args:
            images: (H, W, 3) uint8 RGB, or (H, W) for a network of one channel. Several make one batch, or as
                few as memory allows: they share one `network_size`, and none of them `is_tiled`.
            uncertainty: also compute entropy and disagreement; the heads come from the same pass.
            on_probabilities: told the image's number, a first row, and (rows, W, K) float16 probabilities:
                every image in strips from top to bottom, one image after another.
            stop: asked before each tile of an image that is tiled, and between the parts of a batch for which
                memory would not do; true gives up.

        Raises:
            ValueError: the images make no batch.
            Stopped: `stop` said so.
        """
        sizes = {self.network_size(*image.shape[:2]) for image in images}
        if len(images) > 1 and (len(sizes) > 1 or any(self.is_tiled(*image.shape[:2]) for image in images)):
            raise ValueError("images of several sizes, or tiled ones, make no batch")
        depths = self.heads if self.use_ensemble or uncertainty else (self.depth,)
        if not images:
            return []
        finish = functools.partial(
            predictions,
            strip=self._strip,
            use_ensemble=self.use_ensemble,
            uncertainty=uncertainty,
            several_heads=len(self.heads) > 1,
            on_probabilities=on_probabilities,
        )
        size, passes = sizes.pop(), self.passes(*images[0].shape[:2])
        sized = [self.geometry.image(image) for image in images]
        if len(images) == 1:
            bands = passes.bands(self._window(sized[0]), *size, depths, stop)
            return finish(bands, images, size)
        together = self._together(*size)
        done: list[Prediction] = []
        while len(done) < len(images):
            if done and stop():
                raise Stopped
            start = len(done)
            heads = passes.heads(self._normalized(np.stack(sized[start : start + together])), depths)
            while len(done) < start + heads[0].shape[0]:
                number = len(done)
                some = images[number : number + self._alike(images[number : start + together])]
                band = [head[number - start : number - start + len(some)] for head in heads]
                done += finish([(0, band)], some, size, number=number)
        return done

    def mask(self, image: Bytes) -> Bytes:
        """The class index of each pixel: (H, W) uint8, of the image's own size."""
        return self.predict([image])[0].mask

    @torch.inference_mode()
    def scores(self, image: Bytes) -> Tensor:
        """Logits, or with the ensemble probabilities, at the image's own size: (K, H, W) float32.

        For small images: it holds them whole.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) for a network of one channel.
        """
        height, width = image.shape[:2]
        depths = self.heads if self.use_ensemble else (self.depth,)
        heads = self.passes(height, width).heads(self._normalized(self.geometry.image(image)[None]), depths)
        restored = [restore(head, height, width) for head in heads]
        return (ensemble(restored) if self.use_ensemble else restored[0])[0]

    def _normalized(self, images: Bytes) -> Tensor:
        """(N, h, w[, C]) uint8 -> (N, C, h, w) float32 on the device, channels last."""
        # torch takes no arrays that cannot be written, as Pillow gives them, and none that run backwards.
        if not images.flags.writeable or min(images.strides) < 0:
            images = images.copy()
        x = torch.from_numpy(images if images.ndim == 4 else images[..., None]).permute(0, 3, 1, 2)
        return normalize(x, self.header.mean, self.header.std, self.device)

    def _window(self, image: Bytes) -> Window:
        """The image part by part, each normalised when it is asked for: never all of it in float32."""
        return lambda rows, columns: self._normalized(image[None, rows, columns])

    @property
    def _strip(self) -> int:
        return _STRIP.get(self.device.type, _STRIP["cpu"])

    def _together(self, height: int, width: int) -> int:
        """How many images that meet the network at this size go through it at once."""
        if self._budget is None:
            return 1 << 30
        each = height * width * self.passes(height, width).bytes_per_pixel(self.heads)
        return max(1, int(self._budget / each))

    def _alike(self, images: Sequence[Bytes]) -> int:
        """How many of the images, from the first on, have its size and fit into a strip together."""
        shape = images[0].shape[:2]
        most = max(1, self._strip // (self.network.num_classes * shape[0] * shape[1]))
        alike = 1
        while alike < min(most, len(images)) and images[alike].shape[:2] == shape:
            alike += 1
        return alike


def _refuse_views(network: OnnxNetwork, tta: Sequence[str], tiling: Tiling | None) -> None:
    """Raises a UserError where an exported network of one size would have to look at others."""
    wished = [option for option, wanted in (("--tta", tta), ("--tile", tiling)) if wanted]
    if network.interface.size is not None and wished:
        height, width = network.interface.size
        raise UserError(
            f"{' and '.join(wished)}: {network.path} takes {width}x{height} pixels only.",
            "Leave it out, or export with --dynamic.",
        )


def check_depth(depth: int | None, heads: Sequence[int]) -> int:
    """`depth`, or the deepest of `heads` when none is given.

    Raises:
        UserError: there is no such head.
    """
    if depth is None:
        return heads[-1]
    if depth not in heads:
        there = ", ".join(map(str, heads))
        raise UserError(f"--depth {depth}: this model has no head at that depth.", f"It has {there}.")
    return depth
