"""One subscription: what it wants of the lines that it is offered, its queue, and the batches taken from it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ..core.levels import RANK
from ..model import Level, LogEntry, LogLines
from .batch import BATCH_BYTES, BATCH_ENTRIES, LAG_LINES, Place
from .cursor import STREAMS
from .keeper import Keeper
from .query import position_of, size_of

QUEUE_BYTES: Final = 4 * 1024 * 1024
"""Text that waits for a subscription which still reads its backlog."""
SUBSCRIPTIONS_MAX: Final = 1000
"""Each may hold QUEUE_BYTES, and is offered every line of its sidecar. Ten times what is promised; a client that needs
more has forgotten to end its old ones."""

Deliver = Callable[[LogLines], bool | None]
"""Takes a batch, on the loop's thread; false means that it was dropped, and it counts in the next `dropped`."""


class Subscription:
    """One follower of one sidecar."""

    def __init__(
        self,
        number: str,
        keeper: Keeper,
        log_type: str,
        level: Level | None,
        deliver: Deliver,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.id = number
        self.keeper = keeper
        self.log_type = log_type
        self.deliver = deliver
        self.closed = False
        self.undelivered = 0
        """Entries that `deliver` dropped since the last batch. Used on the loop's thread alone."""
        self.start: Place | None = None
        """Where it begins; entries before it are none of its business."""
        self.past: tuple[Place, list[int]] | None = None
        """What it still has to read, and up to where."""
        self._streams = [n for n, name in enumerate(STREAMS) if log_type in ("all", name)]
        self._rank = -1 if level is None else RANK[level]
        self.level = level
        self._batch_bytes = batch_bytes
        self._queue: deque[LogEntry | int] = deque()
        self._queue_bytes = 0

    def offer(self, items: list[tuple[int, LogEntry | int]]) -> None:
        """Queue what it wants of these; the oldest are dropped beyond the bounds."""
        start = self.start
        for stream, item in items:
            if stream not in self._streams:
                continue
            if isinstance(item, LogEntry):
                if self._rank >= 0 and (item.level is None or RANK[item.level] < self._rank):
                    continue
                if start is not None and position_of(item) < start.positions[stream]:
                    continue
                self._queue_bytes += len(item.text)
            self._queue.append(item)
        lost = 0
        while len(self._queue) > LAG_LINES or self._queue_bytes > QUEUE_BYTES:
            lost += self._pop()
        if lost:
            self._queue.appendleft(lost)

    def _pop(self) -> int:
        """Drop the oldest item; returns how many entries that are."""
        item = self._queue.popleft()
        if isinstance(item, int):
            return item
        self._queue_bytes -= len(item.text)
        return 1

    def take(self) -> LogLines | None:
        """The next batch of the queue; None when there is none."""
        dropped = 0
        while self._queue and isinstance(self._queue[0], int):
            dropped += self._pop()
        entries: list[LogEntry] = []
        size = 0
        while self._queue and len(entries) < BATCH_ENTRIES:
            item = self._queue[0]
            if isinstance(item, int):
                break  # it belongs in front of what follows
            size += size_of(item)
            if size > self._batch_bytes and entries:
                break
            self._pop()
            entries.append(item)
        if not entries:
            if dropped:
                self._queue.appendleft(dropped)
            return None
        return LogLines(self.id, self.keeper.sidecar, entries, dropped)

    @property
    def waiting(self) -> bool:
        """Whether there is more to send without anything new being written."""
        return self.past is not None or any(isinstance(item, LogEntry) for item in self._queue)
