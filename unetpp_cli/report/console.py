"""The two consoles of the command line, and the few ways in which it speaks in prose.

Jobs print through `out`, `err`, `say`, `warn` and `error`; nothing below the jobs prints at all. Texts are
literal: file names with [brackets] or control characters come out as they are spelled, never as markup.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator

from rich.color import ColorSystem
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

from unetpp_cli.data.classes import Color

PIPE_WIDTH = 120
"""Columns that a pipe or a file has at least: tables must not be squeezed where nobody looks at a screen."""


class StreamConsole(Console):
    """A rich console that asks its stream at every use what it is.

    Rich decides about colours once, when the console is made. These consoles live as long as the program,
    while the stream behind them may be exchanged (a test runner that captures output, a redirection).
    """

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines; at least `PIPE_WIDTH` columns where no terminal sets them."""
        columns, lines = super().size
        if self.is_terminal or os.environ.get("COLUMNS", "").isdigit():
            return ConsoleDimensions(columns, lines)
        return ConsoleDimensions(max(columns, PIPE_WIDTH), lines)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    # The three attributes below are plain ones in rich, set by its constructor: hence the idle setters.
    @property
    def _color_system(self) -> ColorSystem | None:
        return self._detect_color_system()

    @_color_system.setter
    def _color_system(self, value: ColorSystem | None) -> None:
        pass

    @property
    def is_interactive(self) -> bool:
        """Whether a display may be drawn in place."""
        wanted = os.environ.get("TTY_INTERACTIVE") != "0"
        return wanted and self.is_terminal and not self.is_dumb_terminal

    @is_interactive.setter
    def is_interactive(self, value: bool) -> None:
        pass

    @property
    def no_color(self) -> bool:
        """Whether the environment asks for no colours (https://no-color.org)."""
        return os.environ.get("NO_COLOR", "") != ""

    @no_color.setter
    def no_color(self, value: bool) -> None:
        pass


out = StreamConsole(highlight=False)
"""Standard output: what was asked for."""

err = StreamConsole(stderr=True, highlight=False)
"""Standard error: warnings, errors, progress."""

_live: list[Console] = []
_is_mute = False


@contextlib.contextmanager
def live_on(console: Console) -> Iterator[None]:
    """While the block runs, `console` shows a live display at the foot of the terminal.

    Prose for the terminal then goes through that console, which prints it above the display. Two consoles
    that write to one terminal independently would overwrite each other.
    """
    _live.append(console)
    try:
        yield
    finally:
        _live.remove(console)


def is_live() -> bool:
    """Whether a live display is on."""
    return bool(_live)


def mute() -> None:
    """From now on `say` and `warn` are silent: in a process of several that is not the one that speaks."""
    global _is_mute
    _is_mute = True


def say(text: str) -> None:
    """Prints one line to standard output, never broken into several: paths and JSON can be copied."""
    if _is_mute:
        return
    _target(out).print(_literal(out, text), soft_wrap=True, highlight=False)


def explain(text: str) -> None:
    """Prints a sentence to standard output: broken between words on a terminal, one line in a pipe."""
    if _is_mute:
        return
    _target(out).print(_literal(out, text), soft_wrap=not out.is_terminal, highlight=False)


def note(text: str) -> None:
    """As `say`, but to standard error: what is done on the way to what was asked for."""
    if _is_mute:
        return
    _target(err).print(_literal(err, text), soft_wrap=True, highlight=False)


def warn(text: str) -> None:
    """Prints `Warning: text` to standard error."""
    if _is_mute:
        return
    _labelled("Warning:", "bold yellow", [text])


def error(problem: str, cure: str = "") -> None:
    """Prints `Error: problem` to standard error and, on a line of its own, the cure."""
    _labelled("Error:", "bold red", [problem, cure] if cure else [problem])


def chip(color: Color) -> Text:
    """Two blocks in the RGB `color` (0..255): a legend entry. Without colours it is two blanks."""
    red, green, blue = color
    return Text("  ", style=f"on rgb({red},{green},{blue})")


def glyph(console: Console, fancy: str, plain: str) -> str:
    """`fancy` where the console's stream can encode it, else `plain` (a Windows pipe, an ASCII log)."""
    try:
        fancy.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return plain
    return fancy


def _labelled(label: str, style: str, paragraphs: list[str]) -> None:
    """A label in colour and paragraphs: indented behind it on a terminal, one line each in a pipe."""
    texts = [_literal(err, paragraph) for paragraph in paragraphs]
    if not err.is_terminal:
        texts[0] = Text.assemble(label, " ", texts[0])
        for text in texts:  # whole lines: whoever searches a log wants a path in one piece
            err.print(text, soft_wrap=True, highlight=False)
        return
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for index, text in enumerate(texts):
        grid.add_row(Text(label if index == 0 else "", style=style), text)
    _target(err).print(grid)


def _target(console: Console) -> Console:
    """The console that shows the live display, if there is one and `console` is the terminal, too."""
    return _live[-1] if _live and console.is_terminal else console


def _literal(console: Console, text: str) -> Text:
    """`text` with whatever the stream cannot show (control characters, undecodable bytes) spelled out."""
    shown = "".join(
        repr(char)[1:-1] if unicodedata.category(char) == "Cc" and char not in "\n\t" else char
        for char in text
    )
    return Text(shown.encode(console.encoding, "backslashreplace").decode(console.encoding))
