"""Resident memory of this process, in bytes."""

from __future__ import annotations

import os
import sys


def own_rss() -> int:
    """Bytes that are resident now."""
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.Process().memory_info().rss)
