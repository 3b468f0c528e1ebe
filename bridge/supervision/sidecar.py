"""One sidecar: feeds what happens into `core.lifecycle` and performs the effects that come out.

It owns the current attempt (process, pipes, jobs, timers) and answers the callers who wait. How many sidecars there are
and who depends on whom is the supervisor's business; how a tree is ended stands in `ender`, how health is watched in
`monitor`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from bridge import errors
from bridge import model as m
from bridge.core import lifecycle as lc
from bridge.core.health import HealthPolicy
from bridge.core.restart import RestartPolicy
from bridge.process.base import Ended, Process, SpawnError, SpawnSpec, System
from bridge.settings import SidecarSettings, fill, ready_pattern, url_values

from . import causes, status
from .alerts import Alerts
from .attempt import Attempt, Output
from .clock import Clock, rfc3339
from .ender import Ender
from .jobs import Job, Waiters, start_job
from .journal import Journal
from .monitor import Monitor
from .ports import Ports
from .preparation import ensure_dependencies
from .probes import CheckResult, Prober
from .progress import ProgressReport
from .redact import Redactor
from .tools import ToolResult, ToolRunner

CHECKS_KEPT = 1000
"""What get_sidecar_health can ask for at most."""
CHECKS_IN_EXIT = 5
DRAIN_S = 2.0
"""How long the pipes of a dead process are still read."""
TAIL_LINES = 20
INSTALL_HALFWAY_S = 30.0
"""How far an installer is cannot be known; its part of the bar is half full after this time."""


class Log(Protocol):
    """The log floor, as far as a sidecar uses it."""

    def attach(self, stdout: int, stderr: int) -> Output:
        """Take over the read ends of a process's pipes."""


