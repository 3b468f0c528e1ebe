"""Chunks of one or several processes -> one stream's log, in which no line of one stands within a line of another.

Usually one process writes to a stream, and its chunks go through as they are. While a reload lets the old and the new
process run side by side, each one's lines are handed on whole, and what is not yet a line waits here.
"""

from __future__ import annotations

from typing import Final

from .source import Source
from .store import StreamStore

HOLD_S: Final = 0.05
"""How long lines of one process wait for another's unfinished line; then that line is ended where it stands."""
HOLD_BYTES: Final = 256 * 1024
"""The same in bytes, and the longest line that waits for its end."""


class Inlet:
    """The door to one stream's store. Only the capture thread uses it."""

    __slots__ = ("_owner", "sources", "store")

    def __init__(self, store: StreamStore) -> None:
        self.store = store
        self.sources: list[Source] = []
        self._owner: Source | None = None
        """Whose unfinished line stands at the end of the file, while there are several."""

    def add(self, source: Source) -> None:
        if len(self.sources) == 1 and self.store.mid_line:
            self._owner = self.sources[0]
        self.sources.append(source)

    def take(self, source: Source, buf: bytearray, count: int, now_s: float) -> None:
        """Store the first `count` bytes of `buf`, or hold them until they can be."""
        if len(self.sources) == 1 and not source.held:
            self.store.append(buf, count, now_s)
            return
        source.held += memoryview(buf)[:count]
        self._release(source, now_s)

    def remove(self, source: Source, now_s: float) -> None:
        """Store what the process has left, and end its last line."""
        if source.held and self._owner not in (None, source):
            self._end_line()
        if source.held:
            self._store(source, len(source.held), now_s)
            self._owner = source
        self.sources.remove(source)
        if self._owner is source or not self.sources:
            self._end_line()
        self.tick(now_s)

    def drop(self, source: Source) -> None:
        """Forget a process whose end could not be stored."""
        source.held.clear()
        if source in self.sources:
            self.sources.remove(source)
        if self._owner is source:
            self._owner = None

    def tick(self, now_s: float) -> float | None:
        """Release what has waited long enough; returns the seconds until more will have, None when nothing waits."""
        waits = []
        for source in self.sources:
            if source.held_since is not None or (source.held and len(self.sources) == 1):
                self._release(source, now_s)
            if source.held_since is not None:
                waits.append(source.held_since + HOLD_S - now_s)
        return max(min(waits), 0.0) if waits else None

    def _release(self, source: Source, now_s: float) -> None:
        if self._owner is not None and self._owner is not source:
            if source.held_since is None:
                source.held_since = now_s
            if now_s - source.held_since < HOLD_S and len(source.held) <= HOLD_BYTES:
                return
            self._end_line()
        source.held_since = None
        whole = source.held.rfind(b"\n") + 1
        if len(self.sources) == 1 or len(source.held) - whole > HOLD_BYTES or (not whole and self._owner is source):
            whole = len(source.held)
        if not whole:
            return
        unfinished = source.held[whole - 1] != 0x0A
        self._store(source, whole, now_s)
        self._owner = source if unfinished and len(self.sources) > 1 else None
        if self._owner is None:
            for other in self.sources:
                if other.held_since is not None:
                    self._release(other, now_s)

    def _store(self, source: Source, count: int, now_s: float) -> None:
        data = source.held[:count]
        del source.held[:count]
        self.store.append(data, count, now_s)

    def _end_line(self) -> None:
        self.store.seal()
        self._owner = None
