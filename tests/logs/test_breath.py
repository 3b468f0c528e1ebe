"""Long reads: the event loop does not feel them, and a cancelled one ends."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from bridge.logs import LogLimits, Logs, SidecarLog
from bridge.model import GetLogsParams, SubscribeLogsParams

from .support import opened, run

Request = Callable[[SidecarLog], Awaitable[object]]


async def page(log: SidecarLog) -> object:
    return await log.page(GetLogsParams(level="critical"))


async def subscription(log: SidecarLog) -> object:
    made = await log.subscribe(SubscribeLogsParams(level="critical", backlog=10), lambda _: None)
    return log.unsubscribe(made.id)


REQUESTS = pytest.mark.parametrize("request_of", [page, subscription])


def fill(folder: Path) -> None:
    """A log in which every line must be read to see that none is critical: a second or so of work."""
    lines = b"".join(b"INFO request %d: nothing critical in it, fatal or not\n" % n for n in range(1000))
    (folder / "sidecar-stdout.log").write_bytes(lines * 150)


def open_log(logs: Logs) -> SidecarLog:
    return logs.open("web", LogLimits(max_bytes=1_000_000_000))


def thread_s() -> float:
    """Processor seconds of all threads but this one."""
    return time.process_time() - time.thread_time()


@REQUESTS
def test_a_cancelled_read_ends_soon(tmp_path: Path, request_of: Request) -> None:
    fill(tmp_path)

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = open_log(logs)
            await log.page(GetLogsParams(lines=1))
            before = thread_s()
            await request_of(log)
            whole = thread_s() - before
            with anyio.move_on_after(whole / 20) as scope:
                await request_of(log)
            assert scope.cancelled_caught
            before = thread_s()
            await anyio.sleep(whole / 2)
            assert thread_s() - before < whole / 10

    run(test)


@REQUESTS
def test_the_event_loop_does_not_feel_a_read(tmp_path: Path, request_of: Request) -> None:
    fill(tmp_path)

    async def test() -> None:
        read, write = os.pipe()
        turns = 0
        async with opened(tmp_path) as logs, anyio.create_task_group() as tasks:
            log = open_log(logs)
            await log.page(GetLogsParams(lines=1))
            done = anyio.Event()

            async def ask() -> None:
                await request_of(log)
                done.set()

            tasks.start_soon(ask)
            begin = time.perf_counter()
            while not done.is_set():
                await anyio.sleep(0.0005)
                for _ in range(2):  # each call gives the interpreter away and must get it back soon
                    os.write(write, b"x")
                    os.read(read, 1)
                turns += 1
            whole = time.perf_counter() - begin
        os.close(read)
        os.close(write)
        assert turns > whole / 0.01  # one every 2 ms or so; one every 20 ms where the read gives nothing away

    run(test)
