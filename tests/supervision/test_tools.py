"""Helper programs as real processes: what they say, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from bridge.process import create_system
from bridge.process.base import Ended, SpawnError
from bridge.supervision.tools import LINE_CHARS_MAX, TAIL_LINES, SystemToolRunner, ToolResult
from tests.support.kit import Kit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs of these tests are shell scripts")

PATIENCE_S = 20.0
FOREVER = "exec sleep 1000"

Lines = Callable[[str], None]


class Tools:
    """Runs shell scripts that carry the test's token."""

    def __init__(self, runner: SystemToolRunner, kit: Kit) -> None:
        self.runner = runner
        self.kit = kit

    async def __call__(self, script: str, *, timeout_s: float = PATIENCE_S, on_line: Lines | None = None) -> ToolResult:
        return await self.run(("/bin/sh", "-c", script, self.kit.token), timeout_s=timeout_s, on_line=on_line)

    async def run(
        self, argv: tuple[str, ...], *, timeout_s: float = PATIENCE_S, on_line: Lines | None = None
    ) -> ToolResult:
        env = {**os.environ, "TOKEN": self.kit.token}
        return await self.runner(argv, cwd=str(self.kit.work), env=env, timeout_s=timeout_s, on_line=on_line)


def with_tools(kit: Kit, scene: Callable[[Tools], Awaitable[None]]) -> None:
    """Play the scene on a real system, which must be left without descriptors and processes."""

    async def perform() -> None:
        system = create_system(uuid.uuid4().hex, guardian=False)
        await system.start()
        before = descriptors()
        try:
            with anyio.fail_after(2 * PATIENCE_S):
                await scene(Tools(SystemToolRunner(system), kit))
            assert descriptors() == before
            assert kit.alive() == []
        finally:
            await system.close()

    anyio.run(perform)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# --- what they say ---------------------------------------------------------------------------------------------------


def test_a_tool_ends_with_its_code_and_the_last_lines_of_both_streams(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        result = await tools("echo one; echo two >&2; echo three; exit 3")
        assert result == ToolResult(Ended(3, None), ["one", "two", "three"])
        assert not result.ok
        assert (await tools("exit 0")).ok

    with_tools(kit, scene)


def test_a_tool_that_a_signal_ends_is_not_ok(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        result = await tools("kill -TERM $$")
        assert result.ended == Ended(None, "SIGTERM")
        assert not result.ok

    with_tools(kit, scene)


def test_each_line_is_told_as_it_comes(kit: Kit) -> None:
    go = kit.work / "go"
    told: list[str] = []

    def on_line(line: str) -> None:
        told.append(line)
        go.touch()

    async def scene(tools: Tools) -> None:
        # The second line is written only once the first has been told.
        result = await tools(f"echo first; while ! test -e {go}; do sleep 0.01; done; echo second", on_line=on_line)
        assert result.ok
        assert told == ["first", "second"]

    with_tools(kit, scene)


def test_a_progress_bar_drawn_with_carriage_returns_is_told_step_by_step(kit: Kit) -> None:
    told: list[str] = []

    async def scene(tools: Tools) -> None:
        result = await tools(r"printf '10%%\r 50%%\r\n100%%\r'; printf done", on_line=told.append)
        assert told == result.tail == ["10%", "50%", "100%", "done"]

    with_tools(kit, scene)


def test_a_progress_bar_is_told_before_its_line_ends(kit: Kit) -> None:
    go = kit.work / "go"

    async def scene(tools: Tools) -> None:
        script = rf"printf '50%%\r'; while ! test -e {go}; do sleep 0.01; done"
        assert (await tools(script, on_line=lambda line: go.touch())).ok

    with_tools(kit, scene)


def test_only_the_last_lines_are_kept(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        result = await tools("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; done")
        assert result.tail == [f"line {number}" for number in range(1001 - TAIL_LINES, 1001)]

    with_tools(kit, scene)


def test_a_line_without_end_is_told_in_pieces_of_bounded_length(kit: Kit) -> None:
    told: list[str] = []

    async def scene(tools: Tools) -> None:
        await tools("head -c 3000000 /dev/zero | tr '\\0' x", on_line=told.append)
        assert told
        assert max(map(len, told)) <= LINE_CHARS_MAX
        assert {char for line in told for char in line} == {"x"}

    with_tools(kit, scene)


def test_blank_lines_are_left_out_and_rubbish_is_replaced(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        result = await tools(r"printf '\n   \n\377\376bad\n\t good \t\n'")
        assert result.tail == ["\ufffd\ufffdbad", "good"]

    with_tools(kit, scene)


# --- how they end ----------------------------------------------------------------------------------------------------


def test_a_tool_whose_time_is_up_is_ended_with_all_it_started(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        children = (
            f"/bin/sh -c '{FOREVER}' child $TOKEN & setsid /bin/sh -c '{FOREVER}' child $TOKEN & echo begun; wait"
        )
        result = await tools(children, timeout_s=0.5)
        assert result.ended is None
        assert not result.ok
        assert result.tail == ["begun"]

    with_tools(kit, scene)


def test_a_tool_that_ignores_signals_is_ended_when_its_time_is_up(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        result = await tools("trap '' TERM INT HUP; while :; do sleep 1000; done", timeout_s=0.5)
        assert result.ended is None

    with_tools(kit, scene)


def test_what_a_tool_leaves_behind_is_ended_when_it_ends_and_delays_nothing(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        began = anyio.current_time()
        result = await tools(f"setsid /bin/sh -c '{FOREVER}' child $TOKEN & echo done")
        assert result == ToolResult(Ended(0, None), ["done"])
        assert anyio.current_time() - began < PATIENCE_S / 2

    with_tools(kit, scene)


def test_an_installer_whose_caller_gives_up_is_dead_when_the_caller_goes_on(kit: Kit) -> None:
    begun = kit.work / "begun"

    async def scene(tools: Tools) -> None:
        async with anyio.create_task_group() as tasks:

            async def install() -> None:
                await tools(f"setsid /bin/sh -c '{FOREVER}' child $TOKEN & touch {begun}; {FOREVER} # $TOKEN")
                raise AssertionError("it was not cancelled")

            tasks.start_soon(install)
            await appears(begun)
            assert kit.alive() != []
            tasks.cancel_scope.cancel()
        assert kit.alive() == []

    with_tools(kit, scene)


def test_a_program_that_is_missing_is_told_as_the_cause(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        with pytest.raises(SpawnError, match="no-such-program") as caught:
            await tools.run(("no-such-program",))
        assert caught.value.reason == "missing_program"

    with_tools(kit, scene)


def test_many_tools_run_at_once(kit: Kit) -> None:
    async def scene(tools: Tools) -> None:
        results: dict[int, ToolResult] = {}

        async def one(number: int) -> None:
            results[number] = await tools(f"echo {number}; exit {number}")

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number)
        for number, result in results.items():
            assert result == ToolResult(Ended(number, None), [str(number)])

    with_tools(kit, scene)


async def appears(path: Path) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not path.exists():
            await anyio.sleep(0.01)
