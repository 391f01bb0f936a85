"""How numbers are spelled for people: one way in every table, plot and progress line."""

from __future__ import annotations

import math
from collections.abc import Iterable


def percent(fraction: float) -> str:
    """`65.9` for 0.6588: a share in per cent, one decimal, without the sign; `-` for NaN."""
    return f"{100 * fraction:.1f}" if math.isfinite(fraction) else "-"


def count(number: float) -> str:
    """`33.7 k`, `2.96 M`, `47.2 M`: three significant digits; exact below 1000."""
    if number < 1000:
        return f"{number:.0f}"
    for scale, unit in ((1e3, "k"), (1e6, "M")):
        if number < 999.5 * scale:
            return f"{short(number / scale)} {unit}"
    return f"{short(number / 1e9)} G"


def duration(seconds: float) -> str:
    """`3.2 s`, `48 s`, `1:02` (minutes and seconds), `1:02:03`; `-` when it is not finite."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(value: float) -> str:
    """`1.43`, `22.1`, `365`, `4354`: about three digits, never an exponent; `-` when it is not finite."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def column(values: Iterable[float | None]) -> list[str]:
    """Figures below each other, all with as many decimals as the smallest needs; `-` where there is none."""
    cells = [math.nan if value is None else value for value in values]
    least = min((value for value in cells if math.isfinite(value)), default=0.0)
    decimals = 2 if least < 9.995 else 1 if least < 99.95 else 0
    return [f"{value:.{decimals}f}" if math.isfinite(value) else "-" for value in cells]


def loss(value: float) -> str:
    """`0.4312`; `1.23e+05` when training has blown up; `nan` stays visible."""
    return f"{value:.4f}" if abs(value) < 1000 or math.isnan(value) else f"{value:.3g}"
