"""Invented processes: a leader, its children and its pipes, which do as a script says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from bridge.process.base import Ended, SpawnSpec

from .plan import Script

if TYPE_CHECKING:
    from .referee import Referee


class FakeProcess:
    """A leader and its children."""

    def __init__(self, referee: Referee, name: str, pid: int, spec: SpawnSpec, script: Script) -> None:
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
        self._referee = referee
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
            self._referee.blame(self.name, "a tree is forgotten while parts of it are alive")
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
            self._referee.blame(self.name, f"{what} of a tree that was forgotten already")

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
        self._referee.leader_ended(self, ended)
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
        self._referee.extinct(self)


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
