"""Holds every change of a sidecar's state against the rules of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bridge import model as m
from bridge.supervision.clock import rfc3339

from .case import Case
from .ledger import Ledger
from .statuses import check_status

if TYPE_CHECKING:
    from .world import World

EPSILON_S = 1e-6
DRAIN_S = 2.0
"""How long pipes are drained at most."""
NOTICED_S = DRAIN_S + 0.6
"""From an exit to the state that follows, with pipes that somebody holds and a check's command that is slow to die."""
STOP_SLACK_S = 25.0
"""Beyond `shutdown_timeout`: the polite steps, a kill that the system delays, and the drains."""
AUTOMATIC = ("It starts with the bridge.", "It is started again.")

ALLOWED: frozenset[tuple[m.State, m.State]] = frozenset(
    {
        ("stopped", "starting"),
        ("starting", "running"),
        ("starting", "stopping"),
        ("starting", "backoff"),
        ("starting", "failed"),
        ("running", "stopping"),
        ("running", "stopped"),
        ("running", "backoff"),
        ("running", "failed"),
        ("stopping", "stopped"),
        ("stopping", "starting"),
        ("stopping", "backoff"),
        ("stopping", "failed"),
        ("backoff", "starting"),
        ("backoff", "stopped"),
        ("failed", "starting"),
    }
)


