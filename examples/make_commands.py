"""Prints examples/commands.md: every help page of the command line, as a terminal of 80 columns shows it.

python examples/make_commands.py > examples/commands.md
"""

from __future__ import annotations

from typer.main import get_command
from typer.testing import CliRunner

from unetpp_cli.cli import app


def commands_page() -> str:
    """The Markdown page."""
    runner, root = CliRunner(), get_command(app)
    names = list(root.commands)  # type: ignore[attr-defined]
    parts = [
        "# The commands",
        "The help of `unetpp` and of each command. Made by `make_commands.py`; a test keeps it current.",
    ]
    for words in ([], *([name] for name in names)):
        text = runner.invoke(app, [*words, "--help"], prog_name="unetpp").output
        lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        parts += [f"## {' '.join(['unetpp', *words])}", "```\n" + "\n".join(lines) + "\n```"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(commands_page(), end="")
