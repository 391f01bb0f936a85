"""What the user can mend: a sentence that names the thing, and the cure.

Raised anywhere, caught once, at the top of the command line, which prints it and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. `problem` names the file or option that is wrong; `cure` says what to do about it."""

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem} {cure}".strip())
        self.problem = problem
        self.cure = cure


class Stopped(Exception):  # noqa: N818 - no error
    """Work was given up before its end, because somebody asked for it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'epochs'?"` for a mistyped word, or the empty string when nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def listed(names: Iterable[str], limit: int = 5) -> str:
    """`a, b, c and 7 more`: enough names to find the problem, never a screen full."""
    every = list(names)
    if len(every) <= limit:
        return ", ".join(every)
    return f"{', '.join(every[:limit])} and {len(every) - limit} more"
