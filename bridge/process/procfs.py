"""Reads /proc: what a process is, whose child it is, which mark it carries, which sockets it has.

It turns text of the kernel into values and knows nothing of trees. A process that is gone is None or an empty answer,
never an error: between a listing and a look any process may end. `census` makes trees of it.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import NamedTuple

assert sys.platform == "linux"


RLIMIT_LOCKS = 10
"""A limit that the kernel keeps, inherits and reports but has not applied since Linux 2.4: room for a tree's mark."""

MARK_VARIABLE = "SIDECAR_BRIDGE_MARK"
"""Environment name of the second mark; several bridges in each other leave theirs behind one another, by commas."""

_CHUNK = 65536
"""Bytes per read of a /proc file; larger than any answer but a long list of children or connections."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that tell processes apart. `start` is in clock ticks since boot."""

    state: str
    parent: int
    group: int
    session: int
    start: int

    @property
    def dead(self) -> bool:
        """A zombie is dead: it runs nothing and holds nothing."""
        return self.state in "ZX"


def read(path: str) -> bytes:
    """The whole of a /proc file; empty when it is gone or closed to this user."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError:  # The process ended between open and read.
        return b""
    finally:
        os.close(fd)


def pids() -> list[int]:
    """Every process that this user can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat(pid: int) -> Stat | None:
    """What the process is; None when it is gone."""
    text = read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The name stands in parentheses and may hold spaces and parentheses of its own.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(chr(fields[0][0]), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    found = stat(pid)
    return found is not None and not found.dead


def kernel_mark(pid: int) -> int | None:
    """The soft limit that carries the mark, -1 when it is infinite; None when the system refuses to tell.

    A process that is gone has 0, which is nobody's mark.
    """
    try:
        return resource.prlimit(pid, RLIMIT_LOCKS)[0]
    except ProcessLookupError:
        return 0
    except PermissionError:
        return None


def kernel_mark_of_other_user(pid: int) -> int:
    """As `kernel_mark`, from the listing that every user may read: twenty times dearer."""
    for line in read(f"/proc/{pid}/limits").splitlines():
        if line.startswith(b"Max file locks"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else -1
    return 0


def environment_marks(pid: int) -> list[str]:
    """The marks that the environment it was started with carries; none when it was emptied or is not ours to read."""
    key = MARK_VARIABLE.encode() + b"="
    for entry in read(f"/proc/{pid}/environ").split(b"\0"):
        if entry.startswith(key):
            return entry[len(key) :].decode("utf-8", "replace").split(",")
    return []


def children() -> list[int]:
    """The direct children of this process, adopted ones included, zombies included.

    A child that appears while this is read stands at the end of the kernel's list, and only this process removes
    one: so the answer misses no child that was there when it began.
    """
    own = os.getpid()
    try:
        tasks = os.listdir("/proc/self/task")
        found: list[int] = []
        for task in tasks:
            with open(f"/proc/self/task/{task}/children", "rb") as listing:
                found += map(int, listing.read().split())
        return found
    except FileNotFoundError:  # A kernel without CONFIG_PROC_CHILDREN, or a thread that just ended.
        return [pid for pid in pids() if (seen := stat(pid)) is not None and seen.parent == own]


def listening_sockets(port: int) -> set[str]:
    """Inodes of the sockets that listen on a TCP port, on any local address."""
    suffix = f":{port:04X}".encode()
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        text = read(table)
        if suffix not in text:
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            if fields[3] == b"0A" and fields[1].endswith(suffix):
                found.add(fields[9].decode())
    return found


def sockets(pid: int) -> set[str] | None:
    """Inodes of a process's sockets; None when the system does not tell, empty when it is gone."""
    folder = f"/proc/{pid}/fd"
    found = set()
    try:
        for name in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{name}")
            except FileNotFoundError:  # Closed since the listing.
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return found


def name(pid: int) -> str:
    """Its short name, empty when it is gone."""
    return read(f"/proc/{pid}/comm").decode("utf-8", "replace").rstrip("\n")
