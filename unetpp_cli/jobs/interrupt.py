"""Ctrl-C and SIGTERM as a request to end well: the first is remembered, the second ends at once."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

ECHO_SECONDS = 3.0


class Interruption:
    """While this context is open, the first SIGINT or SIGTERM only sets `signal`; the work ends itself.

    Args:
        forwarded: a launcher stands above this process and passes on what the terminal has sent to all of
            them: what comes within `ECHO_SECONDS` of the first signal is its echo, not a second one.

    Attributes:
        signal: the signal received first, or None.
    """

    def __init__(self, forwarded: bool = False) -> None:
        self.signal: int | None = None
        self.forwarded = forwarded
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._remember)
            except ValueError:  # not in the main thread: whoever runs us handles signals
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 otherwise."""
        return 128 + self.signal if self.signal else 0

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._first = number, time.monotonic()
        elif not self.forwarded or time.monotonic() - self._first > ECHO_SECONDS:
            raise KeyboardInterrupt  # asked twice: no patience left
