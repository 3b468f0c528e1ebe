"""Drives the lifecycle table by hand: events in, states and effects out, time as a number."""

from __future__ import annotations

from typing import Any

from bridge.core import lifecycle as lc
from bridge.core.health import HealthPolicy
from bridge.core.restart import RestartPolicy
from bridge.model import State

BAD = lc.Failure("spawn_failed", "It could not be started.")


def policy(*, startup_timeout_s: float = 30.0, stable_after_s: float = 60.0, **fields: Any) -> lc.Policy:
    """A policy; fields of RestartPolicy and HealthPolicy by name."""
    health = {key: fields.pop(key) for key in list(fields) if key in HealthPolicy._fields}
    return lc.Policy(RestartPolicy(**fields), HealthPolicy(**health), startup_timeout_s, stable_after_s)


class Driver:
    """One life."""

    def __init__(self, **fields: Any) -> None:
        self.life = lc.Life(policy(**fields))
        self.now = 1000.0
        self.chance = 0.0

    @property
    def state(self) -> State:
        return self.life.state

    def feed(self, event: lc.Event, after_s: float = 0.0) -> list[lc.Effect]:
        """One event, and those that follow it within the same moment; all effects."""
        self.now += after_s
        self.life, effects = lc.step(self.life, event, self.now, self.chance)
        for effect in list(effects):
            if isinstance(effect, lc.Follow):
                effects = effects + self.feed(effect.event)
        return effects

    def event(self, kind: type[Any], *fields: Any, after_s: float = 0.0) -> list[lc.Effect]:
        """An event of the current attempt."""
        return self.feed(kind(self.life.attempt, *fields), after_s)

    # --- ways ---

    def spawn(self, origin: lc.Origin = lc.Origin.OPERATOR) -> list[lc.Effect]:
        """From rest to a process that is not healthy yet."""
        self.feed(lc.StartRequested(origin))
        return self.spawned()

    def spawned(self) -> list[lc.Effect]:
        """From `starting` to a process that is not healthy yet."""
        return self.event(lc.DependenciesMet) + self.event(lc.Spawned)

    def run(self, origin: lc.Origin = lc.Origin.OPERATOR) -> list[lc.Effect]:
        """From rest to running."""
        return self.spawn(origin) + self.event(lc.CheckPassed)

    def crash(self, code: int | None = 1, signal: str | None = None, *, extinct: bool = True) -> list[lc.Effect]:
        return self.event(lc.Exited, code, signal, "It ended.", None, extinct)

    def retry(self) -> list[lc.Effect]:
        """The backoff passes."""
        assert self.life.retry_at is not None
        self.now = self.life.retry_at
        return self.event(lc.RetryDue)

    def recover(self) -> list[lc.Effect]:
        """From backoff to running."""
        return self.retry() + self.spawned() + self.event(lc.CheckPassed)


def of(kind: type[Any], effects: list[lc.Effect]) -> list[Any]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def states(effects: list[lc.Effect]) -> list[State]:
    """The states that were published, in order."""
    return [effect.state for effect in of(lc.Publish, effects)]


def settled(effects: list[lc.Effect]) -> list[str | None]:
    """What those who wait for a start are told: error kinds, None for success."""
    return [effect.failure and effect.failure.kind for effect in of(lc.SettleStart, effects)]
