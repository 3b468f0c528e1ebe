"""The composition root: builds every part of a bridge, owns its one task group, and takes it down again.

The only module that knows both the rpc side and the supervision side. `__main__` has read the settings, taken the lock
and said `bridge_ready` by the time `run` is called.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup, TaskStatus

from bridge import model as m
from bridge.logs import Attachment, LogLimits, Logs, SidecarLog
from bridge.logs.query import PAGE_BYTES
from bridge.process import create_system
from bridge.process.base import System
from bridge.process.own import ENDING_SIGNALS, OTHER_SIGNALS, TAKEOVER_SIGNAL, allow_descriptors, own_rss
from bridge.process.parent import wait_gone
from bridge.process.trees import RecordedSystem, TreeFile
from bridge.rpc import handlers
from bridge.rpc.dispatch import Handler
from bridge.rpc.outbox import Outbox
from bridge.rpc.server import RpcServer
from bridge.settings import Settings, SidecarSettings
from bridge.supervision.absence import Absence
from bridge.supervision.alerts import Alerts
from bridge.supervision.attempt import Output
from bridge.supervision.cell import Surroundings
from bridge.supervision.clock import SystemClock, rfc3339
from bridge.supervision.journal import Journal
from bridge.supervision.leftovers import end_leftovers
from bridge.supervision.metrics import Metrics
from bridge.supervision.ports import Ports
from bridge.supervision.probes import Prober
from bridge.supervision.procread import create_reader
from bridge.supervision.redact import Redactor
from bridge.supervision.sidecar import Sidecar
from bridge.supervision.supervisor import Supervisor
from bridge.supervision.tools import SystemToolRunner

logger = logging.getLogger("bridge.app")

LAST_WORDS_S = 2.0
"""How long the shell may take to read the last answers before the bridge ends without it."""
SHUTDOWN_SLACK_S = 20.0
"""Beyond the sidecars' own stop bounds; what is alive after that is left to the guardian."""

DESCRIPTORS_BASE = 256
"""What the bridge itself may need: subscriptions read files, checks open connections."""
DESCRIPTORS_PER_SIDECAR = 12
"""Two pipes, two logs with their indexes, and as much again while one process follows another."""

ENVELOPE_BYTES = 4096
"""What an answer may have around its page, an id of the client's included."""


class Options(NamedTuple):
    """What `serve` was told beside the configuration."""

    in_fd: int
    out_fd: int
    epoch: str
    next_seq: int
    unsent: bytes
    """What the shell has not taken of `bridge_ready` yet."""
    started: float
    """Monotonic seconds."""
    parent_pid: int | None
    alerts: Sequence[tuple[str, m.Severity, str]]
    """Conditions that came up before there was anybody to tell: kind, severity, message."""
    early_signals: list[int]
    """Signals that came before the event loop could see them."""
    owns_log_dir: bool
    """Whether no other bridge can be at work in the log folder: it is locked."""


