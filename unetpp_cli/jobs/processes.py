"""How a command behaves as one of several processes: errors said once, and ends that wait for nobody.

Called by the train and predict jobs; `parallel` starts the processes and lets them agree.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from torch.distributed import DistError

from unetpp_cli import allocator
from unetpp_cli.errors import UserError
from unetpp_cli.parallel import World
from unetpp_cli.report import console


@contextlib.contextmanager
def said_once(world: World) -> Iterator[None]:
    """A UserError that all processes meet in the block is raised in one of them; the others just end."""
    try:
        yield
    except UserError as error:
        if world.says_it_first(str(error)):
            raise
        time.sleep(1)  # whoever is first to end takes all others along: let the error be printed
        raise SystemExit(2) from error


@contextlib.contextmanager
def as_worker(keep_pages: bool, on_user_error: Callable[[], None] = lambda: None) -> Iterator[None]:
    """What a process that `parallel.launch` started does around its work; says why when that fails.

    Args:
        keep_pages: whether the launching process keeps its pages (`allocator`).
        on_user_error: called after what the user must mend has been said.
    """
    if keep_pages:
        allocator.keep_pages()
    try:
        yield
    except UserError as error:
        console.error(error.problem, error.cure)
        on_user_error()
        leave(2)
    except KeyboardInterrupt:
        leave(130)
    except Exception as error:
        if isinstance(error, DistError) or re.search("gloo|by peer", str(error)):
            time.sleep(1)  # another process has gone, and can say why; this one is about to be ended
        traceback.print_exc()
        leave(1)


def leave(code: int) -> NoReturn:
    """Ends this process now: an orderly end may wait for processes that have gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
