"""Reads what one process costs: from /proc where there is one, else through psutil.

psutil opens several files for the same figures and costs four times as much, so Linux goes without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .metrics import Usage

if TYPE_CHECKING:
    import psutil

_PROC_STAT_BYTES = 4096
"""/proc/PID/stat is far shorter, whatever the program's name."""


def _linux_reader() -> Callable[[int], Usage | None]:
    if sys.platform == "win32":
        raise NotImplementedError("Windows has no /proc")
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    page_bytes = os.sysconf("SC_PAGE_SIZE")

    def read(pid: int) -> Usage | None:
        try:
            fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
            try:
                raw = os.read(fd, _PROC_STAT_BYTES)
            finally:
                os.close(fd)
        except OSError:
            return None
        # The name in parentheses may hold spaces and parentheses itself, the fields behind the last one may not.
        fields = raw[raw.rindex(b")") + 2 :].split()
        if fields[0] in (b"Z", b"X"):
            return None
        try:
            open_files: int | None = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            open_files = None
        return Usage(
            started=float(fields[19]),
            cpu_s=(int(fields[11]) + int(fields[12])) * tick_s,
            rss=int(fields[21]) * page_bytes,
            threads=int(fields[17]),
            open_files=open_files,
        )

    return read


def _psutil_reader() -> Callable[[int], Usage | None]:
    import psutil

    def read(pid: int) -> Usage | None:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                return Usage(
                    started=process.create_time(),
                    cpu_s=times.user + times.system,
                    rss=process.memory_info().rss,
                    threads=process.num_threads(),
                    open_files=_open_files(process),
                )
        except psutil.Error:
            return None

    return read


def _open_files(process: psutil.Process) -> int:
    if sys.platform == "win32":
        return process.num_handles()
    return process.num_fds()


def create_reader() -> Callable[[int], Usage | None]:
    """The reader of this system."""
    return _linux_reader() if sys.platform == "linux" else _psutil_reader()
