"""Pieces of a stream's log, on disk or in memory, and read-only views of them.

A `Segment` is a log file with its index, written by the capture thread; `MemoryBlock`s are what waits while files fail.
A view is one moment of a piece: what it shows does not change while the piece is written, rotated or removed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..core.rotation import ArchiveName
from .files import open_read, pread
from .index import RECORD_BYTES, Header, Record, read_block, record_in

_WINDOW_BYTES: Final = 32 * 1024
"""Read ahead in the direction of travel: a few hundred lines, so that the last page costs one read."""
_RECORD_BLOCK: Final = 128
"""Index records read at once, 4 KiB."""


class Segment:
    """A log file and its index. Fields change only in the capture thread, under the sidecar's lock."""

    __slots__ = ("archive", "count", "gone", "header", "index_path", "last", "path")

    def __init__(self, path: str, index_path: str, header: Header, archive: ArchiveName | None) -> None:
        self.path = path
        self.index_path = index_path
        self.header = header
        self.archive = archive
        """Its name once it is an archive; None while it is being written."""
        self.count = 0
        self.last = Record(header.base, 0, 0, header.base_lines)
        self.gone = False
        """Removed by retention or a clear."""


class MemoryBlock(NamedTuple):
    """Whole lines that wait in memory for a file."""

    start: int
    record: Record
    data: bytes
    first_lines: int
    """Lines of the stream before it."""


class FileView:
    """A view of a log file; opens it when first asked, wherever a rotation has moved it.

    It shows records 0 to `count` - 1 over the positions `base` to `end`.
    """

    def __init__(self, segment: Segment, lock: threading.Lock) -> None:
        """Called under the lock."""
        self._segment = segment
        self._lock = lock
        self._log = -1
        self._index = -1
        self._missing = segment.gone
        self._first = -1
        self._records = b""
        self._window = b""
        self._window_start = 0
        self._last = segment.last
        self.base = segment.header.base
        self.base_lines = segment.header.base_lines
        self.count = segment.count
        self.end = segment.last.end

    def _open(self) -> bool:
        if self._log < 0 and not self._missing:
            with self._lock:
                segment = self._segment
                if segment.gone:
                    self._missing = True
                    return False
                try:
                    self._log = open_read(segment.path)
                    self._index = open_read(segment.index_path)
                except FileNotFoundError:
                    self.close()  # somebody deleted it by hand
                    self._missing = True
        return not self._missing

    @property
    def present(self) -> bool:
        """Whether the file can be read; once it could, it can be until the view is closed."""
        return self._open()

    def record(self, number: int) -> Record:
        """A record; number -1 is the state before the first."""
        if number < 0:
            return Record(self.base, 0, 0, self.base_lines)
        if number >= self.count - 1:
            return self._last
        first = number - number % _RECORD_BLOCK
        if first != self._first:
            self._records = read_block(self._index, first, _RECORD_BLOCK) if self._open() else b""
            self._first = first
        if (number - first) * RECORD_BYTES >= len(self._records):
            return self._last  # the index was cut by somebody: what is left of it reads as one chunk
        return record_in(self._records, number - first)

    def read(self, start: int, end: int, *, backward: bool) -> bytes:
        """The bytes from one position to another, fewer where the file has lost them; `backward` is a hint."""
        offset = start - self._window_start
        if offset >= 0 and end <= self._window_start + len(self._window):
            return self._window[offset : offset + end - start]
        if not self._open():
            return b""
        low, high = start, end
        if end - start < _WINDOW_BYTES:
            if backward:
                low = max(self.base, end - _WINDOW_BYTES)
            else:
                high = min(self.end, start + _WINDOW_BYTES)
        self._window = pread(self._log, high - low, low - self.base)
        self._window_start = low
        return self._window[start - low : end - low]

    def close(self) -> None:
        for fd in (self._log, self._index):
            if fd >= 0:
                os.close(fd)
        self._log = self._index = -1


class MemoryView:
    """A view of lines that wait in memory, with the methods of a FileView."""

    present = True

    def __init__(self, blocks: Sequence[MemoryBlock]) -> None:
        self._blocks = blocks
        self.base = blocks[0].start
        self.base_lines = blocks[0].first_lines
        self.end = blocks[-1].record.end
        self.count = len(blocks)

    def record(self, number: int) -> Record:
        return self._blocks[number].record if number >= 0 else Record(self.base, 0, 0, self.base_lines)

    def read(self, start: int, end: int, *, backward: bool) -> bytes:
        low, high = 0, len(self._blocks)
        while low < high:
            middle = (low + high) // 2
            if self._blocks[middle].record.end <= start:
                low = middle + 1
            else:
                high = middle
        parts = []
        for block in self._blocks[low:]:
            if block.start >= end:
                break
            parts.append(block.data[max(start - block.start, 0) : end - block.start])
        return b"".join(parts)

    def close(self) -> None:
        """Nothing is held."""


View = FileView | MemoryView
