"""From a network's logits to what they mean: at the image's size, as probabilities, labels and doubts.

Tensors only. Called by the predictor, by the evaluation and by the passes that average.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """(N, C, H, W) uint8 -> float32 on `device`, channels last: pixel values 0..1, less mean, over std."""
    x = images.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return (x - _on_device(tuple(mean), device)) / _on_device(tuple(std), device)


@functools.lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Of pixel values 0..255, per channel: (1, C, 1, 1). Kept, since to copy it there waits for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor([255.0 * value for value in values], device=device).view(1, -1, 1, 1)


def restore(logits: Tensor, height: int, width: int) -> Tensor:
    """Brings logits (N, C, h, w) to (N, C, height, width), bilinearly, in float32."""
    logits = logits.float()
    if logits.shape[-2:] == (height, width):
        return logits
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)


def restored_strips(
    bands: Iterable[tuple[int, Sequence[Tensor]]],
    size: tuple[int, int],
    height: int,
    width: int,
    most: int,
) -> Iterator[tuple[int, list[Tensor]]]:
    """`restore` for logits that come in bands of rows and shall never be there whole.

    Args:
        bands: top to bottom: the first row, and for each head (N, C, rows, w).
        size: (h, w) of the whole logits.
        height, width: of the image.
        most: values that a strip of one head may hold, but a row always.

    Yields:
        Top to bottom: the first row, and for each head (N, C, rows, width) float32.
    """
    rows, columns = size
    held_from, done = 0, 0  # the first row of `held`; the image's rows that are out
    held: list[Tensor] = []
    for first, band in bands:
        logits = [head.float() for head in band]
        if done == 0 and logits[0].shape[-2] == rows and logits[0].shape[:2].numel() * height * width <= most:
            yield 0, [restore(head, height, width) for head in logits]
            return
        if held and held[0].shape[-2]:
            logits = [torch.cat([above, head], 2) for above, head in zip(held, logits, strict=True)]
        else:
            held_from = first
        below = held_from + logits[0].shape[-2]
        # The image's rows whose two source rows are there.
        ready = height if below == rows else _rows_before(below, rows, height, done)
        step = max(1, most // (logits[0].shape[:2].numel() * width))
        for start in range(done, ready, step):
            stop = min(start + step, ready)
            yield (
                start,
                [_strip(head, held_from, rows, columns, start, stop, height, width) for head in logits],
            )
        done = ready
        keep = min(below, _source(done, rows, height)[0]) if done < height else below
        held = [head[..., keep - held_from :, :].clone() for head in logits]
        held_from = keep
        del band, logits  # so that there is never more than one band


def _source(row: int, rows: int, height: int) -> tuple[int, int, float]:
    """The two of `rows` between which the image's `row` of `height` lies, and the weight of the second."""
    place = max(0.0, (row + 0.5) * rows / height - 0.5)
    upper = min(int(place), rows - 1)
    return upper, min(upper + 1, rows - 1), place - upper


def _rows_before(below: int, rows: int, height: int, start: int) -> int:
    """How many of the image's rows lie between source rows that are all before `below`; at least `start`."""
    row = start
    while row < height and _source(row, rows, height)[1] < below:
        row += 1
    return row


def _strip(
    logits: Tensor, held_from: int, rows: int, columns: int, start: int, stop: int, height: int, width: int
) -> Tensor:
    """Rows `start` to `stop` of the image: bilinear by hand along the height, by torch along the width."""
    if rows == height:
        strip = logits[..., start - held_from : stop - held_from, :]
    else:
        upper, lower, weight = zip(*(_source(row, rows, height) for row in range(start, stop)), strict=True)
        index = torch.tensor([upper, lower], device=logits.device) - held_from
        share = torch.tensor(weight, dtype=torch.float32, device=logits.device)[:, None]
        strip = torch.lerp(logits.index_select(2, index[0]), logits.index_select(2, index[1]), share)
    return strip if columns == width else restore(strip, stop - start, width)


def ensemble(logits: Sequence[Tensor]) -> Tensor:
    """The mean of the softmax probabilities of several heads: the paper's accurate mode. (N, C, H, W)."""
    total = logits[0].softmax(1)
    for head in logits[1:]:
        total = total + head.softmax(1)
    return total / len(logits)


def labels(scores: Tensor) -> Tensor:
    """(N, C, H, W) logits or probabilities -> (N, H, W) uint8 class indices."""
    # max().indices is several times faster than argmax() on the CPU, and the same: for 11 classes at 480x360
    # 1 % of the pass at width 16, with the channels first or last.
    return scores.max(1).indices.to(torch.uint8)


def entropy(probabilities: Tensor) -> Tensor:
    """(N, C, H, W) probabilities -> (N, H, W) their entropy over its maximum, log C: 0 sure, 1 no idea."""
    return _entropy(probabilities) / _log(probabilities.shape[1])


def disagreement(logits: Sequence[Tensor]) -> Tensor:
    """Between heads: the entropy of their mean less the mean of their entropies, over its maximum.

    The generalised Jensen-Shannon divergence: 0 where all say the same, be it a doubt; 1 where each is sure
    of another class (or as far as there are classes). Each of `logits` is (N, C, H, W); gives (N, H, W).
    """
    apart = _entropy(ensemble(logits))
    for head in logits:
        apart = apart - _entropy(head.softmax(1)) / len(logits)
    return apart / _log(min(len(logits), logits[0].shape[1]))


def _entropy(probabilities: Tensor) -> Tensor:
    """In nats: (N, C, H, W) -> (N, H, W)."""
    nats: Tensor = torch.special.entr(probabilities).sum(1)
    return nats


def to_bytes(fractions: Tensor) -> Tensor:
    """0..1 -> uint8, in 1/255, rounded."""
    return (255 * fractions.clamp(0, 1)).round().to(torch.uint8)


def _log(count: int) -> float:
    """log(count), or 1 for one class, which knows no doubt."""
    return math.log(count) if count > 1 else 1.0
