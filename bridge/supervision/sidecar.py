"""One sidecar: feeds what happens into `core.lifecycle` and performs the effects that come out.

It owns the current attempt and its timers, tells of every change and answers the callers who wait. How a start is made
stands in `starting`, how health is asked in `checking` and `monitor`, how an end is made in `ending`; how many sidecars
there are and who depends on whom is the supervisor's business.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from bridge import errors
from bridge import model as m
from bridge.core import lifecycle as lc
from bridge.core.health import HealthPolicy
from bridge.core.restart import RestartPolicy
from bridge.process.base import Process
from bridge.settings import SidecarSettings, fill, url_values

from . import status
from .attempt import Attempt
from .cell import Cell, Surroundings
from .checking import Checker, Findings
from .clock import rfc3339
from .ending import Leaver
from .jobs import Waiters, start_job
from .monitor import Monitor
from .progress import ProgressReport
from .redact import Redactor
from .starting import Log, Starter

LASTING_ALERTS = frozenset({"log_write_failed", "leftover_process"})
"""Conditions whose end has nothing to do with what the process does."""


def policy_of(settings: SidecarSettings) -> lc.Policy:
    """What the lifecycle needs of the settings."""
    health = settings.health
    return lc.Policy(
        restart=RestartPolicy(
            restart=settings.restart,
            max_restarts=settings.max_restarts,
            backoff_initial_s=settings.backoff_initial,
            backoff_factor=settings.backoff_factor,
            backoff_max_s=settings.backoff_max,
            backoff_jitter_s=settings.backoff_jitter,
            flapping_restarts=settings.flapping_restarts,
            flapping_window_s=settings.flapping_window,
            permanent_exit_codes=frozenset(settings.permanent_exit_codes),
        ),
        health=HealthPolicy(
            checked=health.kind != "none",
            failure_threshold=health.failure_threshold,
            # A line in the output comes once; there is nothing more to pass.
            success_threshold=health.success_threshold if health.kind != "log" else 0,
        ),
        startup_timeout_s=settings.startup_timeout,
        stable_after_s=settings.stable_after,
    )


class Sidecar:
    """A supervised program. All methods belong to the event loop's thread."""

    def __init__(
        self,
        settings: SidecarSettings,
        around: Surroundings,
        log: Log,
        redactor: Redactor,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.life = lc.Life(policy=policy_of(settings))
        self._around = around
        self._redactor = redactor
        self._chance = chance
        self._cell = Cell(settings, around, redactor, self.feed, self._report)
        self._checker = Checker(self._cell)
        self._leaver = Leaver(self._cell, self._checker, lambda: self.life, self._note_exit)
        self._starter = Starter(self._cell, log, self._leaver.watch)
        self._attempt = self._new_attempt(0)
        self._last_exit: m.Exit | None = None
        self._message = "It has not been started yet."
        self._since = around.now()
        self._retry_at: str | None = None
        self._starts: Waiters[tuple[lc.Failure | None, m.SidecarStatus]] = Waiters()
        self._stops: Waiters[m.SidecarStatus] = Waiters()
        self._changed = anyio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._held_down: lc.StopRequested | None = None
        self._inbox: deque[lc.Event] = deque()
        self._feeding = False

    # --- what callers ask for ---

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def process(self) -> Process | None:
        """The process of the current attempt while it may be alive."""
        return self._attempt.process if self._attempt.exit is None else None

    @property
    def checks(self) -> list[m.HealthCheck]:
        """Its last health checks, oldest first."""
        return list(self._checker.history)

    async def start(self, *, wait: bool, origin: lc.Origin = lc.Origin.OPERATOR) -> m.SidecarStatus:
        """Start it; with `wait` return once it runs. Raises AlreadyRunning and every error of a start."""
        if self.life.state == "running":
            raise errors.AlreadyRunning(f"{self.name} is running already.", sidecar=self.name)
        return await self._request_up(lc.StartRequested(origin), wait)

    async def restart(self, *, wait: bool) -> m.SidecarStatus:
        """Restart it from whatever state; with `wait` return once it runs again. Raises every error of a start."""
        return await self._request_up(lc.RestartRequested(), wait)

    def begin_stop(self, *, force: bool, cause: m.ExitCause) -> Callable[[], Awaitable[m.SidecarStatus]]:
        """Stop it. What is returned must be called: it waits until nothing of it is alive."""
        waiter = self._stops.enter()
        self.feed(lc.StopRequested(force, cause))
        at_rest = self.status() if self.life.state in ("stopped", "failed") else None

        async def finish() -> m.SidecarStatus:
            try:
                return at_rest if at_rest is not None else await self._stops.outcome(waiter)
            finally:
                self._stops.forget(waiter)

        return finish

    def hold_down(self, how: lc.StopRequested) -> None:
        """Until `let_go`: stop it as soon as it has no process that others could depend on."""
        if self._held_down is not None and self._held_down.force:
            how = how._replace(force=True)
        self._held_down = how
        self._obey_hold()

    def let_go(self) -> None:
        """End what `hold_down` began."""
        self._held_down = None

    def _obey_hold(self) -> None:
        state = self.life.state
        if self._held_down is not None and (
            state in ("stopping", "backoff") or (state == "starting" and self.process is None)
        ):
            self.feed(self._held_down)

    async def _request_up(self, event: lc.Event, wait: bool) -> m.SidecarStatus:
        waiter = self._starts.enter()
        try:
            self.feed(event)
            if not wait:
                return self.status()
            failure, then = await self._starts.outcome(waiter)
        finally:
            self._starts.forget(waiter)
        if failure is not None:
            raise status.error_from(failure, self.name)
        return then

    async def changed(self) -> None:
        """Return after the next change of state."""
        await self._changed.wait()

    async def check_now(self) -> m.HealthCheck:
        """Make one check. Raises NotRunning."""
        if self.life.state != "running" or self._attempt.over:
            raise errors.NotRunning(f"{self.name} is not running.", sidecar=self.name)
        return await self._checker.check(self._attempt)

    def status(self) -> m.SidecarStatus:
        """Everything about it now."""
        life, attempt = self.life, self._attempt
        ran = life.running_since if life.state == "running" else None
        alive = self.process
        port = attempt.port if attempt.port is not None else (self.settings.port or None)
        values = self._cell.values(port)
        return m.SidecarStatus(
            sidecar=self.name,
            state=life.state,
            message=self._message,
            uptime=round(anyio.current_time() - ran, 3) if ran is not None else None,
            restart_count=life.restart_count,
            pid=alive.pid if alive is not None else None,
            since=self._since,
            progress=attempt.progress.current if life.state == "starting" else None,
            health=life.fold.health,
            last_exit=self._last_exit,
            retry_at=self._retry_at,
            max_restarts=self.settings.max_restarts,
            error=status.shown_failure(life.failure, self._last_exit),
            port=port,
            url=f"http://{url_values(values)['host']}:{port}" if port else None,
            command=[self._redactor.text(fill(part, values)) for part in self.settings.command],
            generation=life.generation,
        )

    # --- the table's rim ---

    def feed(self, event: lc.Event) -> None:
        """Give the lifecycle an event; what it causes is begun before this returns."""
        self._inbox.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inbox:
                self.life, effects = lc.step(self.life, self._inbox.popleft(), anyio.current_time(), self._chance())
                for effect in effects:
                    self._perform(effect)
        finally:
            self._feeding = False

    def _perform(self, effect: lc.Effect) -> None:
        attempt = self._attempt
        match effect:
            case lc.Publish(previous, state, reason):
                self._publish_state(previous, state, reason)
            case lc.NewAttempt(number):
                self._attempt = self._new_attempt(number)
            case lc.PrepareStart():
                self._starter.prepare(attempt, self.life.origin)
            case lc.Spawn():
                self._starter.spawn(attempt)
            case lc.Watch():
                findings = Findings(self._cell, self._checker, attempt)
                monitor = Monitor(self.settings.health, self._around.absence, findings)
                attempt.monitoring = start_job(self._around.tasks, monitor.run)
                self._report(attempt, "waiting_for_health", "Waiting until it is ready.", 0.0)
            case lc.EndTree(_, gentle, force):
                self._leaver.end_tree(attempt, gentle=gentle, force=force)
            case lc.Hasten():
                if attempt.ender is not None:
                    attempt.ender.hasten()
            case lc.ArmRetry(number, delay_s):
                self._arm("retry", delay_s, partial(self.feed, lc.RetryDue(number)))
            case lc.ArmStartupDeadline(_, delay_s):
                self._arm("startup", delay_s, partial(self._starter.deadline_passed, attempt))
            case lc.ArmStability(number, delay_s):
                self._arm("stable", delay_s, partial(self.feed, lc.StableReached(number)))
            case lc.TellHealth(health):
                self._publish_health(health)
            case lc.RaiseAlert(kind, severity, message, detail):
                self._cell.raise_alert(kind, severity, message, detail, again=kind == "crashed")
            case lc.ClearAlerts():
                self._around.alerts.clear_all(self.name, but=LASTING_ALERTS)
            case lc.SettleStart(failure):
                self._starts.settle((failure, self.status()))
            case lc.SettleStop():
                self._stops.settle(self.status())
            case lc.Follow(event):
                self.feed(event)

    def _new_attempt(self, number: int) -> Attempt:
        return Attempt(number, ProgressReport(self._tell_progress))

    def _note_exit(self, exit_: m.Exit) -> None:
        self._last_exit = exit_

    def _arm(self, name: str, delay_s: float, then: Callable[[], None]) -> None:
        self._disarm(name)
        if delay_s <= 0:
            then()  # Nothing it causes happens within this step: `feed` takes it up behind.
            return
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, then)

    def _disarm(self, *names: str) -> None:
        for name in names:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()

    # --- telling ---

    def _publish_state(self, previous: m.State, state: m.State, reason: str) -> None:
        self._message = reason
        self._since = self._around.now()
        self._retry_at = None
        if state not in ("starting", "running"):
            self._disarm("startup", "stable")
            self._checker.call_off(self._attempt)
        if state == "running":
            self._disarm("startup")
            self._report(self._attempt, "ready", "Ready.", 1.0)
        if state != "starting":
            self._attempt.progress.stop()
        if state != "backoff":
            self._disarm("retry")
        else:
            assert self.life.retry_at is not None
            self._retry_at = rfc3339(self._around.clock.wall() + self.life.retry_at - anyio.current_time())
        self._around.publish(
            m.StateChanged(
                at=self._since, sidecar=self.name, previous=previous, state=state, reason=reason, status=self.status()
            )
        )
        process = self._attempt.process
        data = {"previous": previous, "state": state, "pid": process.pid if process is not None else None}
        self._around.journal.record(self.name, "state_changed", reason, data)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        self._obey_hold()

    def _publish_health(self, health: m.Health) -> None:
        check = self._attempt.last_check if health != "unknown" else None
        self._around.publish(m.HealthChanged(at=self._around.now(), sidecar=self.name, health=health, check=check))
        self._around.journal.record(self.name, "health_changed", f"Its health is {health}.", check)

    def _report(self, attempt: Attempt, stage: m.Stage, message: str, within: float) -> None:
        if attempt is not self._attempt or self.life.state != ("running" if stage == "ready" else "starting"):
            return  # A check or an installer that was called off may still bring its last news.
        attempt.progress.report(stage, self._redactor.text(message), within)

    def _tell_progress(self, progress: m.StartProgress) -> None:
        self._around.publish(m.StartProgressed(at=self._around.now(), sidecar=self.name, progress=progress))
