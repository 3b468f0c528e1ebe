"""Plays a plan: the real supervisor and sidecars in the invented world, watched by the referee."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup

from bridge import model as m
from bridge.supervision.absence import Absence
from bridge.supervision.alerts import Alerts
from bridge.supervision.cell import Surroundings
from bridge.supervision.clock import rfc3339
from bridge.supervision.journal import Journal
from bridge.supervision.ports import Ports
from bridge.supervision.redact import Redactor
from bridge.supervision.sidecar import Sidecar
from bridge.supervision.supervisor import Supervisor

from . import virtual
from .plan import Plan, Request, draw_plan
from .referee import Referee
from .world import FakeLog, FakeProber, World, asked_by_operator

ANSWER_S = 600.0
"""Far more than any chain of starts, restarts and stops of a plan takes; who waits longer waits for ever."""
REST_S = 20.0
"""After the last request: longer than every stop takes, one sidecar after the other."""
QUIET_S = 10.0
"""After the last answer: longer than any check, kill and tool goes on."""
YIELDS_AT_END = 20
"""Turns of the event loop in which the last tasks may end."""


class Outcome(NamedTuple):
    """What a seed brought to light: nothing wrong when `blames` is empty."""

    seed: int
    blames: list[str]
    trace: list[str]


def play(seed: int) -> Outcome:
    """Play one seed."""
    plan, chance = draw_plan(seed)
    return play_plan(plan, chance)


def play_plan(plan: Plan, chance: Random) -> Outcome:
    """Play one plan; `chance` draws what processes do."""
    referee = Referee(plan.sidecars)
    try:
        virtual.run(_Stage(plan, chance, referee).perform)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        referee.blames.append("".join(traceback.format_exception(error)))
    return Outcome(plan.seed, referee.blames, referee.trace)


def assemble(world: World, tasks: TaskGroup) -> Supervisor:
    """The real supervisor with the real sidecars of the world's plan; its referee hears all that is published."""
    referee, clock = world.referee, world.clock
    supervisor = Supervisor()

    def now() -> str:
        return rfc3339(clock.wall())

    around = Surroundings(
        tasks=tasks,
        system=world,
        prober=FakeProber(world),
        run_tool=world.run_tool,
        clock=clock,
        absence=Absence(clock, lambda slept_s: referee.note(f"the bridge notices {slept_s:g} s")),
        ports=Ports(world),
        alerts=Alerts(now, referee.published),
        journal=Journal(now, lambda: 0),
        publish=referee.published,
        environ={},
        log_dir="/logs",
        ensure_up=supervisor.ensure_up,
    )
    sidecars = [
        Sidecar(settings, around, FakeLog(world), Redactor(()), _luck_of(world, settings.name))
        for settings in world.plan.sidecars
    ]
    supervisor.adopt(around, sidecars)
    return supervisor


def _luck_of(world: World, name: str) -> Callable[[], float]:
    case = world.referee.cases[name]

    def luck() -> float:
        case.luck = world.chance.random()
        return case.luck

    return luck


class _Stage:
    """One performance."""

    def __init__(self, plan: Plan, chance: Random, referee: Referee) -> None:
        self._plan = plan
        self._chance = chance
        self._referee = referee
        self._supervisor: Supervisor

    async def perform(self) -> None:
        plan, referee = self._plan, self._referee
        world = World(plan, self._chance, referee)
        referee.world = world
        async with anyio.create_task_group() as tasks:
            self._supervisor = assemble(world, tasks)
            self._supervisor.autostart()
            async with anyio.create_task_group() as operators:
                for request in plan.requests:
                    operators.start_soon(self._operate, request)
                for sleep in plan.sleeps:
                    operators.start_soon(self._jump, world, sleep.at, sleep.by)
                operators.start_soon(self._end)
            referee.over()
            await anyio.sleep(QUIET_S)
            for _ in range(YIELDS_AT_END):
                await anyio.sleep(0)
            referee.over()
            self._look_for_what_is_left(tasks)
            tasks.cancel_scope.cancel()

    async def _jump(self, world: World, at: float, by_s: float) -> None:
        await anyio.sleep(at)
        self._referee.jumped(by_s)
        world.clock.ahead_s += by_s

    async def _operate(self, request: Request) -> None:
        await anyio.sleep(request.at)
        for _ in range(request.yields):
            await anyio.sleep(0)
        if request.cancel_after is None:
            await self._ask(request)
            return
        with anyio.move_on_after(request.cancel_after):
            await self._ask(request)

    async def _ask(self, request: Request) -> None:
        supervisor, name = self._supervisor, request.sidecar
        before = supervisor.find(name).life.state
        asked = self._referee.asked(request.op, name)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "start": lambda: supervisor.start(name, wait=request.wait),
            "stop": lambda: supervisor.stop(name, wait=request.wait, force=False),
            "force_stop": lambda: supervisor.stop(name, wait=request.wait, force=True),
            "restart": lambda: supervisor.restart(name, wait=request.wait),
            "check": lambda: self._check(name),
        }
        answer: object
        try:
            with anyio.move_on_after(ANSWER_S) as patience:
                answer = await calls[request.op]()
        except Exception as error:
            answer = error
        if patience.cancelled_caught:
            self._referee.blame(name, f"{request.op} is never answered")
        elif request.wait and request.op != "check":
            assert isinstance(answer, m.SidecarStatus | Exception)
            self._referee.answered(request.op, name, asked, before, answer)

    async def _check(self, name: str) -> None:
        token = asked_by_operator.set(True)
        try:
            sidecar = self._supervisor.find(name)
            if sidecar.life.state == "running":
                await sidecar.check_now()
        finally:
            asked_by_operator.reset(token)

    async def _end(self) -> None:
        """Let everything come to rest, or not, then shut down."""
        plan, referee = self._plan, self._referee
        await anyio.sleep(plan.horizon)
        if plan.rest:
            await anyio.sleep(REST_S)
            referee.at_rest()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._shut_down, plan.shutdown_cancelled_after)
            if plan.kill_after is not None:
                await anyio.sleep(plan.kill_after)
                referee.note("operator asks: kill")
                if not referee.closing:
                    referee.ending()
                referee.transitions.killing = True
                self._supervisor.kill()
        await self._shut_down(None)

    async def _shut_down(self, cancel_after: float | None) -> None:
        if not self._referee.closing:
            self._referee.ending()
        with anyio.move_on_after(ANSWER_S if cancel_after is None else cancel_after) as patience:
            await self._supervisor.shutdown()
        if patience.cancelled_caught and cancel_after is None:
            self._referee.blame("bridge", "the shutdown is never answered")

    def _look_for_what_is_left(self, tasks: TaskGroup) -> None:
        left = len(tasks._tasks)  # type: ignore[attr-defined]
        if left:
            self._referee.blame("bridge", f"{left} tasks are still at work")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual.VirtualLoop)
        if loop.armed():
            self._referee.blame("bridge", f"{loop.armed()} timers are still armed")
