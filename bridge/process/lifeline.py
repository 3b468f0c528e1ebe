"""The bridge's side of the guardian: starts it, tells it of every tree, starts another when it dies.

The guardian (`guardian.py`) sleeps on a pipe whose only other end is here; when the bridge is killed, the pipe ends
and the guardian kills what it left. The system's reaper reports its death through `died`.
"""

# ruff: noqa: E402
from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio

assert sys.platform != "win32"  # Above the imports below, which other systems do not have: hence E402.

from .posix import start_child

_RESTARTS_MAX = 5
_RESTARTS_WINDOW_S = 60.0
"""A guardian that dies more often than this is being killed on purpose or cannot run: another would be no better."""

_DELAY_S = 0.02
"""Lines wait this long for company: a write wakes the guardian, which costs more than the start it tells of when it
takes the bridge's processor. A tree whose line did not arrive is killed all the same, only without its grace."""

_BACKLOG_BYTES_MAX = 1 << 20
"""What may wait for a guardian that does not read: some 15 000 starts beyond a full pipe. Then it counts as stuck and
is replaced; its successor is told the living trees anew, so nothing is lost."""

_QUIT_TIMEOUT_S = 1.0
"""A guardian that is told to quit has nothing to do but that."""


COMMAND = (
    sys.executable,
    *("-I", "-S", "-E", "-c"),
    "import sys; sys.path.append(sys.argv[1]); from guardian import main; sys.exit(main(sys.argv[2:]))",
    os.path.dirname(os.path.abspath(__file__)),
)
"""Starts the guardian without the package around it, and imports it: so its bytecode comes from the cache,
and the process does without the megabyte that compiling costs."""


class Lifeline:
    """Keeps one guardian alive and informed."""

    def __init__(
        self,
        command: tuple[str, ...],
        *,
        on_lost: Callable[[], None] | None,
        on_given_up: Callable[[], None] | None,
    ) -> None:
        self.pid: int | None = None
        """The guardian's; None when there is none (any more)."""
        self._command = command
        self._on_lost = on_lost
        self._on_given_up = on_given_up
        self._trees: dict[int, bytes] = {}
        self._starts: deque[float] = deque(maxlen=_RESTARTS_MAX)
        self._pipe: int | None = None
        self._backlog = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._gone = anyio.Event()

    def start(self) -> None:
        """Start a guardian and tell it what lives. Raises OSError when the system has no room."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            try:
                os.fstat(2)
                errors = 2
            except OSError:  # The bridge was started without fd 2.
                errors = null
            self.pid = start_child(self._command, cwd="/", env=os.environ, stdin=read_end, stdout=null, stderr=errors)
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
            os.close(null)
        self._pipe = write_end
        for line in self._trees.values():
            self._backlog += line
        self._flush()

    def add(self, mark: int, group: int, stop_signal: int, timeout_s: float) -> None:
        """A tree was started; `timeout_s` is what it may take after its stop signal."""
        line = f"+ {mark} {group} {stop_signal} {timeout_s:.3f}\n".encode()
        self._trees[mark] = line
        self._tell(line)

    def remove(self, mark: int) -> None:
        """A tree is extinct."""
        if self._trees.pop(mark, None) is not None:
            self._tell(f"- {mark}\n".encode())

    def died(self) -> None:
        """The guardian ended and is reaped: start another, unless it was told to quit or dies too often."""
        self.pid = None
        self._drop_pipe()
        if self._closing:
            self._gone.set()
            return
        if self._on_lost is not None:
            self._on_lost()
        now = asyncio.get_running_loop().time()
        if len(self._starts) == _RESTARTS_MAX and now - self._starts[0] < _RESTARTS_WINDOW_S:
            self._give_up()
            return
        self._starts.append(now)
        try:
            self.start()
        except OSError:  # No room for a process: nor will there be for the sidecars, whose errors say so.
            self._give_up()

    async def close(self) -> None:
        """Tell it to quit and wait until it is reaped; kill it when it does not."""
        self._closing = True
        if self.pid is None:
            self._drop_pipe()
            return
        self._backlog += b"quit\n"
        self._flush()
        with anyio.move_on_after(_QUIT_TIMEOUT_S):
            await self._gone.wait()
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            with anyio.move_on_after(_QUIT_TIMEOUT_S):
                await self._gone.wait()
        self._drop_pipe()

    def _give_up(self) -> None:
        if self._on_given_up is not None:
            self._on_given_up()

    def _tell(self, line: bytes) -> None:
        if self._pipe is None:
            return
        self._backlog += line
        if len(self._backlog) > _BACKLOG_BYTES_MAX and self.pid is not None:
            self._drop_pipe()
            os.kill(self.pid, signal.SIGKILL)  # Not reaped yet, so the number is still its own.
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._flush)

    def _flush(self) -> None:
        self._cancel_timer()
        if self._pipe is None or not self._backlog:
            return
        with suppress(BrokenPipeError):  # Dead: SIGCHLD is on its way, and the next one is told everything.
            try:
                del self._backlog[: os.write(self._pipe, self._backlog)]
            except BlockingIOError:
                pass
            if self._backlog:
                self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._flush)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_pipe(self) -> None:
        self._cancel_timer()
        self._backlog.clear()
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
