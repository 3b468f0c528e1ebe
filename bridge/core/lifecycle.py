"""The life of one sidecar as a table: step(life, event, now, chance) -> (life, effects).

`Life` is the whole memory, an Event something that happened (past tense), an Effect something to do (imperative). The
rim that makes events and performs effects is `supervision.sidecar`. TABLE is total: each pair of state and event has a
Rule, IGNORE or REFUSE; a Rule names the states it may lead to, and the picture in the docs is drawn from them
(`diagram`).

Every start has an attempt number. Whatever a process, check or timer of an older attempt still says is stale and
changes nothing (`_is_stale`, the only place that decides it). Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from ..model import ExitCause, Health, Severity, State
from . import health as health_
from . import restart as restart_
from .health import Fold, HealthPolicy
from .restart import GiveUp, RestartPolicy

TIMER_EARLY_S = 1e-6
"""Event loops fire a timer up to their clock's resolution too early, and sums of floats are not exact either."""

STATES: tuple[State, ...] = ("stopped", "starting", "running", "stopping", "backoff", "failed")

# --- values ----------------------------------------------------------------------------------------------------------


class Policy(NamedTuple):
    """What the configuration says about one sidecar's life."""

    restart: RestartPolicy = RestartPolicy()
    health: HealthPolicy = HealthPolicy()
    startup_timeout_s: float = 30.0
    stable_after_s: float = 60.0


class Origin(Enum):
    """Who asked for a start."""

    OPERATOR = "operator"
    AUTOSTART = "autostart"
    RETRY = "retry"


class Failure(NamedTuple):
    """Why a sidecar does not run: `kind` as in the error table, a sentence, and what else is known."""

    kind: str
    message: str
    detail: Any = None
    permanent: bool = False
    """No retry can mend it."""
    abnormal: bool = True
    """False only for an exit with code 0 of a process that had been running."""


class Then(Enum):
    """What follows once nothing of the tree is alive."""

    STOPPED = "stopped"
    START = "start"
    FAILURE = "failure"


class Ending(NamedTuple):
    """Why the tree is being ended and what follows."""

    then: Then
    cause: ExitCause
    failure: Failure | None = None
    stop_asked: bool = False
    """A stop waits for it, so that `stopped` is shown even when a start follows."""


class Life(NamedTuple):
    """The memory of one sidecar's life. Immutable; `step` returns the next one."""

    policy: Policy = Policy()
    state: State = "stopped"
    attempt: int = 0
    """Counts starts, those that never came to a process included."""
    generation: int = 0
    """Counts processes."""
    origin: Origin = Origin.OPERATOR
    restarting: bool = False
    """The start under way is an operator's restart, which further restarts share."""
    running_since: float | None = None
    fold: Fold = Fold()
    restart_count: int = 0
    restarts: tuple[float, ...] = ()
    """When automatic restarts happened, those within the flapping window."""
    retry_at: float | None = None
    ending: Ending | None = None
    failure: Failure | None = None
    """The last failure, until a start succeeds."""


# --- events ----------------------------------------------------------------------------------------------------------


class StartRequested(NamedTuple):
    """Somebody wants it up."""

    origin: Origin = Origin.OPERATOR


class StopRequested(NamedTuple):
    """Somebody wants it down; `force` kills at once."""

    force: bool = False
    cause: ExitCause = "stop_requested"


class RestartRequested(NamedTuple):
    """An operator wants it down and up again."""

    cause: ExitCause = "restart_requested"


class DependenciesMet(NamedTuple):
    """What it depends on runs, its check passed, its port is there: it can be spawned."""

    attempt: int


class StartRefused(NamedTuple):
    """It cannot be spawned, or spawning failed: dependency, port, missing program."""

    attempt: int
    failure: Failure


class Spawned(NamedTuple):
    """Its process lives."""

    attempt: int


class CheckPassed(NamedTuple):
    """A health check passed; while starting this is what makes it ready."""

    attempt: int


