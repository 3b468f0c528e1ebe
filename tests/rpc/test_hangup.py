"""When it is noticed that nobody reads any more, and when it is not."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridge.rpc.hangup import wait_broken

from .peer import LIMIT_S

assert sys.platform != "win32"

pytestmark = pytest.mark.anyio


class Watch:
    """A wait for the hang-up of a descriptor."""

    def __init__(self) -> None:
        self.over = anyio.Event()

    async def run(self, fd: int) -> None:
        await wait_broken(fd)
        self.over.set()

    async def ends(self) -> None:
        with anyio.fail_after(LIMIT_S):
            await self.over.wait()

    async def goes_on_idle(self) -> None:
        """It has not ended and does not spin: it leaves the loop to sleep."""
        spent_s = time.thread_time()
        with anyio.move_on_after(0.3):
            await self.over.wait()
        assert not self.over.is_set()
        assert time.thread_time() - spent_s < 0.1


@asynccontextmanager
async def watched(fd: int) -> AsyncIterator[Watch]:
    watch = Watch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run, fd)
        await checkpoint()
        yield watch
        tasks.cancel_scope.cancel()


async def test_a_pipe_whose_reader_closes_it_is_broken() -> None:
    read, write = os.pipe()
    try:
        async with watched(write) as watch:
            os.write(write, b"x")
            os.read(read, 1)
            await watch.goes_on_idle()
            os.close(read)
            await watch.ends()
    finally:
        os.close(write)


async def test_a_pipe_whose_reader_was_gone_before_is_broken_at_once() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        async with watched(write) as watch:
            await watch.ends()
    finally:
        os.close(write)


async def test_a_full_pipe_is_broken_when_its_reader_goes() -> None:
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(write, b"x" * 65536)
        async with watched(write) as watch:
            os.close(read)
            await watch.ends()
    finally:
        os.close(write)


async def test_a_socket_for_both_directions_is_broken_by_its_close_and_not_by_what_comes_or_ends_on_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with watched(theirs.fileno()) as watch:
            ours.sendall(b"a request that nobody has read yet")
            await watch.goes_on_idle()
            ours.shutdown(socket.SHUT_WR)
            await watch.goes_on_idle()
            ours.close()
            await watch.ends()


async def test_a_fifo_that_is_open_both_ways_is_never_broken(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        async with watched(fd) as watch:
            os.write(fd, b"x")
            await watch.goes_on_idle()
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            await watch.goes_on_idle()
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["file", "null device"])
async def test_what_cannot_be_left_is_never_broken(kind: str, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file" if kind == "file" else os.devnull, os.O_WRONLY | os.O_CREAT)
    try:
        async with watched(fd) as watch:
            await watch.goes_on_idle()
    finally:
        os.close(fd)
