"""The real supervisor with sidecars whose processes do as a test says, on virtual time.

The referee of the simulation watches here too: a test fails for what it did not ask about as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio

from bridge import model as m
from bridge.settings import HealthSettings, SidecarSettings
from bridge.supervision.sidecar import Sidecar
from tests.simulation import virtual
from tests.simulation.plan import Mood, Plan, Script
from tests.simulation.play import ANSWER_S, assemble
from tests.simulation.processes import FakeProcess
from tests.simulation.referee import Referee
from tests.simulation.world import World

CALM = Script(
    ready_after=0.0,
    dies_at=None,
    code=1,
    signal=None,
    sick=None,
    term=0.0,
    term_code=None,
    eof=None,
    kill=0.0,
    children=0,
    children_in_group=True,
    children_term=0.0,
    children_life=None,
    latency=0.0,
    clean_up=0.0,
    drain=0.0,
)
"""Ready at once, runs for ever, ends when it is told to."""
CRASH = CALM._replace(dies_at=1.0)
"""Runs for a second."""
STUBBORN = CALM._replace(term=None)
"""Ends only when it is killed."""
BROKEN = CALM._replace(ready_after=None, dies_at=0.5)
"""Ends before it is ready."""

_CALM = Mood(*(0.0 for _ in Mood._fields))


def sidecar(name: str, **fields: Any) -> SidecarSettings:
    """Settings of a sidecar, checked over HTTP every second unless `health` says otherwise."""
    health = HealthSettings(kind="http", http="http://{host}:{port}/", interval=1.0, timeout=1.0, retry_interval=0.5)
    defaults: dict[str, Any] = {"autostart": False, "port": 0, "health": health, "shutdown_timeout": 3.0}
    fixed = {"command": ("program", name), "cwd": "/", "env": {"PORT": "{port}"}}
    return SidecarSettings(name=name, **{**fixed, **defaults, **fields})


class _ScriptedWorld(World):
    def __init__(self, plan: Plan, referee: Referee, scripts: dict[str, list[Script]]) -> None:
        super().__init__(plan, Random(0), referee)
        self._scripts = scripts

    def next_script(self, name: str) -> Script:
        """The next of the sidecar's scripts; the last one again and again."""
        scripts = self._scripts[name]
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]


class Stage:
    """What a test works with."""

    def __init__(self, *sidecars: SidecarSettings, **scripts: Script | list[Script]) -> None:
        """`scripts` by sidecar: what its processes do, one after the other; `CALM` where nothing is said."""
        names = [each.name for each in sidecars]
        plan = Plan(0, sidecars, dict.fromkeys(names, _CALM), (), (), (), 0.0, False, None, None)
        self.referee = Referee(sidecars)
        given = {name: [script] if isinstance(script, Script) else script for name, script in scripts.items()}
        self.world = _ScriptedWorld(plan, self.referee, {name: given.get(name, [CALM]) for name in names})
        self.referee.world = self.world
        self.changes: list[tuple[float, str, m.State]] = []
        """Every change of state: when, whose, to what."""
        self._changed: dict[str, anyio.Event] = defaultdict(anyio.Event)
        published = self.referee.published

        def listen(event: m.Notification) -> None:
            published(event)
            if isinstance(event, m.StateChanged):
                self.changes.append((anyio.current_time(), event.sidecar, event.state))

        self.referee.published = listen  # type: ignore[method-assign]

    def play(self, scene: Callable[[Stage], Awaitable[None]]) -> None:
        """Play the scene, end everything, and fail for whatever the referee blamed."""

        async def perform() -> None:
            async with anyio.create_task_group() as tasks:
                self.supervisor = assemble(self.world, tasks)
                with anyio.fail_after(ANSWER_S):
                    await scene(self)
                    if not self.referee.closing:
                        await self.shutdown()
                self.referee.over()
                tasks.cancel_scope.cancel()

        virtual.run(perform)
        assert self.referee.blames == [], "\n".join(self.referee.trace)

    # --- what operators ask for, told to the referee ---

    async def start(self, name: str, *, wait: bool = True) -> m.SidecarStatus:
        self.referee.asked("start", name)
        return await self.supervisor.start(name, wait=wait)

    async def restart(self, name: str, *, wait: bool = True) -> m.SidecarStatus:
        self.referee.asked("restart", name)
        return await self.supervisor.restart(name, wait=wait)

    async def stop(self, name: str, *, wait: bool = True, force: bool = False) -> m.SidecarStatus:
        self.referee.asked("stop", name)
        return await self.supervisor.stop(name, wait=wait, force=force)

    async def shutdown(self) -> None:
        if not self.referee.closing:
            self.referee.ending()
        await self.supervisor.shutdown()

    # --- what there is to see ---

    def __getitem__(self, name: str) -> Sidecar:
        return self.supervisor.find(name)

    def state(self, name: str) -> m.State:
        return self[name].life.state

    def process(self, name: str) -> FakeProcess:
        """Its newest process."""
        process = self.world.current(name)
        assert process is not None
        return process

    def alive(self) -> set[str]:
        """Sidecars of which anything is alive."""
        return {process.name for process in self.world.by_stdout.values() if process.alive}

    def history(self, name: str) -> list[m.State]:
        """The states it went through."""
        return [state for _, each, state in self.changes if each == name]

    def when(self, name: str, state: m.State) -> float:
        """When it came to this state last."""
        return max(at for at, *change in self.changes if change == [name, state])

    async def until(self, name: str, state: m.State) -> None:
        """Return once it is in this state."""
        while self.state(name) != state:
            await self[name].changed()
