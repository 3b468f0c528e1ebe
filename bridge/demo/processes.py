"""The system's process table -> which processes belong to the demo; asked without the bridge, to check what it says.

A process belongs when the demo's token stands in its command line or its environment, or when it descends from one
that does. Linux is read from /proc, macOS through ps, Windows through PowerShell; the latter two do not tell
environments.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

LOOK_TIMEOUT_S = 15.0
"""PowerShell takes seconds to start on a busy machine."""
POLL_S = 0.02
_WINDOWS_QUERY = (
    'Get-CimInstance Win32_Process | ForEach-Object { "$($_.ProcessId) $($_.ParentProcessId) '
    '$($_.CreationDate.Ticks) $($_.CommandLine)" }'
)


class Row(NamedTuple):
    """A living process. `started` tells it from a later one of the same pid."""

    pid: int
    parent: int
    started: str
    command: str
    carries_token: bool


def belonging(token: str) -> list[Row]:
    """The living processes that belong to the token, without this one and what it looks with."""
    rows = [row for row in _rows(token) if row.pid != os.getpid()]
    found = {row.pid for row in rows if row.carries_token}
    while more := {row.pid for row in rows if row.parent in found} - found:
        found |= more
    return [row for row in rows if row.pid in found]


def wait_gone(known: Iterable[Row], timeout_s: float) -> list[Row]:
    """What still lives of `known` when nothing does any more, or after the timeout."""
    identities = {(row.pid, row.started) for row in known}
    deadline = time.monotonic() + timeout_s
    while (left := [row for row in _rows("") if (row.pid, row.started) in identities]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left


def wait_none(token: str, known: Iterable[Row], timeout_s: float) -> list[Row]:
    """What still lives of the token or of `known` when nothing does any more, or after the timeout."""
    identities = {(row.pid, row.started) for row in known}
    deadline = time.monotonic() + timeout_s
    while True:
        left = belonging(token)
        left += [row for row in _rows(token) if (row.pid, row.started) in identities and row not in left]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(POLL_S)


def _rows(token: str) -> list[Row]:
    if sys.platform == "linux":
        return _from_proc(token.encode())
    if sys.platform == "win32":
        return _from_lines(_output(["powershell", "-NoProfile", "-Command", _WINDOWS_QUERY]), token, 1)
    return _from_lines(_output(["ps", "-A", "-ww", "-o", "pid=,ppid=,lstart=,command="]), token, 5)


def _from_proc(token: bytes) -> list[Row]:
    rows = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = _read(f"/proc/{name}/stat")
            command = _read(f"/proc/{name}/cmdline")
        except OSError:  # it ended while we looked
            continue
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] in (b"Z", b"X"):
            continue
        try:
            environment = _read(f"/proc/{name}/environ")
        except OSError:  # of another user, or just ended
            environment = b""
        rows.append(
            Row(
                pid=int(name),
                parent=int(fields[1]),
                started=fields[19].decode(),
                command=command.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace"),
                carries_token=token in command or token in environment,
            )
        )
    return rows


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _output(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, timeout=LOOK_TIMEOUT_S, check=True, errors="replace", text=True)
    return done.stdout.splitlines()


def _from_lines(lines: list[str], token: str, start_words: int) -> list[Row]:
    """Rows from lines of pid, parent, the words of the start time, command."""
    rows = []
    for line in lines:
        words = line.split(None, 2 + start_words)
        if len(words) > 1 + start_words and words[0].isdigit() and words[1].isdigit():
            started, command = " ".join(words[2 : 2 + start_words]), " ".join(words[2 + start_words :])
            rows.append(Row(int(words[0]), int(words[1]), started, command, token in command))
    return rows
