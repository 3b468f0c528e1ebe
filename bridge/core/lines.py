"""Bytes in any chunking -> lines, in bounded memory.

Knows nothing of JSON, encodings or where the bytes come from; `rpc.server` feeds it what the shell writes.
"""

from __future__ import annotations

from typing import Final


class LineTooLong:
    """Stands in the list of lines for one that exceeded the bound; there is one instance, `TOO_LONG`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "TOO_LONG"


TOO_LONG: Final = LineTooLong()


class LineSplitter:
    """Splits a stream of bytes at `\\n`.

    Lines come without their `\\n`; a `\\r` before it is left in place. A line of more than `line_bytes_max` bytes is
    reported once, as `TOO_LONG`, as soon as it exceeds the bound, and what follows up to its `\\n` is thrown away. What
    is kept between two calls is at most `line_bytes_max` bytes.
    """

    __slots__ = ("_discarding", "_held", "_held_bytes", "_line_bytes_max")

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._held: list[bytes] = []  # pieces of the unfinished line, joined once: a join per chunk would be quadratic
        self._held_bytes = 0
        self._discarding = False

    @property
    def held_bytes(self) -> int:
        """What is kept of the unfinished line."""
        return self._held_bytes

    def feed(self, chunk: bytes) -> list[bytes | LineTooLong]:
        """Take the next bytes of the stream and return the lines that they complete."""
        pieces = chunk.split(b"\n")
        tail = pieces.pop()
        if not pieces:
            return self._hold(tail)
        lines: list[bytes | LineTooLong] = []
        lines.extend(pieces)
        if self._discarding:
            self._discarding = False
            del lines[0]
        elif self._held:
            self._held.append(pieces[0])
            lines[0] = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            self._mark_too_long(lines, 0, 1)
        if len(chunk) > self._line_bytes_max:
            self._mark_too_long(lines, 0, len(lines))
        if tail:
            lines += self._hold(tail)
        return lines

    def end(self) -> bytes | None:
        """The last line, where the stream ended without `\\n`; None when there is none or it was too long."""
        if self._discarding or not self._held:
            return None
        line = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return line

    def _hold(self, piece: bytes) -> list[bytes | LineTooLong]:
        if self._discarding or not piece:
            return []
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes <= self._line_bytes_max:
            return []
        self._held.clear()
        self._held_bytes = 0
        self._discarding = True
        return [TOO_LONG]

    def _mark_too_long(self, lines: list[bytes | LineTooLong], start: int, end: int) -> None:
        for index in range(start, end):
            line = lines[index]
            if not isinstance(line, LineTooLong) and len(line) > self._line_bytes_max:
                lines[index] = TOO_LONG
