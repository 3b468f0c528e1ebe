"""How far one start is: stages and messages become StartProgress values, in order, never falling, not too often.

An installer may write a thousand lines a second. Within a stage one value is told each PROGRESS_PAUSE_S, the newest
message; the last message of a stage is always told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bridge.model import Stage, StartProgress

PROGRESS_PAUSE_S = 0.1
"""Faster than a person reads, slow enough for a window that draws each one."""

_STAGES: tuple[tuple[Stage, float, float], ...] = (
    ("checking_dependencies", 0.0, 0.1),
    ("installing_dependencies", 0.1, 0.5),
    ("spawning_process", 0.5, 0.6),
    ("waiting_for_health", 0.6, 0.99),
    ("ready", 1.0, 1.0),
)
_STAGE = {stage: (step, low, high) for step, (stage, low, high) in enumerate(_STAGES, start=1)}


class ProgressReport:
    """The progress of one start. Belongs to the event loop's thread; `stop` it when the start is over."""

    def __init__(self, tell: Callable[[StartProgress], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._told_at = 0.0
        self._held: StartProgress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.current: StartProgress | None = None
        """The newest value, told or about to be."""

    def report(self, stage: Stage, message: str, within: float) -> None:
        """A start is at this stage; `within` is the part of the stage that is done, 0 to 1."""
        step, low, high = _STAGE[stage]
        now = self._loop.time()
        last = self.current
        fraction = round(low + (high - low) * min(max(within, 0.0), 1.0), 3)
        self.current = StartProgress(
            stage=stage,
            step=step,
            total_steps=len(_STAGES),
            fraction=max(fraction, last.fraction) if last is not None else fraction,
            message=message,
            elapsed=round(now - self._began, 3),
        )
        wait_s = self._told_at + PROGRESS_PAUSE_S - now
        if last is not None and last.stage == stage and wait_s > 0:
            self._held = self.current
            if self._timer is None:
                self._timer = self._loop.call_later(wait_s, self._tell_held)
            return
        self._tell_held()
        self._told_at = now
        self._tell(self.current)

    def stop(self) -> None:
        """The start is over: what is held back is told no more."""
        self._held = None
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_held(self) -> None:
        self._disarm()
        held, self._held = self._held, None
        if held is not None:
            self._told_at = self._loop.time()
            self._tell(held)
