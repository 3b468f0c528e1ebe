"""Tells which process belongs to which tree on Linux, and signals one without ever hitting a stranger.

A tree is a number. Its processes are known by the kernel mark: the soft RLIMIT_LOCKS, which the bridge sets around each
start. It has had no effect since Linux 2.4, it is inherited by fork and exec, and neither an emptied environment nor a
new session removes it. Where the system does not keep such a mark, or a process set that limit anew, descent, the
environment mark, session and group stand in.

`linux` decides what becomes of the processes; `procfs` reads them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from . import procfs

assert sys.platform == "linux"


TREE_BITS = 24
"""The lower bits of a mark are the tree's number, the upper ones the bridge's: 16 million trees before one recurs."""
_PREFIX_BITS = 39
"""With the number 63 bits, the largest that a limit takes in Python."""

_SHARED_FOR_S = 0.005
"""A sweep serves everybody who asks within one pass of the loop, but never longer than this, or than it took itself: a
hundred trees that end together share one listing. Each signal checks its process anew, so age costs completeness only,
and callers repeat."""


@dataclass(slots=True)
class Stray:
    """A direct child of the bridge that it did not start: an orphan of some tree. `tree` is None when none fits."""

    tree: int | None
    killed: bool = False


class Census:
    """The processes of each tree of one bridge."""

    def __init__(self, epoch: str, *, kernel_marks: bool, adopts: bool) -> None:
        digest = int.from_bytes(hashlib.blake2b(epoch.encode(), digest_size=8).digest(), "big")
        # The upper bit keeps the marks apart from any limit that a person would set.
        self.prefix = digest >> (64 - _PREFIX_BITS) | 1 << (_PREFIX_BITS - 1)
        self.epoch = epoch
        self.kernel_marks = kernel_marks and self._can_mark()
        self.leaders: dict[int, int] = {}
        """Tree by pid of its leader, until the tree is extinct: also a dead leader's session names its tree."""
        self.unreaped: dict[int, int] = {}
        """Tree by pid of its leader, as long as that is the bridge's child."""
        self.strays: dict[int, Stray] = {}
        """Orphans by pid; as unreaped children their numbers cannot be reused."""
        self.own: set[int] = set()
        """Children that belong to no tree: the guardian."""
        self._adopts = adopts
        self._session = os.getsid(0)
        self._shared: dict[int, list[int]] | None = None
        self._shared_until = 0.0
        self._strangers: dict[int, int] = {}
        self._lineage: dict[int, tuple[int, int]] = {}

    # --- marks -------------------------------------------------------------------------------------------------------

    def mark(self, tree: int) -> int:
        """The kernel mark of a tree."""
        return self.prefix << TREE_BITS | tree

    def environment_mark(self, tree: int) -> str:
        """The environment mark of a tree."""
        return f"{self.epoch}:{tree}"

    @contextmanager
    def marking(self, tree: int) -> Iterator[None]:
        """Children started within carry the tree's mark; the bridge itself does not afterwards."""
        if not self.kernel_marks:
            yield
            return
        soft, hard = resource.getrlimit(procfs.RLIMIT_LOCKS)
        resource.setrlimit(procfs.RLIMIT_LOCKS, (self.mark(tree), hard))
        try:
            yield
        finally:
            resource.setrlimit(procfs.RLIMIT_LOCKS, (soft, hard))

    def check_mark(self, pid: int, tree: int) -> None:
        """After a start: a system that drops the mark on the way is one without marks."""
        if self.kernel_marks and self._marked_tree(pid) != tree:
            self.kernel_marks = False

    def _can_mark(self) -> bool:
        try:
            soft, hard = resource.getrlimit(procfs.RLIMIT_LOCKS)
            resource.setrlimit(procfs.RLIMIT_LOCKS, (self.mark(0), hard))
            try:
                return resource.prlimit(os.getpid(), procfs.RLIMIT_LOCKS)[0] == self.mark(0)
            finally:
                resource.setrlimit(procfs.RLIMIT_LOCKS, (soft, hard))
        except (OSError, ValueError):
            return False

    def _marked_tree(self, pid: int) -> int | None:
        mark = procfs.kernel_mark(pid)
        if mark is None:
            mark = procfs.kernel_mark_of_other_user(pid)
        return mark & (1 << TREE_BITS) - 1 if mark >> TREE_BITS == self.prefix else None

    def _environment_tree(self, pid: int) -> int | None:
        for entry in procfs.environment_marks(pid):
            epoch, _, number = entry.rpartition(":")
            if epoch == self.epoch and number.isdigit():
                return int(number)
        return None

    # --- who belongs where -------------------------------------------------------------------------------------------

    def members(self, tree: int) -> list[int]:
        """The processes of a tree; some of them may have ended since."""
        return self.sweep().get(tree, [])

    def sweep(self) -> dict[int, list[int]]:
        """The processes of every tree that has any."""
        began = time.monotonic()
        if self._shared is not None and began < self._shared_until:
            return self._shared
        found = self._sweep_marks() if self.kernel_marks else self._sweep_descent()
        for pid, stray in self.strays.items():
            if stray.tree is not None and pid not in found.setdefault(stray.tree, []):
                found[stray.tree].append(pid)
        now = time.monotonic()
        self._shared, self._shared_until = found, now + max(_SHARED_FOR_S, now - began)
        asyncio.get_running_loop().call_soon(self._unshare)
        return found

    def _unshare(self) -> None:
        self._shared = None

    def _sweep_marks(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        strangers: dict[int, int] = {}
        prefix, mask = self.prefix, (1 << TREE_BITS) - 1
        for pid in procfs.pids():
            mark = procfs.kernel_mark(pid)
            if mark is None:
                mark = self._mark_of_other_user(pid, strangers)
            if mark >> TREE_BITS == prefix:
                found.setdefault(mark & mask, []).append(pid)
        self._strangers = strangers
        return found

    def _mark_of_other_user(self, pid: int, strangers: dict[int, int]) -> int:
        """Reading these is dear and a desktop has hundreds of them, so who was none of ours is not read again.

        The inode of /proc/PID is another one when the number is another process's.
        """
        try:
            inode = os.stat(f"/proc/{pid}").st_ino
        except OSError:
            return 0
        if self._strangers.get(pid) == inode:
            strangers[pid] = inode
            return 0
        mark = procfs.kernel_mark_of_other_user(pid)
        if mark >> TREE_BITS != self.prefix:
            strangers[pid] = inode
        return mark

    def _sweep_descent(self) -> dict[int, list[int]]:
        stats = {pid: seen for pid in procfs.pids() if (seen := procfs.stat(pid)) is not None}
        children: dict[int, list[int]] = {}
        for pid, seen in stats.items():
            children.setdefault(seen.parent, []).append(pid)
        tree_of: dict[int, int] = {}
        roots = dict(self.unreaped)
        roots.update((pid, stray.tree) for pid, stray in self.strays.items() if stray.tree is not None)
        if not self._adopts:
            # Orphans went to somebody else: what is left to know them by is the environment.
            roots.update((pid, tree) for pid in stats if (tree := self._environment_tree(pid)) is not None)
        for root, tree in roots.items():
            pending = [root]
            while pending:
                pid = pending.pop()
                if pid in stats and pid not in tree_of:
                    tree_of[pid] = tree
                    pending += children.get(pid, ())
        self._lineage = {pid: (stats[pid].start, tree) for pid, tree in tree_of.items()}
        found: dict[int, list[int]] = {}
        for pid, tree in tree_of.items():
            found.setdefault(tree, []).append(pid)
        return found

    # --- orphans -----------------------------------------------------------------------------------------------------

    def is_foreign(self, pid: int) -> bool:
        """Whether a child is one that some library started for itself; only its starter may reap it.

        Each leader begins a session and no process joins another's: whoever is in the bridge's own descends from none.
        """
        try:
            return os.getsid(pid) == self._session
        except ProcessLookupError:
            return False

    def adopted(self) -> dict[int, Stray]:
        """The bridge's direct children that are orphans of trees, as they stand now, zombies included."""
        known = self.strays
        current: dict[int, Stray] = {}
        for pid in procfs.children():
            if pid in self.unreaped or pid in self.own:
                continue
            stray = known.get(pid)
            if stray is None:
                if self.is_foreign(pid):
                    continue
                stray = Stray(self._attribute(pid))
            current[pid] = stray
        self.strays = current
        return current

    def _attribute(self, pid: int) -> int | None:
        """Whose orphan it is, by the strongest sign that it still carries."""
        open_trees = set(self.leaders.values())
        if self.kernel_marks and (tree := self._marked_tree(pid)) in open_trees:
            return tree
        if (tree := self._environment_tree(pid)) in open_trees:
            return tree
        seen = procfs.stat(pid)
        if seen is not None:
            start, tree = self._lineage.get(pid, (0, 0))
            if start == seen.start and tree in open_trees:
                return tree
            for sign in (seen.session, seen.group):
                if sign in self.leaders:
                    return self.leaders[sign]
        # It descends from a tree of this bridge, and every other tree has been proven extinct.
        return next(iter(open_trees)) if len(open_trees) == 1 else None

    # --- signals -----------------------------------------------------------------------------------------------------

    def signal(self, pid: int, tree: int, numbers: tuple[int, ...]) -> None:
        """Signal a process if it still is one of the tree: its number may have been given away since the sweep."""
        # Gone, or of another user: what lives on shows in the next sweep and at the timeout.
        with suppress(ProcessLookupError, PermissionError):
            if pid in self.unreaped or pid in self.strays:
                for number in numbers:
                    os.kill(pid, number)
                return
            start = None if self.kernel_marks else self._lineage.get(pid, (0, tree))[0]
            try:
                handle = os.pidfd_open(pid)
            except OSError as error:
                if isinstance(error, ProcessLookupError):
                    return
                # A kernel before 5.3: the check stands a few microseconds before the signal instead of around it.
                if self._is_still(pid, tree, start):
                    for number in numbers:
                        os.kill(pid, number)
                return
            try:
                if self._is_still(pid, tree, start):
                    for number in numbers:
                        signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def _is_still(self, pid: int, tree: int, start: int | None) -> bool:
        if start is None:
            return self._marked_tree(pid) == tree
        seen = procfs.stat(pid)
        return seen is not None and seen.start == start
