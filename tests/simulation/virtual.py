"""An asyncio event loop whose time passes only by being waited for.

Where a real loop sleeps in its selector, this one moves its clock on by as much and returns: hours take milliseconds,
and every run of the same program is the same. There are no files, threads or signals on it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

STEPS_WITHOUT_TIME_MAX = 50_000
"""So many steps at one moment are no work any more but a circle."""


class Standstill(Exception):
    """Nothing will ever happen again, or time does not pass any more."""


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._steps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Standstill("every task waits and no timer is armed")
        if timeout > 0:
            self.now_s += timeout
            self._steps = 0
        else:
            self._steps += 1
            if self._steps > STEPS_WITHOUT_TIME_MAX:
                raise Standstill(f"tasks wake each other for ever at {self.now_s:g} s")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s

    def armed(self) -> int:
        """Timers that are still to come."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return sum(not handle.cancelled() for handle in scheduled)


def run(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on a virtual loop of its own, by anyio's asyncio backend."""
    return anyio.run(function, backend="asyncio", backend_options={"loop_factory": VirtualLoop})
