"""The invented computer: processes, ports, tools, checks, clock and logs, as far as supervision touches them.

Everything here keeps the promises of `bridge.process.base` and of `supervision`'s protocols, as sluggishly and
contrarily as they allow. What happens is told to the referee.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from random import Random

import anyio

from bridge.process.base import Ended, Holder, Process, SpawnError, SpawnSpec
from bridge.settings import HealthSettings
from bridge.supervision.attempt import Output
from bridge.supervision.probes import CheckResult, Prober
from bridge.supervision.tools import ToolResult, ToolRunner

from .plan import FIXED_PORT, Mood, Plan, Script, draw_script
from .referee import Referee

FREE_PORTS_FROM = 9000
TOOL_S = (0.0, 0.0, 0.25, 1.0, 30.0)
TOOL_DEATH_S = (0.0, 0.0, 0.5)
WALL_START = 1_700_000_000.0

asked_by_operator: ContextVar[bool] = ContextVar("asked_by_operator", default=False)
"""True in the task of an operator who asks for a check: its result counts for nobody."""


class FakeProcess:
    """A leader and its children."""

    def __init__(self, world: World, name: str, pid: int, spec: SpawnSpec, script: Script) -> None:
        self.name = name
        self.script = script
        self.port = int(spec.env["PORT"])
        self.born = anyio.current_time()
        self.passes = 0
        """Checks passed in a row; those that an operator asked for do not count."""
        self.failures = 0
        self.ever_passed = False
        self.failures_told = 0
        """As `failures`, but without those made when the clock had jumped."""
        self.ended_at: float | None = None
        self.closed = False
        self._world = world
        self._pid = pid
        self._children = script.children
        self._leader = True
        self._ended: Ended | None = None
        self._end = anyio.Event()
        self._extinct = anyio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._killed = False
        if script.dies_at is not None:
            self._later(script.dies_at, self._leader_ends, Ended(script.code, script.signal))

    # --- what the bridge sees ---

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def stdout(self) -> int:
        return 2 * self._pid

    @property
    def stderr(self) -> int:
        return 2 * self._pid + 1

    @property
    def ended(self) -> Ended | None:
        return self._ended

    async def wait(self) -> Ended:
        await self._end.wait()
        assert self._ended is not None
        return self._ended

    def close_stdin(self) -> None:
        self._ask_politely()

    def signal(self, name: str) -> None:
        self._use("signal")
        self._term(name, group_only=True)

    def signal_tree(self, name: str) -> None:
        self._use("signal_tree")
        self._term(name, group_only=False)

    def members(self) -> list[int]:
        leader = [self._pid] if self._leader else []
        return [*leader, *(self._pid * 100 + child for child in range(self._children))]

    async def wait_extinct(self, timeout_s: float) -> bool:
        self._use("wait_extinct")
        with anyio.move_on_after(timeout_s):
            await self._extinct.wait()
        return self._extinct.is_set()

    async def extinguish(self, timeout_s: float) -> bool:
        self._use("extinguish")
        if not self._killed:
            self._killed = True
            self._later(self.script.kill, self._everything_ends)
        return await self.wait_extinct(timeout_s)

    def close(self) -> None:
        if not self._extinct.is_set():
            self._world.referee.blame(self.name, "a tree is forgotten while parts of it are alive")
        self.closed = True

    # --- what it does ---

    @property
    def alive(self) -> bool:
        """Whether anything of the tree is alive."""
        return not self._extinct.is_set()

    @property
    def listens(self) -> bool:
        return self._leader

    def ask_over_http(self) -> None:
        """The stop_http request."""
        self._ask_politely()

    def mood_now(self) -> str:
        """How it answers a check: `well`, `error`, `hang` or `refused`."""
        age = anyio.current_time() - self.born
        ready = self.script.ready_after
        if not self._leader or ready is None or age < ready:
            return "refused"
        if self.script.sick is not None and self.script.sick[0] <= age < self.script.sick[1]:
            return self.script.sick[2]
        return "well"

    def _use(self, what: str) -> None:
        if self.closed:
            self._world.referee.blame(self.name, f"{what} of a tree that was forgotten already")

    def _later(self, delay_s: float, then: Callable[..., None], *args: Ended) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, then, *args))

    def _ask_politely(self) -> None:
        if self._leader and self.script.eof is not None:
            self._later(self.script.eof, self._leader_ends, Ended(0, None))

    def _term(self, name: str, *, group_only: bool) -> None:
        if self._leader and self.script.term is not None:
            code = self.script.term_code
            self._later(self.script.term, self._leader_ends, Ended(code, name if code is None else None))
        if (
            self._children
            and self.script.children_term is not None
            and (self.script.children_in_group or not group_only)
        ):
            self._later(self.script.children_term, self._children_end)

    def _leader_ends(self, ended: Ended) -> None:
        if not self._leader:
            return
        self._leader = False
        self._ended = ended
        self.ended_at = anyio.current_time()
        self._world.referee.leader_ended(self, ended)
        self._end.set()
        if self._children and self.script.children_life is not None:
            self._later(self.script.children_life, self._children_end)
        self._look()

    def _children_end(self) -> None:
        self._children = 0
        self._look()

    def _everything_ends(self) -> None:
        self._children = 0
        self._leader_ends(Ended(None, "SIGKILL"))
        self._look()

    def _look(self) -> None:
        if self._leader or self._children or self._extinct.is_set():
            return
        for timer in self._timers:
            timer.cancel()
        self._extinct.set()
        self._world.referee.extinct(self)


class FakeOutput:
    """The pipes of one process."""

    def __init__(self, process: FakeProcess) -> None:
        self._process = process

    async def flush(self, timeout_s: float) -> bool:
        await anyio.sleep(min(self._process.script.drain / 2, timeout_s))
        return self._process.script.drain / 2 <= timeout_s

    async def close(self, timeout_s: float) -> None:
        await anyio.sleep(min(self._process.script.drain, timeout_s))

    def tail(self, stream: str, lines: int) -> list[str]:
        return [f"last words of {self._process.pid} on {stream}"]

    async def wait_for(self, pattern: str) -> None:
        ready = self._process.script.ready_after
        if ready is not None:
            await anyio.sleep(self._process.born + ready - anyio.current_time())
            if self._process.ended_at is None or self._process.ended_at >= self._process.born + ready:
                self._process.ever_passed = True
                return
        await anyio.sleep_forever()


class FakeLog:
    """Finds the process whose pipes are handed over."""

    def __init__(self, world: World) -> None:
        self._world = world

    def attach(self, stdout: int, stderr: int) -> Output:
        return FakeOutput(self._world.by_stdout[stdout])


class FakeProber(Prober):
    """Answers for the sidecar that is named. Checks by command are the real prober's, with invented tools."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def check(
        self,
        settings: HealthSettings,
        *,
        values: Mapping[str, str],
        env: Mapping[str, str],
        cwd: str,
        run_tool: ToolRunner,
    ) -> CheckResult:
        world, name = self._world, values["name"]
        process = world.current(name)
        if settings.kind == "command":
            result = await super().check(settings, values=values, env=env, cwd=cwd, run_tool=run_tool)
        else:
            result = await self._ask(name, int(values["port"]), process, settings.timeout)
        if process is not None and not asked_by_operator.get():
            port = int(values["port"])
            foreign = (
                bool(port) and settings.kind != "command" and settings.verify_owner and not world.owns(process, port)
            )
            world.referee.checked(process, ok=result.ok and not foreign)
        return result

    async def _ask(self, name: str, port: int, process: FakeProcess | None, timeout_s: float) -> CheckResult:
        how = process.mood_now() if process is not None else "refused"
        if port and self._world.stranger_on(port):
            how = "well"
        script = process.script if process is not None else None
        latency_s = script.latency if script is not None else 0.0
        if how == "hang" or latency_s > timeout_s:
            await anyio.sleep(timeout_s)
            return CheckResult(False, None, None, "no answer")
        await anyio.sleep(latency_s)
        if script is not None and script.clean_up:
            # As an HTTP library that closes its connection in peace: a cancelled check may still bring its result.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(script.clean_up)
        if how == "well":
            return CheckResult(True, latency_s, 200, None)
        if how == "error":
            return CheckResult(False, latency_s, 500, "answered 500")
        return CheckResult(False, None, None, "connection refused")

    async def http_request(self, method: str, url: str, timeout_s: float) -> CheckResult:
        await anyio.sleep(min(0.01, timeout_s))
        for process in self._world.processes.values():
            if process is not None and process.alive and f"#{process.name}" in url:
                process.ask_over_http()
        return CheckResult(True, 0.01, 200, None)


