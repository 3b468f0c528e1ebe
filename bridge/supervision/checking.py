"""Asks one sidecar's process how it is, and whether it is really that process that answers.

`Checker` makes a check and keeps the history; `Findings` hands what the monitor sees to the lifecycle, under the
attempt that it belongs to. When to check is `monitor`'s business, how to ask is `probes`'.
"""

from __future__ import annotations

import re
from collections import deque
from functools import partial
from typing import Any

import anyio

from bridge import model as m
from bridge.core import lifecycle as lc
from bridge.settings import ready_pattern

from .attempt import Attempt
from .cell import Cell
from .jobs import Job
from .probes import CheckResult
from .tools import ToolResult

CHECKS_KEPT = 250
"""Two hours of checks at the default interval, at about 170 bytes each."""


class Checker:
    """The checks of one sidecar."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.history: deque[m.HealthCheck] = deque(maxlen=CHECKS_KEPT)

    async def check(self, attempt: Attempt) -> m.HealthCheck:
        """One check of the attempt's process, kept in the history."""
        cell, around = self._cell, self._cell.around
        health = cell.settings.health
        if health.kind in ("none", "log"):
            # There is nobody to ask: that it lives is all that these kinds promise.
            result = CheckResult(True, None, None, None)
        else:
            result = await around.prober.check(
                health,
                values=attempt.values,
                env=attempt.env,
                cwd=cell.settings.cwd,
                run_tool=partial(self._run_command, attempt),
            )
        if attempt.over:
            result = CheckResult(False, result.latency_s, result.status_code, "its end had begun")
        elif health.kind in ("http", "tcp"):
            result = self._verify_owner(attempt, result)
        check = m.HealthCheck(
            at=around.now(),
            ok=result.ok,
            latency=round(result.latency_s, 6) if result.latency_s is not None else None,
            status_code=result.status_code,
            error=cell.redactor.text(result.error) if result.error is not None else None,
        )
        if not attempt.over:
            attempt.checks.append(check)
            self.history.append(check)
        return check

    def call_off(self, attempt: Attempt) -> None:
        """Begin to end every check of an attempt."""
        attempt.over = True
        if attempt.monitoring is not None:
            attempt.monitoring.cancel()
        for job in attempt.tools:
            job.cancel()

    async def end(self, attempt: Attempt) -> None:
        """Return once nothing is asked of this attempt any more and no check's command is alive."""
        self.call_off(attempt)
        for job in list(attempt.tools):
            await job.done.wait()

    async def _run_command(self, attempt: Attempt, argv: tuple[str, ...], **how: Any) -> ToolResult:
        """Run a check's command as part of the attempt's tree: it is ended with it."""
        result: ToolResult | None = None
        if attempt.over:
            return ToolResult(None, [])

        async def run() -> None:
            nonlocal result
            result = await self._cell.around.run_tool(argv, **how)

        job = Job()
        attempt.tools.add(job)
        try:
            await job.run(run)
        finally:
            attempt.tools.discard(job)
        return result if result is not None else ToolResult(None, [])

    def _verify_owner(self, attempt: Attempt, result: CheckResult) -> CheckResult:
        system, health = self._cell.around.system, self._cell.settings.health
        template = health.http if health.kind == "http" else health.tcp
        port = attempt.port
        knows_port = port is not None and ("{port}" in template or re.search(rf":{port}(?!\d)", template) is not None)
        if (
            not (result.ok and knows_port and health.verify_owner)
            or attempt.process is None
            or port is None
            or system.owns_port(attempt.process, port) is not False
        ):
            attempt.foreign = None
            self._cell.around.alerts.clear(self._cell.name, "foreign_listener")
            return result
        holder = system.port_holder(port)
        attempt.foreign = f"{holder.name} (pid {holder.pid})" if holder is not None else "another process"
        message = f"Port {port} is answered by {attempt.foreign}, which does not belong to {self._cell.name}."
        detail = {"port": port, "pid": holder.pid if holder is not None else None}
        self._cell.raise_alert("foreign_listener", "critical", message, detail)
        return CheckResult(False, result.latency_s, result.status_code, message.removesuffix("."))


class Findings:
    """What a monitor sees of one attempt."""

    def __init__(self, cell: Cell, checker: Checker, attempt: Attempt) -> None:
        self._cell = cell
        self._checker = checker
        self._attempt = attempt

    async def wait_for_line(self) -> None:
        """Return once the readiness pattern stands in the process's output."""
        output = self._attempt.output
        assert output is not None
        await output.wait_for(ready_pattern(self._cell.settings.health.log, self._attempt.values).pattern)

    async def make_check(self) -> m.HealthCheck:
        """One check."""
        return await self._checker.check(self._attempt)

    def became_ready(self) -> None:
        self._tell(lc.BecameReady(self._attempt.number))

    def check_passed(self, check: m.HealthCheck) -> None:
        self._tell(lc.CheckPassed(self._attempt.number))

    def check_failed(self, check: m.HealthCheck) -> None:
        self._tell(lc.CheckFailed(self._attempt.number, check.error or "no reason"))

    def start_check_failed(self, check: m.HealthCheck) -> None:
        waited_s = anyio.current_time() - self._attempt.spawned
        within = waited_s / self._cell.settings.startup_timeout
        self._cell.report(self._attempt, "waiting_for_health", f"Waiting until it is ready: {check.error}.", within)

    def _tell(self, event: lc.Event) -> None:
        # A leader that has ended explains all that is seen now, and its end is about to be told.
        if not self._attempt.leaving:
            self._cell.feed(event)