class CheckFailed(NamedTuple):
    """A health check failed; `why` is a sentence."""

    attempt: int
    why: str


class BecameReady(NamedTuple):
    """Ready without a check: a line in its output, or alive for long enough."""

    attempt: int


class StartupTimedOut(NamedTuple):
    """The start-up deadline passed; `failure` says what was missing."""

    attempt: int
    failure: Failure


class Exited(NamedTuple):
    """The leader ended. `extinct` is true when nothing of its tree is left alive."""

    attempt: int
    code: int | None
    signal: str | None
    summary: str
    """A sentence on how it ended."""
    detail: Any = None
    extinct: bool = True


class TreeEnded(NamedTuple):
    """It is proven that nothing of the tree is alive."""

    attempt: int


class RetryDue(NamedTuple):
    """The backoff is over."""

    attempt: int


class StableReached(NamedTuple):
    """It has been running for `stable_after`."""

    attempt: int


Event = (
    StartRequested
    | StopRequested
    | RestartRequested
    | DependenciesMet
    | StartRefused
    | Spawned
    | CheckPassed
    | CheckFailed
    | BecameReady
    | StartupTimedOut
    | Exited
    | TreeEnded
    | RetryDue
    | StableReached
)

# --- effects ---------------------------------------------------------------------------------------------------------


class Publish(NamedTuple):
    """Tell that the state changed."""

    previous: State
    state: State
    reason: str


class NewAttempt(NamedTuple):
    """Forget the attempt before: its process, progress and port are no longer this sidecar's."""

    attempt: int


class PrepareStart(NamedTuple):
    """See to dependencies and the port, then report DependenciesMet or StartRefused."""

    attempt: int


class Spawn(NamedTuple):
    """Spawn the process, then report Spawned or StartRefused."""

    attempt: int


class Watch(NamedTuple):
    """Check its health from now on, start-up ramp first."""

    attempt: int


class EndTree(NamedTuple):
    """End everything of this attempt, then report TreeEnded.

    `gentle` climbs the ladder of a stop, otherwise the leader is gone already or has to be killed at once.
    """

    attempt: int
    gentle: bool
    force: bool


class Hasten(NamedTuple):
    """Kill at once what EndTree is still asking politely."""

    attempt: int


class ArmRetry(NamedTuple):
    """Report RetryDue after a delay."""

    attempt: int
    delay_s: float


class ArmStartupDeadline(NamedTuple):
    """Report StartupTimedOut after a delay, unless it is running by then."""

    attempt: int
    delay_s: float


class ArmStability(NamedTuple):
    """Report StableReached after a delay."""

    attempt: int
    delay_s: float


class TellHealth(NamedTuple):
    """Tell that the health changed."""

    health: Health


class RaiseAlert(NamedTuple):
    """Tell a person, unless this condition was told already."""

    kind: str
    severity: Severity
    message: str
    detail: Any = None


class ClearAlerts(NamedTuple):
    """Every condition of this sidecar is over."""


class SettleStart(NamedTuple):
    """Answer those who wait for the start: None for success, else why not."""

    failure: Failure | None


class SettleStop(NamedTuple):
    """Answer those who wait for the stop."""


class Follow(NamedTuple):
    """Report this event next: a step of its own, so that what is told of this one does not show the next."""

    event: Event


Effect = (
    Publish
    | NewAttempt
    | PrepareStart
    | Spawn
    | Watch
    | EndTree
    | Hasten
    | ArmRetry
    | ArmStartupDeadline
    | ArmStability
    | TellHealth
    | RaiseAlert
    | ClearAlerts
    | SettleStart
    | SettleStop
    | Follow
)
Step = tuple[Life, list[Effect]]

OVERTAKEN = Failure("stopped_while_starting", "A stop overtook the start.")

# --- building blocks -------------------------------------------------------------------------------------------------


