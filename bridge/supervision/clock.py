"""Time as the rim sees it: the wall clock, sleep of the computer, and the RFC 3339 form.

Monotonic time and timers come from the event loop, so that a loop with virtual time moves them together. What the loop
cannot know is here, behind a protocol that the simulation replaces.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the event loop's clock does not tell."""

    def wall(self) -> float:
        """Seconds since 1970, UTC."""

    def absent(self) -> float:
        """Seconds by which the wall clock has run ahead of the monotonic one since the start: sleep and clock jumps."""


class SystemClock:
    """The computer's own clocks."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def wall(self) -> float:
        return time.time()

    def absent(self) -> float:
        return time.time() - time.monotonic() - self._offset_s


def rfc3339(wall: float) -> str:
    """RFC 3339 in UTC with milliseconds and Z."""
    whole_ms = round(wall * 1000)
    seconds, ms = divmod(whole_ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"