class Bridge:
    """One running bridge."""

    def __init__(self, settings: Settings, options: Options, environ: Mapping[str, str], tasks: TaskGroup) -> None:
        self._settings = settings
        self._options = options
        self._environ = environ
        self._tasks = tasks
        self._closing = anyio.Event()
        self._signalled = False
        self._stopped = anyio.Event()
        self._outbox = Outbox(
            epoch=options.epoch,
            next_seq=options.next_seq,
            max_message_bytes=settings.max_message_bytes,
            max_outbound_bytes=settings.max_outbound_bytes,
            first=options.unsent,
        )
        self._clock = SystemClock()
        self._supervisor = Supervisor()
        self._trees = TreeFile(settings.log_dir, options.epoch)
        system = create_system(
            options.epoch, on_guardian_lost=self._guardian_lost, on_guardian_given_up=self._guardian_given_up
        )
        self._system: System = RecordedSystem(system, self._trees)
        self._logs = Logs(
            settings.log_dir,
            nested=settings.allow_dynamic or len(settings.sidecars) > 1,
            memory_lines=settings.memory_lines,
            max_page_bytes=min(PAGE_BYTES, settings.max_message_bytes - ENVELOPE_BYTES),
            on_fault=self._log_fault,
        )
        self._log_of: dict[str, SidecarLog] = {}
        self._around = self._surroundings()
        self._metrics = Metrics(
            settings.metrics_interval,
            census=self._census,
            read=create_reader(),
            wall=self._clock.wall,
            deliver=lambda name, sample: self._outbox.publish(m.MetricsSampled(sidecar=name, sample=sample)),
        )
        self._server = RpcServer(
            options.in_fd,
            options.out_fd,
            outbox=self._outbox,
            handlers=self._handlers(),
            max_message_bytes=settings.max_message_bytes,
        )

    # --- life ---

    async def run(self) -> None:
        """Serve until something ends the bridge, then stop everything and say the last words."""
        allow_descriptors(DESCRIPTORS_BASE + DESCRIPTORS_PER_SIDECAR * len(self._settings.sidecars))
        await self._system.start()
        for kind, severity, message in self._options.alerts:
            self._around.alerts.raise_(None, kind, severity, message)
        self._supervisor.adopt(self._around, [self._sidecar(settings) for settings in self._settings.sidecars.values()])
        if self._options.owns_log_dir:
            end_leftovers(self._around, self._trees, self._settings.sidecars)
        await self._tasks.start(self._obey_signals)
        for number in self._options.early_signals:
            self._obey(number)
        self._tasks.start_soon(self._serve)
        if self._options.parent_pid is not None:
            self._tasks.start_soon(self._outlive_no_parent, self._options.parent_pid)
        self._tasks.start_soon(self._metrics.run)
        if not self._closing.is_set():
            self._supervisor.autostart()
        await self._closing.wait()
        await self._end()

    def close(self, reason: m.ClosingReason) -> None:
        """Begin the end; the first reason counts."""
        if not self._closing.is_set():
            self._closing.set()
            self._outbox.publish(m.BridgeClosing(reason=reason))

    async def _end(self) -> None:
        bound_s = SHUTDOWN_SLACK_S + sum(s.shutdown_timeout for s in self._settings.sidecars.values())
        with anyio.move_on_after(bound_s) as scope:
            await self._supervisor.shutdown()
        if scope.cancelled_caught:
            logger.error("not everything could be stopped within %g s", bound_s)
        self._stopped.set()
        await self._server.finish(LAST_WORDS_S)
        await self._around.prober.aclose()
        await self._logs.aclose()
        await self._system.close()

    async def _serve(self) -> None:
        reason = await self._server.run(self._tasks)
        logger.info("the shell is gone: %s", reason)
        self.close("eof")

    async def _outlive_no_parent(self, pid: int) -> None:
        await wait_gone(pid)
        self.close("parent_died")

    async def _obey_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*ENDING_SIGNALS, *OTHER_SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                self._obey(number)

    def _obey(self, number: int) -> None:
        if number in ENDING_SIGNALS:
            # The second one, not the first one after another reason to end, has no more patience.
            if self._signalled:
                self._supervisor.kill()
            self._signalled = True
            self.close("signal")
        elif number == TAKEOVER_SIGNAL:
            self.close("takeover")
        else:
            logger.warning("SIGHUP: this version does not reload its configuration while it runs")

    async def _shut_down(self) -> None:
        self._around.journal.record(None, "shutdown_requested", "A shutdown was requested.")
        self.close("shutdown")
        await self._stopped.wait()

    # --- parts ---

    def _surroundings(self) -> Surroundings:
        clock = self._clock

        def now() -> str:
            return rfc3339(clock.wall())

        return Surroundings(
            tasks=self._tasks,
            system=self._system,
            prober=Prober(),
            run_tool=SystemToolRunner(self._system),
            clock=clock,
            absence=Absence(clock, self._woke_up),
            ports=Ports(self._system),
            alerts=Alerts(now, self._outbox.publish),
            journal=Journal(now, lambda: self._outbox.expected_seq),
            publish=self._outbox.publish,
            environ=self._environ,
            log_dir=self._settings.log_dir,
            ensure_up=self._supervisor.ensure_up,
        )

    def _sidecar(self, settings: SidecarSettings) -> Sidecar:
        log = self._logs.open(settings.name, LogLimits(settings.logs.max_bytes, settings.logs.max_files))
        self._log_of[settings.name] = log
        return Sidecar(settings, self._around, _AttachedLog(log), Redactor.of(settings, self._environ))

    def _census(self) -> dict[str, Sequence[int]]:
        # This beat sees a sleep also where no health check does.
        self._around.absence.notice()
        return {
            sidecar.name: sidecar.process.members()
            for sidecar in self._supervisor.sidecars.values()
            if sidecar.process is not None
        }

    def _handlers(self) -> Mapping[str, Handler]:
        settings, options = self._settings, self._options
        return handlers.build(
            supervisor=self._supervisor,
            logs=_LogFloor(self._logs, self._log_of, self._outbox),
            metrics=self._metrics,
            journal=self._around.journal,
            identity=handlers.Identity(
                epoch=options.epoch,
                config_path=settings.path,
                log_dir=settings.log_dir,
                limits=m.Limits(
                    max_message_bytes=settings.max_message_bytes,
                    max_outbound_bytes=settings.max_outbound_bytes,
                    memory_lines=settings.memory_lines,
                ),
                started=options.started,
            ),
            counters=self._counters,
            rss=own_rss,
            events_bytes_max=settings.max_message_bytes - ENVELOPE_BYTES,
            shut_down=self._shut_down,
        )

    def _counters(self) -> m.Counters:
        return m.Counters(
            messages_in=self._server.messages_in,
            messages_out=self._outbox.messages_out,
            dropped=self._outbox.counters,
            bytes_captured=self._logs.bytes_captured,
            lines_captured=self._logs.lines_captured,
        )

    # --- what happens to the bridge itself ---

    def _woke_up(self, slept_s: float) -> None:
        self._outbox.publish(m.SystemResumed(at=self._around.now(), slept=round(slept_s, 3)))
        self._around.journal.record(None, "system_resumed", f"The computer was away for {slept_s:.0f} s.")

    def _log_fault(self, sidecar: str, message: str | None) -> None:
        if message is None:
            self._around.alerts.clear(sidecar, "log_write_failed")
        elif self._around.alerts.raise_(sidecar, "log_write_failed", "warning", message):
            self._around.journal.record(sidecar, "alert", message, {"kind": "log_write_failed"})

    def _guardian_lost(self) -> None:
        message = "The guardian process ended; another one was started."
        logger.warning(message)
        self._around.journal.record(None, "guardian_lost", message)

    def _guardian_given_up(self) -> None:
        message = "The guardian process keeps ending. If the bridge itself is killed, sidecars may stay behind."
        logger.error(message)
        self._around.alerts.raise_(None, "guardian_lost", "warning", message)
        self._around.journal.record(None, "alert", message, {"kind": "guardian_lost"})