def _begin(life: Life, origin: Origin, reason: str, *, restarting: bool = False) -> Step:
    fresh = origin is Origin.OPERATOR
    after = life._replace(
        state="starting",
        attempt=life.attempt + 1,
        origin=origin,
        restarting=restarting,
        running_since=None,
        fold=Fold(),
        restart_count=0 if fresh else life.restart_count,
        restarts=() if fresh else life.restarts,
        retry_at=None,
        ending=None,
    )
    effects: list[Effect] = [NewAttempt(after.attempt), Publish(life.state, "starting", reason)]
    if life.fold.health != "unknown":
        effects.append(TellHealth("unknown"))
    return after, [*effects, PrepareStart(after.attempt)]


def _end(life: Life, ending: Ending, reason: str, *, gentle: bool = True, force: bool = False) -> Step:
    after = life._replace(state="stopping", ending=ending)
    return after, [Publish(life.state, "stopping", reason), EndTree(life.attempt, gentle, force)]


def _rest(life: Life, state: State, reason: str, failure: Failure | None) -> Step:
    """Nothing is alive any more and nothing is planned but what the caller adds."""
    after = life._replace(
        state=state,
        running_since=None,
        fold=Fold(),
        retry_at=None,
        ending=None,
        restarting=False,
        failure=failure,
    )
    effects: list[Effect] = [Publish(life.state, state, reason)]
    if life.fold.health != "unknown":
        effects.append(TellHealth("unknown"))
    return after, effects


def _stopped(life: Life, reason: str) -> Step:
    """An operator's stop is done; the counters begin anew."""
    after, effects = _rest(life._replace(restart_count=0, restarts=()), "stopped", reason, life.failure)
    return after, [*effects, ClearAlerts(), SettleStop()]


def _run(life: Life, now: float) -> Step:
    checked = life.policy.health.checked
    after = life._replace(
        state="running",
        running_since=now,
        failure=None,
        restarting=False,
        fold=life.fold._replace(health="healthy") if checked else life.fold,
    )
    effects: list[Effect] = [Publish("starting", "running", "It is ready.")]
    if checked:
        effects.append(TellHealth("healthy"))
    effects += [ClearAlerts(), SettleStart(None)]
    if life.restart_count:
        effects.append(ArmStability(life.attempt, life.policy.stable_after_s))
    return after, effects


def _conclude(life: Life, failure: Failure, now: float, chance: float) -> Step:
    """A failure whose tree is gone: retry, rest or give up."""
    policy = life.policy.restart
    never_ran = life.running_since is None
    settled: list[Effect] = [SettleStart(failure)] if never_ran else []
    asked = never_ran and life.origin is Origin.OPERATOR
    if not failure.abnormal and not restart_.wants_restart(policy, abnormal=False):
        after, effects = _rest(life, "stopped", failure.message, None)
        return after, [*effects, *settled, SettleStop()]
    if failure.permanent or asked or not restart_.wants_restart(policy, abnormal=failure.abnormal):
        after, effects = _rest(life, "failed", failure.message, failure)
        return after, [*effects, *settled, SettleStop()]
    verdict = restart_.decide(policy, life.restart_count, life.restarts, now, chance)
    if isinstance(verdict, GiveUp):
        limit = _limit_failure(life, verdict, failure)
        after, effects = _rest(life, "failed", limit.message, limit)
        alert = RaiseAlert(verdict.limit, "critical", limit.message, limit.detail)
        # Whoever waits for this start wants to know what broke it, not how often it was tried.
        return after, [*effects, alert, *settled, SettleStop()]
    after, effects = _rest(
        life,
        "backoff",
        f"{failure.message} Restart {verdict.number} of {policy.max_restarts} in {verdict.delay_s:g} s.",
        failure,
    )
    after = after._replace(retry_at=now + verdict.delay_s)
    return after, [*effects, ArmRetry(after.attempt, verdict.delay_s), *settled, SettleStop()]


