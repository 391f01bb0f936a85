"""How the help pages look: options in sections, examples at the end. Used by `cli` alone.

Plain text on purpose: typer's framed pages import a Markdown parser and a syntax highlighter, which takes
longer than everything else that `--help` does.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HEADING = {"fg": "cyan", "bold": True}


def heading(text: str) -> str:
    """A section's title; typer strips the colour where the output is no terminal."""
    return typer.style(text, **HEADING)  # type: ignore[arg-type]


def _sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """(option, text) rows by section: arguments, then the sections named, then whatever names none."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    rest: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        if parameter.param_type_name == "argument":
            sections["Arguments"].append(row)
        elif section := getattr(parameter, "rich_help_panel", None):
            sections.setdefault(section, []).append(row)
        else:
            rest.append(row)
    return {**sections, "Options": rest}


class Command(TyperCommand):
    """A command whose options are listed in the sections of their `rich_help_panel`.

    The last paragraph of its docstring, if it starts with `Examples:`, is printed at the end, line for line.
    """

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The docstring without its examples."""
        text = (self.help or "").partition("Examples:")[0].strip()
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options, section by section."""
        for title, rows in _sections(self, ctx).items():
            if rows:
                with formatter.section(heading(title)):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples."""
        examples = (self.help or "").partition("Examples:")[2]
        if examples.strip():
            with formatter.section(heading("Examples")):
                for line in examples.strip().splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class Group(TyperGroup):
    """The program itself: its commands in the order in which they are used, each with its first sentence."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands, then the options."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section(heading("Commands")):
            formatter.write_dl([(name, _summary(command)) for name, command in commands if command])
        with formatter.section(heading("Options")):
            formatter.write_dl(_sections(self, ctx)["Options"])

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are used, not of the alphabet."""
        return list(self.commands)


def _summary(command: Any) -> str:
    """The first paragraph of a command's help, on one line."""
    return " ".join((command.help or "").partition("\n\n")[0].split())
