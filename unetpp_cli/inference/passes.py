"""How a network is asked: its arithmetic, test-time augmentation, tiles. Called by the predictor and by eval.

Whatever is averaged here is averaged as probabilities; what comes out are logits, so that nobody above needs
to know how many passes there were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp_cli.devices import autocast
from unetpp_cli.errors import Stopped, UserError, nearest
from unetpp_cli.inference.logits import restore
from unetpp_cli.inference.tiles import Span, Tiling, pass_bytes, spans
from unetpp_cli.memory import memory_left
from unetpp_cli.network.unetpp import UNetPlusPlus

TTA = ("flip", "scales")
"""What `--tta` takes: the mirrored image, too; the image at three sizes."""

SCALES = (0.75, 1.0, 1.25)
"""Of the size at which the network meets the image."""

_TILES_AT_ONCE = 8
"""On a GPU, where larger batches gain nothing more; the CPU is busy with one."""


def parse_tta(text: str) -> tuple[str, ...]:
    """`flip,scales`, one of the two, or the empty string -> the same as words, in the order of `TTA`.

    Raises:
        UserError: another word.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in TTA:
            raise UserError(
                f"--tta cannot be '{word}'.", f"Use {' or '.join(TTA)}, or both.{nearest(word, TTA)}"
            )
    return tuple(word for word in TTA if word in words)


Window = Callable[[slice, slice], Tensor]
"""Gives the part of an image in these rows and columns: (1, C, rows, columns), as `Passes.heads` takes it."""


