"""What only Linux can promise: daemons, fork chains, signal masks, descriptors, adopted orphans."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from bridge.process.base import Ended

from . import programs
from .conftest import Starter, make_system
from .sightings import sighted, status_field, until, zombies_of

if sys.platform != "linux":
    pytest.skip("Linux", allow_module_level=True)
assert sys.platform == "linux"  # What the skip means, in words that the type checker knows.

pytestmark = pytest.mark.anyio

HUNTED = {
    "daemon without environment": programs.DAEMON_WITHOUT_ENVIRONMENT,
    "forgets its marks": programs.FORGETS_ITS_MARKS,
    "fork chain": programs.FORK_CHAIN,
    "forks while being killed": programs.FORKS_WITHOUT_END,
}


@pytest.mark.parametrize("source", HUNTED.values(), ids=HUNTED)
async def test_extinguish_hunts_down(start: Starter, source: str) -> None:
    process = await start.ready(source)
    assert await process.extinguish(10)
    assert sighted(start.token) == []
    assert zombies_of(os.getpid()) == []
    process.close()


@pytest.mark.parametrize("start", ["marks"], indirect=True)
async def test_a_daemon_is_never_taken_for_another_tree_s(start: Starter) -> None:
    other = Starter(start.system, start.token + "-other")
    daemon = await other.ready(programs.DAEMON_WITHOUT_ENVIRONMENT)
    bystander = await start.ready(programs.QUIET)
    start.fds += other.fds
    assert await bystander.extinguish(5)
    assert len(sighted(other.token)) == 2
    assert await daemon.extinguish(5)
    assert sighted(other.token) == []
    bystander.close()
    daemon.close()


async def test_many_trees_that_make_orphans_are_kept_apart(start: Starter) -> None:
    others = [Starter(start.system, f"{start.token}-{n}") for n in range(4)]
    trees = [await other.ready(programs.CHILDREN_IN_OWN_SESSIONS) for other in others]
    for tree in trees:
        os.kill(tree.pid, signal.SIGKILL)
        with anyio.fail_after(10):
            await tree.wait()
    for n, tree in enumerate(trees):
        assert await tree.extinguish(5)
        tree.close()
        assert [len(sighted(other.token)) for other in others] == [0] * (n + 1) + [3] * (3 - n)
    for other in others:
        start.fds += other.fds


async def test_orphans_that_end_are_reaped(start: Starter) -> None:
    source = """
import os, time
for _ in range(10):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.05)
        os._exit(0)
    os.wait()
