"""Processes on Linux: every orphan becomes the bridge's child, every tree carries a mark, one SIGCHLD handler sees all.

The bridge is a child subreaper, so a process whose parent dies becomes the bridge's direct child. Hence the proof of
extinction: each living process of a tree has a living ancestor among the bridge's direct children, so a tree is extinct
when its leader is reaped and no other direct child belongs to it. Only deaths of direct children can end a tree, and
each of those is a SIGCHLD: nothing is polled. `census` knows who belongs where, `lifeline` keeps the guardian.

Limits: a process that took both marks off, left its session and group, and whose tree is not the only one, is ended
when the system closes. A library that starts children beside the bridge keeps them as long as it does not give them a
session of their own.
"""

# ruff: noqa: E402
from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Container
from contextlib import suppress

import anyio

assert sys.platform == "linux"  # Above the imports below, which other systems do not have: hence E402.

from . import procfs
from .base import Holder, Process, SpawnError, SpawnSpec
from .census import TREE_BITS, Census
from .lifeline import COMMAND, Lifeline
from .ports import PortPicker, is_free
from .posix import Launched, PosixProcess, how_it_ended, launch, signal_number

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

_REAP_MAX = 256
"""Zombies per pass of the loop (about 2 ms); the rest follow in the next pass."""

_RECHECK_FIRST_S = 0.05
_RECHECK_MAX_S = 0.25
"""While somebody waits for extinction the children are looked at this often even without SIGCHLD: it guards against a
signal that was lost, and against systems that do not hand orphans to the bridge."""

_HUNT_S = 0.002
"""How long one look may follow a chain of forks before the loop has its turn."""

_KILLS_S = 0.005
"""What all kills together may take of one pass of the loop; further trees have their turn in the next one."""

_EAGER_PASSES = 8
_KILL_PAUSE_FIRST_S = 0.001
_KILL_PAUSE_MAX_S = 0.025
"""A kill repeats at once a few times, which ends whatever forks meanwhile, then with growing pauses: what is left by
then sleeps in the kernel and no haste helps."""

_STRAYS_TIMEOUT_S = 1.0
"""At the end, for orphans that no tree owns; a killed process needs a few milliseconds."""

_PIPE_BYTES = 1 << 20
"""A pipe that holds 1 MiB lets a sidecar go on while the bridge is busy, and costs a third less to drain."""
_PIPES_MAX = 32
"""Enlarged ones at a time. Above 64 MiB of pipes Linux shrinks every new pipe of the same user to 8 KiB: take half."""


def _prctl() -> Callable[..., int]:
    function = ctypes.CDLL(None, use_errno=True).prctl
    function.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
    function.restype = ctypes.c_int
    found: Callable[..., int] = function
    return found


