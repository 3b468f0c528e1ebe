"""The bridge's own process: its signals, its resident memory, its descriptors."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

ENDING_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
"""Ask the bridge to end; a second one to end at once."""
if sys.platform == "win32":
    OTHER_SIGNALS: tuple[signal.Signals, ...] = ()
    TAKEOVER_SIGNAL: signal.Signals = signal.SIGTERM
else:
    OTHER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1)
    TAKEOVER_SIGNAL = signal.SIGUSR1
"""Asks the bridge to end for another one that takes its place."""


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
