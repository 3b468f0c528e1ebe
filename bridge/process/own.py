"""The bridge's own process: its resident memory, its descriptors."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def own_rss() -> int:
    """Bytes that are resident now."""
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.Process().memory_info().rss)


def allow_descriptors(wanted: int) -> None:
    """Raise this process's soft limit of open descriptors to `wanted`, as far as the hard limit lets it.

    Never above what is needed: children inherit it, and programs that use select() fail beyond the usual limit.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