class Transitions:
    """Judges changes of state."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.world: World
        self.killing = False
        """Everything is killed at once, in no order."""
        self.jumps = 0

    def judge(self, case: Case, event: m.StateChanged) -> None:
        """Look at one change, and keep the account."""
        previous, state, now = case.state, event.state, anyio.current_time()
        self._ledger.note(f"{case.name} {event.previous} -> {state}: {event.reason}")
        if event.previous != previous or (previous, state) not in ALLOWED:
            self._ledger.blame(case.name, f"{event.previous} -> {state} while it is {previous}")
        self.consider_stability(case)
        self.check_time_in(case, now)
        if previous == "running":
            case.ran_until = self._ledger.serial
        if previous == "starting" and case.operator:
            case.operator_until = self._ledger.serial
        if state == "starting":
            self._starts(case, event)
        elif state == "running":
            self._runs(case)
        elif state == "stopping":
            case.stopping_since = now
            self._ends(case, event)
        else:
            self._rests(case, event)
        if previous == "stopping":
            self._ledger.owe(
                case,
                "its tree is gone, but the alert of leftovers stays",
                lambda: "leftover_process" not in case.alerts,
            )
        case.state, case.since = state, now
        check_status(self._ledger, case, event)

    def check_time_in(self, case: Case, now: float) -> None:
        """Nothing takes longer than its bound."""
        process = case.fresh
        if case.state == "stopping" and now - case.since > case.settings.shutdown_timeout + STOP_SLACK_S:
            self._ledger.blame(case.name, f"it was stopping for {now - case.since:g} s")
        if process is None or case.state not in ("starting", "running"):
            return
        if process.ended_at is not None and now - process.ended_at > NOTICED_S:
            self._ledger.blame(case.name, "the exit of its process was noticed too late")
        if case.state != "starting" or process.ended_at is not None:
            return
        if now - process.born > case.settings.startup_timeout + EPSILON_S:
            self._ledger.blame(case.name, f"it was starting for {now - process.born:g} s")

    def _starts(self, case: Case, event: m.StateChanged) -> None:
        now = anyio.current_time()
        case.operator = not (event.reason in AUTOMATIC or event.reason.startswith("Restart "))
        if case.operator:
            helping = any(
                (each.state == "starting" and each.operator) or each.operator_until > case.began
                for each in case.dependents
            )
            if case.up_asked <= case.began and not helping:
                self._ledger.blame(case.name, "it starts as if an operator had asked for it")
            case.counts, case.restarts = {0}, []
        elif case.state == "backoff":
            if case.due is None or abs(now - case.due) > EPSILON_S:
                self._ledger.blame(case.name, f"it is restarted at {now:g} s instead of {case.due} s")
            case.counts = {count + 1 for count in case.counts}
            case.restarts.append(now)
        elif case.state != "stopped" or not (
            case.began < 0 or any(each.state == "starting" for each in case.dependents)
        ):
            self._ledger.blame(case.name, f"it starts by itself from {case.state}")
        case.due = None
        case.began_under_stop = not case.operator and not case.wanted
        case.began = self._ledger.serial
        case.spawns_before = case.spawns
        case.ran = case.was_unhealthy = case.timed_out = False
        case.facts = set()
        case.fraction, case.stage = 0.0, 0

    def _runs(self, case: Case) -> None:
        now, process, health = anyio.current_time(), case.fresh, case.settings.health
        if process is None or (process.ended_at is not None and now - process.ended_at > NOTICED_S):
            self._ledger.blame(case.name, "it runs without a process")
        elif health.kind == "none":
            if now - process.born < health.ready_after - EPSILON_S:
                self._ledger.blame(case.name, "it runs before ready_after is over")
        elif not process.ever_passed:
            self._ledger.blame(case.name, "it runs although no check of its process has passed")
        case.ran, case.running_since, case.ran_at = True, now, self._ledger.serial
        if process is not None:
            process.failures = 0
        held = set(case.alerts)
        self._ledger.owe(
            case,
            f"it runs, but of {held} not all is cleared",
            lambda: not held & case.alerts or case.state != "running",
        )

    def _ends(self, case: Case, event: m.StateChanged) -> None:
        process = case.fresh
        age_s = anyio.current_time() - process.born if process is not None else 0.0
        reasons = {
            "stop": case.stop_asked,
            "restart": case.restart_asked > case.began,
            "exit": process is not None and process.ended_at is not None,
            "unhealthy": event.status.health == "unhealthy" and case.sick and case.settings.restart != "never",
            "timeout": case.state == "starting" and age_s >= case.settings.startup_timeout - EPSILON_S,
        }
        case.timed_out = reasons["timeout"]
        if not any(reasons.values()):
            self._ledger.blame(case.name, f"it is ended for no reason ({event.reason})")
        only_stop = [reason for reason, holds in reasons.items() if holds] == ["stop"]
        if only_stop and process is not None and process.alive and not self.killing:
            for each in case.all_dependents():
                if each.process is not None and each.process.alive:
                    self._ledger.blame(case.name, f"it is stopped before {each.name}, which depends on it")

    def _rests(self, case: Case, event: m.StateChanged) -> None:
        state = event.state
        if case.process is not None and case.process.alive:
            self._ledger.blame(case.name, f"{state}, but parts of its tree are alive")
        if case.tools:
            self._ledger.blame(case.name, f"{state}, but a tool of it is alive")
        self._check_exit(case, event)
        asked = case.stop_asked
        case.due = None
        if case.state == "backoff" or (case.state == "stopping" and state == "stopped" and asked):
            if not asked:
                self._ledger.blame(case.name, "it is stopped, but nobody asked for it")
            case.counts, case.restarts = {0}, []
            began = case.began
            self._ledger.owe(case, "it is stopped, but alerts stay", lambda: not case.alerts or case.began > began)
            return
        self._check_failure(case, event)

    def _check_exit(self, case: Case, event: m.StateChanged) -> None:
        process, exit_ = case.fresh, event.status.last_exit
        if process is None or process.ended is None:
            return
        if exit_ is None or (exit_.code, exit_.signal) != process.ended:
            self._ledger.blame(case.name, f"last_exit is {exit_} instead of {process.ended}")
        elif process.ended_at != case.stopping_since and (exit_.cause == "crash") != (case.ended_in != "stopping"):
            self._ledger.blame(case.name, f"the cause of an exit while {case.ended_in} is {exit_.cause}")

    def _check_failure(self, case: Case, event: m.StateChanged) -> None:
        """What follows a failure, by the rules of the protocol."""
        settings, error, now = case.settings, event.status.error, anyio.current_time()
        kind = "crashed" if error is None else error.kind
        if error is not None and kind == "restart_limit_exceeded":
            kind = error.detail["kind"]
        if kind not in self._facts(case):
            self._ledger.blame(case.name, f"fails as {kind}, but what happened is {sorted(self._facts(case))}")
        ended = case.fresh.ended if case.fresh is not None and kind in ("crashed", "exited_early") else None
        code = ended.code if ended is not None else None
        clean = kind == "crashed" and code == 0
        permanent = (
            kind == "port_in_use"
            or "spawn_failed:missing_program" in case.facts
            or (code is not None and code in settings.permanent_exit_codes)
        )
        again = settings.restart == "always" or (settings.restart == "on_failure" and not clean)
        shown = (event.state, error.kind if error is not None else None)
        expected: list[tuple[str, str | None]] = []
        for count in case.counts:
            recent = sum(now - at <= settings.flapping_window + EPSILON_S for at in case.restarts)
            surely = sum(now - at < settings.flapping_window - EPSILON_S for at in case.restarts)
            if clean and not again:
                expected.append(("stopped", None))
            elif permanent or (case.operator and not case.ran) or not again:
                expected.append(("failed", kind))
            elif count >= settings.max_restarts:
                expected.append(("failed", "restart_limit_exceeded"))
            else:
                if recent >= settings.flapping_restarts:
                    expected.append(("failed", "restart_limit_exceeded"))
                if surely < settings.flapping_restarts:
                    expected.append(("backoff", kind))
        if shown not in expected:
            self._ledger.blame(case.name, f"{kind} leads to {shown} instead of {expected}; restarts {case.counts}")
        elif event.state == "backoff":
            self._check_delay(case, event)
        elif error is not None and error.kind == "restart_limit_exceeded":
            limit = error.detail["limit"]
            self._ledger.owe(case, f"no alert {limit}", lambda: limit in case.alerts or case.state != "failed")
        if kind in ("crashed", "exited_early"):
            self._ledger.owe(
                case,
                "no alert for a crash",
                lambda: "crashed" in case.alerts or case.state not in ("failed", "backoff"),
            )

    def _facts(self, case: Case) -> set[str]:
        """What went wrong since the last start, as error kinds."""
        facts = {fact.partition(":")[0] for fact in case.facts}
        process = case.fresh
        if process is None:
            return facts | {"dependency_not_running"} if case.needs else facts
        timeout_s = case.settings.startup_timeout - EPSILON_S
        lived_s = (anyio.current_time() if process.ended_at is None else process.ended_at) - process.born
        if process.ended_at is not None:
            facts.add("crashed" if case.ran else "exited_early")
        if case.ran and case.was_unhealthy:
            facts.add("unhealthy")
        if not case.ran and (case.timed_out or lived_s >= timeout_s):
            facts |= {"startup_timeout", "foreign_listener"}
        return facts

    def _check_delay(self, case: Case, event: m.StateChanged) -> None:
        settings, now = case.settings, anyio.current_time()
        count = event.status.restart_count
        delay = min(settings.backoff_initial * settings.backoff_factor**count, settings.backoff_max)
        wall = self.world.clock.wall()
        # A millisecond either way: times on the wire are rounded.
        earliest, latest = rfc3339(wall + delay - 0.001), rfc3339(wall + delay + settings.backoff_jitter + 0.001)
        retry_at = event.status.retry_at
        if retry_at is None or not earliest <= retry_at <= latest:
            self._ledger.blame(case.name, f"a restart is due at {retry_at}, not between {earliest} and {latest}")
        case.due = now + delay + case.luck * settings.backoff_jitter

    def consider_stability(self, case: Case) -> None:
        """The counter returns to 0 once it has run for long enough and enough checks in a row have passed."""
        health = case.settings.health
        if case.state != "running" or case.counts == {0} or case.process is None:
            return
        over_s = anyio.current_time() - case.running_since - case.settings.stable_after
        proven = health.kind in ("none", "log") or case.process.passes >= health.success_threshold
        if not proven or over_s < -EPSILON_S:
            return
        if over_s <= EPSILON_S or self.jumps:
            case.counts.add(0)
        else:
            case.counts = {0}
