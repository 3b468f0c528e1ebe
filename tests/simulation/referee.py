"""Holds what supervision publishes and does against the protocol.

A second, plainer account of the lifecycle: for each sidecar it notes who wanted what, what its processes did and what
was told, and says what should have been told instead. It is written from the protocol page and shares nothing with
`bridge.core`. Whether a start was asked for by an operator is the one thing that it takes from a published reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from bridge import errors
from bridge import model as m
from bridge.process.base import Ended
from bridge.settings import SidecarSettings

from .case import Case
from .ledger import Ledger
from .transitions import EPSILON_S, Transitions

if TYPE_CHECKING:
    from .processes import FakeProcess
    from .world import World

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


class Referee(Ledger):
    """Hears of everything and blames."""

    def __init__(self, sidecars: tuple[SidecarSettings, ...]) -> None:
        super().__init__()
        self.cases = {settings.name: Case(settings) for settings in sidecars}
        for case in self.cases.values():
            case.needs = [self.cases[name] for name in case.settings.depends_on]
            for need in case.needs:
                need.dependents.append(case)
        for case in self.cases.values():
            if case.settings.autostart:
                for each in (case, *case.all_needs()):
                    each.wanted = True
        self.transitions = Transitions(self)
        self.closing = False

    @property
    def world(self) -> World:
        """The world that is watched; whoever builds it sets it."""
        return self.transitions.world

    @world.setter
    def world(self, world: World) -> None:
        self.transitions.world = world

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
        case = self.cases[process.name]
        if case.process is process:
            case.ended_in = case.state
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
            self.transitions.consider_stability(case)
        if ok:
            process.passes += 1
            process.failures = 0
            process.ever_passed = True
            if current:
                case.jumped = False
                self.transitions.consider_stability(case)
                if case.state in ("starting", "running"):
                    self.owe(
                        case,
                        "its port is its own again, but the alert stays",
                        lambda: "foreign_listener" not in case.alerts,
                    )
            return
        if self.transitions.jumps == 0:
            process.passes = 0
        process.failures += 1
        broken = process.failures >= case.settings.health.failure_threshold
        if current and case.state == "running" and broken and self.transitions.jumps == 0 and process.ended_at is None:
            self.owe(
                case,
                f"it stays healthy after {process.failures} failed checks",
                lambda: case.health == "unhealthy" or case.state != "running" or case.process is not process,
            )

    def jumped(self, by_s: float) -> None:
        self.note(f"the clock jumps by {by_s:g} s")
        self.transitions.jumps += 1
        for case in self.cases.values():
            case.jumped = True

    # --- what operators do ---

    def asked(self, op: str, name: str) -> int:
        """An operator's request begins; its serial."""
        case = self.cases[name]
        self.note(f"operator asks: {op} {name}")
        if op in ("start", "restart") and not self.closing:
            case.up_asked = self.serial
            if op == "restart":
                case.restart_asked = self.serial
            for each in (case, *case.all_needs()):
                each.wanted = True
        if op in ("stop", "force_stop"):
            for each in (case, *case.all_dependents()):
                each.wanted = False
                each.down_asked = self.serial
        return self.serial

    def ending(self) -> None:
        """The shutdown begins."""
        self.note("operator asks: shutdown")
        self.closing = True
        for case in self.cases.values():
            case.wanted = False
            case.down_asked = self.serial

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
        else:
            started_since = any(each.up_asked > asked for each in (case, *case.all_dependents()))
            if case.process is not None and case.process.alive and not started_since:
                self.blame(name, "a stop is answered while parts of the tree are alive")
            if answer.state not in ("stopped", "failed"):
                self.blame(name, f"a stop is answered with state {answer.state}")

    def _check_start_answer(
        self, op: str, case: Case, asked: int, before: m.State, answer: m.SidecarStatus | BaseException
    ) -> None:
        if isinstance(answer, m.SidecarStatus):
            if case.ran_at < asked:
                self.blame(case.name, f"a {op} is answered although it never ran since")
            if answer.state != "running":
                self.blame(case.name, f"a {op} is answered with state {answer.state}")
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
                self.transitions.judge(self.cases[event.sidecar], event)
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
        if health == "unhealthy" and not (case.state == "running" and case.sick):
            self.blame(case.name, "unhealthy without as many failed checks of its process")
        case.health = health
        case.was_unhealthy |= health == "unhealthy"

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
            self.transitions.check_time_in(case, now)
            if not case.wanted and case.state not in ("stopped", "failed"):
                self.blame(case.name, f"an operator stopped it, or nobody wants it, but it is {case.state}")
            if case.state == "backoff" and case.due is not None and now > case.due + EPSILON_S:
                self.blame(case.name, "its restart is overdue")
