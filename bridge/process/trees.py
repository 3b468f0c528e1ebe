"""The file in a log folder that says which trees a bridge has started, for the next bridge after a crash of everything.

It turns spawns into lines, and lines that an earlier bridge left into `PastBridge`s:

    sidecar-bridge-trees 1 BOOT
    bridge EPOCH PID START
    tree NUMBER PID START STOP_SIGNAL TIMEOUT SIDECAR

The trees of a bridge stand below it. A line proves nothing: it says where to look, and `leftovers` acts only on what
the processes themselves carry. So the file is worth one write per spawn and no more: nothing is synced, a line that
cannot be written is left out, and a tree that is extinct leaves the file when there is something to write anyway.
Only who holds the folder's lock reads or writes it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, runtime_checkable

import anyio

from .base import Process, SpawnSpec, System
from .identity import boot_id, start_of

logger = logging.getLogger("bridge.process.trees")

FILE_NAME = ".bridge.trees"
"""No sidecar's folder is called like that: names begin with a letter or digit."""
FILE_BYTES_MAX = 1 << 20
"""Room for some 15 000 living trees. What would go beyond is not recorded; what stands beyond is not read."""
DEAD_LINES_MAX = 64
"""Lines of extinct trees, beside as many as there are living ones, before the file is written anew."""
PAST_BRIDGES_MAX = 16
"""Bridges whose leftovers could not be ended; the newest are remembered."""

_HEAD = re.compile(r"sidecar-bridge-trees 1 (\S{1,64})")
_BRIDGE = re.compile(r"bridge ([0-9a-f]{16,32}) (\d{1,10}) ([0-9.e+]{1,32})")
_TREE = re.compile(
    r"tree (\d{1,10}) (\d{1,10}) ([0-9.e+]{1,32}) (SIG[A-Z0-9+-]{1,12}) (\d{1,7}\.\d{3}) ([A-Za-z0-9][\w.-]{0,254}|-)",
    re.ASCII,
)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,254}", re.ASCII)
_NAMELESS = "-"
_TIMEOUT_MAX_S = 1e6
"""For the width of a line; nobody waits that long for a leftover."""

_SAFE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""O_NONBLOCK: a FIFO put in the file's place must not hang the open."""


class PastTree(NamedTuple):
    """A tree as its bridge recorded it. `start` identifies the leader together with `pid`."""

    number: int
    pid: int
    start: str
    stop_signal: str
    timeout_s: float
    sidecar: str | None
    """For whom it was started; None where that is not known."""

    def line(self) -> bytes:
        name = self.sidecar or _NAMELESS
        return f"tree {self.number} {self.pid} {self.start} {self.stop_signal} {self.timeout_s:.3f} {name}\n".encode()


class PastBridge(NamedTuple):
    """A bridge that did not end in order, since this boot of the system."""

    epoch: str
    pid: int
    start: str
    trees: tuple[PastTree, ...]

    def lines(self) -> bytes:
        return f"bridge {self.epoch} {self.pid} {self.start}\n".encode() + b"".join(tree.line() for tree in self.trees)


@runtime_checkable
class Tree(Protocol):
    """A process of a system whose trees may outlive the bridge."""

    tree: int
    extinct: anyio.Event

    @property
    def pid(self) -> int: ...


