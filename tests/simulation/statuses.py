"""Holds the status that is told with every change of state against what the referee knows."""

from __future__ import annotations

from typing import Any

from bridge import model as m

from .case import Case
from .ledger import Ledger


def check_status(ledger: Ledger, case: Case, event: m.StateChanged) -> None:
    """Look at the status that a change of state carries."""
    status, state = event.status, event.state
    told: dict[str, Any] = {"state": status.state, "sidecar": status.sidecar, "message": status.message}
    wanted = {"state": state, "sidecar": case.name, "message": event.reason}
    for field, value in wanted.items():
        if told[field] != value:
            ledger.blame(case.name, f"status.{field} is {told[field]!r} instead of {value!r}")
    if (status.uptime is None) == (state == "running"):
        ledger.blame(case.name, f"uptime is {status.uptime} in state {state}")
    if (status.retry_at is None) == (state == "backoff"):
        ledger.blame(case.name, f"retry_at is {status.retry_at} in state {state}")
    if status.restart_count not in case.counts:
        ledger.blame(case.name, f"restart_count is {status.restart_count} instead of {case.counts}")
    case.counts = {status.restart_count}
    if status.generation != case.spawns:
        ledger.blame(case.name, f"generation is {status.generation} instead of {case.spawns}")
    if status.progress is not None and state != "starting":
        ledger.blame(case.name, f"progress in state {state}")
    if (state == "running" and status.error is not None) or (state in ("failed", "backoff") and not status.error):
        ledger.blame(case.name, f"error is {status.error} in state {state}")
    alive = case.process is not None and case.process.ended_at is None
    pid = case.process.pid if case.process is not None and alive else None
    if status.pid is not None and (state in ("stopped", "failed", "backoff") or (status.pid != pid and alive)):
        ledger.blame(case.name, f"pid is {status.pid} in state {state}, its process is {pid}")
    if state == "running" and alive and status.pid != pid:
        ledger.blame(case.name, f"pid is {status.pid} instead of {pid}")
    health: tuple[m.Health, ...] = ("unknown",)
    if state == "running" and case.settings.health.kind != "none":
        health = ("healthy",)
    elif state == "stopping":
        health = ("unknown", "healthy", "unhealthy")
    if status.health not in health:
        ledger.blame(case.name, f"health is {status.health} in state {state}")
    case.changes += 1
    change = case.changes
    ledger.owe(
        case,
        f"health {status.health} is not told",
        lambda: case.health == status.health or case.changes != change or state == "running",
    )
