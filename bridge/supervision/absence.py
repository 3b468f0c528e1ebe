"""Notices that the computer slept or its clock jumped, once for the whole bridge.

Nobody wakes up for it: whoever has a timer of its own looks when that fires, and compares the number of absences with
the one it saw before.
"""

from __future__ import annotations

from collections.abc import Callable

from .clock import Clock

ABSENCE_S = 2.0
"""A wall clock that ran ahead of the monotonic one by more than this slept or jumped; time servers correct less."""


class Absence:
    """Counts absences. `tell` gets the seconds of each that was a sleep or a jump ahead."""

    def __init__(self, clock: Clock, tell: Callable[[float], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._absent_s = clock.absent()
        self._count = 0

    def notice(self) -> int:
        """How many absences there have been up to now."""
        absent_s = self._clock.absent()
        gap_s, self._absent_s = absent_s - self._absent_s, absent_s
        if abs(gap_s) > ABSENCE_S:
            self._count += 1
            if gap_s > 0:
                self._tell(gap_s)
        return self._count
