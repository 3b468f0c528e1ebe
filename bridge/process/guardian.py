"""Kills what a killed bridge left behind. A process of its own: `main` with the arguments PREFIX BITS EPOCH.

It turns lines on fd 0 into a table of trees and sleeps in between:

    + MARK GROUP SIGNAL TIMEOUT   a tree lives: kernel mark, its leader's group, its stop signal, seconds to obey that
    - MARK                        that tree is extinct
    quit                          the bridge ends in order: nothing to do

When the pipe ends without `quit`, the bridge is gone. Then every process of the bridge gets its tree's stop signal, and
what still lives after the tree's timeout is killed, also what was started too late for its line to arrive. Only the
standard library, and of that the least: this process waits beside every bridge and should weigh nothing. The bridge's
side is `lifeline`; the marks are explained in `census`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time

assert sys.platform != "win32"

_GRACE_MAX_S = 1.2
"""Nothing may be alive 2 s after the bridge's death: a stop signal gets this long at most, the kill has the rest."""
_KILL_MAX_S = 1.5
"""What SIGKILL has not ended by then sleeps in the kernel; nobody can do more."""
_POLL_S = 0.015
_KILL_POLL_S = 0.001
_CLEAN_LOOKS = 3
_SURE_S = 0.01
"""A program that was being started while the bridge died may appear after a look that found nothing, and one look may
miss a process that lives for a moment only: so this many in a row, with this pause, decide."""
_AHEAD = 128
"""Numbers tried beyond the newest process's, about a microsecond each: what is forked while they are tried is met."""
_LINE_BYTES_MAX = 4096
"""A line is below 100 bytes; a pipe that brings more without a newline brings rubbish, which is dropped."""
_RLIMIT_LOCKS = 10
_VARIABLE = b"SIDECAR_BRIDGE_MARK="
_IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGTSTP")


class Tree:  # Neither dataclasses nor typing: their imports would make this process a quarter heavier.
    """A living tree as the bridge described it. `start` tells its leader from a later process of the same number."""

    __slots__ = ("group", "start", "stop_signal", "timeout_s")

    def __init__(self, group: int, stop_signal: int, timeout_s: float, start: str) -> None:
        self.group = group
        self.stop_signal = stop_signal
        self.timeout_s = timeout_s
        self.start = start


class Seen:
    """A process. `start` identifies it together with its number."""

    __slots__ = ("dead", "group", "parent", "start")

    def __init__(self, parent: int, group: int, start: str, dead: bool) -> None:
        self.parent = parent
        self.group = group
        self.start = start
        self.dead = dead


_UNSEEN = Seen(0, 0, "", False)
"""A process of which only the mark was looked at."""

Trees = dict[int, Tree]


def main(arguments: list[str]) -> int:
    """Watch, and clean up when the bridge is gone. Exit code 0, whatever was found."""
    prefix, bits, epoch = int(arguments[0]), int(arguments[1]), arguments[2]
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    trees = watch()
    if trees is not None:
        clean_up(Bridge(prefix, bits, epoch, trees))
    return 0


def watch() -> Trees | None:
    """Follow the lines on fd 0 until it ends: the trees that live then, or None after `quit`."""
    trees: Trees = {}
    rest = b""
    while True:
        chunk = os.read(0, 65536)
        if not chunk:
            return trees
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES_MAX:
            rest = b""
        for line in lines:
            if line == b"quit":
                return None
            follow(trees, line.split())


def follow(trees: Trees, words: list[bytes]) -> None:
    """Apply one line to the table. A line that makes no sense changes nothing."""
    try:
        if words[0] == b"-":
            trees.pop(int(words[1]), None)
        elif words[0] == b"+":
            group = int(words[2])
            seen = look_at(group)
            trees[int(words[1])] = Tree(group, int(words[3]), float(words[4]), seen.start if seen else "")
    except (IndexError, ValueError):
        return


