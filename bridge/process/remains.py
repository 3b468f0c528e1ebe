"""The processes that one dead bridge left on Linux or macOS: finds them, proves whose they are, ends them.

It borrows eyes and hands from `guardian`, which does the same work at the moment of a bridge's death; what is decided
here is what may be touched so much later, when numbers may have been given to others. `leftovers` makes a report of it.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import signal
import sys
import time

assert sys.platform != "win32"  # Above the imports below, which other systems do not have: hence E402.

from . import guardian
from .identity import start_of
from .leftovers import Fate
from .trees import PastBridge

_GUARDIAN_S = 3.0
"""A guardian that outlived its bridge ends within 3 s of its work, and does it better: it saw the trees alive."""
_POLL_S = 0.02
_CLEAN_PASSES = 3
_CHASE_PAUSE_S = 0.005
_CHASE_S = 1.5
"""A program that does nothing but fork itself on is in no list for longer than a moment: it is chased through the
numbers until so many passes, with these pauses, meet none. A pass takes a few milliseconds and nearly always hits."""
_VARIABLE = "SIDECAR_BRIDGE_MARK"

if sys.platform == "linux":
    from . import procfs
    from .census import TREE_BITS, Census

    def _prefix_of(epoch: str) -> int:
        return Census(epoch, kernel_marks=False, adopts=False).prefix

    def own_prefix() -> int:
        """The bridge in whose kernel mark this process stands; any other number when there is none."""
        return (procfs.kernel_mark(os.getpid()) or 0) >> TREE_BITS

else:
    TREE_BITS = 24

    def _prefix_of(epoch: str) -> int:
        """Any: there are no kernel marks, and the number only stands before a tree's."""
        return 1

    def own_prefix() -> int:
        """0: there are no kernel marks."""
        return 0


_NO_TREE = -1

Found = dict[int, tuple[int, guardian.Seen]]
"""A living process by its number: its mark, and what was seen of it."""


class Remains:
    """What is left of one bridge."""

    def __init__(self, past: PastBridge) -> None:
        self._past = past
        self._prefix = _prefix_of(past.epoch)
        self._marked = self._search({})

    def _search(self, trees: guardian.Trees) -> guardian.Bridge:
        return guardian.Bridge(self._prefix, TREE_BITS, self._past.epoch, trees)

    def end(self) -> tuple[list[tuple[int, int, Fate]], PastBridge | None]:
        """End what is proven to be left: each process with its tree's number and its fate.

        Beside it the bridge with the trees to look for again; None when nothing of it can be alive.
        """
        past = self._past
        if past.start and start_of(past.pid) == past.start:
            # It lives, so nothing of it is left over: its folder was taken from it with the lock in it.
            return [], past
        found = self._marked.find()
        if found and self._await_guardian():
            found = self._marked.find()
        kin = self._marks_us() or is_kin(found)
        if found and kin:
            return [(pid, self._tree(mark), "kin") for pid, (mark, _) in found.items()], past
        fates: list[tuple[int, int, Fate]] = []
        if found:
            guardian.clean_up(self._search(self._proven_trees(found)))
            undying = self._marked.find()
            fates += [
                (pid, self._tree(mark), "undying" if is_same(undying, pid, seen) else "ended")
                for pid, (mark, seen) in found.items()
            ]
        elif not kin and self._chase():
            fates.append((0, _NO_TREE, "fleeting"))
        unproven = [tree for tree in past.trees if tree.pid not in found and start_of(tree.pid) == tree.start]
        fates += [(tree.pid, tree.number, "unproven") for tree in unproven]
        if all(fate in ("ended", "fleeting") for _, _, fate in fates):
            return fates, None
        return fates, past._replace(trees=tuple(tree for tree in past.trees if start_of(tree.pid) == tree.start))

    def _chase(self) -> bool:
        """Kill what lives too briefly to be found; whether there was any."""
        hits = clean = 0
        until = time.monotonic() + _CHASE_S
        while clean < _CLEAN_PASSES and time.monotonic() < until:
            hit = self._marked.kill_marked()
            hits += hit
            clean = 0 if hit else clean + 1
            time.sleep(_CHASE_PAUSE_S if clean else 0)
        return hits > 0

    def _marks_us(self) -> bool:
        """Whether this bridge itself carries a mark of the dead one."""
        marks = os.environ.get(_VARIABLE, "").split(",")
        return any(mark.rpartition(":")[0] == self._past.epoch for mark in marks) or own_prefix() == self._prefix

    def _tree(self, mark: int) -> int:
        return mark & (1 << TREE_BITS) - 1

    def _proven_trees(self, found: Found) -> guardian.Trees:
        """The trees whose leader lives and is proven: they get their own stop signal and their time to obey it."""
        trees: guardian.Trees = {}
        for tree in self._past.trees:
            mark = self._prefix << TREE_BITS | tree.number
            if tree.pid in found and found[tree.pid][0] == mark and start_of(tree.pid) == tree.start:
                number = getattr(signal, tree.stop_signal, signal.SIGTERM)
                trees[mark] = guardian.Tree(tree.pid, number, tree.timeout_s, found[tree.pid][1].start)
        return trees

    def _await_guardian(self) -> bool:
        """Let a guardian that is still at work finish; False when there is none."""
        pid = guardian_of(self._past.epoch)
        if pid is None:
            return False
        until = time.monotonic() + _GUARDIAN_S
        start = start_of(pid)
        while start and start_of(pid) == start and time.monotonic() < until:
            time.sleep(_POLL_S)
        return True


def is_same(found: Found, pid: int, seen: guardian.Seen) -> bool:
    """Whether the process is among those that were found."""
    return pid in found and found[pid][1].start == seen.start


def is_kin(found: Found) -> bool:
    """Whether this bridge descends from one of these, or shares a group with it.

    An app that its own sidecar started anew, say: then whoever waits for this bridge is among what the mark names.
    """
    return os.getpgrp() in {seen.group for _, seen in found.values()} or any(pid in found for pid in ancestors())


def ancestors() -> list[int]:
    """The processes above this one, nearest first."""
    line: list[int] = []
    seen = guardian.look_at(os.getpid())
    while seen is not None and seen.parent > 1 and seen.parent not in line:
        line.append(seen.parent)
        seen = guardian.look_at(seen.parent)
    return line


def guardian_of(epoch: str) -> int | None:
    """The guardian of a bridge, known by its arguments; None when there is none."""
    for pid, words in _command_lines():
        if words[-2:] == [str(TREE_BITS), epoch] and pid != os.getpid():
            return pid
    return None


def _command_lines() -> list[tuple[int, list[str]]]:
    if sys.platform == "linux":
        return [
            (pid, guardian.read_file(f"/proc/{pid}/cmdline").decode("utf-8", "replace").rstrip("\0").split("\0"))
            for pid in guardian.numbers()
        ]
    import psutil

    lines = []
    for process in psutil.process_iter():
        try:
            lines.append((process.pid, process.cmdline()))
        except psutil.Error:  # Gone, or not ours to read: then no guardian of ours.
            continue
    return lines