print("ready", flush=True)
time.sleep(1000)
"""
    process = await start.ready(source)
    await until(lambda: len(sighted(start.token)) == 1)
    await until(lambda: zombies_of(os.getpid()) == [])
    assert process.members() == [process.pid]
    assert await process.extinguish(5)
    process.close()


async def test_a_stopped_leader_is_not_an_ended_one(start: Starter) -> None:
    process = await start.ready(programs.QUIET)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGSTOP)
    await until(lambda: status_field(process.pid, "State").startswith("T"))
    await anyio.lowlevel.checkpoint()
    assert process.ended is None
    assert process.members() == [process.pid]
    assert await process.extinguish(5)
    assert process.ended == Ended(None, "SIGKILL")
    process.close()


@contextmanager
def dispositions() -> Iterator[None]:
    """Signals as an awkward host would leave them to a bridge that catches some itself."""
    ignored = [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP, signal.SIGUSR2]
    caught = [signal.SIGTERM, signal.SIGUSR1]
    before = {number: signal.getsignal(number) for number in ignored + caught}
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for number in caught:
        signal.signal(number, lambda *_: None)
    try:
        yield
        assert all(signal.getsignal(number) is signal.SIG_IGN for number in ignored)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_a_program_starts_with_default_signals_and_three_descriptors(token: str) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD])
    leaked = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    system = make_system("marks")
    try:
        await system.start()
        starter = Starter(system, token)
        with dispositions():
            # No interpreter, which would change its own signals.
            process = starter.spawn(starter.spec("")._replace(argv=("/bin/sleep", "1000")))
        # Signals 32 and 33 belong to the C library: what make starts has them ignored, and nobody else may change it.
        assert int(status_field(process.pid, "SigIgn"), 16) & ~(3 << 31) == 0
        assert int(status_field(process.pid, "SigBlk"), 16) == 0
        # The last step of exec comes a moment after the one that ends the start.
        await until(lambda: int(status_field(process.pid, "SigCgt"), 16) == 0)
        # The loader of libraries opens and closes some of its own.
        await until(lambda: sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2"])
        assert os.getsid(process.pid) == process.pid
        assert await process.extinguish(5)
        process.close()
        for fd in starter.fds:
            os.close(fd)
    finally:
        await system.close()
        os.close(leaked)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


async def test_the_bridge_itself_carries_no_mark(start: Starter) -> None:
    before = resource.getrlimit(10)
    process = await start.ready(programs.QUIET)
    assert resource.getrlimit(10) == before
    assert os.getpid() not in process.members()
    assert await process.extinguish(5)
    process.close()


async def test_a_child_that_a_library_started_is_left_to_it(start: Starter) -> None:
    process = await start.ready(programs.QUIET)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; sys.stdin.read(); sys.exit(9)"], stdin=-1
    ) as foreign:
        assert foreign.stdin is not None
        foreign.stdin.close()
        await until(lambda: zombies_of(os.getpid()) == [foreign.pid])
        # Its zombie lies in the way of the sidecar's.
        os.kill(process.pid, signal.SIGKILL)
        with anyio.fail_after(5):
            await process.wait()
        assert await process.extinguish(5)
        assert foreign.wait() == 9
    process.close()


async def test_a_hundred_zombies_at_once_are_all_noticed(start: Starter) -> None:
    spec = start.spec("")._replace(argv=("/bin/true",))
    processes = [start.spawn(spec) for _ in range(100)]
    with anyio.fail_after(20):
        for process in processes:
            assert await process.wait() == Ended(0, None)
            assert await process.wait_extinct(5)
            process.close()


async def test_an_orphan_that_no_tree_owns_is_ended_when_the_system_closes(token: str) -> None:
    system = make_system("marks")
    await system.start()
    owner, other = Starter(system, token), Starter(system, token + "-other")
    tree = await owner.ready(programs.FORGETS_ITS_MARKS)
    bystander = await other.ready(programs.QUIET)
    os.kill(tree.pid, signal.SIGKILL)
    with anyio.fail_after(5):
        await tree.wait()
    assert len(sighted(token)) == 1
    assert await bystander.extinguish(5)
    bystander.close()
    await system.close()
    assert sighted(token) == []
    for fd in owner.fds + other.fds:
        os.close(fd)


async def test_trees_that_still_live_end_when_the_system_closes(token: str) -> None:
    system = make_system("marks")
    await system.start()
    starter = Starter(system, token)
    await starter.ready(programs.CHILDREN_IN_OWN_SESSIONS)
    await system.close()
    await system.close()
    assert sighted(token) == []
    for fd in starter.fds:
        os.close(fd)


async def test_a_bridge_within_a_bridge_keeps_both_marks(start: Starter) -> None:
    spec = start.spec("import os; print(os.environ['SIDECAR_BRIDGE_MARK'])")
    env = {**spec.env, "SIDECAR_BRIDGE_MARK": "outer:7"}
    process = start.spawn(spec._replace(env=env))
    await anyio.wait_readable(process.stdout)
    own, outer = os.read(process.stdout, 4096).decode().strip().split(",")
    assert outer == "outer:7"
    assert own.endswith(":1")
    assert await process.extinguish(5)
    process.close()


def test_importing_it_brings_no_heavy_module() -> None:
    source = "import sys, bridge.process.linux as _; print([m for m in ('psutil', 'httpx') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout.strip() == "[]"


def test_marks_of_two_bridges_differ() -> None:
    from bridge.process.census import TREE_BITS, Census

    prefixes = {Census(uuid.uuid4().hex, kernel_marks=True, adopts=True).prefix for _ in range(100)}
    assert len(prefixes) == 100
    assert all(0 < prefix << TREE_BITS < 1 << 63 for prefix in prefixes)
