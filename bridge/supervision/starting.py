"""Brings one sidecar from the wish to start to a spawned process: what it depends on, its port, its program.

Every way ends in an event: DependenciesMet and Spawned, or StartRefused with the reason. The deadline of a start is
here too, because it has to say what was missing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio

from bridge import errors
from bridge import model as m
from bridge.core import lifecycle as lc
from bridge.process.base import SpawnError, SpawnSpec
from bridge.settings import fill

from . import status
from .attempt import Attempt, Output
from .cell import Cell
from .jobs import start_job
from .preparation import ensure_dependencies

INSTALL_HALFWAY_S = 30.0
"""How far an installer is cannot be known; its part of the bar is half full after this time."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What may be over at the next try."""


class Log(Protocol):
    """The log floor, as far as a sidecar uses it."""

    def attach(self, stdout: int, stderr: int) -> Output:
        """Take over the read ends of a process's pipes."""


class Starter:
    """Starts of one sidecar. `spawned` is called with each attempt that has a process now."""

    def __init__(self, cell: Cell, log: Log, spawned: Callable[[Attempt], None]) -> None:
        self._cell = cell
        self._log = log
        self._spawned = spawned

    def prepare(self, attempt: Attempt, origin: lc.Origin) -> None:
        """See to what a start needs; at once where that takes no waiting."""
        settings = self._cell.settings
        self._cell.report(attempt, "checking_dependencies", "Checking what it needs.", 0.0)
        if settings.depends_on or settings.dependencies is not None or self._cell.around.sweep is not None:
            attempt.preparing = start_job(self._cell.around.tasks, self._prepare, attempt, origin)
        else:
            self._obtain_port(attempt)

    async def _prepare(self, attempt: Attempt, origin: lc.Origin) -> None:
        cell = self._cell
        if cell.around.sweep is not None:
            await cell.around.sweep.wait()
        for name in cell.settings.depends_on:
            failure = await cell.around.ensure_up(name, origin)
            if failure is not None:
                cell.feed(lc.StartRefused(attempt.number, failure))
                return
        try:
            if cell.settings.dependencies is not None:
                await ensure_dependencies(
                    cell.name,
                    cell.settings.dependencies,
                    run_tool=cell.around.run_tool,
                    cwd=cell.settings.cwd,
                    env=cell.environment(cell.values(cell.settings.port)),
                    on_install=partial(self._report_install, attempt, anyio.current_time()),
                )
        except errors.DependencyFailed as error:
            message, detail = cell.redactor.text(error.message), cell.redactor.value(error.detail)
            cell.feed(lc.StartRefused(attempt.number, lc.Failure(error.kind, message, detail)))
        else:
            self._obtain_port(attempt)

    def _report_install(self, attempt: Attempt, began: float, line: str) -> None:
        spent_s = anyio.current_time() - began
        self._cell.report(attempt, "installing_dependencies", line, spent_s / (spent_s + INSTALL_HALFWAY_S))

    def _obtain_port(self, attempt: Attempt) -> None:
        cell, settings = self._cell, self._cell.settings
        try:
            if settings.port is not None:
                attempt.port = cell.around.ports.obtain(cell.name, settings.host, settings.port)
        except errors.PortInUse as error:
            cell.raise_alert("port_in_use", "critical", error.message, error.detail)
            cell.feed(lc.StartRefused(attempt.number, status.failure_from(error, permanent=True)))
        except OSError as error:
            wanted = f"port {settings.port}" if settings.port else "a port"
            failure = lc.Failure(
                "spawn_failed",
                f"It cannot have {wanted} on {settings.host}: {error.strerror or error}.",
                {"reason": "address", "host": settings.host, "port": settings.port},
                permanent=error.errno not in _SHORTAGES,
            )
            cell.feed(lc.StartRefused(attempt.number, failure))
        else:
            attempt.values = cell.values(attempt.port)
            attempt.env = cell.environment(attempt.values)
            cell.feed(lc.DependenciesMet(attempt.number))

    def spawn(self, attempt: Attempt) -> None:
        """Start the program."""
        cell, settings = self._cell, self._cell.settings
        cell.report(attempt, "spawning_process", "Starting the process.", 0.0)
        spec = SpawnSpec(
            tuple(fill(part, attempt.values) for part in settings.command),
            settings.cwd,
            attempt.env,
            stdin=settings.stdin,
            stop_signal=settings.stop_signal,
            shutdown_timeout_s=settings.shutdown_timeout,
        )
        try:
            process = cell.around.system.spawn(spec)
        except SpawnError as error:
            failure = lc.Failure(
                "spawn_failed",
                cell.redactor.text(error.message),
                {"reason": error.reason},
                permanent=error.reason not in ("no_resources", "other"),
            )
            cell.feed(lc.StartRefused(attempt.number, failure))
            return
        assert process.stderr is not None
        attempt.process = process
        attempt.spawned = anyio.current_time()
        attempt.output = self._log.attach(process.stdout, process.stderr)
        self._spawned(attempt)
        cell.feed(lc.Spawned(attempt.number))

    def deadline_passed(self, attempt: Attempt) -> None:
        """Give up waiting for readiness, and say what was missing."""
        if attempt.leaving:
            return
        if attempt.foreign is not None:
            failure = lc.Failure("foreign_listener", f"Its health endpoint is answered by {attempt.foreign}.")
        else:
            check: m.HealthCheck | None = attempt.last_check
            last = f" Last check: {check.error}." if check is not None and check.error else ""
            failure = lc.Failure(
                "startup_timeout",
                f"It was not ready within {self._cell.settings.startup_timeout:g} s.{last}",
                {
                    "last_check": check,
                    "stderr_tail": self._cell.tail(attempt.output, "stderr") if attempt.output is not None else [],
                },
            )
        self._cell.feed(lc.StartupTimedOut(attempt.number, failure))
