"""The journal: what happened to whom and why, bounded, newest kept.

It turns occurrences into `model.Event`s and answers pages of them. It knows nothing of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from bridge.model import Event

JOURNAL_EVENTS_MAX = 10_000
JOURNAL_BYTES_MAX = 4 * 1024 * 1024
"""Of all events as JSON. A day of a busy bridge, at about 300 bytes an event; the oldest go first."""
_NO_BOUND = 1 << 62


class Journal:
    """Events in memory.

    `numbered` gives the seq that the newest published notification has or will have. An event that a notification tells
    too has that seq where it is still free, and the next free one otherwise: each event has its own, and they increase.
    """

    def __init__(self, now: Callable[[], str], numbered: Callable[[], int]) -> None:
        self._now = now
        self._numbered = numbered
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._last_seq = 0

    def record(self, sidecar: str | None, kind: str, message: str, data: Any = None) -> None:
        """Add an event."""
        self._last_seq = max(self._numbered(), self._last_seq + 1)
        event = Event(seq=self._last_seq, at=self._now(), sidecar=sidecar, kind=kind, message=message, data=data)
        size = len(msgspec.json.encode(event))
        self._events.append((event, size))
        self._bytes += size
        while self._bytes > JOURNAL_BYTES_MAX or len(self._events) > JOURNAL_EVENTS_MAX:
            self._bytes -= self._events.popleft()[1]

    def page(self, sidecar: str | None, limit: int, before: int | None, bytes_max: int = _NO_BOUND) -> list[Event]:
        """The newest `limit` events older than seq `before` that fit into `bytes_max`, oldest first.

        Of one sidecar and of the bridge itself, or of all where none is named.
        """
        found: list[Event] = []
        for event, size in reversed(self._events):
            if (before is not None and event.seq >= before) or (
                sidecar is not None and event.sidecar not in (None, sidecar)
            ):
                continue
            bytes_max -= size + 1
            if len(found) == limit or (bytes_max < 0 and found):
                break
            found.append(event)
        return found[::-1]