def _limit_failure(life: Life, verdict: GiveUp, failure: Failure) -> Failure:
    policy = life.policy.restart
    if verdict.limit == "flapping":
        often = f"It was restarted {policy.flapping_restarts} times within {policy.flapping_window_s:g} s"
    else:
        often = f"It failed again after {life.restart_count} restarts"
    return Failure(
        "restart_limit_exceeded",
        f"{often} and is not started again by itself. Last: {failure.message}",
        {"limit": verdict.limit, "kind": failure.kind, "message": failure.message, "detail": failure.detail},
    )


# --- rules -----------------------------------------------------------------------------------------------------------

_REASONS = {
    Origin.OPERATOR: "A start was requested.",
    Origin.AUTOSTART: "It starts with the bridge.",
    Origin.RETRY: "It is started again.",
}


def _start(life: Life, event: StartRequested, now: float, chance: float) -> Step:
    return _begin(life, event.origin, _REASONS[event.origin])


def _start_after_end(life: Life, event: StartRequested, now: float, chance: float) -> Step:
    assert life.ending is not None
    if life.ending.then is Then.START:
        return life, []
    return life._replace(ending=life.ending._replace(then=Then.START)), []


def _restart_at_rest(life: Life, event: RestartRequested, now: float, chance: float) -> Step:
    return _begin(life, Origin.OPERATOR, "A restart was requested.", restarting=True)


def _restart_alive(life: Life, event: RestartRequested, now: float, chance: float) -> Step:
    if life.state == "starting" and life.restarting:
        return life, []
    return _end(life._replace(restarting=True), Ending(Then.START, event.cause), "A restart was requested.")


def _restart_after_end(life: Life, event: RestartRequested, now: float, chance: float) -> Step:
    assert life.ending is not None
    ending = life.ending._replace(then=Then.START)
    return life._replace(ending=ending, origin=Origin.OPERATOR, restarting=True), []


def _stop_alive(life: Life, event: StopRequested, now: float, chance: float) -> Step:
    ending = Ending(Then.STOPPED, event.cause, stop_asked=True)
    reason = "The bridge is ending." if event.cause == "shutdown" else "A stop was requested."
    after, effects = _end(life, ending, reason, gentle=not event.force, force=event.force)
    if life.state == "starting":
        effects.append(SettleStart(OVERTAKEN))
    return after, effects


def _stop_at_end(life: Life, event: StopRequested, now: float, chance: float) -> Step:
    assert life.ending is not None
    effects: list[Effect] = []
    if life.ending.then is Then.START or life.running_since is None:
        effects.append(SettleStart(OVERTAKEN))
    if event.force:
        effects.append(Hasten(life.attempt))
    ending = life.ending._replace(then=Then.STOPPED, stop_asked=True)
    return life._replace(ending=ending, restarting=False), effects


def _stop_backoff(life: Life, event: StopRequested, now: float, chance: float) -> Step:
    return _stopped(life, "A stop was requested.")


def _spawn(life: Life, event: DependenciesMet, now: float, chance: float) -> Step:
    return life, [Spawn(life.attempt)]


def _refused(life: Life, event: StartRefused, now: float, chance: float) -> Step:
    return _conclude(life, event.failure, now, chance)


def _spawned(life: Life, event: Spawned, now: float, chance: float) -> Step:
    after = life._replace(generation=life.generation + 1)
    return after, [ArmStartupDeadline(life.attempt, life.policy.startup_timeout_s), Watch(life.attempt)]


def _spawned_too_late(life: Life, event: Spawned, now: float, chance: float) -> Step:
    return life._replace(generation=life.generation + 1), []


def _passed_first(life: Life, event: CheckPassed, now: float, chance: float) -> Step:
    return _run(life._replace(fold=health_.passed(life.fold, life.policy.health)), now)


def _ready(life: Life, event: BecameReady, now: float, chance: float) -> Step:
    return _run(life, now)


