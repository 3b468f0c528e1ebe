"""Sees one sidecar's process end, says why, and ends what is left of its tree.

An exit is noticed without waiting for pipes; what the process had written is read before the exit is told, so that its
last words are in the Exit. The ladder of a stop is `ender`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio

from bridge import model as m
from bridge.core import lifecycle as lc
from bridge.process.base import Ended, Process
from bridge.settings import fill, url_values

from . import causes, status
from .attempt import Attempt, Output
from .cell import Cell
from .checking import Checker
from .ender import Ender
from .jobs import start_job

DRAIN_S = 2.0
"""How long the pipes of a dead process are still read."""


class Leaver:
    """Ends of one sidecar. `life` tells its life now, `exited` gets each Exit before the lifecycle hears of it."""

    def __init__(
        self, cell: Cell, checker: Checker, life: Callable[[], lc.Life], exited: Callable[[m.Exit], None]
    ) -> None:
        self._cell = cell
        self._checker = checker
        self._life = life
        self._exited = exited

    def watch(self, attempt: Attempt) -> None:
        """Begin to watch the process of an attempt."""
        assert attempt.process is not None
        assert attempt.output is not None
        start_job(self._cell.around.tasks, self._watch, attempt, attempt.process, attempt.output)

    def end_tree(self, attempt: Attempt, *, gentle: bool, force: bool) -> None:
        """Begin to end everything of an attempt; TreeEnded follows."""
        if attempt.preparing is not None:
            attempt.preparing.cancel()
        attempt.ender = self._ender_of(attempt)
        start_job(self._cell.around.tasks, self._end_tree, attempt, gentle, force)

    async def _watch(self, attempt: Attempt, process: Process, output: Output) -> None:
        ended = await process.wait()
        life = self._life()
        cause: m.ExitCause = life.ending.cause if life.state == "stopping" and life.ending is not None else "crash"
        ran = life.running_since
        ended_at = anyio.current_time()
        uptime_s = ended_at - ran if ran is not None else None
        self._checker.call_off(attempt)
        await output.flush(DRAIN_S)
        await self._checker.end(attempt)
        attempt.exit = exit_ = self._exit_of(attempt, output, ended, cause, uptime_s)
        self._exited(exit_)
        extinct = await process.wait_extinct(0)
        summary = status.exit_sentence(ended, ready=ran is not None, hint=exit_.hint)
        self._cell.around.journal.record(self._cell.name, "exited", summary, exit_)
        attempt.exited.set()
        # A stop that has begun still uses the tree, and lets go of it afterwards.
        at_rest = extinct and attempt.ender is None
        self._cell.feed(lc.Exited(attempt.number, ended.code, ended.signal, summary, exit_, extinct))
        if at_rest:
            process.close()
            await output.close(max(ended_at + DRAIN_S - anyio.current_time(), 0.0))

    def _exit_of(
        self, attempt: Attempt, output: Output, ended: Ended, cause: m.ExitCause, uptime_s: float | None
    ) -> m.Exit:
        tail = self._cell.tail(output, "stderr")
        if cause == "health":
            guess = causes.of_silence(attempt.last_check)
        else:
            said = tail or self._cell.tail(output, "stdout")
            guess = causes.classify(ended.code, ended.signal, said, asked=cause != "crash")
        return m.Exit(
            code=ended.code,
            signal=ended.signal,
            at=self._cell.around.now(),
            cause=cause,
            cause_class=guess.cause_class,
            hint=guess.hint,
            uptime=round(uptime_s, 3) if uptime_s is not None else None,
            stderr_tail=tail,
            checks=list(attempt.checks),
        )

    async def _end_tree(self, attempt: Attempt, gentle: bool, force: bool) -> None:
        if attempt.preparing is not None:
            await attempt.preparing.done.wait()
        if attempt.ender is not None and attempt.process is not None and attempt.output is not None:
            await attempt.ender.end(gentle=gentle, force=force)
            self._cell.around.alerts.clear(self._cell.name, "leftover_process")
            await self._checker.end(attempt)
            await attempt.exited.wait()
            await attempt.output.close(DRAIN_S)
            attempt.process.close()
        self._cell.feed(lc.TreeEnded(attempt.number))

    def _ender_of(self, attempt: Attempt) -> Ender | None:
        if attempt.process is None:
            return None
        return Ender(
            attempt.process,
            self._cell.settings,
            request_stop=partial(self._request_stop, attempt) if self._cell.settings.stop_http else None,
            survivors=self._tell_survivors,
        )

    async def _request_stop(self, attempt: Attempt, timeout_s: float) -> None:
        method, _, url = fill(self._cell.settings.stop_http, url_values(attempt.values)).partition(" ")
        await self._cell.around.prober.http_request(method, url, timeout_s)

    def _tell_survivors(self, pids: list[int]) -> None:
        message = f"Processes of {self._cell.name} cannot be killed: {pids}."
        self._cell.raise_alert("leftover_process", "critical", message, {"pids": pids})
