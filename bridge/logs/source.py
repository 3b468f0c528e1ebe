"""One pipe of one process: its last words, and the patterns that somebody waits for in it.

Files and order are none of its business; see `inlet` and `store`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .keeper import Keeper

TAIL_BYTES: Final = 16 * 1024
"""Last words kept of each pipe; also how far back a pattern sees what came before it was asked for."""
TAIL_LINE_CHARS: Final = 1000
"""Longest line of a tail."""
PATTERN_LINE_BYTES: Final = 4096
"""A pattern sees this much of a line."""


class Pattern:
    """A pattern that a process's output is watched for, until a line has it."""

    __slots__ = ("_found", "_search", "done")

    def __init__(self, pattern: re.Pattern[str], found: Callable[[], None]) -> None:
        """`found` is called once, in the capture thread."""
        self._search = pattern.search
        self._found = found
        self.done = False

    def look(self, line: bytes) -> None:
        """Look at one line without its line end."""
        if not self.done and self._search(line[:PATTERN_LINE_BYTES].removesuffix(b"\r").decode("utf-8", "replace")):
            self.done = True
            self._found()


class Source:
    """A pipe that is read. Only the capture thread changes it."""

    __slots__ = ("_line", "_tail", "fd", "held", "held_since", "lost", "open", "patterns", "place", "received")

    def __init__(self, fd: int, place: tuple[Keeper, int]) -> None:
        self.fd = fd
        self.place = place
        """The log and the number of the stream that it belongs to."""
        self.open = True
        self.lost = False
        """Whether what comes is read and thrown away, because keeping it ran into a defect."""
        self.received = 0
        self.held = bytearray()
        """Bytes that wait for another process's unfinished line; see `inlet`."""
        self.held_since: float | None = None
        self.patterns: list[Pattern] = []
        self._tail = bytearray()
        self._line = bytearray()

    def note(self, buf: bytearray, count: int) -> None:
        """Take notice of the first `count` bytes of `buf`."""
        self.received += count
        if count >= TAIL_BYTES:
            self._tail = buf[count - TAIL_BYTES : count]
        else:
            self._tail += memoryview(buf)[:count]
            if len(self._tail) > 2 * TAIL_BYTES:
                self._tail = self._tail[-TAIL_BYTES:]
        if self.patterns:
            self._match(bytes(memoryview(buf)[:count]))

    def watch(self, pattern: Pattern) -> None:
        """Look for a pattern in what has come, as far as the tail reaches, and in what comes."""
        *lines, rest = self._tail_lines()
        for line in lines:
            pattern.look(line)
        if not pattern.done:
            if not self.patterns:
                self._line = bytearray(rest[:PATTERN_LINE_BYTES])
            self.patterns.append(pattern)

    def _match(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        if len(self._line) < PATTERN_LINE_BYTES:
            self._line += first[:PATTERN_LINE_BYTES]
        for line in others:
            for pattern in self.patterns:
                pattern.look(bytes(self._line))
            self._line = bytearray(line[:PATTERN_LINE_BYTES])
        self.patterns = [pattern for pattern in self.patterns if not pattern.done]

    def _tail_lines(self) -> list[bytes]:
        """Lines of the tail, the last one unfinished (often empty), the first one whole."""
        tail = bytes(self._tail)
        lines = tail.split(b"\n")
        if len(tail) < self.received and len(lines) > 1:
            del lines[0]
        return lines

    def tail(self, count: int) -> list[str]:
        """The last `count` lines, an unfinished one included. Any thread may ask."""
        lines = self._tail_lines()
        if not lines[-1]:
            lines.pop()
        texts = (line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines[max(len(lines) - count, 0) :])
        return [text[:TAIL_LINE_CHARS] for text in texts]
