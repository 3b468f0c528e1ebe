"""Long work in a worker thread -> work that the event loop does not feel, and that can be called off."""

from __future__ import annotations

import threading
import time
from typing import Final

from ..errors import RequestCancelled

BREATH_S: Final = 0.0005
"""How long a reader works before it lets the event loop have the interpreter. Without that, the loop waits 5 ms for
the interpreter after each of its own system calls."""


class Breath:
    """What a reader takes between two steps of its work. `cancel` may be called from any thread."""

    __slots__ = ("_cancelled", "_pause_at", "_sidecar")

    def __init__(self, sidecar: str) -> None:
        self._sidecar = sidecar
        self._cancelled = threading.Event()
        self._pause_at = 0.0

    def cancel(self) -> None:
        """Let the next `take` raise."""
        self._cancelled.set()

    def take(self) -> None:
        """Let others run when it is time to. Raises RequestCancelled once nobody waits for the work any more."""
        now = time.monotonic()
        if now < self._pause_at:
            return
        if self._cancelled.is_set():
            raise RequestCancelled("the request was cancelled", sidecar=self._sidecar)
        if self._pause_at:
            time.sleep(0)
            now = time.monotonic()
        self._pause_at = now + BREATH_S