class Bridge:
    """What a bridge left: finds its processes by kernel mark, by environment mark and by descent from those."""

    def __init__(self, prefix: int, bits: int, epoch: str, trees: Trees) -> None:
        self.trees = trees
        self._prefix = prefix
        self._bits = bits
        self._epoch = epoch.encode()

    def find(self) -> dict[int, tuple[int, Seen]]:
        """Its living processes: by number, the mark of the tree and the process."""
        table = processes()
        found: dict[int, tuple[int, Seen]] = {}
        children: dict[int, list[int]] = {}
        leaders = {tree.group: mark for mark, tree in self.trees.items()}
        own = os.getpid()
        for pid, seen in table.items():
            children.setdefault(seen.parent, []).append(pid)
            mark = self._mark_of(pid)
            if mark is None and pid in leaders and self.trees[leaders[pid]].start == seen.start:
                mark = leaders[pid]
            if mark is None and (leader := table.get(seen.group)) is not None and seen.group in leaders:
                tree = self.trees[leaders[seen.group]]
                mark = leaders[seen.group] if leader.start == tree.start else None
            if mark is not None:
                found[pid] = (mark, seen)
        pending = list(found)
        while pending:
            parent = pending.pop()
            for pid in children.get(parent, ()):
                if pid not in found:
                    found[pid] = (found[parent][0], table[pid])
                    pending.append(pid)
        return {pid: entry for pid, entry in found.items() if not entry[1].dead and pid != own}

    def kill_marked(self) -> int:
        """Kill whoever carries the kernel mark; how many were alive.

        Fast enough to overtake processes that only live to fork the next: their numbers rise, and this goes through
        the numbers upwards, faster than they do, and on beyond the newest that there was.
        """
        hits = 0
        for pid in (*numbers(), *next_numbers()):
            if self._kernel_mark(pid) is not None:
                send(self, pid, _UNSEEN, signal.SIGKILL)
                # A dead one keeps its mark until its new parent takes note of it, which may be long.
                seen = look_at(pid)
                hits += seen is not None and not seen.dead
        return hits

    def is_still(self, pid: int, start: str) -> bool:
        """Whether the number still means the process that was found."""
        if not start:
            return self._kernel_mark(pid) is not None
        seen = look_at(pid)
        return seen is not None and seen.start == start

    def _mark_of(self, pid: int) -> int | None:
        mark = self._kernel_mark(pid)
        return self._environment_mark(pid) if mark is None else mark

    def _kernel_mark(self, pid: int) -> int | None:
        if sys.platform != "linux":
            return None
        try:
            soft = resource.prlimit(pid, _RLIMIT_LOCKS)[0]
        except ProcessLookupError:
            return None
        except PermissionError:
            soft = limit_of_other_user(pid)
        return soft if soft >> self._bits == self._prefix else None

    def _environment_mark(self, pid: int) -> int | None:
        at = 0
        text = b"\0" + environment(pid)
        while (at := text.find(b"\0" + _VARIABLE, at)) >= 0:
            at += 1 + len(_VARIABLE)
            for entry in text[at : text.find(b"\0", at)].split(b","):
                epoch, _, number = entry.rpartition(b":")
                if epoch == self._epoch and number.isdigit():
                    return self._prefix << self._bits | int(number)
        return None


def clean_up(bridge: Bridge) -> None:
    """Stop, wait, kill, until nothing is left."""
    began = time.monotonic()
    stop(bridge)
    while True:
        now = time.monotonic() - began
        left = bridge.find()
        late = {pid: entry for pid, entry in left.items() if now >= grace_of(bridge, entry[0])}
        if late or not left:
            break
        time.sleep(_POLL_S)
    while time.monotonic() - began < _GRACE_MAX_S and left:
        # Trees with a shorter timeout do not cut the others' short.
        left = bridge.find()
        now = time.monotonic() - began
        for pid, (mark, seen) in left.items():
            if now >= grace_of(bridge, mark):
                send(bridge, pid, seen, signal.SIGKILL)
        time.sleep(_POLL_S)
    kill_all(bridge, time.monotonic() + _KILL_MAX_S)


def grace_of(bridge: Bridge, mark: int) -> float:
    """Seconds that a tree has for its stop signal; none when the bridge died before it told of the tree."""
    tree = bridge.trees.get(mark)
    return 0.0 if tree is None else min(tree.timeout_s, _GRACE_MAX_S)


