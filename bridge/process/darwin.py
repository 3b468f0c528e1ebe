"""Processes on macOS: the leader's group, a walk down its children before each signal, the environment's mark.

This file has not been run on macOS; it is type-checked only.

macOS has no child subreaper and hands nobody's orphans over. So a tree is what is found from three sides: the leader's
process group, the descendants of whoever is known, and every process whose environment carries the tree's mark. What
was found once is remembered by number and start time, so that it is not lost when its parent dies. Only a hardened
program that leaves the group and whose parent ends before anybody looked can get away.
"""

# ruff: noqa: E402
from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import anyio
import psutil

assert sys.platform == "darwin"  # Above the imports below, which other systems do not have: hence E402.

from .base import Holder, Process, SpawnError, SpawnSpec
from .lifeline import COMMAND, Lifeline
from .ports import PortPicker, is_free
from .posix import Launched, PosixProcess, how_it_ended, launch, signal_number

_VARIABLE = "SIDECAR_BRIDGE_MARK"

_TREE_BITS = 24
_PREFIX = 1
"""The guardian's lines carry marks of one shape on every system; without kernel marks only the number in it counts."""

_LOOK_FIRST_S = 0.02
_LOOK_MAX_S = 0.25
"""No event tells of an orphan's end, so while somebody waits for extinction the tree is looked at with these pauses."""

_KILL_PAUSE_FIRST_S = 0.002
_KILL_PAUSE_MAX_S = 0.05
"""A look costs several milliseconds here, and repeated kills are for what forks meanwhile."""

_CLOSE_TIMEOUT_S = 1.0
"""For each tree that still lives when the system closes, against its contract."""


class DarwinProcess(PosixProcess):
    """A tree on macOS."""

    def __init__(self, system: DarwinSystem, tree: int, spec: SpawnSpec, launched: Launched) -> None:
        super().__init__(spec, launched)
        self.tree = tree
        self._system = system
        self._known: dict[int, float] = {}
        """Start time by number of every member that was ever seen and may live."""

    def members(self) -> list[int]:
        found = self._look()
        if self._ended is None and self._pid in found:
            found.remove(self._pid)
            found.insert(0, self._pid)
        return found

    def _look(self) -> list[int]:
        """The living members; what is found joins those that are known."""
        living: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    living[process.pid] = process
        known = {pid: start for pid, start in self._known.items() if pid in living and _started(living[pid]) == start}
        for pid, process in living.items():
            if pid not in known and self._is_member(pid, process):
                known[pid] = _started(process)
        for child in _descendants(living, known):
            known[child] = _started(living[child])
        known.pop(os.getpid(), None)
        self._known = known
        if not known and self._ended is not None:
            self._system.settled(self)
        return list(known)

    def _is_member(self, pid: int, process: psutil.Process) -> bool:
        if self._ended is None:
            with suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) == self._pid:
                    return True
        with suppress(psutil.Error, OSError):
            return self._system.mark(self.tree) in process.environ().get(_VARIABLE, "").split(",")
        return False

    def signal_members(self, number: int, *, only_group: bool) -> None:
        for pid in self.members():
            with suppress(ProcessLookupError, PermissionError):
                if only_group and os.getpgid(pid) != self._pid:
                    continue
                if _started_of(pid) == self._known.get(pid):
                    os.kill(pid, number)
                    if number != signal.SIGKILL:
                        os.kill(pid, signal.SIGCONT)

    async def wait_extinct(self, timeout_s: float) -> bool:
        pause = _LOOK_FIRST_S
        with anyio.move_on_after(timeout_s):
            await self._end.wait()
            while self._look():
                await anyio.sleep(pause)
                pause = min(2 * pause, _LOOK_MAX_S)
        if self._ended is not None and not self.extinct.is_set():
            self._look()
        return self.extinct.is_set()

    async def extinguish(self, timeout_s: float) -> bool:
        deadline = anyio.current_time() + timeout_s
        pause = _KILL_PAUSE_FIRST_S
        while not self.extinct.is_set():
            # Who descends from whom is known only while the parents live.
            self._look()
            if self._ended is None:
                self.signal_group(signal.SIGKILL)
            self.signal_members(signal.SIGKILL, only_group=False)
            if anyio.current_time() >= deadline:
                break
            await anyio.sleep(pause)
            pause = min(2 * pause, _KILL_PAUSE_MAX_S)
        await anyio.lowlevel.checkpoint()
        return self.extinct.is_set()

    def close(self) -> None:
        self.close_stdin()
        self._system.settled(self)


def _started(process: psutil.Process) -> float:
    try:
        return process.create_time()
    except psutil.Error:
        return 0.0


