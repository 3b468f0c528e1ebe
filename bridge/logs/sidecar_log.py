"""The log of one sidecar -> pages, files, a clear, subscriptions; and an `Attachment` for each of its processes.

Called on the event loop's thread, which it does not block: files are read in worker threads, cleared in the capture
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import anyio.to_thread

from ..errors import LogIoFailed
from ..model import ClearedLogs, GetLogsParams, LogFile, LogPage, SubscribeLogsParams
from .attachment import Attachment
from .batch import Place
from .breath import Breath
from .cursor import STREAMS
from .keeper import Keeper
from .page import Page
from .query import PAGE_BYTES, LogReader, Maker, position_of
from .runs import merge_backward
from .source import Source
from .subscription import Deliver, Subscription
from .times import rfc3339

if TYPE_CHECKING:
    from .facade import Logs


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
