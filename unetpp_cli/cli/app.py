"""The program itself: its entry point, its exit codes, and the one place where user errors are caught.

Exit codes: 0 done, 1 some inputs failed, 2 usage or data error, 130 and 143 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from unetpp_cli.allocator import keep_pages
from unetpp_cli.errors import UserError
from unetpp_cli.help import Group
from unetpp_cli.version import __version__


class Commands(Group):
    """All commands: turns what the user can mend into a message and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command named; see the class."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            if os.environ.get("UNETPP_DEBUG"):
                raise
            from unetpp_cli.report import console

            console.error(error.problem, error.cure)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(130) from interrupt
        except BrokenPipeError as closed:  # `unetpp info ... | head`: nobody listens any more
            sys.stderr.close()
            raise typer.Exit(1) from closed


app = typer.Typer(
    name="unetpp",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


SPINS = "1000"
"""How often an OpenMP thread that waits looks again before it sleeps. GNU's default is some 300,000 times:
where another program has one of the cores, a thread then burns the time that the one it waits for needs.
Beside one busy process on two cores a pass of width 24 took 0.6 s, not 1.9; alone no difference was seen.
"""


def main() -> None:
    """The entry point of the `unetpp` command."""
    keep_pages()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded
    app(prog_name="unetpp")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"unetpp {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Semantic segmentation with UNet++: train it, see what each depth is worth, prune it, paint masks.

    Start with: unetpp train --data demo
    """