def _passed(life: Life, event: CheckPassed, now: float, chance: float) -> Step:
    fold = health_.passed(life.fold, life.policy.health)
    effects: list[Effect] = []
    if fold.health != life.fold.health:
        effects += [TellHealth(fold.health), ClearAlerts()]
    return _stable(life._replace(fold=fold), now), effects


def _failed(life: Life, event: CheckFailed, now: float, chance: float) -> Step:
    fold = health_.failed(life.fold, life.policy.health)
    after = life._replace(fold=fold)
    if fold.health == life.fold.health:
        return after, []
    failure = Failure("unhealthy", f"{fold.failures} health checks in a row failed: {event.why.rstrip('.')}.")
    told: list[Effect] = [TellHealth("unhealthy"), RaiseAlert("unhealthy", "warning", failure.message)]
    if not restart_.wants_restart(life.policy.restart, abnormal=True):
        return after, told
    ended, effects = _end(after, Ending(Then.FAILURE, "health", failure), failure.message)
    return ended, [*told, *effects]


def _timed_out(life: Life, event: StartupTimedOut, now: float, chance: float) -> Step:
    return _end(life, Ending(Then.FAILURE, "health", event.failure), event.failure.message)


def _exited(life: Life, event: Exited, now: float, chance: float) -> Step:
    failure = _exit_failure(life, event)
    alert = RaiseAlert("crashed", "warning" if failure.abnormal else "info", failure.message, event.detail)
    if event.extinct:
        after, effects = _conclude(life, failure, now, chance)
    else:
        after, effects = _end(life, Ending(Then.FAILURE, "crash", failure), failure.message, gentle=False)
    return after, [*effects, alert]


def _exit_failure(life: Life, event: Exited) -> Failure:
    never_ran = life.running_since is None
    clean = event.code == 0 and not never_ran
    return Failure(
        "exited_early" if never_ran else "crashed",
        event.summary,
        event.detail,
        permanent=event.code is not None and event.code in life.policy.restart.permanent_exit_codes,
        abnormal=not clean,
    )


def _ended(life: Life, event: TreeEnded, now: float, chance: float) -> Step:
    ending = life.ending
    assert ending is not None
    if ending.then is Then.FAILURE:
        assert ending.failure is not None
        return _conclude(life, ending.failure, now, chance)
    if ending.then is Then.START and not ending.stop_asked:
        after, effects = _begin(life, Origin.OPERATOR, "It is started again as requested.", restarting=life.restarting)
        return after, [*effects, SettleStop()]
    after, effects = _stopped(life, "It was stopped as requested.")
    if ending.then is Then.START:
        effects.append(Follow(RestartRequested() if life.restarting else StartRequested()))
    return after, effects


def _retry(life: Life, event: RetryDue, now: float, chance: float) -> Step:
    recent = restart_.within_window(life.policy.restart, (*life.restarts, now), now)
    counted = life._replace(restart_count=life.restart_count + 1, restarts=recent)
    return _begin(counted, Origin.RETRY, f"Restart {counted.restart_count} of {life.policy.restart.max_restarts}.")


def _stability(life: Life, event: StableReached, now: float, chance: float) -> Step:
    return _stable(life, now), []


def _stable(life: Life, now: float) -> Life:
    long_enough = (
        life.running_since is not None and now - life.running_since >= life.policy.stable_after_s - TIMER_EARLY_S
    )
    if life.restart_count and long_enough and health_.proven(life.fold, life.policy.health):
        return life._replace(restart_count=0)
    return life


# --- the table -------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What an event does in a state, and the states it may lead to."""

    run: Callable[[Life, Any, float, float], Step]
    to: tuple[State, ...]


class Verdict(Enum):
    """Where no rule is needed."""

    IGNORE = "ignore"
    """Nothing to do: late, or true already."""
    REFUSE = "refuse"
    """The request makes no sense now; the caller gets an error."""


IGNORE, REFUSE = Verdict.IGNORE, Verdict.REFUSE
_SETTLED: tuple[State, ...] = ("stopped", "backoff", "failed")

