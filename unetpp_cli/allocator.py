"""Tells glibc's allocator to keep the pages it has. Called by the command line only, never on import.

A forward pass allocates and frees hundreds of megabytes. By default glibc returns them to the kernel, which
zeroes them again for the next pass; on a virtual machine that costs as much as the arithmetic. The results
are the same bits; the price is a larger resident set. `UNETPP_ALLOCATOR=system` leaves the allocator alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1
_LARGEST_BEFORE_2_35 = 32 << 20  # older glibc refuses larger mmap thresholds

SWITCH = "UNETPP_ALLOCATOR"

_kept = False


def keep_pages() -> bool:
    """Applies the settings; true when glibc accepted them all. Does nothing on other platforms."""
    if os.environ.get(SWITCH, "") == "system" or not sys.platform.startswith("linux"):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    threshold = mallopt(_M_MMAP_THRESHOLD, _LARGEST) or mallopt(_M_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
    global _kept
    _kept = bool(threshold and mallopt(_M_TRIM_THRESHOLD, _LARGEST) and mallopt(_M_TOP_PAD, 64 << 20))
    return _kept


def keeps_pages() -> bool:
    """Whether this process has applied the settings, so that those it starts should, too."""
    return _kept
