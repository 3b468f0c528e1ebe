"""The invented computer: processes, ports, tools, checks, clock and logs, as far as supervision touches them.

Everything here keeps the promises of `bridge.process.base` and of `supervision`'s protocols, as sluggishly and
contrarily as they allow. What happens is told to the referee.
"""

from __future__ import annotations

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
from .processes import FakeOutput, FakeProcess
from .referee import Referee

FREE_PORTS_FROM = 9000
TOOL_S = (0.0, 0.0, 0.25, 1.0, 30.0)
TOOL_DEATH_S = (0.0, 0.0, 0.5)
WALL_START = 1_700_000_000.0

asked_by_operator: ContextVar[bool] = ContextVar("asked_by_operator", default=False)
"""True in the task of an operator who asks for a check: its result counts for nobody."""


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
        process = FakeProcess(self.referee, name, self._pid, spec, self.next_script(name))
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