def _started_of(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _descendants(living: dict[int, psutil.Process], roots: dict[int, float]) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for pid, process in living.items():
        with suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(pid)
    pending, seen = list(roots), set(roots)
    while pending:
        for child in children.get(pending.pop(), ()):
            if child not in seen:
                seen.add(child)
                pending.append(child)
                yield child


class DarwinSystem:
    """The operating system on macOS."""

    def __init__(
        self,
        epoch: str,
        *,
        guardian: bool = True,
        on_guardian_lost: Callable[[], None] | None = None,
        on_guardian_given_up: Callable[[], None] | None = None,
        guardian_command: tuple[str, ...] | None = None,
    ) -> None:
        """As `linux.LinuxSystem`."""
        self._epoch = epoch
        self._last_tree = 0
        self._leaders: dict[int, DarwinProcess] = {}
        self._trees: dict[int, DarwinProcess] = {}
        self._ports = PortPicker()
        self._started = False
        self._loop: asyncio.AbstractEventLoop
        self._lifeline: Lifeline | None = None
        if guardian:
            self._lifeline = Lifeline(
                (*(guardian_command or COMMAND), str(_PREFIX), str(_TREE_BITS), epoch),
                on_lost=on_guardian_lost,
                on_given_up=on_guardian_given_up,
            )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        # A host may have started the bridge with signals blocked; SIGCHLD must come, and children inherit the mask.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._started = True
        if self._lifeline is not None:
            self._lifeline.start()

    async def close(self) -> None:
        if not self._started:
            return
        self._started = False
        with anyio.CancelScope(shield=True):  # Bounded, and half an end leaves processes behind.
            for process in list(self._trees.values()):
                await process.extinguish(_CLOSE_TIMEOUT_S)
                process.close()
            if self._lifeline is not None:
                await self._lifeline.close()
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def mark(self, tree: int) -> str:
        """The environment mark of a tree."""
        return f"{self._epoch}:{tree}"

    def spawn(self, spec: SpawnSpec) -> Process:
        try:
            number = signal_number(spec.stop_signal)
        except ValueError as error:
            raise SpawnError("other", f"The stop signal cannot be used: {error}") from error
        tree = self._last_tree = (self._last_tree + 1) % (1 << _TREE_BITS)
        env = dict(spec.env)
        outer = env.get(_VARIABLE)
        env[_VARIABLE] = f"{self.mark(tree)},{outer}" if outer else self.mark(tree)
        launched = launch(spec, env)
        process = DarwinProcess(self, tree, spec, launched)
        self._leaders[launched.pid] = process
        self._trees[tree] = process
        if self._lifeline is not None:
            self._lifeline.add(_PREFIX << _TREE_BITS | tree, launched.pid, number, spec.shutdown_timeout_s)
        return process

    def settled(self, process: DarwinProcess) -> None:
        """Called when nothing of an ended leader's tree is found any more, and when a tree is closed."""
        if process.ended is None:
            return
        process.extinct.set()
        self._trees.pop(process.tree, None)
        if self._lifeline is not None:
            self._lifeline.remove(_PREFIX << _TREE_BITS | process.tree)

    def _reap(self) -> None:
        """One signal may stand for several ends. Only children that the bridge started are its to reap."""
        for pid, process in list(self._leaders.items()):
            if (status := _reaped(pid)) is not None:
                del self._leaders[pid]
                process.leader_ended(how_it_ended(status))
        if (
            self._lifeline is not None
            and (guardian := self._lifeline.pid) is not None
            and _reaped(guardian) is not None
        ):
            self._lifeline.died()

    def free_port(self, host: str) -> int:
        return self._ports.free(host)

    def port_is_free(self, host: str, port: int) -> bool:
        try:
            return is_free(host, port)
        except PermissionError:  # The sidecar may have a right to it that the bridge lacks; who holds it is not told.
            return True

    def port_holder(self, port: int) -> Holder | None:
        # Only this user's processes tell: there is no list of the whole system without privileges.
        for process in psutil.process_iter():
            if port in (_listens_on(process) or ()):
                with suppress(psutil.Error):
                    return Holder(process.pid, process.name())
        return None

    def owns_port(self, process: Process, port: int) -> bool | None:
        hidden = False
        for pid in process.members():
            try:
                held = _listens_on(psutil.Process(pid))
            except psutil.Error:
                continue
            if held is None:
                hidden = True
            elif port in held:
                return True
        return False if not hidden and self.port_holder(port) is not None else None


def _reaped(pid: int) -> int | None:
    """The wait status of a child that ended; None for one that lives."""
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # Somebody else reaped it: that it ended is certain, how is lost.
        return 0
    return status if reaped else None


def _listens_on(process: psutil.Process) -> set[int] | None:
    """Ports it listens on; None when the system does not tell."""
    try:
        connections = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return set()
    except psutil.Error:
        return None
    return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