class _AttachedLog:
    """A sidecar's log as the sidecar uses it."""

    def __init__(self, log: SidecarLog) -> None:
        self._log = log

    def attach(self, stdout: int, stderr: int) -> Output:
        return _Output(self._log.attach(stdout, stderr))


class _Output:
    """An attachment to a process's pipes as the sidecar uses it."""

    def __init__(self, attachment: Attachment) -> None:
        self.flush = attachment.flush
        self.close = attachment.close
        self.tail = attachment.tail
        self._expect = attachment.expect

    async def wait_for(self, pattern: str) -> None:
        expectation = self._expect(pattern)
        try:
            await expectation.wait()
        finally:
            expectation.cancel()


class _LogFloor:
    """The logs as the methods use them, with the outbox as the place where lines go."""

    def __init__(self, logs: Logs, by_name: Mapping[str, SidecarLog], outbox: Outbox) -> None:
        self._logs = logs
        self._by_name = by_name
        self._outbox = outbox

    async def page(self, sidecar: str, params: m.GetLogsParams) -> m.LogPage:
        return await self._by_name[sidecar].page(params)

    async def files(self, sidecar: str) -> list[m.LogFile]:
        return await self._by_name[sidecar].files()

    async def clear(self, sidecar: str) -> m.ClearedLogs:
        return await self._by_name[sidecar].clear()

    async def subscribe(self, sidecar: str, params: m.SubscribeLogsParams) -> str:
        return (await self._by_name[sidecar].subscribe(params, self._outbox.publish)).id

    def unsubscribe(self, subscription: str) -> bool:
        return self._logs.unsubscribe(subscription)


async def _main(settings: Settings, options: Options) -> None:
    async with anyio.create_task_group() as tasks:
        await Bridge(settings, options, os.environ, tasks).run()
        tasks.cancel_scope.cancel()


def run(settings: Settings, options: Options) -> None:
    """Run a bridge to its end."""
    # What is loaded now stays: the collector need not walk through it again, which would take milliseconds each time.
    gc.freeze()
    anyio.run(_main, settings, options)