TABLE: dict[type[Any], dict[State, Rule | Verdict]] = {
    StartRequested: {
        "stopped": Rule(_start, ("starting",)),
        "starting": IGNORE,
        "running": REFUSE,
        "stopping": Rule(_start_after_end, ("stopping",)),
        "backoff": Rule(_start, ("starting",)),
        "failed": Rule(_start, ("starting",)),
    },
    StopRequested: {
        "stopped": IGNORE,
        "starting": Rule(_stop_alive, ("stopping",)),
        "running": Rule(_stop_alive, ("stopping",)),
        "stopping": Rule(_stop_at_end, ("stopping",)),
        "backoff": Rule(_stop_backoff, ("stopped",)),
        "failed": IGNORE,
    },
    RestartRequested: {
        "stopped": Rule(_restart_at_rest, ("starting",)),
        "starting": Rule(_restart_alive, ("starting", "stopping")),
        "running": Rule(_restart_alive, ("stopping",)),
        "stopping": Rule(_restart_after_end, ("stopping",)),
        "backoff": Rule(_restart_at_rest, ("starting",)),
        "failed": Rule(_restart_at_rest, ("starting",)),
    },
    DependenciesMet: dict.fromkeys(STATES, IGNORE) | {"starting": Rule(_spawn, ("starting",))},
    StartRefused: dict.fromkeys(STATES, IGNORE) | {"starting": Rule(_refused, ("backoff", "failed"))},
    Spawned: dict.fromkeys(STATES, IGNORE)
    | {"starting": Rule(_spawned, ("starting",)), "stopping": Rule(_spawned_too_late, ("stopping",))},
    CheckPassed: dict.fromkeys(STATES, IGNORE)
    | {"starting": Rule(_passed_first, ("running",)), "running": Rule(_passed, ("running",))},
    CheckFailed: dict.fromkeys(STATES, IGNORE) | {"running": Rule(_failed, ("running", "stopping"))},
    BecameReady: dict.fromkeys(STATES, IGNORE) | {"starting": Rule(_ready, ("running",))},
    StartupTimedOut: dict.fromkeys(STATES, IGNORE) | {"starting": Rule(_timed_out, ("stopping",))},
    Exited: dict.fromkeys(STATES, IGNORE)
    | {
        "starting": Rule(_exited, ("backoff", "failed", "stopping")),
        "running": Rule(_exited, (*_SETTLED, "stopping")),
    },
    TreeEnded: dict.fromkeys(STATES, IGNORE) | {"stopping": Rule(_ended, (*_SETTLED, "starting"))},
    RetryDue: dict.fromkeys(STATES, IGNORE) | {"backoff": Rule(_retry, ("starting",))},
    StableReached: dict.fromkeys(STATES, IGNORE) | {"running": Rule(_stability, ("running",))},
}


class Refused(Exception):
    """The table refuses this event in this state."""


def _is_stale(life: Life, event: Event) -> bool:
    return getattr(event, "attempt", life.attempt) != life.attempt


def step(life: Life, event: Event, now: float, chance: float = 0.0) -> Step:
    """What `event` makes of `life` at the time `now`; `chance` in [0, 1) is for the jitter.

    Raises Refused where the table says REFUSE.
    """
    if _is_stale(life, event):
        return life, []
    rule = TABLE[type(event)][life.state]
    if rule is IGNORE:
        return life, []
    if rule is REFUSE:
        raise Refused(f"{type(event).__name__} while {life.state}")
    assert isinstance(rule, Rule)
    return rule.run(life, event, now, chance)


def diagram() -> str:
    """The picture of the states as a Mermaid state diagram, drawn from TABLE."""
    lines = ["stateDiagram-v2", "    [*] --> stopped"]
    for event, row in TABLE.items():
        for state, rule in row.items():
            if isinstance(rule, Rule):
                lines += [f"    {state} --> {to}: {event.__name__}" for to in rule.to if to != state]
    return "\n".join(lines) + "\n"
