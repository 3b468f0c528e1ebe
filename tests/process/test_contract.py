"""What every System promises, whatever the system: these run unchanged on each."""

from __future__ import annotations

import os
import sys
import time

import anyio
import pytest

from bridge.process.base import Ended, Process

from . import programs
from .conftest import Starter, read_line
from .sightings import sighted

pytestmark = pytest.mark.anyio

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


async def end(process: Process) -> None:
    assert await process.extinguish(10)
    process.close()


async def test_an_exit_code_is_told(start: Starter) -> None:
    process = start.spawn(start.spec("import sys; sys.exit(7)"))
    with anyio.fail_after(10):
        assert await process.wait() == Ended(7, None)
    assert process.ended == Ended(7, None)
    assert await process.wait_extinct(5)
    process.close()


@posix_only
async def test_the_signal_that_ended_it_is_told(start: Starter) -> None:
    process = await start.ready(programs.QUIET)
    assert process.ended is None
    process.signal("SIGTERM")
    with anyio.fail_after(10):
        assert await process.wait() == Ended(None, "SIGTERM")
    await end(process)


async def test_an_exit_is_noticed_at_once_while_a_child_holds_the_pipes(start: Starter) -> None:
    process = await start.ready(programs.EXITS_AND_LEAVES_CHILD)
    began = time.monotonic()
    with anyio.fail_after(10):
        assert (await process.wait()).code == 3
    assert time.monotonic() - began < 0.1
    assert len(sighted(start.token)) == 1
    await end(process)
    assert sighted(start.token) == []


async def test_many_may_wait_for_the_same_end(start: Starter) -> None:
    process = await start.ready(programs.QUIET)
    ends: list[Ended] = []

    async def wait() -> None:
        ends.append(await process.wait())

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            assert await process.extinguish(5)
    assert ends == [process.ended] * 20
    process.close()


async def test_output_and_errors_come_apart(start: Starter) -> None:
    process = start.spawn(start.spec("import sys; print('to out'); print('to err', file=sys.stderr)"))
    assert process.stderr is not None
    assert (await read_line(process.stdout)).strip() == b"to out"
    assert (await read_line(process.stderr)).strip() == b"to err"
    await end(process)


async def test_merged_output_comes_from_one_pipe(start: Starter) -> None:
    spec = start.spec("import sys; print('to err', file=sys.stderr)", merge_output=True)
    process = start.spawn(spec)
    assert process.stderr is None
    assert (await read_line(process.stdout)).strip() == b"to err"
    await end(process)


async def test_a_piped_stdin_ends_when_it_is_closed(start: Starter) -> None:
    source = "import sys; print('ready', flush=True); sys.stdin.read(); sys.exit(5)"
    process = await start.ready(source, stdin="pipe")
    assert process.ended is None
    process.close_stdin()
    process.close_stdin()
    with anyio.fail_after(10):
        assert await process.wait() == Ended(5, None)
    await end(process)


async def test_a_stdin_that_is_not_piped_is_empty(start: Starter) -> None:
    process = start.spawn(start.spec("import sys; print(repr(sys.stdin.read()))"))
    assert (await read_line(process.stdout)).strip() == b"''"
    process.close_stdin()
    await end(process)


