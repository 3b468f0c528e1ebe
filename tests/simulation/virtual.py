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

LAST_S = 30 * 86_400.0
"""Nothing here takes a month; who sleeps for ever is woken by anyio once a day."""
STEPS_WITHOUT_TIME_MAX = 50_000
"""So many steps at one moment are no work any more but a circle."""


class Standstill(Exception):
    """Nothing will ever happen again, or time does not pass any more."""


class _Selector(selectors.SelectSelector):
    def __init__(self, stuck: Callable[[str], None]) -> None:
        super().__init__()
        self.now_s = 0.0
        self._steps = 0
        self._stuck = stuck

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or (timeout > 0 and self.now_s > LAST_S):
            self._stuck("every task waits and nothing will wake it")
        elif timeout > 0:
            self.now_s += timeout
            self._steps = 0
        else:
            self._steps += 1
            if self._steps > STEPS_WITHOUT_TIME_MAX:
                self._steps = 0
                self._stuck(f"tasks wake each other for ever at {self.now_s:g} s")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s."""

    def __init__(self) -> None:
        self._virtual = _Selector(self._end)
        self.standstill: str | None = None
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def armed(self) -> int:
        """Timers that are still to come."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return sum(not handle.cancelled() for handle in scheduled)

    def _end(self, why: str) -> None:
        if self.standstill is not None:
            raise Standstill(f"{self.standstill}; and then cancelled tasks do not end")
        self.standstill = why
        for task in asyncio.all_tasks(self):
            task.cancel()


def run(function: Callable[[], Awaitable[T]]) -> T:
    """Run an async function on a virtual loop of its own, by anyio's asyncio backend. Raises Standstill too."""
    loops: list[VirtualLoop] = []

    def make() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[-1]

    try:
        return anyio.run(function, backend="asyncio", backend_options={"loop_factory": make})
    except BaseException as error:
        if loops and loops[0].standstill is not None:
            raise Standstill(loops[0].standstill) from error
        raise