class FakeClock:
    """Wall time that can run away from the monotonic one."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def wall(self) -> float:
        return WALL_START + anyio.current_time() + self.ahead_s

    def absent(self) -> float:
        return self.ahead_s


class World:
    """Keeps `System` and `ToolRunner`."""

    def __init__(self, plan: Plan, chance: Random, referee: Referee) -> None:
        self.plan = plan
        self.referee = referee
        self.clock = FakeClock()
        self.by_stdout: dict[int, FakeProcess] = {}
        self.processes: dict[str, FakeProcess | None] = {}
        """The newest of each sidecar."""
        self.chance = chance
        self._pid = 100
        self._ports = FREE_PORTS_FROM

    def current(self, name: str) -> FakeProcess | None:
        """The newest process of a sidecar, dead or alive."""
        return self.processes.get(name)

    # --- System ---

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def spawn(self, spec: SpawnSpec) -> Process:
        name = spec.env["SIDECAR_NAME"]
        mood = self._mood(name)
        self.referee.spawning(name)
        if self.chance.random() < mood.spawn_error:
            reason = self.chance.choice(("missing_program", "no_resources", "other"))
            self.referee.spawn_failed(name, reason)
            raise SpawnError(reason, f"It could not be started: {reason}.")  # type: ignore[arg-type]
        self._pid += 1
        process = FakeProcess(self, name, self._pid, spec, self.next_script(name))
        self.processes[name] = process
        self.by_stdout[process.stdout] = process
        self.referee.spawned(process)
        return process

    def next_script(self, name: str) -> Script:
        """What the next process of this sidecar will do."""
        return draw_script(self.chance, self._mood(name))

    def free_port(self, host: str) -> int:
        self._ports += 1
        return self._ports

    def port_is_free(self, host: str, port: int) -> bool:
        free = not self.stranger_on(port) and not any(
            process.port == port and process.listens for process in self.processes.values() if process is not None
        )
        if not free:
            self.referee.port_taken(port)
        return free

    def port_holder(self, port: int) -> Holder | None:
        return Holder(7, "stranger") if self.stranger_on(port) else None

    def owns_port(self, process: Process, port: int) -> bool | None:
        assert isinstance(process, FakeProcess)
        if process.closed:
            self.referee.blame(process.name, "asked whether a forgotten tree owns a port")
        return self.owns(process, port)

    def owns(self, process: FakeProcess, port: int) -> bool:
        return not self.stranger_on(port)

    # --- ToolRunner ---

    async def run_tool(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> ToolResult:
        kind, name = argv
        mood = self._mood(name)
        if kind != "check" and self.chance.random() < mood.spawn_error / 3:
            self.referee.tool_failed(name)
            raise SpawnError("missing_program", f"There is no {kind}.")
        duration_s = self.chance.choice(TOOL_S)
        ended = Ended(int(self.chance.random() < mood.tool_failure), None)
        if kind == "check":
            process = self.current(name)
            how = process.mood_now() if process is not None else "refused"
            duration_s = 30.0 if how == "hang" else process.script.latency if process is not None else 0.0
            ended = Ended(int(how != "well"), None)
        self.referee.tool_began(name)
        result: Ended | None = None
        try:
            with anyio.move_on_after(timeout_s):
                for part in range(3):
                    await anyio.sleep(duration_s / 3)
                    if on_line is not None:
                        on_line(f"{kind} {part}")
                result = ended
        finally:
            # Its tree is ended whatever happens, and that may take its time.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.chance.choice(TOOL_DEATH_S))
            self.referee.tool_ended(name)
        if kind != "check" and (result is None or result.code != 0):
            self.referee.tool_failed(name)
        return ToolResult(result, [])

    # --- fate ---

    def stranger_on(self, port: int) -> bool:
        """Whether somebody else listens on this port now."""
        now = anyio.current_time()
        return any(
            stranger.since <= now < stranger.until and port == self._port_of(stranger.sidecar)
            for stranger in self.plan.strangers
        )

    def _port_of(self, name: str) -> int | None:
        process = self.current(name)
        settings = next(each for each in self.plan.sidecars if each.name == name)
        return settings.port or (process.port if process is not None else None)

    def _mood(self, name: str) -> Mood:
        return self.plan.moods[name]


assert FIXED_PORT < FREE_PORTS_FROM
