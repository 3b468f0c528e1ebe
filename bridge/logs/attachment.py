"""The output of one process -> waits for it: until it is stored, until it has ended, until a line has a pattern.

Everything here is called on the event loop's thread; what it asks for is done in the capture thread.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import anyio

from ..model import Stream
from .cursor import STREAMS
from .source import Pattern, Source

if TYPE_CHECKING:
    from .facade import Logs


class Attachment:
    """The output of one process."""

    def __init__(self, logs: Logs, sources: list[Source]) -> None:
        self._logs = logs
        self._sources = sources

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything that is in the pipes now is stored; True when that is so, False after the timeout.

        It does not wait for what comes later, nor for an end of the pipes that a descendant withholds.
        """
        with anyio.move_on_after(timeout_s):
            deadline_s = time.monotonic() + timeout_s
            return await self._logs.in_capture(lambda: self._logs.capture.drain(self._sources, deadline_s))
        return False

    async def close(self, timeout_s: float) -> None:
        """Store what is in the pipes now, end the last line, close the pipes; wait at most `timeout_s` for it."""
        deadline_s = time.monotonic() + timeout_s
        capture = self._logs.capture

        def close() -> None:
            capture.drain(self._sources, deadline_s)
            for source in self._sources:
                capture.close(source)

        with anyio.move_on_after(timeout_s):
            await self._logs.in_capture(close)

    def tail(self, stream: Stream, lines: int = 20) -> list[str]:
        """The process's last lines on a stream, an unfinished one included, each cut at 1000 characters."""
        for source in self._sources:
            if STREAMS[source.place[1]] == stream:
                return source.tail(lines)
        return []

    def expect(self, pattern: str | re.Pattern[str]) -> Expectation:
        """Watch this process's lines, past ones as far as the tail reaches, for a regular expression.

        Raises re.error.
        """
        return Expectation(self._logs, self._sources, re.compile(pattern))


class Expectation:
    """Whether a line of a process had a pattern."""

    def __init__(self, logs: Logs, sources: list[Source], pattern: re.Pattern[str]) -> None:
        self._event = asyncio.Event()

        def found() -> None:
            logs.post(self._event.set)

        self._pattern = Pattern(pattern, found)

        def watch() -> None:
            for source in sources:
                logs.capture.watch(source, self._pattern)

        logs.capture.submit(watch)

    @property
    def met(self) -> bool:
        """Whether such a line came."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait for such a line."""
        await self._event.wait()

    def cancel(self) -> None:
        """Stop watching."""
        self._pattern.done = True
