"""All sidecars of a bridge: names, order, the end.

Starts follow `depends_on`, stops go against it, and each sidecar's transitions run in tasks of their own, so that a
slow one delays no other. What one sidecar does is decided in `sidecar` and `core.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from bridge import errors
from bridge import model as m
from bridge.core import lifecycle as lc

from .jobs import start_job
from .sidecar import Sidecar, Surroundings


class Supervisor:
    """The sidecars by name, in configuration order."""

    def __init__(self) -> None:
        self.sidecars: dict[str, Sidecar] = {}
        self._around: Surroundings | None = None
        self._closing = False

    def adopt(self, around: Surroundings, sidecars: Iterable[Sidecar]) -> None:
        """Take the sidecars into care; called once."""
        self._around = around
        self.sidecars = {sidecar.name: sidecar for sidecar in sidecars}

    def find(self, name: str | None) -> Sidecar:
        """The sidecar of that name, or the only one where no name is given. Raises SidecarNotFound, InvalidParams."""
        if name is None:
            if len(self.sidecars) == 1:
                return next(iter(self.sidecars.values()))
            raise errors.InvalidParams(
                "params.sidecar: required, because not exactly one sidecar is configured.",
                detail={"field": "sidecar", "sidecars": list(self.sidecars)},
            )
        sidecar = self.sidecars.get(name)
        if sidecar is None:
            raise errors.SidecarNotFound(
                f"There is no sidecar named {name!r}.", sidecar=name, detail=list(self.sidecars)
            )
        return sidecar

    def autostart(self) -> None:
        """Begin to start what starts with the bridge; each waits for what it depends on."""
        assert self._around is not None
        for sidecar in self.sidecars.values():
            if sidecar.settings.autostart:
                start_job(self._around.tasks, self._autostart, sidecar)

    async def _autostart(self, sidecar: Sidecar) -> None:
        if not self._closing and sidecar.life.state == "stopped" and sidecar.life.attempt == 0:
            await sidecar.start(wait=False, origin=lc.Origin.AUTOSTART)

    async def start(self, name: str | None, *, wait: bool) -> m.SidecarStatus:
        """Start a sidecar, and before it what it depends on."""
        sidecar = self._may_start(name)
        self._note(sidecar, "start_requested", "A start was requested.")
        await sidecar.start(wait=wait)
        return sidecar.status()

    async def restart(self, name: str | None, *, wait: bool) -> m.SidecarStatus:
        """Restart a sidecar; what depends on it keeps running."""
        sidecar = self._may_start(name)
        self._note(sidecar, "restart_requested", "A restart was requested.")
        await sidecar.restart(wait=wait)
        return sidecar.status()

    def _may_start(self, name: str | None) -> Sidecar:
        sidecar = self.find(name)
        if self._closing:
            raise errors.ShuttingDown("The bridge is ending and starts nothing more.", sidecar=sidecar.name)
        return sidecar

    async def stop(self, name: str | None, *, wait: bool, force: bool) -> m.SidecarStatus:
        """Stop a sidecar, and before it what depends on it."""
        sidecar = self.find(name)
        self._note(sidecar, "stop_requested", "A stop was requested." + (" It is forced." if force else ""))
        if wait:
            await self._stop_in_order([sidecar], force=force, cause="stop_requested")
        elif self._standing_dependents(sidecar):
            assert self._around is not None
            start_job(self._around.tasks, lambda: self._stop_in_order([sidecar], force=force, cause="stop_requested"))
        else:
            await sidecar.stop(wait=False, force=force)
        return sidecar.status()

    async def shutdown(self) -> None:
        """Stop everything; from here on nothing starts. Returns once nothing is alive. Many may wait."""
        self._closing = True
        await self._stop_in_order(list(self.sidecars.values()), force=False, cause="shutdown")

    def kill(self) -> None:
        """Kill whatever a shutdown still asks politely."""
        self._closing = True
        for sidecar in self.sidecars.values():
            sidecar.feed(lc.StopRequested(force=True, cause="shutdown"))

    @property
    def closing(self) -> bool:
        return self._closing

    async def _stop_in_order(self, targets: list[Sidecar], *, force: bool, cause: m.ExitCause) -> None:
        """Stop the targets and all that depends on them, dependents first, unrelated ones side by side."""
        wanted: dict[str, Sidecar] = {}
        for target in targets:
            self._collect(target, wanted)
        gone = {name: anyio.Event() for name in wanted}

        async def stop_one(sidecar: Sidecar) -> None:
            for dependent in self._dependents(sidecar):
                await gone[dependent.name].wait()
            await sidecar.stop(wait=True, force=force, cause=cause)
            gone[sidecar.name].set()

        async with anyio.create_task_group() as tasks:
            for sidecar in wanted.values():
                tasks.start_soon(stop_one, sidecar)

    def _collect(self, sidecar: Sidecar, into: dict[str, Sidecar]) -> None:
        if sidecar.name not in into:
            into[sidecar.name] = sidecar
            for dependent in self._dependents(sidecar):
                self._collect(dependent, into)

    def _dependents(self, sidecar: Sidecar) -> list[Sidecar]:
        return [other for other in self.sidecars.values() if sidecar.name in other.settings.depends_on]

    def _standing_dependents(self, sidecar: Sidecar) -> bool:
        return any(other.life.state not in ("stopped", "failed") for other in self._dependents(sidecar))

    async def ensure_up(self, name: str, origin: lc.Origin) -> lc.Failure | None:
        """See that a sidecar runs which another one depends on; None once it does, else why it does not."""
        sidecar = self.sidecars[name]
        automatic = origin is not lc.Origin.OPERATOR
        while sidecar.life.state != "running":
            if self._closing:
                return _not_running(name, "shutting_down", "The bridge is ending.")
            if automatic and sidecar.life.state == "backoff":
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
