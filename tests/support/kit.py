"""One end-to-end test's tools: its token, command lines of fault sidecars, configurations, bridges, and the last check.

`Kit.finish()` is the sentence that ends every end-to-end test: nothing that it started is alive.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import survivors
from .bridge import Bridge, Json

FAULT_SIDECAR = Path(__file__).with_name("fault_sidecar.py")
SURVIVORS_GONE_S = 2.0
"""The protocol's promise for a killed bridge; after an orderly end it holds at once."""


class Kit:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = f"e2e-{uuid.uuid4().hex[:12]}"
        self.work = folder / self.token
        self.work.mkdir()
        self.home = folder / "bridge"
        """The folder of the configuration, from which relative paths begin."""
        self.before_finish: list[Callable[[], None]] = []

    def fault(self, *flags: str) -> list[str]:
        """The command line of a fault sidecar of this test."""
        return [sys.executable, "-S", str(FAULT_SIDECAR), "--token", self.token, *flags]

    def sleeper(self) -> list[str]:
        """A program that costs nothing, lives for ever and carries the token: starts within a millisecond."""
        target = self.work / "sleeper"
        target.touch()
        return ["tail", "-f", str(target)]

    def sidecar(self, *flags: str, **fields: Any) -> Json:
        """Configuration of a fault sidecar, with times for tests; a field of None is left out."""
        return self.program(self.fault(*flags), **fields)

    def program(self, command: Sequence[str], **fields: Any) -> Json:
        config: Json = {
            "command": list(command),
            "cwd": str(self.work),
            "autostart": False,
            "startup_timeout": 10,
            "shutdown_timeout": 3,
            "backoff_initial": 0.05,
            "backoff_max": 0.2,
            **fields,
        }
        return {key: value for key, value in config.items() if value is not None}

    def server(self, *flags: str, health: Mapping[str, Any] | None = None, **fields: Any) -> Json:
        """A fault sidecar that serves HTTP on a port which the bridge picks, checked over HTTP."""
        fields.setdefault("port", 0)
        return self.sidecar("--port", "{port}", *flags, health=self.http(**(health or {})), **fields)

    @staticmethod
    def http(**fields: Any) -> Json:
        return {
            "http": "http://127.0.0.1:{port}/health",
            "interval": 0.2,
            "retry_interval": 0.1,
            "timeout": 2,
            **fields,
        }

    @staticmethod
    def config(**sidecars: Json) -> Json:
        """A whole configuration of these sidecars, metrics off."""
        return {"metrics_interval": 0, "sidecars": sidecars}

    def bridge(
        self,
        config: str | Json,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        name: str = "bridge",
        **options: Any,
    ) -> Bridge:
        return Bridge(config, self.folder / name, args=args, env=env, **options)

    def alive(self) -> list[int]:
        return survivors.carriers(self.token)

    def wait_alive(self, count: int, timeout: float = 10.0) -> list[int]:
        return survivors.wait_for_carriers(self.token, count, timeout)

    def assert_gone(self, timeout: float = SURVIVORS_GONE_S) -> None:
        survivors.assert_gone(self.token, timeout)

    def finish(self) -> None:
        for step in self.before_finish:
            step()
        self.assert_gone()


def control(port: int, request: str, timeout: float = 10.0) -> str:
    """Tell a fault sidecar what to do, as in `control(port, "crash/3")`; its answer."""
    return fetch(port, f"/control/{quote(request)}", timeout)


def fetch(port: int, path: str, timeout: float = 10.0) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
    finally:
        connection.close()
    assert response.status == 200, f"{path}: {response.status} {body}"
    return body


def free_port() -> int:
    """A port that was free a moment ago; for what cannot let the bridge pick one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def stranger(port: int = 0) -> Iterator[int]:
    """This very process listens on a port and answers every request with 200; the port."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(5)
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # close() alone does not wake a thread in accept().
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
