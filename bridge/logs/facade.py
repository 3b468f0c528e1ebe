"""The log floor as the rest of the bridge sees it: `Logs`, which has a `SidecarLog` per sidecar.

Everything here is called on the event loop's thread and does not block it: files are read in worker threads, written by
the capture thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import time
from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from ..errors import NotAllowed
from ..model import SubscribeLogsParams
from .batch import BATCH_BYTES
from .capture import Capture
from .follow import Follower
from .janitor import Janitor
from .keeper import Keeper
from .query import PAGE_BYTES
from .sidecar_log import SidecarLog
from .store import LogLimits
from .subscription import SUBSCRIPTIONS_MAX, Deliver, Subscription

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
        if found is None or found.closed:  # ended before, by a defect of its log
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

        def deleted() -> None:
            self.post(done.set)

        self._janitor.remove(paths, deleted)

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
            self._subscriptions = {key: each for key, each in self._subscriptions.items() if not each.closed}
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
