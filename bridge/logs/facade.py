"""The log floor as the rest of the bridge sees it: `Logs`, a `SidecarLog` per sidecar, an `Attachment` per process.

Everything here is called on the event loop's thread and does not block it: files are read in worker threads, written by
the capture thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from ..errors import LogIoFailed, NotAllowed
from ..model import ClearedLogs, GetLogsParams, LogFile, LogPage, Stream, SubscribeLogsParams
from .breath import Breath
from .capture import Capture
from .cursor import STREAMS
from .follow import BATCH_BYTES, SUBSCRIPTIONS_MAX, Deliver, Follower, Place, Subscription
from .janitor import Janitor
from .keeper import Keeper
from .query import PAGE_BYTES, LogReader, Maker, Page, position_of
from .runs import merge_backward
from .source import Pattern, Source
from .store import LogLimits
from .times import rfc3339

if sys.platform == "win32":
    from .pipes_windows import Pipes
else:
    from .pipes_posix import Pipes

_END_S: Final = 5.0
"""How long an end waits for each of the threads; a disk that hangs must not keep the bridge."""

_T = TypeVar("_T")
Fault = Callable[[str, str | None], None]
"""Told of a sidecar, and why its files cannot be written; None once they can be again."""


class Logs:
    """The logs of all sidecars below one folder. Created within the running event loop, closed by `aclose`."""

    def __init__(
        self,
        log_dir: str,
        *,
        nested: bool,
        memory_lines: int = 10_000,
        max_page_bytes: int = PAGE_BYTES,
        on_fault: Fault | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`nested` keeps each sidecar's files in a folder of its name. Nothing is created before `open`.

        No page and no batch of a subscription is encoded to more than `max_page_bytes`, what goes around the entries
        not counted; of a line that alone is longer the text is cut.
        """
        self._log_dir = os.path.abspath(log_dir)
        self._nested = nested
        self._memory_lines = memory_lines
        self.max_page_bytes = max_page_bytes
        self._on_fault = on_fault
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._logs: dict[str, SidecarLog] = {}
        self._janitor = Janitor()
        self._batch_bytes = min(BATCH_BYTES, max_page_bytes)
        self.follower = Follower(self.post, self._batch_bytes)
        self._subscriptions: dict[str, Subscription] = {}
        self._last_subscription = 0
        self.capture = Capture(Pipes(), self._fault_changed)
        self._closed = False

    @property
    def bytes_captured(self) -> int:
        """Bytes read from all sidecars."""
        return self.capture.bytes_captured

    @property
    def lines_captured(self) -> int:
        """Lines read from all sidecars."""
        return self.capture.lines_captured

    @property
    def lines_dropped(self) -> int:
        """Lines read from all sidecars that could be kept neither in files nor in memory."""
        return self.capture.lines_dropped

    def open(self, sidecar: str, limits: LogLimits = LogLimits()) -> SidecarLog:  # noqa: B008 - an immutable value
        """The log of a sidecar, which survives its processes; opened before, it gets new limits."""
        log = self._logs.get(sidecar)
        if log is not None:
            log.keeper.set_limits(limits)
            return log
        keeper = Keeper(
            sidecar,
            os.path.join(self._log_dir, sidecar) if self._nested else self._log_dir,
            limits,
            memory_lines=self._memory_lines,
            remover=self._janitor,
            clock=self._clock,
        )
        log = self._logs[sidecar] = SidecarLog(self, keeper)
        self.capture.submit(lambda: self.capture.keep(keeper))
        return log

    def remove(self, sidecar: str) -> None:
        """Stop keeping a sidecar's log. Its files stay; its subscriptions end."""
        log = self._logs.pop(sidecar, None)
        if log is not None:
            for subscription in [s for s in self._subscriptions.values() if s.keeper is log.keeper]:
                self.unsubscribe(subscription.id)
            self.capture.submit(lambda: self.capture.forget(log.keeper))

    def unsubscribe(self, subscription: str) -> bool:
        """End a subscription; nothing is delivered to it any more. False when there is none of that id."""
        found = self._subscriptions.pop(subscription, None)
        if found is None:
            return False
        self.follower.leave(found)
        return True

    async def aclose(self) -> None:
        """End every subscription, read what is in the pipes, close pipes and files."""
        if self._closed:
            return
        self._closed = True
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)
        self.follower.stop()
        self.capture.stop()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._join)

    def _join(self) -> None:
        self.follower.wait(_END_S)
        if self.capture.join(_END_S):
            self._janitor.close(_END_S)

    # --- for this floor ----------------------------------------------------------------------------------------------

    def post(self, call: Callable[[], None]) -> bool:
        """Have a function called on the loop's thread; false when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(call, context=self._context)
        except RuntimeError:
            return False
        return True

    async def in_capture(self, job: Callable[[], _T]) -> _T:
        """Run a job in the capture thread and return what it returns, or raise what it raises."""
        future: asyncio.Future[_T] = self._loop.create_future()

        def run() -> None:
            try:
                result = job()
            except Exception as exc:  # noqa: BLE001 - raised to whoever waits
                error = exc
                self.post(lambda: _settle(future, lambda: future.set_exception(error)))
            else:
                self.post(lambda: _settle(future, lambda: future.set_result(result)))

        self.capture.submit(run)
        return await future

    def delete(self, paths: list[str], done: asyncio.Event) -> None:
        """In the capture thread: delete files, then set the event."""
        self._janitor.remove(paths, lambda: _ignore(self.post(done.set)))

    def add_subscription(self, log: SidecarLog, params: SubscribeLogsParams, deliver: Deliver) -> Subscription:
        """Number a subscription. Raises NotAllowed when there are too many."""
        self.check_room(log.keeper.sidecar)
        self._last_subscription += 1
        subscription = Subscription(
            str(self._last_subscription), log.keeper, params.log_type, params.level, deliver, self._batch_bytes
        )
        self._subscriptions[subscription.id] = subscription
        return subscription

    def check_room(self, sidecar: str) -> None:
        """Raise NotAllowed when no further subscription may begin."""
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise NotAllowed(
                f"there are {SUBSCRIPTIONS_MAX} log subscriptions already; end one before beginning another",
                sidecar=sidecar,
                detail={"subscriptions": SUBSCRIPTIONS_MAX},
            )

    def serve(self, subscription: Subscription) -> None:
        """Let a subscription be served, unless it was ended before."""
        if not subscription.closed and not self._closed:
            self.follower.join(subscription)

    def _fault_changed(self, keeper: Keeper) -> None:
        """In the capture thread."""
        fault = keeper.fault
        if self._on_fault is not None:
            on_fault = self._on_fault
            self.post(lambda: on_fault(keeper.sidecar, fault))


def _settle(future: asyncio.Future[_T], settle: Callable[[], None]) -> None:
    if not future.done():
        settle()


class SidecarLog:
    """The log of one sidecar."""

    def __init__(self, logs: Logs, keeper: Keeper) -> None:
        self._logs = logs
        self.keeper = keeper

    def attach(self, stdout_fd: int, stderr_fd: int | None = None) -> Attachment:
        """Keep what a process writes. Takes the read ends of its pipes; `stderr_fd` is None where both are one."""
        fds = [(0, stdout_fd)] if stderr_fd is None else [(0, stdout_fd), (1, stderr_fd)]
        sources = [Source(fd, (self.keeper, stream)) for stream, fd in fds]
        capture = self._logs.capture

        def add() -> None:
            for source in sources:
                capture.add(source)

        capture.submit(add)
        return Attachment(self._logs, sources)

    async def page(self, params: GetLogsParams) -> LogPage:
        """A page of the log. Raises InvalidParams, CursorExpired, LogIoFailed; may be cancelled."""
        page = Page(self.keeper, params, self._logs.max_page_bytes)
        try:
            return await anyio.to_thread.run_sync(page.read, abandon_on_cancel=True)
        finally:
            page.cancel()

    async def files(self) -> list[LogFile]:
        """The log files, those being written first, then newest first."""
        return await anyio.to_thread.run_sync(self._files)

    def _files(self) -> list[LogFile]:
        LogReader(self.keeper).close()  # waits until the log is open
        found: list[tuple[bool, int, int, LogFile]] = []
        for path, stream, current in self.keeper.paths():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # just rotated away, or deleted by hand
                status = os.lstat(path)
                entry = LogFile(
                    name=os.path.basename(path),
                    path=path,
                    size=status.st_size,
                    modified=rfc3339(int(status.st_mtime * 1000)),
                    log_type=STREAMS[stream],
                    current=current,
                )
                found.append((current, status.st_mtime_ns, len(found), entry))
        found.sort(key=lambda item: item[:3], reverse=True)
        return [entry for *_, entry in found]

    async def clear(self) -> ClearedLogs:
        """Remove the log; capture goes on in empty files, a line that is not complete yet stays. Raises LogIoFailed."""
        deleted = asyncio.Event()
        try:
            cleared = await self._logs.in_capture(lambda: self._clear(deleted))
        except OSError as exc:
            message = f"the log files cannot be removed: {exc.strerror or exc}"
            raise LogIoFailed(message, sidecar=self.keeper.sidecar) from exc
        await deleted.wait()
        return cleared

    def _clear(self, deleted: asyncio.Event) -> ClearedLogs:
        files, size, paths = self.keeper.clear()
        self._logs.delete(paths, deleted)
        return ClearedLogs(files=files, bytes=size)

    async def subscribe(self, params: SubscribeLogsParams, deliver: Deliver) -> Subscription:
        """Follow the log: `deliver` is called on the loop's thread, first with the backlog or what is after the cursor.

        It is not called before the caller of this had its turn. Raises InvalidParams, CursorExpired, LogIoFailed,
        NotAllowed; may be cancelled.
        """
        self._logs.check_room(self.keeper.sidecar)
        breath = Breath(self.keeper.sidecar)
        try:
            start = await anyio.to_thread.run_sync(self._start, params, breath, abandon_on_cancel=True)
        finally:
            breath.cancel()
        subscription = self._logs.add_subscription(self, params, deliver)
        subscription.start = start
        asyncio.get_running_loop().call_soon(self._logs.serve, subscription)
        return subscription

    def _start(self, params: SubscribeLogsParams, breath: Breath) -> Place:
        reader = LogReader(self.keeper, breath)
        try:
            positions = reader.ends()
            if params.after is not None:
                positions = reader.after(params.after, "after")
            elif params.backlog:
                maker = Maker(reader, params.level, PAGE_BYTES)
                wanted = params.backlog
                ends = list(positions)
                for run in merge_backward(reader.chosen(params.log_type), ends, [0, 0]):
                    entries = maker.entries(run, wanted)
                    if len(entries) >= wanted:
                        positions[run.stream] = position_of(entries[-wanted])
                        break
                    if entries:  # what has none needs not be read again
                        wanted -= len(entries)
                        positions[run.stream] = position_of(entries[0])
            lines = [s.lines_before(p) for s, p in zip(reader.streams, positions, strict=True)]
            return Place(positions, lines)
        except OSError as exc:
            message = f"a log file cannot be read: {exc.strerror or exc}"
            raise LogIoFailed(message, sidecar=self.keeper.sidecar) from exc
        finally:
            reader.close()

    def unsubscribe(self, subscription: str) -> bool:
        """As `Logs.unsubscribe`."""
        return self._logs.unsubscribe(subscription)


class Attachment:
    """The output of one process."""

    def __init__(self, logs: Logs, sources: list[Source]) -> None:
        self._logs = logs
        self._sources = sources

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything that is in the pipes now is stored; True when that is so, False after the timeout.

        It does not wait for what comes later, nor for an end of the pipes that a descendant withholds.
        """
        with anyio.move_on_after(timeout_s):
            deadline_s = time.monotonic() + timeout_s
            return await self._logs.in_capture(lambda: self._logs.capture.drain(self._sources, deadline_s))
        return False

    async def close(self, timeout_s: float) -> None:
        """Store what is in the pipes now, end the last line, close the pipes; wait at most `timeout_s` for it."""
        deadline_s = time.monotonic() + timeout_s
        capture = self._logs.capture

        def close() -> None:
            capture.drain(self._sources, deadline_s)
            for source in self._sources:
                capture.close(source)

        with anyio.move_on_after(timeout_s):
            await self._logs.in_capture(close)

    def tail(self, stream: Stream, lines: int = 20) -> list[str]:
        """The process's last lines on a stream, an unfinished one included, each cut at 1000 characters."""
        for source in self._sources:
            if STREAMS[source.place[1]] == stream:
                return source.tail(lines)
        return []

    def expect(self, pattern: str | re.Pattern[str]) -> Expectation:
        """Watch this process's lines, past ones as far as the tail reaches, for a regular expression.

        Raises re.error.
        """
        return Expectation(self._logs, self._sources, re.compile(pattern))


class Expectation:
    """Whether a line of a process had a pattern."""

    def __init__(self, logs: Logs, sources: list[Source], pattern: re.Pattern[str]) -> None:
        self._event = asyncio.Event()
        self._pattern = Pattern(pattern, lambda: _ignore(logs.post(self._event.set)))

        def watch() -> None:
            for source in sources:
                logs.capture.watch(source, self._pattern)

        logs.capture.submit(watch)

    @property
    def met(self) -> bool:
        """Whether such a line came."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait for such a line."""
        await self._event.wait()

    def cancel(self) -> None:
        """Stop watching."""
        self._pattern.done = True


def _ignore(_: object) -> None: ...
