"""All sidecars of a bridge: names, order, the end.

Starts follow `depends_on`, stops go against it, and each sidecar's transitions run in tasks of their own, so that a
slow one delays no other and a caller who gives up ends nothing but his waiting. What one sidecar does is decided in
`sidecar` and `core.lifecycle`.

A sidecar is *falling* while a stop that was asked for still waits for those that depend on it. It may run on until
its turn comes, but nothing starts it any more: what had no process, or loses it meanwhile, is stopped at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import anyio

from bridge import errors
from bridge import model as m
from bridge.core import lifecycle as lc

from .cell import Surroundings
from .jobs import Job, start_job
from .sidecar import Sidecar


class Supervisor:
    """The sidecars by name, in configuration order."""

    def __init__(self) -> None:
        self.sidecars: dict[str, Sidecar] = {}
        self._around: Surroundings | None = None
        self._closing = False
        self._falling: Counter[str] = Counter()
        self._fell = anyio.Event()

    def adopt(self, around: Surroundings, sidecars: Iterable[Sidecar]) -> None:
        """Take the sidecars into care; called once."""
        self._around = around
        self.sidecars = {sidecar.name: sidecar for sidecar in sidecars}

    def find(self, name: str | None) -> Sidecar:
        """The sidecar of that name, or the only one where no name is given. Raises SidecarNotFound, InvalidParams."""
        if name is None:
            if len(self.sidecars) == 1:
                return next(iter(self.sidecars.values()))
            raise errors.InvalidParams.of(
                "sidecar", "required, because not exactly one sidecar is configured", sidecars=list(self.sidecars)
            )
        sidecar = self.sidecars.get(name)
        if sidecar is None:
            name = errors.shorten(name)
            raise errors.SidecarNotFound(
                f"There is no sidecar named {name!r}.", sidecar=name, detail=list(self.sidecars)
            )
        return sidecar

    def autostart(self) -> None:
        """Begin to start what starts with the bridge; each waits for what it depends on."""
        for sidecar in self.sidecars.values():
            if sidecar.settings.autostart:
                sidecar.feed(lc.StartRequested(lc.Origin.AUTOSTART))

    async def start(self, name: str | None, *, wait: bool) -> m.SidecarStatus:
        """Start a sidecar, and before it what it depends on."""
        sidecar = self._may_start(name)
        self._note(sidecar, "start_requested", "A start was requested.")
        return await sidecar.start(wait=wait)

    async def restart(self, name: str | None, *, wait: bool) -> m.SidecarStatus:
        """Restart a sidecar; what depends on it keeps running."""
        sidecar = self._may_start(name)
        self._note(sidecar, "restart_requested", "A restart was requested.")
        return await sidecar.restart(wait=wait)

    def _may_start(self, name: str | None) -> Sidecar:
        sidecar = self.find(name)
        if self._closing:
            raise errors.ShuttingDown("The bridge is ending and starts nothing more.", sidecar=sidecar.name)
        if self._falling[sidecar.name]:
            raise errors.StoppedWhileStarting(
                f"{sidecar.name} is being stopped, as soon as what depends on it has ended.", sidecar=sidecar.name
            )
        return sidecar

    async def stop(self, name: str | None, *, wait: bool, force: bool) -> m.SidecarStatus:
        """Stop a sidecar, and before it what depends on it."""
        sidecar = self.find(name)
        self._note(sidecar, "stop_requested", "A stop was requested." + (" It is forced." if force else ""))
        told: dict[str, m.SidecarStatus] = {}
        job = self._stop_in_order([sidecar], lc.StopRequested(force, "stop_requested"), told)
        if wait:
            await job.done.wait()
        return told.get(sidecar.name) or sidecar.status()

    async def shutdown(self) -> None:
        """Stop everything; from here on nothing starts. Returns once nothing is alive. Many may wait."""
        self._closing = True
        await self._stop_in_order(list(self.sidecars.values()), lc.StopRequested(False, "shutdown"), {}).done.wait()

    def kill(self) -> None:
        """Kill whatever a shutdown still asks politely."""
        self._closing = True
        for sidecar in self.sidecars.values():
            sidecar.feed(lc.StopRequested(force=True, cause="shutdown"))

    @property
    def closing(self) -> bool:
        return self._closing

    def _stop_in_order(self, targets: list[Sidecar], how: lc.StopRequested, told: dict[str, m.SidecarStatus]) -> Job:
        """Begin to stop the targets and all that depends on them, dependents first, unrelated ones side by side.

        What need not wait is being stopped when this returns. `told` gets the status of each when it has stopped.
        """
        wanted: dict[str, Sidecar] = {}
        for target in targets:
            self._collect(target, wanted)
        begun: dict[str, Callable[[], Awaitable[m.SidecarStatus]]] = {}
        for name, sidecar in reversed(wanted.items()):
            if self._is_leant_on(sidecar):
                self._falling[name] += 1
                sidecar.hold_down(how)
            else:
                begun[name] = sidecar.begin_stop(force=how.force, cause=how.cause)
        assert self._around is not None
        return start_job(self._around.tasks, self._finish_stops, wanted, begun, how, told)

    async def _finish_stops(
        self,
        wanted: dict[str, Sidecar],
        begun: dict[str, Callable[[], Awaitable[m.SidecarStatus]]],
        how: lc.StopRequested,
        told: dict[str, m.SidecarStatus],
    ) -> None:
        gone = {name: anyio.Event() for name in wanted}

        async def stop_one(name: str, sidecar: Sidecar) -> None:
            if name in begun:
                told[name] = await begun[name]()
            else:
                for dependent in self._dependents(sidecar):
                    await gone[dependent.name].wait()
                finish = sidecar.begin_stop(force=how.force, cause=how.cause)
                self._has_fallen(name)
                told[name] = await finish()
            gone[name].set()

        async with anyio.create_task_group() as tasks:
            for name, sidecar in wanted.items():
                tasks.start_soon(stop_one, name, sidecar)

    def _has_fallen(self, name: str) -> None:
        self._falling[name] -= 1
        if not self._falling[name]:
            self.sidecars[name].let_go()
        fell, self._fell = self._fell, anyio.Event()
        fell.set()

    def _collect(self, sidecar: Sidecar, into: dict[str, Sidecar]) -> None:
        if sidecar.name not in into:
            into[sidecar.name] = sidecar
            for dependent in self._dependents(sidecar):
                self._collect(dependent, into)

    def _dependents(self, sidecar: Sidecar) -> list[Sidecar]:
        return [other for other in self.sidecars.values() if sidecar.name in other.settings.depends_on]

    def _is_leant_on(self, sidecar: Sidecar) -> bool:
        """Whether something stands that depends on it, be it by others that are down."""
        above: dict[str, Sidecar] = {}
        self._collect(sidecar, above)
        return any(each.life.state not in ("stopped", "failed") for each in above.values() if each is not sidecar)

    async def ensure_up(self, name: str, origin: lc.Origin) -> lc.Failure | None:
        """See that a sidecar runs which another one depends on; None once it does, else why it does not."""
        sidecar = self.sidecars[name]
        automatic = origin is not lc.Origin.OPERATOR
        while sidecar.life.state != "running" or self._falling[name]:
            if self._closing:
                return _not_running(name, "shutting_down", "The bridge is ending.")
            if self._falling[name]:
                await self._fell.wait()
                continue
            if automatic and sidecar.life.state in ("backoff", "stopping"):
                # What follows is decided by its own rules; a start now would pass over its backoff and its limit.
                await sidecar.changed()
                continue
            if automatic and sidecar.life.state == "failed":
                failure = sidecar.life.failure
                return _not_running(name, "failed", failure.message if failure is not None else "It failed.")
            try:
                await sidecar.start(wait=True, origin=origin)
            except errors.AlreadyRunning:
                break
            except errors.BridgeError as error:
                if automatic and sidecar.life.state == "backoff":
                    continue
                return _not_running(name, error.kind, error.message)
        return None

    def _note(self, sidecar: Sidecar, kind: str, message: str) -> None:
        assert self._around is not None
        self._around.journal.record(sidecar.name, kind, message)


def _not_running(name: str, kind: str, message: str) -> lc.Failure:
    return lc.Failure(
        "dependency_not_running",
        f"It needs {name}, which does not run: {message}",
        {"sidecar": name, "kind": kind, "message": message},
    )