class TreeFile:
    """The file of one folder. Never raises: without it the bridge does its work, only the next one knows less."""

    def __init__(self, folder: str, epoch: str) -> None:
        self._path = os.path.join(folder, FILE_NAME)
        self._boot = boot_id()
        self._own = PastBridge(epoch, os.getpid(), start_of(os.getpid()), ())
        self._kept = b""
        self._kept_bridges = 0
        self._fd: int | None = None
        self._bytes = 0
        self._living: dict[int, tuple[Tree, bytes]] = {}
        """Trees with their lines, and some that are extinct and not taken out yet."""
        self._living_max = DEAD_LINES_MAX

    # --- what an earlier bridge left ---

    def read_past(self) -> list[PastBridge]:
        """The bridges that the file tells of, oldest first."""
        try:
            text = self._read()
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("%s is ignored and replaced: %s", self._path, error.strerror or error)
            return []
        past, senseless = parse(text, self._boot)
        if senseless:
            logger.warning("%s: what makes no sense is ignored, %d lines", self._path, senseless)
        return past

    def _read(self) -> str:
        fd = os.open(self._path, os.O_RDONLY | _SAFE)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
                raise OSError(errno.EPERM, "it belongs to another user")
            data = b""
            while len(data) < FILE_BYTES_MAX and (chunk := os.read(fd, FILE_BYTES_MAX - len(data))):
                data += chunk
        finally:
            os.close(fd)
        return data.decode("ascii", "replace")

    # --- what this one starts ---

    def begin(self, kept: Sequence[PastBridge] = ()) -> None:
        """Replace the file by one that tells of this bridge, and of those that the next one should look for as well."""
        if not self._boot or not self._own.start:
            return
        kept = kept[-PAST_BRIDGES_MAX:]
        self._kept = b"".join(bridge.lines() for bridge in kept)
        self._kept_bridges = len(kept)
        try:
            self._rewrite()
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error.strerror or error)

    def add(self, process: Tree, spec: SpawnSpec) -> None:
        """Record a tree that was just started."""
        if self._fd is None:
            return
        start = start_of(process.pid)
        if not start:  # It has ended already; what it may have left carries the bridge's mark.
            return
        name = spec.env.get("SIDECAR_NAME", "")
        line = PastTree(
            process.tree,
            process.pid,
            start,
            spec.stop_signal,
            min(spec.shutdown_timeout_s, _TIMEOUT_MAX_S),
            name if _NAME.fullmatch(name) else None,
        ).line()
        try:
            if len(self._living) >= self._living_max:
                self._compact()
            self._living[process.tree] = (process, line)
            self._append(line)
        except OSError as error:
            logger.debug("%s: a tree is not recorded: %s", self._path, error.strerror or error)

    def end(self) -> None:
        """The bridge ends in order: leave only what the next one should look for."""
        if self._fd is None:
            return
        with suppress(OSError):
            if self._is_ours() and all(tree.extinct.is_set() for tree, _ in self._living.values()):
                if self._kept_bridges:
                    self._shorten(len(self._head() + self._kept))
                else:
                    os.unlink(self._path)
        os.close(self._fd)
        self._fd = None

    def _head(self) -> bytes:
        return f"sidecar-bridge-trees 1 {self._boot}\n".encode()

    def _base(self) -> bytes:
        return self._head() + self._kept + self._own.lines()

    def _append(self, line: bytes) -> None:
        assert self._fd is not None
        if self._bytes + len(line) > FILE_BYTES_MAX:
            return
        if os.write(self._fd, line) < len(line):
            # A full disk took a part. Half a line would spoil the next one too.
            self._shorten(self._bytes)
            return
        self._bytes += len(line)

    def _shorten(self, size: int) -> None:
        assert self._fd is not None
        os.ftruncate(self._fd, size)
        self._bytes = size

    def _compact(self) -> None:
        self._living = {number: entry for number, entry in self._living.items() if not entry[0].extinct.is_set()}
        # Whether or not the file follows: that is tried again only when as many have ended anew.
        self._living_max = 2 * len(self._living) + DEAD_LINES_MAX
        if not self._living:
            self._shorten(len(self._base()))
        elif self._is_ours():
            self._rewrite()

    def _is_ours(self) -> bool:
        """Whether the path still leads to the open file: somebody may have replaced the folder."""
        assert self._fd is not None
        return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))

    def _rewrite(self) -> None:
        """Write the file aside and move it into place, so that a crash leaves the old one or the new one."""
        aside = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(aside)
        text = self._base() + b"".join(line for _, line in self._living.values())
        fd = os.open(aside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
        try:
            if os.write(fd, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.replace(aside, self._path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(aside)
            raise
        if self._fd is not None:
            os.close(self._fd)
        self._fd = fd
        self._bytes = len(text)


def parse(text: str, boot: str) -> tuple[list[PastBridge], int]:
    """The bridges of a file's text, none when it is of another boot, and how many lines make no sense."""
    *lines, rest = text.split("\n")
    if not lines and not rest:
        return [], 0
    head = _HEAD.fullmatch(lines[0]) if lines else None
    if head is None:
        return [], len(lines) + bool(rest)
    if not boot or head[1] != boot:
        return [], 0
    bridges: list[tuple[str, int, str, list[PastTree]]] = []
    known = False
    senseless = int(bool(rest))
    for line in lines[1:]:
        if found := _BRIDGE.fullmatch(line):
            bridges.append((found[1], int(found[2]), found[3], []))
            known = True
        elif known and (found := _TREE.fullmatch(line)):
            number, pid, start, stop_signal, timeout_s, name = found.groups()
            sidecar = None if name == _NAMELESS else name
            bridges[-1][3].append(PastTree(int(number), int(pid), start, stop_signal, float(timeout_s), sidecar))
        else:
            senseless += 1
            if line.startswith("bridge"):
                known = False  # What follows belongs to a bridge that is not known.
    return [PastBridge(epoch, pid, start, tuple(trees)) for epoch, pid, start, trees in bridges], senseless


class RecordedSystem:
    """A System whose trees stand in a file as long as they live."""

    def __init__(self, system: System, trees: TreeFile) -> None:
        self._system = system
        self._trees = trees
        self.start = system.start
        self.free_port = system.free_port
        self.port_is_free = system.port_is_free
        self.port_holder = system.port_holder
        self.owns_port = system.owns_port

    def spawn(self, spec: SpawnSpec) -> Process:
        process = self._system.spawn(spec)
        if isinstance(process, Tree):
            self._trees.add(process, spec)
        return process

    async def close(self) -> None:
        await self._system.close()
        self._trees.end()
