"""Values as people write them, in YAML or on the command line, read as numbers, texts and times.

Called by `config` and by whatever a setting's text means something to. Imports no torch.
"""

from __future__ import annotations

import math
import re
import typing
from pathlib import Path
from typing import Any

from unetpp_cli.errors import UserError

DEMO = "demo"
"""What `--data` says for the embedded scenes."""


def as_text(value: Any) -> str:
    """YAML turns `[1, 2]` into a list, `360` into a number and `on` into true; all of them are text here."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value)


def as_number(name: str, value: Any, wanted: type, low: float | None, high: float | None) -> int | float:
    """`value` as an int or float (`wanted`) within its bounds.

    Raises:
        UserError: it is none, or out of bounds; the message begins with `name`.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        number = wanted(value)  # YAML reads 1e-3 as text; float() does not mind
        if wanted is int and float(value) != number:
            raise ValueError
    except (TypeError, ValueError) as error:
        kind = "a whole number" if wanted is int else "a number"
        raise UserError(f"{name} must be {kind}, not {value!r}.") from error
    if number != number or (low is not None and number < low) or (high is not None and number > high):
        span = f"{low:g} to {high:g}" if low is not None and high is not None else f"at least {low:g}"
        raise UserError(f"{name} is {value}, but must be {span}.")
    return typing.cast("int | float", number)


def numbers(text: str) -> list[float] | None:
    """`1,2,4` as numbers, or None when it is not a list of numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def read_names(text: str) -> str:
    """`@FILE` as the names in that file, one a line, with commas between them; other text as it is.

    Comments (`#`), folders and the suffixes of pictures are left out: `ls > FILE` makes such a file.

    Raises:
        UserError: the file cannot be read, or names nothing.
    """
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(
            f"--hold-out {text}: cannot read the list {path}: {reason}.", "Write one name a line."
        ) from error
    names = [line.strip().replace("\\", "/").rpartition("/")[2] for line in lines if not line.startswith("#")]
    if not any(names):
        raise UserError(f"--hold-out {text}: the list {path} names nothing.", "Write one name a line.")
    return ",".join(re.sub(r"\.(png|jpe?g|tiff?|bmp|webp)$", "", name, flags=re.I) for name in names if name)


def seconds(text: str) -> float:
    """`90s`, `8m`, `1h30m` as seconds; infinity for the empty string.

    Raises:
        UserError: it is no time, or none at all.
    """
    if not text.strip():
        return math.inf
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    total = (
        sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True))
        if parts
        else 0
    )
    if not total:
        raise UserError(f"time_limit cannot be '{text}'.", "Write 90s, 8m, or 1h30m.")
    return total