class LinuxProcess(PosixProcess):
    """A tree on Linux."""

    def __init__(self, system: LinuxSystem, tree: int, spec: SpawnSpec, launched: Launched, pipes: int) -> None:
        super().__init__(spec, launched)
        self.tree = tree
        self.enlarged_pipes = pipes
        self._system = system
        self._census = system.census
        self._closed = False

    def members(self) -> list[int]:
        alive = [pid for pid in self._census.members(self.tree) if pid != self._pid and procfs.alive(pid)]
        if self._ended is None and procfs.alive(self._pid):
            alive.insert(0, self._pid)
        return alive

    def signal_members(self, number: int, *, only_group: bool) -> None:
        numbers = (number,) if number == signal.SIGKILL else (number, signal.SIGCONT)
        for pid in self.members():
            with suppress(ProcessLookupError):
                if not only_group or os.getpgid(pid) == self._pid:
                    self._census.signal(pid, self.tree, numbers)

    async def wait_extinct(self, timeout_s: float) -> bool:
        if self.extinct.is_set():
            return True
        pause = _RECHECK_FIRST_S
        self._system.look()
        with anyio.move_on_after(timeout_s):
            while not self.extinct.is_set():
                with anyio.move_on_after(pause):
                    await self.extinct.wait()
                self._system.look()
                pause = min(2 * pause, _RECHECK_MAX_S)
        return self.extinct.is_set()

    async def extinguish(self, timeout_s: float) -> bool:
        deadline = anyio.current_time() + timeout_s
        passes, pause = 0, _KILL_PAUSE_FIRST_S
        self._system.doom(self.tree)
        try:
            while True:
                await self._system.turn()
                if not self.extinct.is_set():
                    began = time.monotonic()
                    self._kill()
                    self._system.charge(time.monotonic() - began)
                # Several trees that are killed in one pass of the loop share what follows.
                await anyio.sleep(0)
                self._system.look_once_a_pass()
                left = deadline - anyio.current_time()
                if self.extinct.is_set() or left <= 0:
                    return self.extinct.is_set()
                passes += 1
                if passes > _EAGER_PASSES:
                    with anyio.move_on_after(min(pause, left)):
                        await self.extinct.wait()
                    pause = min(2 * pause, _KILL_PAUSE_MAX_S)
        finally:
            self._system.spare(self.tree)

    def _kill(self) -> None:
        """The group at once, then everything marked; the orphans that this makes are `look`'s."""
        if self._ended is None:
            self.signal_group(signal.SIGKILL)
            # A group that holds a program of another user is killed as far as allowed, and may then refuse the rest.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
        for pid in self._census.members(self.tree):
            if pid != self._pid:
                self._census.signal(pid, self.tree, (signal.SIGKILL,))

    def close(self) -> None:
        self._closed = True
        self.close_stdin()
        self._system.forget_if_done(self)

    @property
    def closed(self) -> bool:
        return self._closed


