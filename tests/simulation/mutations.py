"""Ways to break the code under test, each of which the simulation must find: who watches is watched too.

Each is the loss of one rule of the protocol, put in place for as long as the context lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bridge.core import lifecycle as lc
from bridge.core import restart
from bridge.supervision import sidecar as sidecar_
from bridge.supervision.ender import Ender
from bridge.supervision.sidecar import Sidecar
from bridge.supervision.supervisor import Supervisor


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


@contextmanager
def _row(event: type[Any], state: Any, rule: Any) -> Iterator[None]:
    kept = lc.TABLE[event][state]
    lc.TABLE[event][state] = rule
    try:
        yield
    finally:
        lc.TABLE[event][state] = kept


def _generations_forgotten() -> Any:
    return _patched(lc, "_is_stale", lambda life, event: False)


@contextmanager
def _retry_survives_a_stop() -> Iterator[None]:
    disarm = sidecar_.Sidecar._disarm

    def careless(self: sidecar_.Sidecar, *names: str) -> None:
        disarm(self, *(name for name in names if name != "retry"))

    retry = lc.TABLE[lc.RetryDue]["backoff"]
    with _patched(sidecar_.Sidecar, "_disarm", careless), _row(lc.RetryDue, "stopped", retry):
        yield


def _counter_never_reset_by_a_stop() -> Any:
    stopped = lc._stopped

    def careless(life: lc.Life, reason: str) -> lc.Step:
        after, effects = stopped(life, reason)
        return after._replace(restart_count=life.restart_count), effects

    return _patched(lc, "_stopped", careless)


def _stability_never_reached() -> Any:
    return _patched(lc, "_stable", lambda life, now: life)


def _limit_off_by_one() -> Any:
    decide = restart.decide
    return _patched(restart, "decide", lambda policy, count, *rest: decide(policy, max(count - 1, 0), *rest))


def _backoff_off_by_one() -> Any:
    delay = restart.delay
    return _patched(restart, "delay", lambda policy, number, chance: delay(policy, number + 1, chance))


def _window_ignored() -> Any:
    return _patched(restart, "within_window", lambda policy, restarts, now: ())


def _no_proof_of_extinction() -> Any:
    async def careless(self: Ender, *, gentle: bool, force: bool) -> None:
        if gentle and not force:
            await self._ask()

    return _patched(Ender, "end", careless)


def _stops_in_no_order() -> Any:
    return _patched(Supervisor, "_is_leant_on", lambda self, sidecar: False)


def _falls_forgotten() -> Any:
    return _patched(Sidecar, "_obey_hold", lambda self: None)


def _dependencies_ignored() -> Any:
    async def careless(self: Supervisor, name: str, origin: lc.Origin) -> None:
        return None

    return _patched(Supervisor, "ensure_up", careless)


def _failed_is_not_final() -> Any:
    return _row(lc.RetryDue, "failed", lc.TABLE[lc.RetryDue]["backoff"])


MUTATIONS: dict[str, Callable[[], Any]] = {
    "generations_forgotten": _generations_forgotten,
    "retry_survives_a_stop": _retry_survives_a_stop,
    "counter_never_reset_by_a_stop": _counter_never_reset_by_a_stop,
    "stability_never_reached": _stability_never_reached,
    "limit_off_by_one": _limit_off_by_one,
    "backoff_off_by_one": _backoff_off_by_one,
    "window_ignored": _window_ignored,
    "no_proof_of_extinction": _no_proof_of_extinction,
    "stops_in_no_order": _stops_in_no_order,
    "falls_forgotten": _falls_forgotten,
    "dependencies_ignored": _dependencies_ignored,
}