async def test_the_environment_is_the_one_given_and_the_mark(start: Starter) -> None:
    env = {"PATH": os.environ["PATH"], "ONLY": "this"}
    if sys.platform == "win32":
        env["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    source = "import os; print(sorted(k for k in os.environ if not k.startswith(('LC_', '__CF'))))"
    process = start.spawn(start.spec(source, env=env))
    names = (await read_line(process.stdout)).decode()
    assert names.strip() == repr(sorted([*env, "SIDECAR_BRIDGE_MARK"]))
    await end(process)


async def test_the_working_directory_is_the_one_given(start: Starter, tmp_path: os.PathLike[str]) -> None:
    process = start.spawn(start.spec("import os; print(os.getcwd())", cwd=os.fspath(tmp_path)))
    assert os.path.samefile((await read_line(process.stdout)).decode().strip(), tmp_path)
    await end(process)


async def test_the_members_are_the_living_with_the_leader_first(start: Starter) -> None:
    process = await start.ready(programs.CHILDREN_IN_OWN_SESSIONS)
    members = process.members()
    assert members[0] == process.pid
    assert sorted(members) == sorted(sighted(start.token))
    assert len(members) == 4
    await end(process)
    assert process.members() == []


@pytest.mark.parametrize(
    "source",
    [
        programs.QUIET,
        programs.IGNORES_TERM,
        programs.EXITS_AND_LEAVES_CHILD,
        pytest.param(programs.CHILDREN_IN_OWN_SESSIONS, marks=posix_only),
        pytest.param(programs.THIRTY_CHILDREN, marks=posix_only),
        pytest.param(programs.STOPPED, marks=posix_only),
    ],
    ids=["quiet", "ignores TERM", "leaves a child", "own sessions", "thirty children", "stopped"],
)
async def test_extinguish_leaves_nothing(start: Starter, source: str) -> None:
    process = await start.ready(source)
    assert await process.extinguish(10)
    assert sighted(start.token) == []
    assert process.members() == []
    assert process.ended is not None
    assert await process.wait_extinct(0)
    process.close()


async def test_extinction_is_not_claimed_while_a_child_lives(start: Starter) -> None:
    process = await start.ready(programs.EXITS_AND_LEAVES_CHILD)
    with anyio.fail_after(10):
        await process.wait()
    assert not await process.wait_extinct(0.2)
    assert len(process.members()) == 1
    await end(process)


async def test_extinction_is_noticed_when_the_last_child_ends_by_itself(start: Starter) -> None:
    process = await start.ready(programs.EXITS_AND_LEAVES_CHILD)
    [child] = [pid for pid in sighted(start.token) if pid != process.pid]
    extinct: list[bool] = []

    async def wait() -> None:
        extinct.append(await process.wait_extinct(10))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await process.wait()
        assert extinct == []
        os.kill(child, 9)
    assert extinct == [True]
    process.close()


async def test_two_trees_are_never_mixed_up(start: Starter) -> None:
    other = Starter(start.system, start.token + "-other")
    first = await start.ready(programs.EXITS_AND_LEAVES_CHILD)
    second = await other.ready(programs.EXITS_AND_LEAVES_CHILD)
    start.fds += other.fds
    await first.wait()
    await second.wait()
    await end(first)
    assert sighted(start.token) == []
    assert len(sighted(other.token)) == 1
    assert second.members() == sighted(other.token)
    assert not await second.wait_extinct(0)
    await end(second)
    assert sighted(other.token) == []


@posix_only
async def test_a_signal_wakes_a_stopped_process(start: Starter) -> None:
    source = "import os, signal; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    process = await start.ready(source)
    process.signal("SIGTERM")
    with anyio.fail_after(10):
        assert await process.wait() == Ended(None, "SIGTERM")
    await end(process)


@posix_only
async def test_a_signal_to_the_group_reaches_children_but_not_other_sessions(start: Starter) -> None:
    source = """
import os, time
for own_session in (True, False):
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        if own_session:
            os.setsid()
        os.write(write_end, b"x")
        time.sleep(1000)
    os.read(read_end, 1)
print("ready", flush=True)
time.sleep(1000)
"""
    process = await start.ready(source)
    process.signal("SIGINT")
    with anyio.fail_after(10):
        assert (await process.wait()).signal == "SIGINT"
        while len(process.members()) > 1:
            await anyio.sleep(0.005)
    process.signal("SIGINT")
    assert not await process.wait_extinct(0.1)
    process.signal_tree("SIGTERM")
    assert await process.wait_extinct(10)
    process.close()


async def test_a_signal_to_what_is_gone_does_nothing(start: Starter) -> None:
    process = start.spawn(start.spec("pass"))
    await end(process)
    process.signal("SIGTERM")
    process.signal_tree("SIGKILL")
    assert process.members() == []


async def test_the_loop_goes_on_while_many_trees_are_killed(start: Starter) -> None:
    source = programs.THIRTY_CHILDREN if sys.platform != "win32" else programs.QUIET
    processes = [await start.ready(source) for _ in range(3)]
    gaps = [0.0]

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await anyio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    async with anyio.create_task_group() as beating:
        beating.start_soon(beat)
        async with anyio.create_task_group() as group:
            for process in processes:
                group.start_soon(end, process)
        beating.cancel_scope.cancel()
    # A few milliseconds of work each; the rest is room for a busy machine, which the loop shares with what it kills.
    assert max(gaps) < 0.25


async def test_many_trees_end_together(start: Starter) -> None:
    processes = [start.spawn(start.spec("import time; time.sleep(1000)")) for _ in range(20)]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for process in processes:
                group.start_soon(process.extinguish, 10)
    assert sighted(start.token) == []
    for process in processes:
        assert await process.wait_extinct(0)
        process.close()
