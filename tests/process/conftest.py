"""A real System for each test, and the check that nothing which a test started outlives it."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from bridge.process import create_system
from bridge.process.base import Process, SpawnSpec, System

from .programs import program
from .sightings import sighted, zombies_of


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def token() -> Iterator[str]:
    """A word that marks this test's processes; none of them may be alive at the end."""
    word = f"token-{uuid.uuid4().hex}"
    yield word
    left = sighted(word)
    for pid in left:
        os.kill(pid, 9)
    assert left == []


class Starter:
    """Starts programs and closes their pipes at the end."""

    def __init__(self, system: System, token: str) -> None:
        self.system = system
        self.token = token
        self.fds: list[int] = []

    def spec(self, source: str, **fields: Any) -> SpawnSpec:
        return SpawnSpec(program(source, self.token), os.getcwd(), dict(os.environ))._replace(**fields)

    def spawn(self, spec: SpawnSpec) -> Process:
        process = self.system.spawn(spec)
        self.fds += [fd for fd in (process.stdout, process.stderr) if fd is not None]
        return process

    async def ready(self, source: str, **fields: Any) -> Process:
        """Started, and it has said so."""
        process = self.spawn(self.spec(source, **fields))
        assert await read_line(process.stdout) == b"ready\n"
        return process


async def read_line(fd: int, timeout_s: float = 20.0) -> bytes:
    """What the process writes, up to a newline or its end."""
    text = b""
    with anyio.fail_after(timeout_s):
        while not text.endswith(b"\n"):
            await anyio.wait_readable(fd)
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            text += chunk
    return text


WAYS = ["marks", "descent"] if sys.platform == "linux" else ["native"]


def make_system(way: str) -> System:
    """A System without a guardian; `descent` takes the way of systems that keep no kernel marks."""
    if sys.platform == "linux":
        from bridge.process.linux import LinuxSystem

        return LinuxSystem(uuid.uuid4().hex, guardian=False, kernel_marks=way == "marks")
    return create_system(uuid.uuid4().hex, guardian=False)


@pytest.fixture(params=WAYS)
async def start(request: pytest.FixtureRequest, token: str) -> AsyncIterator[Starter]:
    """A started System that closes at the end and must leave neither descriptors nor zombies."""
    system = make_system(request.param)
    await system.start()
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    starter = Starter(system, token)
    yield starter
    await system.close()
    for fd in starter.fds:
        os.close(fd)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == len(before)
        assert zombies_of(os.getpid()) == []
