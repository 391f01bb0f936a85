"""The command line: names, options and help; each command is one call into a job.

Nothing here imports torch, nor anything that does, so that help, completion and a mistyped option answer at
once. The order of the imports is the order in which the commands are listed.
"""

from unetpp_cli.cli.app import app, main  # noqa: I001
from unetpp_cli.cli import train, evaluate, predict, prune, export, data, weights  # noqa: F401

__all__ = ["app", "main"]