class LinuxSystem:
    """The operating system on Linux."""

    def __init__(
        self,
        epoch: str,
        *,
        guardian: bool = True,
        kernel_marks: bool = True,
        on_guardian_lost: Callable[[], None] | None = None,
        on_guardian_given_up: Callable[[], None] | None = None,
        guardian_command: tuple[str, ...] | None = None,
    ) -> None:
        """`kernel_marks=False` takes the way of systems that keep no marks; `guardian=False` is for tests.

        `on_guardian_lost` is called when a guardian died while the bridge lives, before another is started,
        `on_guardian_given_up` when none is started any more. `guardian_command` starts the guardian where
        `sys.executable` is no Python; the arguments of `guardian.main` are added to it.
        """
        self._epoch = epoch
        self._kernel_marks = kernel_marks
        self._trees: dict[int, LinuxProcess] = {}
        self._headless: dict[int, LinuxProcess] = {}
        self._doomed: dict[int, int] = {}
        self._looked = False
        self._spent_s = 0.0
        self._last_tree = 0
        self._ports = PortPicker()
        self._prctl = _prctl()
        self._was_subreaper = False
        self._adopts = False
        self._started = False
        self._loop: asyncio.AbstractEventLoop
        self.census: Census
        self._lifeline: Lifeline | None = None
        self._guardian_wanted = guardian
        self._guardian_command = guardian_command
        self._on_guardian_lost = on_guardian_lost
        self._on_guardian_given_up = on_guardian_given_up
        self._enlarge_pipes = True
        self._enlarged = 0

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        # A host may have started the bridge with signals blocked; SIGCHLD must come, and children inherit the mask.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        flag = ctypes.c_int()
        self._prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(flag), 0, 0, 0)
        self._was_subreaper = bool(flag.value)
        self._adopts = self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        self.census = Census(self._epoch, kernel_marks=self._kernel_marks, adopts=self._adopts)
        self._loop.add_signal_handler(signal.SIGCHLD, self._on_sigchld)
        self._started = True
        if self._guardian_wanted:
            self._start_guardian()

    def _start_guardian(self) -> None:
        self._lifeline = Lifeline(
            (*(self._guardian_command or COMMAND), str(self.census.prefix), str(TREE_BITS), self._epoch),
            on_lost=self._on_guardian_lost,
            on_given_up=self._on_guardian_given_up,
        )
        self._lifeline.start()
        self._note_guardian()

    def _note_guardian(self) -> None:
        self.census.own = set() if self.guardian_pid is None else {self.guardian_pid}

    async def close(self) -> None:
        if not self._started:
            return
        self._started = False
        with anyio.CancelScope(shield=True):  # Bounded, and half an end leaves processes behind.
            for process in list(self._trees.values()):
                await process.extinguish(_STRAYS_TIMEOUT_S)
                process.close()
            await self._end_unknown_strays()
            if self._lifeline is not None:
                await self._lifeline.close()
        self._loop.remove_signal_handler(signal.SIGCHLD)
        self._prctl(_PR_SET_CHILD_SUBREAPER, int(self._was_subreaper), 0, 0, 0)

    async def _end_unknown_strays(self) -> None:
        deadline = anyio.current_time() + _STRAYS_TIMEOUT_S
        while anyio.current_time() < deadline:
            self.look()
            self._kill_strays((None,))
            if not self.census.strays:
                return
            await anyio.sleep(_KILL_PAUSE_FIRST_S)

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's; None when there is none."""
        return self._lifeline.pid if self._lifeline is not None else None

    # --- starts ------------------------------------------------------------------------------------------------------

    def spawn(self, spec: SpawnSpec) -> Process:
        try:
            number = signal_number(spec.stop_signal)
        except ValueError as error:
            raise SpawnError("other", f"The stop signal cannot be used: {error}") from error
        tree = self._last_tree = (self._last_tree + 1) % (1 << TREE_BITS)
        env = dict(spec.env)
        own = self.census.environment_mark(tree)
        outer = env.get(procfs.MARK_VARIABLE)
        env[procfs.MARK_VARIABLE] = f"{own},{outer}" if outer else own
        with self.census.marking(tree):
            launched = launch(spec, env)
        self.census.check_mark(launched.pid, tree)
        pipes = sum(self._enlarge(fd) for fd in (launched.stdout, launched.stderr) if fd is not None)
        process = LinuxProcess(self, tree, spec, launched, pipes)
        self._trees[tree] = process
        self.census.leaders[launched.pid] = tree
        self.census.unreaped[launched.pid] = tree
        if self._lifeline is not None:
            self._lifeline.add(self.census.mark(tree), launched.pid, number, spec.shutdown_timeout_s)
        return process

    def _enlarge(self, fd: int) -> bool:
        if not self._enlarge_pipes or self._enlarged >= _PIPES_MAX:
            return False
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError as error:
            # This user has used up his share, or the system allows no such size: the next one would fare no better.
            self._enlarge_pipes = error.errno not in (errno.EPERM, errno.EINVAL)
            return False
        self._enlarged += 1
        return True

    def forget_if_done(self, process: LinuxProcess) -> None:
        """Drop a tree that is both closed and extinct."""
        if not (process.closed and process.extinct.is_set()) or self._trees.get(process.tree) is not process:
            return
        del self._trees[process.tree]
        self._enlarged -= process.enlarged_pipes

    # --- ends --------------------------------------------------------------------------------------------------------

    def _on_sigchld(self) -> None:
        self.look()

    def look(self) -> None:
        """Reap what has ended, kill the orphans of doomed trees, settle which trees are extinct."""
        until = time.monotonic() + _HUNT_S
        while True:
            if self._reap() == _REAP_MAX:
                self._loop.call_soon(self.look)
            if not (self._doomed and self._kill_strays(self._doomed)) or time.monotonic() > until:
                break
        if self._headless:
            self._settle()

    def look_once_a_pass(self) -> None:
        """As `look`, for callers of which many may come in one pass of the loop."""
        if not self._looked:
            self._looked = True
            self._loop.call_soon(self._look_again)
            self.look()

    def _look_again(self) -> None:
        self._looked = False

    async def turn(self) -> None:
        """Wait for a pass of the loop that has time left for a kill."""
        while self._spent_s > _KILLS_S:
            await anyio.sleep(0)

    def charge(self, spent_s: float) -> None:
        """Put a kill's time on this pass of the loop."""
        if not self._spent_s:
            self._loop.call_soon(self._next_pass)
        self._spent_s += spent_s

    def _next_pass(self) -> None:
        self._spent_s = 0.0

    def doom(self, tree: int) -> None:
        """From now on every orphan of the tree is killed as soon as it is seen."""
        self._doomed[tree] = self._doomed.get(tree, 0) + 1

    def spare(self, tree: int) -> None:
        """One `doom` less."""
        self._doomed[tree] -= 1
        if not self._doomed[tree]:
            del self._doomed[tree]

    def _reap(self) -> int:
        """Reap zombies, the bridge's own libraries' children excepted; how many."""
        count = 0
        while count < _REAP_MAX:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return count
            if found is None:
                return count
            if not self._bury(found.si_pid):
                # A library's zombie stays at the head of the kernel's list until the library takes it.
                return count + sum(self._bury(pid) for pid in procfs.children())
            count += 1
        return count

    def _bury(self, pid: int) -> bool:
        """Reap one child if it has ended; False for one that is alive or not the bridge's to reap."""
        tree = self.census.unreaped.get(pid)
        known = tree is not None or pid in self.census.own or pid in self.census.strays
        if not known and self.census.is_foreign(pid):
            return False
        try:
            reaped, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return False
        if reaped == 0:
            return False
        self.census.strays.pop(pid, None)
        if tree is not None:
            del self.census.unreaped[pid]
            process = self._trees[tree]
            self._headless[tree] = process
            process.leader_ended(how_it_ended(status))
        elif self._lifeline is not None and pid == self.guardian_pid:
            self._lifeline.died()
            self._note_guardian()
        return True

    def _settle(self) -> None:
        """Find the trees that are extinct among those whose leader ended."""
        haunted = {stray.tree for stray in self.census.adopted().values()}
        if not self._adopts:
            haunted |= {tree for tree, pids in self.census.sweep().items() if any(map(procfs.alive, pids))}
        for tree in [tree for tree in self._headless if tree not in haunted]:
            process = self._headless.pop(tree)
            process.extinct.set()
            if self.census.leaders.get(process.pid) == tree:
                del self.census.leaders[process.pid]
            if self._lifeline is not None:  # At once: the number of its group is free for reuse.
                self._lifeline.remove(self.census.mark(tree))
            self.forget_if_done(process)

    def _kill_strays(self, trees: Container[int | None]) -> int:
        """Kill the orphans of these trees; how many had not been killed before."""
        fresh = 0
        for pid, stray in self.census.adopted().items():
            if stray.tree in trees and not stray.killed:
                stray.killed = True
                fresh += 1
                with suppress(PermissionError):  # A program that changed its user; the timeout tells.
                    os.kill(pid, signal.SIGKILL)
        return fresh

    # --- ports -------------------------------------------------------------------------------------------------------

    def free_port(self, host: str) -> int:
        return self._ports.free(host)

    def port_is_free(self, host: str, port: int) -> bool:
        try:
            return is_free(host, port)
        except PermissionError:  # Below 1024: the sidecar may have a right to it that the bridge lacks.
            return not procfs.listening_sockets(port)

    def port_holder(self, port: int) -> Holder | None:
        wanted = procfs.listening_sockets(port)
        if wanted:
            for pid in procfs.pids():
                if wanted & (procfs.sockets(pid) or set()):
                    return Holder(pid, procfs.name(pid))
        return None

    def owns_port(self, process: Process, port: int) -> bool | None:
        wanted = procfs.listening_sockets(port)
        if not wanted:  # Nobody listens here: in another network namespace, or no more.
            return None
        hidden = False
        for pid in process.members():
            held = procfs.sockets(pid)
            if held is None:
                hidden = True
            elif wanted & held:
                return True
        return None if hidden else False