def stop(bridge: Bridge) -> None:
    """Send each tree's stop signal, to its group at once and to who left the group one by one."""
    left = bridge.find()
    groups = set()
    for mark, tree in bridge.trees.items():
        if tree.group in left and left[tree.group][0] == mark and left[tree.group][1].start == tree.start:
            groups.add(tree.group)
            for number in (tree.stop_signal, signal.SIGCONT):
                try:
                    os.killpg(tree.group, number)
                except OSError:  # Gone, or of another user.
                    break
    for pid, (mark, seen) in left.items():
        known = bridge.trees.get(mark)
        if known is not None and seen.group not in groups:
            send(bridge, pid, seen, known.stop_signal)
            send(bridge, pid, seen, signal.SIGCONT)


def kill_all(bridge: Bridge, until: float) -> None:
    """SIGKILL until several looks in a row find nothing."""
    clean = 0
    while time.monotonic() < until:
        hits = bridge.kill_marked()
        left = bridge.find()
        for pid, (_, seen) in left.items():
            send(bridge, pid, seen, signal.SIGKILL)
        clean = 0 if left or hits else clean + 1
        if clean == _CLEAN_LOOKS:
            return
        time.sleep(_SURE_S if clean else _KILL_POLL_S)


def send(bridge: Bridge, pid: int, seen: Seen, number: int) -> None:
    """Signal a process if the number still means it."""
    try:
        if sys.platform == "linux" and hasattr(os, "pidfd_open"):
            handle = os.pidfd_open(pid)
            try:
                if bridge.is_still(pid, seen.start):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        elif bridge.is_still(pid, seen.start):
            os.kill(pid, number)
    except OSError:  # Gone, or of another user; the next look shows it.
        return


# --- the system ------------------------------------------------------------------------------------------------------


def read_file(path: str) -> bytes:
    """The whole of a file; empty when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    chunks = []
    try:
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError:  # The process ended meanwhile.
        return b""
    finally:
        os.close(fd)
    return b"".join(chunks)


def numbers() -> list[int]:
    """Every process's number, where there is a /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if sys.platform == "linux" else []


def next_numbers() -> range:
    """The numbers around and beyond the newest process's, where the system tells which that is."""
    words = read_file("/proc/loadavg").split() if sys.platform == "linux" else []
    newest = int(words[4]) if len(words) == 5 else 0
    return range(max(2, newest - _AHEAD // 4), newest + _AHEAD) if newest else range(0)


def limit_of_other_user(pid: int) -> int:
    """The soft limit of locks from the listing that everybody may read."""
    for line in read_file(f"/proc/{pid}/limits").splitlines():
        if line.startswith(b"Max file locks"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else -1
    return -1


def environment(pid: int) -> bytes:
    """The environment it was started with, entries ended by NUL; empty when it is not ours to read."""
    if sys.platform == "linux":
        return read_file(f"/proc/{pid}/environ")
    # ps prints arguments and environment in one line, by spaces.
    return run("/bin/ps", "-wwE", "-o", "command=", "-p", str(pid)).replace(b" ", b"\0")


def processes() -> dict[int, Seen]:
    """Every process."""
    if sys.platform == "linux":
        return {pid: seen for pid in numbers() if (seen := look_at(pid)) is not None}
    return dict(map(parse_ps, run("/bin/ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart=").splitlines()))


def look_at(pid: int) -> Seen | None:
    """One process; None when it is gone."""
    if sys.platform == "linux":
        text = read_file(f"/proc/{pid}/stat")
        if not text:
            return None
        fields = text[text.rindex(b")") + 2 :].split()
        return Seen(int(fields[1]), int(fields[2]), fields[19].decode(), fields[0] in (b"Z", b"X"))
    text = run("/bin/ps", "-o", "pid=,ppid=,pgid=,stat=,lstart=", "-p", str(pid))
    return parse_ps(text)[1] if text.strip() else None


def parse_ps(line: bytes) -> tuple[int, Seen]:
    """One line of ps."""
    pid, parent, group, state, start = line.split(None, 4)
    return int(pid), Seen(int(parent), int(group), start.decode().strip(), state.startswith(b"Z"))


def run(*command: str) -> bytes:
    """What a program writes."""
    read_end, write_end = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, write_end, 1)]
    try:
        pid = os.posix_spawn(command[0], command, {"LC_ALL": "C"}, file_actions=actions)
    finally:
        os.close(write_end)
    chunks = []
    while chunk := os.read(read_end, 65536):
        chunks.append(chunk)
    os.close(read_end)
    os.waitpid(pid, 0)
    return b"".join(chunks)
