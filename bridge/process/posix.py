"""Starts a program the way every POSIX system shares, and is the leader's half of a Process.

`launch` makes pipes and a child in its own session; `PosixProcess` keeps what is known of that child, wakes whoever
waits for its end and signals its group. Who descends from it is the business of `linux` and `darwin`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

import anyio

from .base import Ended, SpawnSpec
from .spawn_errors import diagnose

assert sys.platform != "win32"


_CHECKED = sorted(
    int(number)
    for number in signal.valid_signals()
    if number < 32 and number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ)
)
"""Signals that somebody may have set to be ignored. Subprocess itself restores SIGPIPE and SIGXFSZ; the real-time ones
are left out, as nobody ignores them and looking at each start would double its Python."""


class Launched(NamedTuple):
    """A child and the bridge's ends of its pipes."""

    pid: int
    stdin: int | None
    stdout: int
    stderr: int | None


def launch(spec: SpawnSpec, env: Mapping[str, str]) -> Launched:
    """Start `spec` with the environment `env`, in its own session. Raises SpawnError.

    The child has default signal actions and no descriptors but 0, 1 and 2. The bridge's ends of its output are
    non-blocking. Takes a fraction of a millisecond, whatever the bridge's size: nothing here turns vfork off.
    """
    fds: list[int] = []
    try:
        out_read, out_write = _pipe(fds)
        err_read, err_write = (None, None) if spec.merge_output else _pipe(fds)
        in_read, in_write = _pipe(fds) if spec.stdin == "pipe" else (os.open(os.devnull, os.O_RDONLY), None)
        if in_write is None:
            fds.append(in_read)
        pid = start_child(
            spec.argv,
            cwd=spec.cwd,
            env=env,
            stdin=in_read,
            stdout=out_write,
            stderr=subprocess.STDOUT if err_write is None else err_write,
        )
    except (OSError, ValueError) as error:
        _close(fds)
        raise diagnose(spec, error) from error
    ours = (in_write, out_read, err_read)
    _close([fd for fd in fds if fd not in ours])
    for fd in (out_read, err_read):
        if fd is not None:
            os.set_blocking(fd, False)
    return Launched(pid, in_write, out_read, err_read)


def start_child(
    argv: tuple[str, ...], *, cwd: str, env: Mapping[str, str], stdin: int, stdout: int, stderr: int | None
) -> int:
    """The pid of a new child in its own session. Whoever calls this reaps it. Raises OSError or ValueError."""
    if not argv or not argv[0]:
        raise ValueError("the command is empty")
    with _no_ignored_signals():
        child = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            close_fds=True,
            restore_signals=True,
        )
    # The SIGCHLD handler reaps every child; told so, the object neither waits for it nor warns.
    child.returncode = 0
    return child.pid


@contextmanager
def _no_ignored_signals() -> Iterator[None]:
    """Exec gives a caught signal its default action but keeps an ignored one ignored, so nothing is ignored within."""
    ignored = [number for number in _CHECKED if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _do_nothing)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Catches a signal and drops it: for the bridge the same as ignoring it."""


def _pipe(fds: list[int]) -> tuple[int, int]:
    read_end, write_end = os.pipe()  # Python's are never inherited.
    fds += (read_end, write_end)
    return read_end, write_end


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def how_it_ended(status: int) -> Ended:
    """A wait status as Ended."""
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, None) if code >= 0 else Ended(None, signal_name(-code))


def signal_name(number: int) -> str:
    """Its name with SIG; most real-time signals have none of their own and are named by their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def signal_number(name: str) -> signal.Signals:
    """The signal of a name with SIG. Raises ValueError for a name that this system does not have."""
    try:
        return signal.Signals[name]
    except KeyError:
        raise ValueError(f"'{name}' is no signal of this system") from None


class PosixProcess(ABC):
    """The leader: its pipes, its end, its group. A subclass adds the tree."""

    def __init__(self, spec: SpawnSpec, launched: Launched) -> None:
        self.spec = spec
        self.extinct = anyio.Event()
        """Set once nothing of the tree can be alive any more; it never revives."""
        self._pid = launched.pid
        self._stdin = launched.stdin
        self._stdout = launched.stdout
        self._stderr = launched.stderr
        self._ended: Ended | None = None
        self._end = anyio.Event()

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def stdout(self) -> int:
        return self._stdout

    @property
    def stderr(self) -> int | None:
        return self._stderr

    @property
    def ended(self) -> Ended | None:
        return self._ended

    async def wait(self) -> Ended:
        await self._end.wait()
        assert self._ended is not None
        return self._ended

    def close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def signal(self, name: str) -> None:
        number = signal_number(name)
        if self._ended is None:
            self.signal_group(number)
            if number != signal.SIGKILL:
                self.signal_group(signal.SIGCONT)
        else:
            # The leader is reaped, so its number may be somebody else's by now: only proven members are left.
            self.signal_members(number, only_group=True)

    def signal_tree(self, name: str) -> None:
        self.signal_members(signal_number(name), only_group=False)

    def signal_group(self, number: int) -> None:
        """Signal the leader's group. Only while the leader is not reaped, which keeps the group's number from reuse."""
        # A group of nothing but zombies, or of programs that changed their user: the kill by member decides.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    @abstractmethod
    def signal_members(self, number: int, *, only_group: bool) -> None:
        """Signal every live process of the tree, or those in the leader's group, one by one, SIGCONT behind."""

    @abstractmethod
    def members(self) -> list[int]: ...

    def leader_ended(self, ended: Ended) -> None:
        """The reaper's report."""
        self._ended = ended
        self._end.set()
