"""Notices the death of another process that is not a child: the app behind `--parent-pid`."""

from __future__ import annotations

import os
import sys

import anyio

POLL_S = 0.5
"""Where the system has no event for it; a dead parent is to be noticed within a second."""


async def wait_gone(pid: int) -> None:
    """Return once no process of this pid lives, at once where there is none."""
    if sys.platform == "linux":
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:
            await _poll(pid)
            return
        try:
            await anyio.wait_readable(fd)
        finally:
            os.close(fd)
        return
    await _poll(pid)


async def _poll(pid: int) -> None:
    import psutil

    # The start time tells it from another process that gets its pid later.
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await anyio.sleep(POLL_S)
    except psutil.NoSuchProcess:
        return
