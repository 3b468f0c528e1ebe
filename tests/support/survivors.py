"""Find and end processes by a test's token, without asking the bridge.

The token stands in the command line of everything that a test's sidecars start; where a program rewrites its command
line (npm does), its environment or its working directory still tells.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SIGKILL = 9
"""As a number: Windows has no such name, and this file is type-checked for it too."""
POLL_S = 0.01
"""Between two looks at /proc: one look costs about 2 ms with 200 processes."""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        # It ended between the listing and the look.
        return b""


def state_of(pid: int) -> str | None:
    """The state letter of a process (`T` is stopped); None when it is gone or only a zombie."""
    stat = _read(f"/proc/{pid}/stat")
    letter = stat[stat.rfind(b")") + 2 :][:1].decode() if stat else ""
    return letter if letter not in ("", "Z", "X") else None


def alive(pid: int) -> bool:
    return state_of(pid) is not None


def kill(pid: int) -> None:
    """SIGKILL to one process."""
    os.kill(pid, SIGKILL)


def parent_of(pid: int) -> int | None:
    stat = _read(f"/proc/{pid}/stat")
    return int(stat[stat.rfind(b")") + 2 :].split()[1]) if stat else None


def command_line(pid: int) -> list[str]:
    return _read(f"/proc/{pid}/cmdline").decode("utf-8", "replace").rstrip("\0").split("\0")


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def carriers(token: str) -> list[int]:
    """Live processes whose command line or environment has the token, or that work in a directory named by it."""
    mark = token.encode()
    found = []
    for pid in pids():
        if pid == os.getpid() or not alive(pid):
            continue
        if mark in _read(f"/proc/{pid}/cmdline") or mark in _read(f"/proc/{pid}/environ"):
            found.append(pid)
            continue
        with contextlib.suppress(OSError):
            if token in os.readlink(f"/proc/{pid}/cwd"):
                found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """Every live process below this one by parentage."""
    children: dict[int, list[int]] = {}
    for candidate in pids():
        parent = parent_of(candidate)
        if parent is not None:
            children.setdefault(parent, []).append(candidate)
    found: list[int] = []
    frontier = [pid]
    while frontier:
        frontier = [child for one in frontier for child in children.get(one, [])]
        found += [child for child in frontier if alive(child)]
    return found


def until(look: Callable[[], T], timeout: float, what: str) -> T:
    """Look until the answer is true; for what the system does not tell by an event."""
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(POLL_S)


def wait_for_carriers(token: str, count: int, timeout: float = 10.0) -> list[int]:
    """Wait until exactly so many processes carry the token."""
    until(lambda: len(carriers(token)) == count, timeout, f"{count} processes of {token}; there are {carriers(token)}")
    return carriers(token)


def assert_gone(token: str, timeout: float = 2.0) -> None:
    """Nothing with this token is alive, within the time; survivors are named, and ended for the next test's sake."""
    deadline = time.monotonic() + timeout
    while left := carriers(token):
        if time.monotonic() > deadline:
            named = [f"{pid} {' '.join(command_line(pid))}" for pid in left]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid)
            raise AssertionError(f"alive {timeout} s after the end: {named}")
        time.sleep(POLL_S)


def listeners(port: int) -> bool:
    """Whether anybody listens on a local TCP port."""
    suffix = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(suffix) and fields[3] == "0A":
                return True
    return False
