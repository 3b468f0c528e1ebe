"""Holds what supervision publishes and does against the protocol.

A second, plainer account of the lifecycle: for each sidecar it notes who wanted what, what its processes did and what
was told, and says what should have been told instead. It is written from the protocol page and shares nothing with
`bridge.core`. Whether a start was asked for by an operator is the one thing that it takes from a published reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from bridge import errors
from bridge import model as m
from bridge.process.base import Ended
from bridge.settings import SidecarSettings
from bridge.supervision.clock import rfc3339

if TYPE_CHECKING:
    from .world import FakeProcess, World

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
STAGES = ("checking_dependencies", "installing_dependencies", "spawning_process", "waiting_for_health", "ready")
START_ERRORS = (
    errors.StartupTimeout,
    errors.DependencyFailed,
    errors.SpawnFailed,
    errors.ExitedEarly,
    errors.StoppedWhileStarting,
    errors.PortInUse,
    errors.ForeignListener,
    errors.DependencyNotRunning,
    errors.ShuttingDown,
)


class Case:
    """What the referee knows of one sidecar."""

    def __init__(self, settings: SidecarSettings) -> None:
        self.settings = settings
        self.needs: list[Case] = []
        self.dependents: list[Case] = []
        self.state: m.State = "stopped"
        self.changes = 0
        self.since = 0.0
        self.wanted = False
        self.process: FakeProcess | None = None
        self.spawns = 0
        self.tools = 0
        self.counts: set[int] = {0}
        """What restart_count may be; several where two things happen at one moment."""
        self.restarts: list[float] = []
        self.operator = False
        """An operator asked for the start under way or the last one."""
        self.operator_until = -1
        """Serial up to which a start by an operator was under way."""
        self.ran = False
        self.running_since = 0.0
        self.ran_at = -1
        self.ran_until = -1
        """Serials of when it was last seen to begin and to end to run."""
        self.began = -1
        """Serial of the last `starting`."""
        self.up_asked = -1
        self.down_asked = -1
        self.restart_asked = -1
        self.began_under_stop = False
        """The last start was one by itself that a stop, which waits for dependents, is about to undo."""
        self.due: float | None = None
        self.fraction = 0.0
        self.stage = 0
        self.health: m.Health = "unknown"
        self.alerts: set[str] = set()
        self.facts: set[str] = set()
        """What went wrong with the start under way."""
        self.jumped = False
        """The clock jumped since the last passed check."""
        self.was_unhealthy = False
        """Since its last start."""
        self.timed_out = False
        self.spawns_before = 0
        """Processes before the start under way."""
        self.luck = 0.0
        """The chance that was drawn last, for the jitter."""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def fresh(self) -> FakeProcess | None:
        """The process of the start under way or the last one; None where it did not come to one."""
        return self.process if self.spawns > self.spawns_before else None

    @property
    def stop_asked(self) -> bool:
        """Whether somebody asked for a stop of what was started last."""
        return self.down_asked > self.began or self.began_under_stop

    def all_needs(self) -> list[Case]:
        found: list[Case] = []
        for need in self.needs:
            found += [need, *need.all_needs()]
        return found

    def all_dependents(self) -> list[Case]:
        found: list[Case] = []
        for dependent in self.dependents:
            found += [dependent, *dependent.all_dependents()]
        return found


class Referee:
    """Blames and keeps the trace."""

    def __init__(self, sidecars: tuple[SidecarSettings, ...]) -> None:
        self.cases = {settings.name: Case(settings) for settings in sidecars}
        for case in self.cases.values():
            case.needs = [self.cases[name] for name in case.settings.depends_on]
            for need in case.needs:
                need.dependents.append(case)
        for case in self.cases.values():
            if case.settings.autostart:
                for each in (case, *case.all_needs()):
                    each.wanted = True
        self.world: World
        self.trace: list[str] = []
        self.blames: list[str] = []
        self.closing = False
        self.killing = False
        """Everything is killed at once, in no order."""
        self.jumps = 0
        self._serial = 0
        self._owed: list[tuple[float, str, str, Callable[[], bool]]] = []

    # --- the trace ---

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self._serial += 1
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

    def _owe(self, case: Case, text: str, paid: Callable[[], bool]) -> None:
        self._owed.append((anyio.current_time(), case.name, text, paid))

    # --- what the world tells ---

    def spawning(self, name: str) -> None:
        case = self.cases[name]
        if case.process is not None and case.process.alive:
            self.blame(name, "a process is spawned while parts of an older tree are alive")
        if case.state != "starting":
            self.blame(name, f"a process is spawned in state {case.state}")
        if self.closing:
            self.blame(name, "a process is spawned although the bridge is ending")
        if not case.wanted:
            self.blame(name, "a process is spawned although an operator stopped the sidecar, or never wanted it")
        for need in case.needs:
            if need.state != "running" and need.ran_until < case.began:
                self.blame(name, f"it is spawned although {need.name}, on which it depends, did not run")
        if case.tools:
            self.blame(name, "a process is spawned while a tool of the sidecar is alive")

    def spawn_failed(self, name: str, reason: str) -> None:
        self.note(f"{name} cannot be spawned: {reason}")
        self.cases[name].facts.add(f"spawn_failed:{reason}")

    def spawned(self, process: FakeProcess) -> None:
        case = self.cases[process.name]
        case.process = process
        case.spawns += 1
        self.note(f"{process.name} spawned as {process.pid}: {process.script}")

    def leader_ended(self, process: FakeProcess, ended: Ended) -> None:
        self.note(f"{process.name} process {process.pid} ended: {ended.code} {ended.signal}")

    def extinct(self, process: FakeProcess) -> None:
        self.note(f"{process.name} process {process.pid}: nothing of its tree is alive")

    def tool_began(self, name: str) -> None:
        case = self.cases[name]
        case.tools += 1
        if case.state in ("stopped", "failed", "backoff"):
            self.blame(name, f"a tool is started in state {case.state}")

    def tool_ended(self, name: str) -> None:
        self.cases[name].tools -= 1

    def tool_failed(self, name: str) -> None:
        self.note(f"{name} a tool failed")
        self.cases[name].facts.add("dependency_failed")

    def port_taken(self, port: int) -> None:
        for case in self.cases.values():
            if case.settings.port == port:
                case.facts.add("port_in_use")

    def checked(self, process: FakeProcess, *, ok: bool) -> None:
        """A check of this process has its result; those that an operator asked for are not told."""
        case = self.cases[process.name]
        self.note(f"{process.name} check of {process.pid}: {'passed' if ok else 'failed'}")
        if process.ended_at is not None:
            return
        current = case.process is process
        if current:
            self._consider_stability(case)
        if ok:
            process.passes += 1
            process.failures = 0
            process.ever_passed = True
            if current:
                case.jumped = False
                self._consider_stability(case)
                if case.state in ("starting", "running"):
                    self._owe(
                        case,
                        "its port is its own again, but the alert stays",
                        lambda: "foreign_listener" not in case.alerts,
                    )
            return
        if self.jumps == 0:
            process.passes = 0
        process.failures += 1
        broken = process.failures >= case.settings.health.failure_threshold
        if current and case.state == "running" and broken and self.jumps == 0 and process.ended_at is None:
            self._owe(
                case,
                f"it stays healthy after {process.failures} failed checks",
                lambda: case.health == "unhealthy" or case.state != "running" or case.process is not process,
            )

    def jumped(self, by_s: float) -> None:
        self.note(f"the clock jumps by {by_s:g} s")
        self.jumps += 1
        for case in self.cases.values():
            case.jumped = True

    def _consider_stability(self, case: Case) -> None:
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

    # --- what operators do ---

    def asked(self, op: str, name: str) -> int:
        """An operator's request begins; its serial."""
        case = self.cases[name]
        self.note(f"operator asks: {op} {name}")
        if op in ("start", "restart") and not self.closing:
            case.up_asked = self._serial
            if op == "restart":
                case.restart_asked = self._serial
            for each in (case, *case.all_needs()):
                each.wanted = True
        if op in ("stop", "force_stop"):
            for each in (case, *case.all_dependents()):
                each.wanted = False
                each.down_asked = self._serial
        return self._serial

    def ending(self) -> None:
        """The shutdown begins."""
        self.note("operator asks: shutdown")
        self.closing = True
        for case in self.cases.values():
            case.wanted = False
            case.down_asked = self._serial

    def answered(
        self, op: str, name: str, asked: int, before: m.State, answer: m.SidecarStatus | BaseException
    ) -> None:
        """A request has its answer. `before` is the state in which it found the sidecar; only for those that wait."""
        case = self.cases[name]
        shown = answer.state if isinstance(answer, m.SidecarStatus) else f"{type(answer).__name__}: {answer}"
        self.note(f"operator is answered: {op} {name}: {shown}")
        if op in ("start", "restart"):
            self._check_start_answer(op, case, asked, before, answer)
        elif isinstance(answer, BaseException):
            self.blame(name, f"{op} fails: {answer!r}")
        elif case.up_asked < asked and not any(each.up_asked > asked for each in case.all_dependents()):
            if case.process is not None and case.process.alive:
                self.blame(name, "a stop is answered while parts of the tree are alive")
            if answer.state not in ("stopped", "failed"):
                self.blame(name, f"a stop is answered in state {answer.state}")

    def _check_start_answer(
        self, op: str, case: Case, asked: int, before: m.State, answer: m.SidecarStatus | BaseException
    ) -> None:
        if isinstance(answer, m.SidecarStatus):
            if case.ran_at < asked:
                self.blame(case.name, f"a {op} is answered although it never ran since")
        elif isinstance(answer, errors.AlreadyRunning):
            if op != "start" or before != "running":
                self.blame(case.name, f"already_running, for a {op} in state {before}")
        elif not isinstance(answer, START_ERRORS):
            self.blame(case.name, f"{op} ends in {answer!r}")
        elif isinstance(answer, errors.StoppedWhileStarting):
            now = anyio.current_time()
            falling = any(
                each.state not in ("stopped", "failed") or each.since == now for each in case.all_dependents()
            )
            if case.down_asked < asked and not (case.stop_asked and falling):
                self.blame(case.name, "stopped_while_starting, but nobody stopped it")
        elif isinstance(answer, errors.ShuttingDown) and not self.closing:
            self.blame(case.name, "shutting_down, but nothing shuts down")

    # --- what is published ---

    def published(self, event: m.Notification) -> None:
        match event:
            case m.StateChanged():
                self._state_changed(self.cases[event.sidecar], event)
            case m.HealthChanged():
                self._health_changed(self.cases[event.sidecar], event.health)
            case m.StartProgressed():
                self._progressed(self.cases[event.sidecar], event.progress)
            case m.Alert():
                self._alert(self.cases[str(event.sidecar)], event)

    def _progressed(self, case: Case, progress: m.StartProgress) -> None:
        self.note(f"{case.name} {progress.stage} {progress.fraction}: {progress.message}")
        if case.state != "starting":
            self.blame(case.name, f"progress of a start in state {case.state}")
        if progress.fraction < case.fraction or STAGES.index(progress.stage) < case.stage:
            self.blame(case.name, f"progress goes back, to {progress.stage} {progress.fraction}")
        case.fraction, case.stage = progress.fraction, STAGES.index(progress.stage)

    def _health_changed(self, case: Case, health: m.Health) -> None:
        self.note(f"{case.name} is {health}")
        if health == case.health:
            self.blame(case.name, f"its health is {health} twice in a row")
        if case.settings.health.kind == "none" and health != "unknown":
            self.blame(case.name, f"its health is {health}, but nothing checks it")
        if health == "unhealthy" and not (case.state == "running" and self._sick(case)):
            self.blame(case.name, "unhealthy without as many failed checks of its process")
        case.health = health
        case.was_unhealthy |= health == "unhealthy"

    def _sick(self, case: Case) -> bool:
        """Whether enough checks of its process failed; the first one behind a jump of the clock does not count."""
        return case.fresh is not None and case.fresh.failures >= case.settings.health.failure_threshold + case.jumped

    def _alert(self, case: Case, alert: m.Alert) -> None:
        self.note(f"{case.name} alert {alert.kind} {'cleared' if alert.cleared else 'raised'}")
        if alert.cleared != (alert.kind in case.alerts):
            self.blame(case.name, f"alert {alert.kind} is {'cleared' if alert.cleared else 'raised'} twice in a row")
        if alert.cleared:
            case.alerts.discard(alert.kind)
            return
        case.alerts.add(alert.kind)
        alive = {"foreign_listener": ("starting", "running"), "leftover_process": ("stopping",)}
        if case.state not in alive.get(alert.kind, (case.state,)):
            self.blame(case.name, f"alert {alert.kind} in state {case.state}")

    def _state_changed(self, case: Case, event: m.StateChanged) -> None:
        previous, state, now = case.state, event.state, anyio.current_time()
        self.note(f"{case.name} {event.previous} -> {state}: {event.reason}")
        if event.previous != previous or (previous, state) not in ALLOWED:
            self.blame(case.name, f"{event.previous} -> {state} while it is {previous}")
        self._consider_stability(case)
        self._check_time_in(case, now)
        if previous == "running":
            case.ran_until = self._serial
        if previous == "starting" and case.operator:
            case.operator_until = self._serial
        if state == "starting":
            self._starts(case, event)
        elif state == "running":
            self._runs(case)
        elif state == "stopping":
            self._ends(case, event)
        else:
            self._rests(case, event)
        if previous == "stopping":
            self._owe(
                case,
                "its tree is gone, but the alert of leftovers stays",
                lambda: "leftover_process" not in case.alerts,
            )
        case.state, case.since = state, now
        self._check_status(case, event)

    def _check_time_in(self, case: Case, now: float) -> None:
        """Nothing takes longer than its bound."""
        process = case.fresh
        if case.state == "stopping" and now - case.since > case.settings.shutdown_timeout + STOP_SLACK_S:
            self.blame(case.name, f"it was stopping for {now - case.since:g} s")
        if process is None or case.state not in ("starting", "running"):
            return
        if process.ended_at is not None and now - process.ended_at > NOTICED_S:
            self.blame(case.name, "the exit of its process was noticed too late")
        if case.state != "starting" or process.ended_at is not None:
            return
        if now - process.born > case.settings.startup_timeout + EPSILON_S:
            self.blame(case.name, f"it was starting for {now - process.born:g} s")

    def _starts(self, case: Case, event: m.StateChanged) -> None:
        now = anyio.current_time()
        case.operator = not (event.reason in AUTOMATIC or event.reason.startswith("Restart "))
        if case.operator:
            helping = any(
                (each.state == "starting" and each.operator) or each.operator_until > case.began
                for each in case.dependents
            )
            if case.up_asked <= case.began and not helping:
                self.blame(case.name, "it starts as if an operator had asked for it")
            case.counts, case.restarts = {0}, []
        elif case.state == "backoff":
            if case.due is None or abs(now - case.due) > EPSILON_S:
                self.blame(case.name, f"it is restarted at {now:g} s instead of {case.due} s")
            case.counts = {count + 1 for count in case.counts}
            case.restarts.append(now)
        elif case.state != "stopped" or not (
            case.began < 0 or any(each.state == "starting" for each in case.dependents)
        ):
            self.blame(case.name, f"it starts by itself from {case.state}")
        case.due = None
        case.began_under_stop = not case.operator and not case.wanted
        case.began = self._serial
        case.spawns_before = case.spawns
        case.ran = case.was_unhealthy = case.timed_out = False
        case.facts = set()
        case.fraction, case.stage = 0.0, 0

    def _runs(self, case: Case) -> None:
        now, process, health = anyio.current_time(), case.fresh, case.settings.health
        if process is None or (process.ended_at is not None and now - process.ended_at > NOTICED_S):
            self.blame(case.name, "it runs without a process")
        elif health.kind == "none":
            if now - process.born < health.ready_after - EPSILON_S:
                self.blame(case.name, "it runs before ready_after is over")
        elif not process.ever_passed:
            self.blame(case.name, "it runs although no check of its process has passed")
        case.ran, case.running_since, case.ran_at = True, now, self._serial
        if process is not None:
            process.failures = 0
        held = set(case.alerts)
        self._owe(
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
            "unhealthy": event.status.health == "unhealthy" and self._sick(case) and case.settings.restart != "never",
            "timeout": case.state == "starting" and age_s >= case.settings.startup_timeout - EPSILON_S,
        }
        case.timed_out = reasons["timeout"]
        if not any(reasons.values()):
            self.blame(case.name, f"it is ended for no reason ({event.reason})")
        only_stop = [reason for reason, holds in reasons.items() if holds] == ["stop"]
        if only_stop and process is not None and process.alive and not self.killing:
            for each in case.all_dependents():
                if each.process is not None and each.process.alive:
                    self.blame(case.name, f"it is stopped before {each.name}, which depends on it")

    def _rests(self, case: Case, event: m.StateChanged) -> None:
        state = event.state
        if case.process is not None and case.process.alive:
            self.blame(case.name, f"{state}, but parts of its tree are alive")
        if case.tools:
            self.blame(case.name, f"{state}, but a tool of it is alive")
        asked = case.stop_asked
        case.due = None
        if case.state == "backoff" or (case.state == "stopping" and state == "stopped" and asked):
            if not asked:
                self.blame(case.name, "it is stopped, but nobody asked for it")
            case.counts, case.restarts = {0}, []
            began = case.began
            self._owe(case, "it is stopped, but alerts stay", lambda: not case.alerts or case.began > began)
            return
        self._check_failure(case, event)

    def _check_failure(self, case: Case, event: m.StateChanged) -> None:
        """What follows a failure, by the rules of the protocol."""
        settings, error, now = case.settings, event.status.error, anyio.current_time()
        kind = "crashed" if error is None else error.kind
        if error is not None and kind == "restart_limit_exceeded":
            kind = error.detail["kind"]
        if kind not in self._facts(case):
            self.blame(case.name, f"fails as {kind}, but what happened is {sorted(self._facts(case))}")
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
            self.blame(case.name, f"{kind} leads to {shown} instead of {expected}; restarts {case.counts}")
        elif event.state == "backoff":
            self._check_delay(case, event)
        elif error is not None and error.kind == "restart_limit_exceeded":
            limit = error.detail["limit"]
            self._owe(case, f"no alert {limit}", lambda: limit in case.alerts or case.state != "failed")
        if kind in ("crashed", "exited_early"):
            self._owe(
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
        earliest, latest = rfc3339(wall + delay), rfc3339(wall + delay + settings.backoff_jitter + 0.001)
        retry_at = event.status.retry_at
        if retry_at is None or not rfc3339(wall + delay - 0.001) <= retry_at <= latest:
            self.blame(case.name, f"restart {count + 1} is due at {retry_at}, not between {earliest} and {latest}")
        case.due = now + delay + case.luck * settings.backoff_jitter

    def _check_status(self, case: Case, event: m.StateChanged) -> None:
        status, state = event.status, event.state
        told: dict[str, Any] = {"state": status.state, "sidecar": status.sidecar, "message": status.message}
        wanted = {"state": state, "sidecar": case.name, "message": event.reason}
        for field, value in wanted.items():
            if told[field] != value:
                self.blame(case.name, f"status.{field} is {told[field]!r} instead of {value!r}")
        if (status.uptime is None) == (state == "running"):
            self.blame(case.name, f"uptime is {status.uptime} in state {state}")
        if (status.retry_at is None) == (state == "backoff"):
            self.blame(case.name, f"retry_at is {status.retry_at} in state {state}")
        if status.restart_count not in case.counts:
            self.blame(case.name, f"restart_count is {status.restart_count} instead of {case.counts}")
        case.counts = {status.restart_count}
        if status.generation != case.spawns:
            self.blame(case.name, f"generation is {status.generation} instead of {case.spawns}")
        if status.progress is not None and state != "starting":
            self.blame(case.name, f"progress in state {state}")
        if (state == "running" and status.error is not None) or (state in ("failed", "backoff") and not status.error):
            self.blame(case.name, f"error is {status.error} in state {state}")
        alive = case.process is not None and case.process.ended_at is None
        pid = case.process.pid if case.process is not None and alive else None
        if status.pid is not None and (state in ("stopped", "failed", "backoff") or (status.pid != pid and alive)):
            self.blame(case.name, f"pid is {status.pid} in state {state}, its process is {pid}")
        if state == "running" and alive and status.pid != pid:
            self.blame(case.name, f"pid is {status.pid} instead of {pid}")
        health: tuple[m.Health, ...] = ("unknown",)
        if state == "running" and case.settings.health.kind != "none":
            health = ("healthy",)
        elif state == "stopping":
            health = ("unknown", "healthy", "unhealthy")
        if status.health not in health:
            self.blame(case.name, f"health is {status.health} in state {state}")
        case.changes += 1
        change = case.changes
        self._owe(
            case,
            f"health {status.health} is not told",
            lambda: case.health == status.health or case.changes != change or state == "running",
        )

    # --- the end ---

    def over(self) -> None:
        """The shutdown is done: nothing may be left."""
        self.collect()
        for case in self.cases.values():
            if case.state not in ("stopped", "failed"):
                self.blame(case.name, f"the bridge has ended, but it is {case.state}")
            if case.process is not None and case.process.alive:
                self.blame(case.name, f"the bridge has ended, but parts of process {case.process.pid} are alive")
            if case.tools:
                self.blame(case.name, "the bridge has ended, but a tool is alive")

    def at_rest(self) -> None:
        """Nobody has asked for anything for a while: what is not wanted is down, what waits has a reason."""
        self.collect()
        now = anyio.current_time()
        for case in self.cases.values():
            self._check_time_in(case, now)
            if not case.wanted and case.state not in ("stopped", "failed"):
                self.blame(case.name, f"an operator stopped it, or nobody wants it, but it is {case.state}")
            if case.state == "backoff" and case.due is not None and now > case.due + EPSILON_S:
                self.blame(case.name, "its restart is overdue")
