"""Free ports are free, taken ones are taken by somebody with a name."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from . import programs
from .conftest import Starter, read_line

pytestmark = pytest.mark.anyio

LISTENER_IN_A_CHILD = """
import os, socket, time
server = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    os.setsid()
    print(server.getsockname()[1], flush=True)
    time.sleep(1000)
server.close()
time.sleep(1000)
"""


async def test_a_free_port_can_be_bound_and_is_not_given_twice(start: Starter) -> None:
    ports = [start.system.free_port("127.0.0.1") for _ in range(30)]
    assert len(set(ports)) == 30
    with socket.create_server(("127.0.0.1", ports[-1])):
        assert not start.system.port_is_free("127.0.0.1", ports[-1])
    assert start.system.port_is_free("127.0.0.1", ports[-1])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
async def test_a_listener_on_this_or_every_address_is_noticed(start: Starter, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
        port = server.getsockname()[1]
        assert not start.system.port_is_free("127.0.0.1", port)
        assert not start.system.port_is_free("localhost", port)


async def test_a_connection_that_lingers_does_not_take_the_port(start: Starter) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = server.accept()
        # The side that closes first keeps TIME_WAIT.
        accepted.close()
        assert client.recv(1) == b""
    server.close()
    assert start.system.port_is_free("127.0.0.1", port)


async def test_an_address_of_another_machine_is_an_error_and_no_holder(start: Starter) -> None:
    with pytest.raises(OSError, match="assign requested address"):
        start.system.port_is_free("192.0.2.1", 40_000)


async def test_the_holder_of_a_port_is_named(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = start.system.port_holder(server.getsockname()[1])
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.name
    assert start.system.port_holder(server.getsockname()[1] if server.fileno() >= 0 else 1) is None


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
async def test_a_port_that_a_grandchild_listens_on_belongs_to_the_tree(start: Starter) -> None:
    process = start.spawn(start.spec(LISTENER_IN_A_CHILD))
    port = int(await read_line(process.stdout))
    other = await start.ready(programs.QUIET)
    assert start.system.owns_port(process, port) is True
    assert start.system.owns_port(other, port) is False
    holder = start.system.port_holder(port)
    assert holder is not None
    assert holder.pid in process.members()
    for tree in (process, other):
        assert await tree.extinguish(5)
        tree.close()
    assert start.system.port_holder(port) is None


async def test_whose_a_port_is_that_nobody_listens_on_cannot_be_told(start: Starter) -> None:
    process = await start.ready(programs.QUIET)
    assert start.system.owns_port(process, start.system.free_port("127.0.0.1")) is None
    assert await process.extinguish(5)
    process.close()
