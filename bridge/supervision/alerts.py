"""Conditions that a person should know of: each told once when it begins and once when it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.model import Alert, Severity


class Alerts:
    """The conditions that hold now, by sidecar and kind."""

    def __init__(self, now: Callable[[], str], publish: Callable[[Alert], None]) -> None:
        self._now = now
        self._publish = publish
        self._held: dict[tuple[str | None, str], Alert] = {}

    def raise_(self, sidecar: str | None, kind: str, severity: Severity, message: str, data: Any = None) -> bool:
        """Tell of a condition unless it holds already; whether it was told."""
        if (sidecar, kind) in self._held:
            return False
        alert = Alert(
            at=self._now(), sidecar=sidecar, severity=severity, kind=kind, message=message, data=data, cleared=False
        )
        self._held[sidecar, kind] = alert
        self._publish(alert)
        return True

    def clear(self, sidecar: str | None, kind: str) -> None:
        """Tell that a condition is over, where it held."""
        alert = self._held.pop((sidecar, kind), None)
        if alert is not None:
            self._publish(
                Alert(
                    at=self._now(),
                    sidecar=alert.sidecar,
                    severity=alert.severity,
                    kind=alert.kind,
                    message=alert.message,
                    data=alert.data,
                    cleared=True,
                )
            )

    def clear_all(self, sidecar: str | None, *, but: frozenset[str] = frozenset()) -> None:
        """Tell that every condition of a sidecar is over, except some kinds."""
        for name, kind in list(self._held):
            if name == sidecar and kind not in but:
                self.clear(name, kind)
