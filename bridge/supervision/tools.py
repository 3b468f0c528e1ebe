"""Runs a helper program to its end: a dependency check, an installer, a health command.

A program becomes its exit, its last output and a call per line. Whatever it started is ended with it, also when the
caller is cancelled or the time is up.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import anyio

from bridge.process.base import Ended, Process, SpawnSpec, System

TAIL_LINES = 20
"""Enough of an installer's output to see its error, little enough for a message."""
LINE_CHARS_MAX = 500
"""A progress bar drawn without newlines must not become one message without end."""
READ_BYTES = 65_536
DRAIN_S = 2.0
"""How long the output of a program that has ended is still read."""
EXTINGUISH_S = 5.0
"""Nothing survives SIGKILL for long; what does is stuck in the kernel and is reported by its owner."""


class ToolResult(NamedTuple):
    """How a tool ended: None in `ended` when its time was up."""

    ended: Ended | None
    tail: list[str]

    @property
    def ok(self) -> bool:
        return self.ended is not None and self.ended.code == 0


class ToolRunner(Protocol):
    """Runs one tool; raises SpawnError when it cannot be started."""

    async def __call__(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> ToolResult: ...


class SystemToolRunner:
    """Runs tools as real processes, both output streams as one."""

    def __init__(self, system: System) -> None:
        self._system = system

    async def __call__(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> ToolResult:
        process = self._system.spawn(SpawnSpec(argv, cwd, env, merge_output=True, shutdown_timeout_s=0))
        output = _Output(on_line)
        ended: Ended | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_read_all, process.stdout, output)
                with anyio.move_on_after(timeout_s):
                    ended = await process.wait()
                with anyio.CancelScope(shield=True):
                    await process.extinguish(EXTINGUISH_S)
                tasks.cancel_scope.deadline = anyio.current_time() + DRAIN_S
        finally:
            with anyio.CancelScope(shield=True):
                await process.extinguish(EXTINGUISH_S)
            _close(process)
        output.finish()
        return ToolResult(ended, list(output.lines))


class _Output:
    """Lines of a tool, the last ones kept. A carriage return ends a line too, as progress bars use it."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            self._add(line)
        if len(self._rest) > LINE_CHARS_MAX:
            self.finish()

    def finish(self) -> None:
        self._add(self._rest)
        self._rest = b""

    def _add(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()[:LINE_CHARS_MAX]
        if text:
            self.lines.append(text)
            if self._on_line is not None:
                self._on_line(text)


async def _read_all(fd: int, output: _Output) -> None:
    while data := await _read_some(fd):
        output.feed(data)


async def _read_some(fd: int) -> bytes:
    if sys.platform == "win32":
        return await anyio.to_thread.run_sync(os.read, fd, READ_BYTES, abandon_on_cancel=True)
    while True:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(fd)


def _close(process: Process) -> None:
    os.close(process.stdout)
    process.close()
