"""The shell's side of a served pair of pipes, and handlers whose behaviour a test can steer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from bridge import errors, model
from bridge.rpc.dispatch import Handler
from bridge.rpc.outbox import Outbox
from bridge.rpc.server import RpcServer

EPOCH = "e1"
BULKY_BYTES = 500_000
LIMIT_S = 20.0
"""Bound of every wait in these tests."""


class Stage:
    """Handlers under names of the contract, and what they have seen."""

    def __init__(self) -> None:
        self.outbox: Outbox | None = None
        self.release = anyio.Event()
        self.began: list[str | None] = []
        self.cancelled: list[str | None] = []
        self.bulky_running = 0
        self.bulky_running_peak = 0

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "ping": lambda _: "pong",
            "get_sidecar_logs": self.text,
            "start_sidecar": self.wait,
            "stop_sidecar": self.publish_and_answer,
            "restart_sidecar": self.wait_a_turn,
            "get_sidecar_status": self.refuse,
            "get_sidecar_health": self.fail,
            "get_sidecar_metrics": self.fail_later,
            "get_sidecar_events": self.unencodable,
            "unsubscribe_sidecar_logs": lambda params: params.subscription,
            "list_sidecars": self.awaitable,
            "list_sidecar_log_files": self.bulky,
            "shutdown": self.later,
        }

    def text(self, params: model.GetLogsParams) -> str:
        """A result of `lines` bytes."""
        return "x" * params.lines

    async def wait(self, params: model.StartParams) -> str | None:
        self.began.append(params.sidecar)
        try:
            await self.release.wait()
        except BaseException:
            self.cancelled.append(params.sidecar)
            raise
        return params.sidecar

    async def wait_a_turn(self, params: model.RestartParams) -> str | None:
        self.began.append(params.sidecar)
        await anyio.sleep(0)
        return params.sidecar

    def publish_and_answer(self, params: model.StopParams) -> str:
        if self.outbox is not None:
            self.outbox.publish(alert("caused"))
        return "stopped"

    def refuse(self, params: model.SidecarParams) -> None:
        raise errors.SidecarNotFound("There is no sidecar x.", sidecar="x", detail=["a", "b"])

    def fail(self, params: model.GetHealthParams) -> None:
        raise RuntimeError("secret /path/of/code.py")

    async def fail_later(self, params: model.GetMetricsParams) -> None:
        await anyio.sleep(0)
        raise RecursionError("secret")

    def unencodable(self, params: model.GetEventsParams) -> object:
        return {"x": object()} if params.before is None else {"x": "\ud800"}

    def awaitable(self, params: model.NoParams) -> Any:
        return self._later()

    async def bulky(self, params: model.SidecarParams) -> str:
        """A long result; with a sidecar named, once released."""
        self.bulky_running += 1
        self.bulky_running_peak = max(self.bulky_running, self.bulky_running_peak)
        try:
            if params.sidecar is not None:
                self.began.append(params.sidecar)
                await self.release.wait()
            else:
                await anyio.sleep(0)
            return "x" * BULKY_BYTES
        finally:
            self.bulky_running -= 1

    async def later(self, params: model.NoParams) -> str:
        return await self._later()

    async def _later(self) -> str:
        await anyio.sleep(0)
        return "later"


class Peer:
    """Writes bytes to the server and reads its lines."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self.write_fd = write_fd
        self.read_fd = read_fd
        self._held = b""
        if sys.platform != "win32":
            os.set_blocking(write_fd, False)
            os.set_blocking(read_fd, False)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        with anyio.fail_after(LIMIT_S):
            while view:
                try:
                    view = view[os.write(self.write_fd, view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self.write_fd)

    async def ask(self, method: str, params: Any = None, id: Any = 1) -> None:
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": id}
        await self.send(json.dumps(request).encode() + b"\n")

    async def line(self) -> bytes:
        with anyio.fail_after(LIMIT_S):
            while b"\n" not in self._held:
                try:
                    data = os.read(self.read_fd, 1 << 20)
                except BlockingIOError:
                    await anyio.wait_readable(self.read_fd)
                    continue
                if not data:
                    raise EOFError(self._held)
                self._held += data
        line, self._held = self._held.split(b"\n", 1)
        return line

    async def message(self) -> Any:
        return json.loads(await self.line())

    async def messages(self, count: int) -> list[Any]:
        return [await self.message() for _ in range(count)]

    async def exchange(self, data: bytes) -> Any:
        await self.send(data + b"\n")
        return await self.message()

    async def pings(self) -> bool:
        """Whether the server answers, with nothing else before."""
        answer = await self.exchange(b'{"jsonrpc":"2.0","method":"ping","id":"alive"}')
        return bool(answer == {"jsonrpc": "2.0", "result": "pong", "id": "alive"})

    def hang_up(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def stop_reading(self) -> None:
        if self.read_fd >= 0:
            os.close(self.read_fd)
            self.read_fd = -1


class Served:
    """A server that runs, its peer and its end."""

    def __init__(self, server: RpcServer, outbox: Outbox, stage: Stage, peer: Peer, out_fd: int) -> None:
        self.server = server
        self.outbox = outbox
        self.stage = stage
        self.peer = peer
        self.out_fd = out_fd
        self.reason: str | None = None
        self.ended = anyio.Event()

    async def end(self) -> str | None:
        with anyio.fail_after(LIMIT_S):
            await self.ended.wait()
        return self.reason


@asynccontextmanager
async def served(*, max_message_bytes: int = 4 << 20, max_outbound_bytes: int = 8 << 20) -> AsyncIterator[Served]:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    outbox = Outbox(epoch=EPOCH, next_seq=1, max_message_bytes=max_message_bytes, max_outbound_bytes=max_outbound_bytes)
    stage = Stage()
    stage.outbox = outbox
    server = RpcServer(
        in_read, out_write, outbox=outbox, handlers=stage.handlers(), max_message_bytes=max_message_bytes
    )
    peer = Peer(in_write, out_read)
    it = Served(server, outbox, stage, peer, out_write)

    async def run() -> None:
        it.reason = await server.run()
        it.ended.set()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield it
            tasks.cancel_scope.cancel()
    finally:
        peer.hang_up()
        peer.stop_reading()
        os.close(in_read)
        os.close(out_write)


# --- notifications ---------------------------------------------------------------------------------------------------

AT = "2026-01-01T00:00:00.000Z"


def alert(kind: str, data: Any = None) -> model.Alert:
    return model.Alert(AT, "web", "warning", kind, "a message", data, False)


def log_lines(subscription: str, texts: list[str], dropped: int = 0) -> model.LogLines:
    entries = [model.LogEntry(AT, "stdout", None, text, "c", False) for text in texts]
    return model.LogLines(subscription, "web", entries, dropped)


def metrics(sidecar: str, rss: int) -> model.MetricsSampled:
    return model.MetricsSampled(sidecar, model.MetricsSample(AT, 0.0, rss, 1, 1, None))


def progress(sidecar: str, step: int) -> model.StartProgressed:
    return model.StartProgressed(AT, sidecar, model.StartProgress("ready", step, 5, 0.5, "m", 0.1))


def status(sidecar: str, state: model.State, generation: int) -> model.SidecarStatus:
    return model.SidecarStatus(
        sidecar, state, "m", None, 0, None, AT, None, "unknown", None, None, 5, None, None, None, [], generation
    )


def state_changed(sidecar: str, generation: int) -> model.StateChanged:
    return model.StateChanged(AT, sidecar, "starting", "running", "r", status(sidecar, "running", generation))
