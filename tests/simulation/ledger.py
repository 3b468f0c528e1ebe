"""The trace of a play, what was found wrong in it, and what is still owed."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from .case import Case


class Ledger:
    """What is noted while a plan is played."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.blames: list[str] = []
        self.serial = 0
        """Counts what happens, so that things of one moment have an order."""
        self._owed: list[tuple[float, str, str, Callable[[], bool]]] = []

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.serial += 1
        self.trace.append(f"{anyio.current_time():9.3f}  {text}")
        if self._owed and self._owed[0][0] < anyio.current_time():
            self.collect()

    def blame(self, name: str, text: str) -> None:
        """Something is not as the protocol says."""
        self.blames.append(f"{name}: {text} (at {anyio.current_time():.3f} s)")
        self.trace.append(f"{anyio.current_time():9.3f}  ! {name}: {text}")

    def collect(self) -> None:
        """Look whether what was owed by now has come."""
        owed, self._owed = self._owed, []
        for _, name, text, paid in owed:
            if not paid():
                self.blame(name, text)

    def owe(self, case: Case, text: str, paid: Callable[[], bool]) -> None:
        """By the end of this moment `paid` must be true, or `text` is to blame."""
        self._owed.append((anyio.current_time(), case.name, text, paid))
