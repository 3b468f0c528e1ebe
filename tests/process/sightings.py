"""Looks for processes by a word in their command line, by other means than the code under test."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import anyio


def sighted(token: str) -> list[int]:
    """Live processes that carry the token as an argument; a zombie is dead."""
    if sys.platform != "linux":
        import psutil

        return [
            process.pid
            for process in psutil.process_iter(["cmdline", "status"])
            if token in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE
        ]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and token.encode() in _read(f"/proc/{name}/cmdline").split(b"\0"):
            state = _read(f"/proc/{name}/stat").rpartition(b") ")[2][:1]
            if state not in (b"Z", b"X", b""):
                found.append(int(name))
    return found


def zombies_of(parent: int) -> list[int]:
    """Dead children that their parent has not taken."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _read(f"/proc/{name}/stat").rpartition(b") ")[2].split()
            if fields and fields[0] == b"Z" and int(fields[1]) == parent:
                found.append(int(name))
    return found


def status_field(pid: int, name: str) -> str:
    """A line of /proc/PID/status."""
    for line in _read(f"/proc/{pid}/status").decode().splitlines():
        if line.startswith(name + ":"):
            return line.partition(":")[2].strip()
    raise AssertionError(f"process {pid} has no {name}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # Gone meanwhile.
        return b""


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for what no event announces; fails after the timeout."""
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(0.005)


def until_blocking(condition: Callable[[], bool], timeout_s: float) -> float:
    """As `until`, for tests without a loop; the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise AssertionError(f"not within {timeout_s} s")
        time.sleep(0.005)
    return time.monotonic() - began
