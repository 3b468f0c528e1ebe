"""The ladder of a stop: ask, signal, wait, kill, prove.

It ends one process tree and returns only when it is proven that nothing of it is alive. It knows nothing of states;
what to ask and how long to wait comes from the settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from bridge.process.base import Process
from bridge.settings import SidecarSettings

POLITE_S = 2.0
"""How long a stop_http request or a closed stdin may take to end the tree before the signal follows, at most."""
LEFTOVER_GRACE_S = 1.0
"""How long what a dead leader left behind may take to end by itself, at most: its restart waits for it."""
KILL_PASS_S = 5.0
"""After this long without extinction the survivors are reported, and killing goes on."""


class Ender:
    """Ends one tree. `hasten` skips the rest of the politeness."""

    def __init__(
        self,
        process: Process,
        settings: SidecarSettings,
        *,
        request_stop: Callable[[float], Awaitable[None]] | None,
        survivors: Callable[[list[int]], None],
    ) -> None:
        """`request_stop` sends the stop_http request within seconds; `survivors` is told pids that outlive SIGKILL."""
        self._process = process
        self._settings = settings
        self._request_stop = request_stop
        self._survivors = survivors
        self._hurry = anyio.Event()

    def hasten(self) -> None:
        """Kill at once."""
        self._hurry.set()

    async def end(self, *, gentle: bool, force: bool) -> None:
        """Return once nothing of the tree is alive."""
        if not force and not self._hurry.is_set():
            if gentle:
                await self._ask()
            else:
                await self._dismiss_leftovers()
        while not await self._process.extinguish(KILL_PASS_S):
            self._survivors(self._process.members())

    async def _ask(self) -> None:
        budget_s = self._settings.shutdown_timeout
        polite_s = min(POLITE_S, budget_s)
        if self._request_stop is not None:
            await self._unless_hurried(self._request_stop, polite_s)
        if self._settings.stdin == "pipe":
            self._process.close_stdin()
        if self._request_stop is not None or self._settings.stdin == "pipe":
            await self._unless_hurried(self._process.wait_extinct, polite_s)
        if self._hurry.is_set():
            return
        self._process.signal(self._settings.stop_signal)
        await self._unless_hurried(self._process.wait_extinct, budget_s)

    async def _dismiss_leftovers(self) -> None:
        self._process.signal_tree(self._settings.stop_signal)
        await self._unless_hurried(self._process.wait_extinct, min(LEFTOVER_GRACE_S, self._settings.shutdown_timeout))

    async def _unless_hurried(self, wait: Callable[[float], Awaitable[object]], timeout_s: float) -> None:
        async with anyio.create_task_group() as tasks:

            async def hurry() -> None:
                await self._hurry.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(hurry)
            await wait(timeout_s)
            tasks.cancel_scope.cancel()
