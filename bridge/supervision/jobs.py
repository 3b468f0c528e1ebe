"""Tasks that can be cancelled one by one, and callers that wait for an outcome, inside the bridge's one task group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

T = TypeVar("T")


class Job:
    """A running task. `cancel` ends it, `done` is set when it has ended, whichever way."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self.done = anyio.Event()

    def cancel(self) -> None:
        """Ask it to end; what it shields goes on to its end. What has not begun does nothing any more."""
        self._scope.cancel()

    async def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Body of the task."""
        try:
            with self._scope:
                await anyio.lowlevel.checkpoint_if_cancelled()
                await function(*args)
        finally:
            self.done.set()


def start_job(tasks: TaskGroup, function: Callable[..., Awaitable[Any]], *args: Any) -> Job:
    """Run an async function in the task group."""
    job = Job()
    tasks.start_soon(job.run, function, *args)
    return job


class Waiters(Generic[T]):
    """Callers that wait for the next outcome. Who gives up waiting changes nothing for the others."""

    def __init__(self) -> None:
        self._waiting: dict[anyio.Event, list[T]] = {}

    def enter(self) -> anyio.Event:
        """Begin to wait; `outcome` must follow."""
        event = anyio.Event()
        self._waiting[event] = []
        return event

    async def outcome(self, event: anyio.Event) -> T:
        """The next outcome after `enter`."""
        box = self._waiting[event]
        try:
            await event.wait()
        finally:
            self._waiting.pop(event, None)
        return box[0]

    def forget(self, event: anyio.Event) -> None:
        """Give up waiting."""
        self._waiting.pop(event, None)

    def settle(self, outcome: T) -> None:
        """Give every waiting caller this outcome."""
        for event, box in self._waiting.items():
            if not box:
                box.append(outcome)
                event.set()