class Surroundings:
    """What every sidecar of a bridge shares."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        system: System,
        prober: Prober,
        run_tool: ToolRunner,
        clock: Clock,
        ports: Ports,
        alerts: Alerts,
        journal: Journal,
        publish: Callable[[m.Notification], None],
        environ: Mapping[str, str],
        log_dir: str,
        ensure_up: Callable[[str, lc.Origin], Awaitable[lc.Failure | None]],
        woke_up: Callable[[float], None],
    ) -> None:
        self.tasks = tasks
        self.system = system
        self.prober = prober
        self.run_tool = run_tool
        self.clock = clock
        self.ports = ports
        self.alerts = alerts
        self.journal = journal
        self.publish = publish
        self.environ = environ
        self.log_dir = log_dir
        self.ensure_up = ensure_up
        self.woke_up = woke_up

    def now(self) -> str:
        """Wall-clock time for the wire."""
        return rfc3339(self.clock.wall())


def policy_of(settings: SidecarSettings) -> lc.Policy:
    """What the lifecycle needs of the settings."""
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
            checked=settings.health.kind != "none",
            failure_threshold=settings.health.failure_threshold,
            success_threshold=settings.health.success_threshold if settings.health.kind != "log" else 0,
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
        self.checks: deque[m.HealthCheck] = deque(maxlen=CHECKS_KEPT)
        self._around = around
        self._log = log
        self._redactor = redactor
        self._chance = chance
        self._attempt = Attempt(0, 0.0, ProgressReport(self._tell_progress))
        self._last_exit: m.Exit | None = None
        self._message = "It has not been started yet."
        self._since = around.now()
        self._retry_at: str | None = None
        self._starts: Waiters[lc.Failure | None] = Waiters()
        self._stops: Waiters[None] = Waiters()
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

    async def start(self, *, wait: bool, origin: lc.Origin = lc.Origin.OPERATOR) -> None:
        """Start it; with `wait` return once it runs. Raises AlreadyRunning and every error of a start."""
        if self.life.state == "running":
            raise errors.AlreadyRunning(f"{self.name} is running already.", sidecar=self.name)
        await self._request_up(lc.StartRequested(origin), wait)

    async def restart(self, *, wait: bool) -> None:
        """Restart it from whatever state; with `wait` return once it runs again. Raises every error of a start."""
        await self._request_up(lc.RestartRequested(), wait)

    def begin_stop(self, *, force: bool, cause: m.ExitCause) -> Callable[[], Awaitable[None]]:
        """Stop it. What is returned must be called: it waits until nothing of it is alive."""
        waiter = self._stops.enter()
        self.feed(lc.StopRequested(force, cause))
        at_rest = self.life.state in ("stopped", "failed")

        async def finish() -> None:
            try:
                if not at_rest:
                    await self._stops.outcome(waiter)
            finally:
                self._stops.forget(waiter)

        return finish

    def hold_down(self, how: lc.StopRequested) -> None:
        """Until `let_go`: stop it as soon as it has no process that others could depend on."""
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

    async def _request_up(self, event: lc.Event, wait: bool) -> None:
        waiter = self._starts.enter()
        try:
            self.feed(event)
            failure = await self._starts.outcome(waiter) if wait else None
        finally:
            self._starts.forget(waiter)
        if failure is not None:
            raise status.error_from(failure, self.name)

    async def changed(self) -> None:
        """Return after the next change of state."""
        await self._changed.wait()

    async def check_now(self) -> m.HealthCheck:
        """Make one check. Raises NotRunning."""
        if self.life.state != "running" or self._attempt.over:
            raise errors.NotRunning(f"{self.name} is not running.", sidecar=self.name)
        return await self.make_check()

    def status(self) -> m.SidecarStatus:
        """Everything about it now."""
        life, attempt = self.life, self._attempt
        running = life.state == "running" and life.running_since is not None
        alive = self.process
        port = attempt.port if attempt.port is not None else (self.settings.port or None)
        values = self._values(port)
        return m.SidecarStatus(
            sidecar=self.name,
            state=life.state,
            message=self._message,
            uptime=round(anyio.current_time() - life.running_since, 3)
            if running and life.running_since is not None
            else None,
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
        match effect:
            case lc.Publish(previous, state, reason):
                self._publish_state(previous, state, reason)
            case lc.NewAttempt(number):
                self._attempt = Attempt(number, anyio.current_time(), ProgressReport(self._tell_progress))
            case lc.PrepareStart():
                self._report(self._attempt, "checking_dependencies", "Checking what it needs.", 0.0)
                if self.settings.depends_on or self.settings.dependencies is not None:
                    self._attempt.preparing = start_job(self._around.tasks, self._prepare, self._attempt)
                else:
                    self._ready_to_spawn(self._attempt)
            case lc.Spawn():
                self._spawn(self._attempt)
            case lc.Watch():
                monitor = Monitor(self.settings.health, self._around.clock, _Watched(self, self._attempt))
                self._attempt.monitoring = start_job(self._around.tasks, monitor.run)
                self._report(self._attempt, "waiting_for_health", "Waiting until it is ready.", 0.0)
            case lc.EndTree(_, gentle, force):
                if self._attempt.preparing is not None:
                    self._attempt.preparing.cancel()
                self._attempt.ender = self._ender_of(self._attempt)
                start_job(self._around.tasks, self._end_tree, self._attempt, gentle, force)
            case lc.Hasten():
                if self._attempt.ender is not None:
                    self._attempt.ender.hasten()
            case lc.ArmRetry(number, delay_s):
                self._retry_at = rfc3339(self._around.clock.wall() + delay_s)
                self._arm("retry", delay_s, partial(self.feed, lc.RetryDue(number)))
            case lc.ArmStartupDeadline(number, delay_s):
                self._arm("startup", delay_s, partial(self._startup_over, self._attempt))
            case lc.ArmStability(number, delay_s):
                self._arm("stable", delay_s, partial(self.feed, lc.StableReached(number)))
            case lc.TellHealth(health):
                self._publish_health(health)
            case lc.RaiseAlert(kind, severity, message, detail):
                self._raise(kind, severity, message, detail)
            case lc.ClearAlerts():
                self._around.alerts.clear_all(self.name)
            case lc.SettleStart(failure):
                self._starts.settle(failure)
            case lc.SettleStop():
                self._stops.settle(None)
            case lc.Follow(event):
                self.feed(event)

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
            self._call_off_checks(self._attempt)
        if state == "running":
            self._disarm("startup")
            self._report(self._attempt, "ready", "Ready.", 1.0)
        if state != "starting":
            self._attempt.progress.stop()
        if state != "backoff":
            self._disarm("retry")
        else:
            # Its ArmRetry follows in the same step, and the status must show it already.
            assert self.life.retry_at is not None
            self._retry_at = rfc3339(self._around.clock.wall() + self.life.retry_at - anyio.current_time())
        self._around.publish(
            m.StateChanged(
                at=self._since, sidecar=self.name, previous=previous, state=state, reason=reason, status=self.status()
            )
        )
        self._around.journal.record(
            self.name, "state_changed", reason, {"previous": previous, "state": state, "pid": self._pid()}
        )
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        self._obey_hold()

    def _pid(self) -> int | None:
        process = self._attempt.process
        return process.pid if process is not None else None

    def _publish_health(self, health: m.Health) -> None:
        check = self._attempt.last_check if health != "unknown" else None
        self._around.publish(m.HealthChanged(at=self._around.now(), sidecar=self.name, health=health, check=check))
        self._around.journal.record(self.name, "health_changed", f"Its health is {health}.", check)

    def _raise(self, kind: str, severity: m.Severity, message: str, data: Any = None) -> None:
        if self._around.alerts.raise_(self.name, kind, severity, message, data):
            self._around.journal.record(self.name, "alert", message, {"kind": kind, "severity": severity})

    def _report(self, attempt: Attempt, stage: m.Stage, message: str, within: float) -> None:
        """Tell how far a start is; `within` is the part of the stage that is done, 0 to 1."""
        if attempt is not self._attempt or self.life.state != ("running" if stage == "ready" else "starting"):
            return  # A check or an installer that was called off may still bring its last news.
        attempt.progress.report(stage, self._redactor.text(message), within)

    def _tell_progress(self, progress: m.StartProgress) -> None:
        self._around.publish(m.StartProgressed(at=self._around.now(), sidecar=self.name, progress=progress))

    # --- a start ---

    def _values(self, port: int | None) -> dict[str, str]:
        return {
            "port": str(port or 0),
            "host": self.settings.host,
            "log_dir": self._around.log_dir,
            "name": self.name,
        }

    def _environment(self, values: Mapping[str, str]) -> dict[str, str]:
        env = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **self._around.environ}
        env.update({key: fill(value, values) for key, value in self.settings.env.items()})
        env["SIDECAR_NAME"] = self.name
        return env

    async def _prepare(self, attempt: Attempt) -> None:
        """See to what it depends on; ends in DependenciesMet or StartRefused."""
        failure = await self._start_dependencies()
        if failure is not None:
            self.feed(lc.StartRefused(attempt.number, failure))
            return
        try:
            if self.settings.dependencies is not None:
                await ensure_dependencies(
                    self.name,
                    self.settings.dependencies,
                    run_tool=self._around.run_tool,
                    cwd=self.settings.cwd,
                    env=self._environment(self._values(self.settings.port)),
                    on_install=partial(self._report_install, attempt, anyio.current_time()),
                )
        except errors.DependencyFailed as error:
            shown = errors.DependencyFailed(
                self._redactor.text(error.message), sidecar=self.name, detail=self._redactor.value(error.detail)
            )
            self.feed(lc.StartRefused(attempt.number, status.failure_from(shown)))
        else:
            self._ready_to_spawn(attempt)

    def _ready_to_spawn(self, attempt: Attempt) -> None:
        """Get the port, the last thing that a start needs."""
        try:
            if self.settings.port is not None:
                attempt.port = self._around.ports.obtain(self.name, self.settings.host, self.settings.port)
        except errors.PortInUse as error:
            self._raise("port_in_use", "critical", error.message, error.detail)
            self.feed(lc.StartRefused(attempt.number, status.failure_from(error, permanent=True)))
        else:
            attempt.values = self._values(attempt.port)
            attempt.env = self._environment(attempt.values)
            self.feed(lc.DependenciesMet(attempt.number))

    async def _start_dependencies(self) -> lc.Failure | None:
        for name in self.settings.depends_on:
            failure = await self._around.ensure_up(name, self.life.origin)
            if failure is not None:
                return failure
        return None

    def _report_install(self, attempt: Attempt, began: float, line: str) -> None:
        spent_s = anyio.current_time() - began
        self._report(attempt, "installing_dependencies", line, spent_s / (spent_s + INSTALL_HALFWAY_S))

    def _spawn(self, attempt: Attempt) -> None:
        self._report(attempt, "spawning_process", "Starting the process.", 0.0)
        argv = tuple(fill(part, attempt.values) for part in self.settings.command)
        spec = SpawnSpec(
            argv,
            self.settings.cwd,
            attempt.env,
            stdin=self.settings.stdin,
            stop_signal=self.settings.stop_signal,
            shutdown_timeout_s=self.settings.shutdown_timeout,
        )
        try:
            process = self._around.system.spawn(spec)
        except SpawnError as error:
            failure = lc.Failure(
                "spawn_failed",
                self._redactor.text(error.message),
                {"reason": error.reason},
                permanent=error.reason not in ("no_resources", "other"),
            )
            self.feed(lc.StartRefused(attempt.number, failure))
            return
        assert process.stderr is not None
        attempt.process = process
        attempt.output = self._log.attach(process.stdout, process.stderr)
        start_job(self._around.tasks, self._watch_exit, attempt, process, attempt.output)
        self.feed(lc.Spawned(attempt.number))

    def _startup_over(self, attempt: Attempt) -> None:
        if attempt.leaving:
            return
        seconds = f"{self.settings.startup_timeout:g} s"
        check = attempt.last_check
        last = f" Last check: {check.error}." if check is not None and check.error else ""
        if attempt.foreign is not None:
            failure = lc.Failure("foreign_listener", f"Its health endpoint is answered by {attempt.foreign}.")
        else:
            tail = attempt.output.tail("stderr", TAIL_LINES) if attempt.output is not None else []
            failure = lc.Failure(
                "startup_timeout",
                f"It was not ready within {seconds}.{last}",
                {"last_check": check, "stderr_tail": [self._redactor.text(line) for line in tail]},
            )
        self.feed(lc.StartupTimedOut(attempt.number, failure))

    # --- an end ---

    async def _watch_exit(self, attempt: Attempt, process: Process, output: Output) -> None:
        ended = await process.wait()
        life = self.life
        cause: m.ExitCause = life.ending.cause if life.state == "stopping" and life.ending is not None else "crash"
        ran = life.running_since
        ended_at = anyio.current_time()
        uptime_s = ended_at - ran if ran is not None else None
        self._call_off_checks(attempt)
        await output.flush(DRAIN_S)
        await self._end_checks(attempt)
        attempt.exit = self._exit_of(ended, cause, uptime_s, output)
        self._last_exit = attempt.exit
        extinct = await process.wait_extinct(0)
        summary = status.exit_sentence(ended, ready=ran is not None, hint=attempt.exit.hint)
        self._around.journal.record(self.name, "exited", summary, attempt.exit)
        attempt.exited.set()
        # A stop that has begun still uses the tree, and lets go of it afterwards.
        at_rest = extinct and attempt.ender is None
        self.feed(lc.Exited(attempt.number, ended.code, ended.signal, summary, attempt.exit, extinct))
        if at_rest:
            process.close()
            await output.close(max(ended_at + DRAIN_S - anyio.current_time(), 0.0))

    def _exit_of(self, ended: Ended, cause: m.ExitCause, uptime_s: float | None, output: Output) -> m.Exit:
        tail = [self._redactor.text(line) for line in output.tail("stderr", TAIL_LINES)]
        if cause == "health":
            guess = causes.of_silence(self._attempt.last_check)
        else:
            guess = causes.classify(
                ended.code, ended.signal, tail or output.tail("stdout", TAIL_LINES), asked=cause != "crash"
            )
        return m.Exit(
            code=ended.code,
            signal=ended.signal,
            at=self._around.now(),
            cause=cause,
            cause_class=guess.cause_class,
            hint=guess.hint,
            uptime=round(uptime_s, 3) if uptime_s is not None else None,
            stderr_tail=tail,
            checks=list(self.checks)[-CHECKS_IN_EXIT:],
        )

    async def _end_tree(self, attempt: Attempt, gentle: bool, force: bool) -> None:
        if attempt.preparing is not None:
            await attempt.preparing.done.wait()
        if attempt.ender is not None and attempt.process is not None and attempt.output is not None:
            await attempt.ender.end(gentle=gentle, force=force)
            await self._end_checks(attempt)
            await attempt.exited.wait()
            await attempt.output.close(DRAIN_S)
            attempt.process.close()
        self.feed(lc.TreeEnded(attempt.number))

    async def _end_checks(self, attempt: Attempt) -> None:
        """Return once nothing is asked of this attempt any more and no check's command is alive."""
        self._call_off_checks(attempt)
        for job in list(attempt.tools):
            await job.done.wait()

    def _call_off_checks(self, attempt: Attempt) -> None:
        attempt.over = True
        if attempt.monitoring is not None:
            attempt.monitoring.cancel()
        for job in attempt.tools:
            job.cancel()

    def _ender_of(self, attempt: Attempt) -> Ender | None:
        if attempt.process is None:
            return None
        return Ender(
            attempt.process,
            self.settings,
            request_stop=partial(self._request_stop, attempt) if self.settings.stop_http else None,
            survivors=self._tell_survivors,
        )

    async def _request_stop(self, attempt: Attempt, timeout_s: float) -> None:
        method, _, url = fill(self.settings.stop_http, url_values(attempt.values)).partition(" ")
        await self._around.prober.http_request(method, url, timeout_s)

    def _tell_survivors(self, pids: list[int]) -> None:
        self._raise(
            "leftover_process", "critical", f"Processes of {self.name} cannot be killed: {pids}.", {"pids": pids}
        )

    # --- health ---

    async def make_check(self) -> m.HealthCheck:
        """One check of the current process, kept in the history."""
        attempt = self._attempt
        result = await self._around.prober.check(
            self.settings.health,
            values=attempt.values,
            env=attempt.env,
            cwd=self.settings.cwd,
            run_tool=partial(self._run_check, attempt),
        )
        if attempt.over:
            result = CheckResult(False, result.latency_s, result.status_code, "its end had begun")
        elif self.settings.health.kind in ("http", "tcp"):
            result = self._verify_owner(attempt, result)
        check = m.HealthCheck(
            at=self._around.now(),
            ok=result.ok,
            latency=round(result.latency_s, 6) if result.latency_s is not None else None,
            status_code=result.status_code,
            error=self._redactor.text(result.error) if result.error is not None else None,
        )
        if not attempt.over:
            attempt.last_check = check
            self.checks.append(check)
        return check

    async def _run_check(self, attempt: Attempt, argv: tuple[str, ...], **how: Any) -> ToolResult:
        """Run a check's command as part of the attempt's tree: it is ended with it."""
        result: ToolResult | None = None
        if attempt.over:
            return ToolResult(None, [])

        async def run() -> None:
            nonlocal result
            result = await self._around.run_tool(argv, **how)

        job = Job()
        attempt.tools.add(job)
        try:
            await job.run(run)
        finally:
            attempt.tools.discard(job)
        return result if result is not None else ToolResult(None, [])

    def _verify_owner(self, attempt: Attempt, result: CheckResult) -> CheckResult:
        health = self.settings.health
        template = health.http if health.kind == "http" else health.tcp
        knows_port = attempt.port is not None and ("{port}" in template or f":{attempt.port}" in template)
        if not (result.ok and knows_port and health.verify_owner) or attempt.process is None:
            return result
        assert attempt.port is not None
        if self._around.system.owns_port(attempt.process, attempt.port) is not False:
            attempt.foreign = None
            return result
        holder = self._around.system.port_holder(attempt.port)
        attempt.foreign = f"{holder.name} (pid {holder.pid})" if holder is not None else "another process"
        message = f"Port {attempt.port} is answered by {attempt.foreign}, which does not belong to {self.name}."
        detail = {"port": attempt.port, "pid": holder.pid if holder is not None else None}
        self._raise("foreign_listener", "critical", message, detail)
        return CheckResult(False, result.latency_s, result.status_code, message.removesuffix("."))

    async def wait_for_line(self) -> None:
        """Return once the readiness pattern stands in the current process's output."""
        output = self._attempt.output
        assert output is not None
        await output.wait_for(ready_pattern(self.settings.health.log, self._attempt.values).pattern)

    def report_waiting(self, attempt: Attempt, check: m.HealthCheck) -> None:
        """Progress of the start-up ramp after a failed check."""
        waited_s = anyio.current_time() - attempt.began
        self._report(
            attempt,
            "waiting_for_health",
            f"Waiting until it is ready: {check.error}.",
            waited_s / self.settings.startup_timeout,
        )

    def woke_up(self, slept_s: float) -> None:
        """The computer slept."""
        self._around.woke_up(slept_s)


class _Watched:
    """Hands the monitor's findings to the lifecycle under the attempt they belong to."""

    def __init__(self, sidecar: Sidecar, attempt: Attempt) -> None:
        self._sidecar = sidecar
        self._attempt = attempt

    def _tell(self, event: lc.Event) -> None:
        if not self._attempt.leaving:
            self._sidecar.feed(event)

    async def wait_for_line(self) -> None:
        await self._sidecar.wait_for_line()

    async def make_check(self) -> m.HealthCheck:
        return await self._sidecar.make_check()

    def became_ready(self) -> None:
        self._tell(lc.BecameReady(self._attempt.number))

    def check_passed(self, check: m.HealthCheck) -> None:
        self._tell(lc.CheckPassed(self._attempt.number))

    def check_failed(self, check: m.HealthCheck) -> None:
        self._tell(lc.CheckFailed(self._attempt.number, check.error or "no reason"))

    def start_check_failed(self, check: m.HealthCheck) -> None:
        self._sidecar.report_waiting(self._attempt, check)

    def woke_up(self, slept_s: float) -> None:
        self._sidecar.woke_up(slept_s)
