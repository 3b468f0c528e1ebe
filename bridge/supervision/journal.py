"""The journal: what happened to whom and why, bounded, newest kept.

It turns occurrences into `model.Event`s and answers pages of them. It knows nothing of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from bridge.model import Event

JOURNAL_EVENTS_MAX = 10_000
"""A day of a busy bridge at about 300 bytes an event; the oldest go first."""


class Journal:
    """Events in memory. `numbered` gives the last seq that was sent, so that events sort among the notifications."""

    def __init__(self, now: Callable[[], str], numbered: Callable[[], int]) -> None:
        self._now = now
        self._numbered = numbered
        self._events: deque[Event] = deque(maxlen=JOURNAL_EVENTS_MAX)
        self._last_seq = 0

    def record(self, sidecar: str | None, kind: str, message: str, data: Any = None) -> None:
        """Add an event."""
        self._last_seq = max(self._last_seq, self._numbered()) + 1
        self._events.append(
            Event(seq=self._last_seq, at=self._now(), sidecar=sidecar, kind=kind, message=message, data=data)
        )

    def page(self, sidecar: str | None, limit: int, before: int | None) -> list[Event]:
        """The newest `limit` events older than seq `before`, oldest first; of every sidecar where none is named."""
        wanted = (
            event
            for event in reversed(self._events)
            if (before is None or event.seq < before) and (sidecar is None or event.sidecar == sidecar)
        )
        return list(islice(wanted, limit))[::-1]