@dataclass(frozen=True)
class Passes:
    """A network and the way it is asked. Holds nothing that changes: threads may share it.

    Attributes:
        network: in eval mode, on its device.
        precision: as `devices.resolve_precision` gives it.
        tta: as `parse_tta` gives it; with both words all combinations are averaged.
        tiling: how larger images are cut; None takes them whole.
    """

    network: UNetPlusPlus
    precision: str = "fp32"
    tta: tuple[str, ...] = ()
    tiling: Tiling | None = None

    @property
    def count(self) -> int:
        """How many passes are averaged."""
        return (2 if "flip" in self.tta else 1) * (len(SCALES) if "scales" in self.tta else 1)

    def work(self, height: int, width: int, depths: Sequence[int] | None = None) -> float:
        """How many times the arithmetic of one plain pass an image of this size takes."""
        views = (2 if "flip" in self.tta else 1) * (sum(s**2 for s in SCALES) if "scales" in self.tta else 1)
        if not self.is_cut(height, width, depths):
            return views
        sides = [
            len(spans) * (spans[0].stop - spans[0].start)
            for spans in self._grid(height, width, self._wanted(depths))
        ]
        multiple = self.network.pad_multiple
        whole = (height + -height % multiple) * (width + -width % multiple)
        return views * sides[0] * sides[1] / whole

    def is_cut(self, height: int, width: int, depths: Sequence[int] | None = None) -> bool:
        """Whether an image that meets the network at this size is cut into tiles.

        Raises:
            UserError: see `tiles.check_tiling`.
        """
        if self.tiling is None:
            return False
        rows, columns = self._grid(height, width, self._wanted(depths))
        return len(rows) * len(columns) > 1

    @torch.inference_mode()
    def heads(self, x: Tensor, depths: Sequence[int] | None = None) -> list[Tensor]:
        """What each head says; only the nodes that the deepest needs are computed.

        Args:
            x: (N, C, h, w) normalised float32 on the network's device.
            depths: of the heads wanted, all by default.

        Returns:
            For each depth (N, K, h, w) float32 whose softmax over dim 1 are the probabilities: the logits of
            a single pass, or the log of the mean probability of several. With tiles that are cropped, and
            without the three sizes, they are those of the whole image; at three sizes each tile is scaled by
            itself, and its rim is then narrower than exactness needs.

        Raises:
            ValueError: the network has no head at one of `depths`.
            UserError: see `tiles.check_tiling`.
        """
        wanted = self._wanted(depths)
        height, width = x.shape[-2:]
        if not self.is_cut(height, width, wanted):
            return self._ask(x, wanted)
        images = [[band for _, band in self.bands(_window(one), height, width, wanted)] for one in x]
        return [
            torch.cat([torch.cat([band[head] for band in bands], 2) for bands in images])
            for head in range(len(wanted))
        ]

    @torch.inference_mode()
    def bands(
        self,
        window: Window,
        height: int,
        width: int,
        depths: Sequence[int] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """As `heads` for one image, in full-width bands of rows, top to bottom; without tiles one band.

        With tiles nothing as high as the image is ever held: each tile asks for the window that it sees.

        Args:
            window: gives the parts of the image.
            height, width: at which the network meets it.
            depths: of the heads wanted, all by default.
            stop: asked before each tile, or before as many as are computed at once; true gives up.

        Yields:
            The band's first row, and for each depth (1, K, rows, width).

        Raises:
            ValueError: the network has no head at one of `depths`.
            UserError: see `tiles.check_tiling`.
            Stopped: `stop` said so.
        """
        wanted = self._wanted(depths)
        if not self.is_cut(height, width, wanted):
            yield 0, self._ask(window(slice(0, height), slice(0, width)), wanted)
            return
        rows, columns = self._grid(height, width, wanted)
        above: list[Tensor] = []  # what earlier tiles add to the rows that come next, when they are blended
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            band = self._band(window, row, columns, wanted, stop)
            for index, part in enumerate(above):
                band[index][:, :, : part.shape[2]] += part
            ready = (following.first if following else height) - row.first
            above = [whole[:, :, ready:].clone() for whole in band] if row.weights else []
            yield row.first, [whole[:, :, :ready, :width] for whole in band]
            del band  # so that there is never more than one

    def _band(
        self,
        window: Window,
        row: Span,
        columns: Sequence[Span],
        depths: Sequence[int],
        stop: Callable[[], bool],
    ) -> list[Tensor]:
        """One row of tiles, weighted if they are blended: per depth (1, K, rows kept, padded width)."""
        band: list[Tensor] = []
        high, wide = row.stop - row.start, columns[0].stop - columns[0].start
        together = self._tiles_at_once(high * wide, depths)
        for start in range(0, len(columns), together):
            if stop():
                raise Stopped
            some = columns[start : start + together]
            seen = [window(slice(row.start, row.stop), slice(one.start, one.stop)) for one in some]
            x = torch.cat([_padded(part, high, wide) for part in seen])
            for head, answers in enumerate(self._ask(x, depths)):
                if start == 0:
                    shape = (1, answers.shape[1], row.last - row.first, columns[-1].stop)
                    band.append(answers.new_zeros(shape))
                for column, answer in zip(some, answers, strict=True):
                    kept = answer[
                        :,
                        row.first - row.start : row.last - row.start,
                        column.first - column.start : column.last - column.start,
                    ]
                    kept = _weighted(kept, row, column)
                    band[head][0, :, :, column.first : column.last] += kept
        return band

    def _ask(self, x: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """`heads` without tiles."""
        if not self.tta:
            return self._run(x, depths)
        total: list[Tensor] = []
        for scale in SCALES if "scales" in self.tta else (1.0,):
            for mirrored in (False, True) if "flip" in self.tta else (False,):
                for head, logits in enumerate(self._view(x, depths, scale, mirrored)):
                    answer = logits.log_softmax(1)
                    if head == len(total):
                        total.append(answer)
                    else:
                        torch.logaddexp(total[head], answer, out=total[head])
        return [head - math.log(self.count) for head in total]

    def _view(self, x: Tensor, depths: Sequence[int], scale: float, mirrored: bool) -> list[Tensor]:
        """The logits of the image seen otherwise, brought back to how it is."""
        height, width = x.shape[-2:]
        multiple = self.network.pad_multiple
        if scale != 1:  # to whole multiples, so that no size is padded more than another
            sides = [max(1, round(scale * side / multiple)) * multiple for side in (height, width)]
            x = F.interpolate(x, size=sides, mode="bilinear", align_corners=False)
        high, wide = x.shape[-2:]
        if not mirrored:
            return [restore(head, height, width) for head in self._run(x, depths)]
        # Padded before it is mirrored: then tiles, which start at multiples, lie alike in both.
        padded = _padded(x, high + -high % multiple, wide + -wide % multiple)
        heads = [head.flip(3)[..., :high, :wide] for head in self._run(padded.flip(3), depths)]
        return [restore(head, height, width) for head in heads]

    def _run(self, x: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """One pass."""
        with autocast(x.device, self.precision):
            if len(depths) == 1:
                return [self.network(x, depths[0]).float()]
            deepest = max(depths)
            there = [depth for depth in self.network.head_depths if depth <= deepest]
            heads = dict(zip(there, self.network.heads(x, deepest), strict=True))
        return [heads[depth].float() for depth in depths]

    def _wanted(self, depths: Sequence[int] | None) -> Sequence[int]:
        there = self.network.head_depths
        wanted = there if depths is None else depths
        if not wanted or any(depth not in there for depth in wanted):
            raise ValueError(f"no heads at depths {wanted}; this network has heads at {there}")
        return wanted

    def _grid(self, height: int, width: int, depths: Sequence[int]) -> tuple[tuple[Span, ...], ...]:
        """Rows and columns of tiles over the image as the network pads it."""
        assert self.tiling is not None
        multiple = self.network.pad_multiple
        sides = (height + -height % multiple, width + -width % multiple)
        return tuple(spans(side, multiple, max(depths), self.tiling) for side in sides)

    def _tiles_at_once(self, pixels: int, depths: Sequence[int]) -> int:
        """How many tiles of so many pixels make a batch."""
        device = next(self.network.parameters()).device
        if device.type == "cpu":
            return 1
        half_left = (memory_left(device) or 0) / 2
        return max(1, min(_TILES_AT_ONCE, int(half_left / (pixels * self.bytes_per_pixel(depths)))))

    def bytes_per_pixel(self, depths: Sequence[int]) -> float:
        """About how much memory a pass takes at its peak, per pixel that the network meets."""
        network, million = self.network, 1_000_000
        half, values = self.precision in ("bf16", "fp16"), network.num_classes * len(depths)
        pixels = int(million * (max(SCALES) ** 2 if "scales" in self.tta else 1))
        taken = pass_bytes(pixels, network.width, max(depths), values, passes=self.count, half=half)
        return taken / million


def _window(image: Tensor) -> Window:
    return lambda rows, columns: image[None, :, rows, columns]


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """Zeros below and to the right, as the network pads: the normalised image's mean colour."""
    below, right = height - x.shape[-2], width - x.shape[-1]
    return F.pad(x, (0, right, 0, below)) if below or right else x


def _weighted(kept: Tensor, row: Span, column: Span) -> Tensor:
    """(K, rows, columns) times the tile's weights, if it has any."""
    for span, shape in ((row, (-1, 1)), (column, (1, -1))):
        if span.weights is not None:
            kept = kept * torch.tensor(span.weights, dtype=kept.dtype, device=kept.device).view(shape)
    return kept
