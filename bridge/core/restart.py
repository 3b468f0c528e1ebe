"""Decides what follows a failure: another start after a delay, or giving up.

Takes what happened so far and the time as arguments and returns a value. It knows nothing of states (`lifecycle`) or
timers. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Word = Literal["on_failure", "always", "never"]


class RestartPolicy(NamedTuple):
    """When and how often a sidecar is started again by itself; defaults as in the configuration."""

    restart: Word = "on_failure"
    max_restarts: int = 5
    backoff_initial_s: float = 1.0
    backoff_factor: float = 2.0
    backoff_max_s: float = 16.0
    backoff_jitter_s: float = 0.0
    flapping_restarts: int = 10
    flapping_window_s: float = 3600.0
    permanent_exit_codes: frozenset[int] = frozenset()


class RestartAfter(NamedTuple):
    """Start again after `delay_s`; it is restart number `number` since the last stable period."""

    delay_s: float
    number: int


class GiveUp(NamedTuple):
    """Do not start again: the counter or the flapping window is full."""

    limit: Literal["restart_limit", "flapping"]


def wants_restart(policy: RestartPolicy, *, abnormal: bool) -> bool:
    """Whether the policy restarts after this end; `abnormal` is every end but an exit with code 0."""
    return policy.restart == "always" or (policy.restart == "on_failure" and abnormal)


def delay(policy: RestartPolicy, number: int, chance: float) -> float:
    """Seconds before restart `number` (from 1); `chance` in [0, 1) spreads it over the jitter."""
    try:
        grown = policy.backoff_initial_s * policy.backoff_factor ** (number - 1)
    except OverflowError:
        grown = policy.backoff_max_s if policy.backoff_initial_s else 0.0
    return min(grown, policy.backoff_max_s) + chance * policy.backoff_jitter_s


def within_window(policy: RestartPolicy, restarts: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Those of the restart times that still count for flapping, the newest at most `flapping_restarts` of them."""
    recent = tuple(at for at in restarts if now - at <= policy.flapping_window_s)
    return recent[len(recent) - policy.flapping_restarts :] if len(recent) > policy.flapping_restarts else recent


def decide(
    policy: RestartPolicy, count: int, restarts: tuple[float, ...], now: float, chance: float
) -> RestartAfter | GiveUp:
    """What follows a failure after `count` automatic restarts, made at the times `restarts` (oldest first).

    `flapping_restarts` n means that n restarts within the window happen and the next failure gives up; 0 turns the
    tier off.
    """
    if count >= policy.max_restarts:
        return GiveUp("restart_limit")
    if policy.flapping_restarts and len(within_window(policy, restarts, now)) >= policy.flapping_restarts:
        return GiveUp("flapping")
    return RestartAfter(delay(policy, count + 1, chance), count + 1)
