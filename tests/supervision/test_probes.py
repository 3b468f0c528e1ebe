"""Checks against real sockets: what counts as well, what each failure is called, what is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from bridge.process.base import Ended, SpawnError
from bridge.settings import HealthSettings
from bridge.supervision.probes import CheckResult, Prober
from bridge.supervision.tools import ToolResult

BOUND_S = 20.0
Answer = Callable[[SocketStream], Awaitable[None]]


# --- a server that answers as it is told -----------------------------------------------------------------------------


class Server:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.port = 0
        self.requests: list[bytes] = []
        self.open = 0
        self.closed = anyio.Event()
        """Set when a client has closed a connection."""

    async def handle(self, stream: SocketStream) -> None:
        self.open += 1
        async with stream:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += await stream.receive()
                self.requests.append(request)
                await self._answer(stream)
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.closed.set()
            finally:
                self.open -= 1


@asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server(answer)
    async with await anyio.create_tcp_listener(local_host=host) as listener, anyio.create_task_group() as tasks:
        server.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, server.handle)
        yield server
        tasks.cancel_scope.cancel()


def answering(head: str, body: bytes = b"") -> Answer:
    async def answer(stream: SocketStream) -> None:
        await stream.send(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    return answer


def status(code: int) -> Answer:
    return answering(f"HTTP/1.1 {code} Word\nContent-Length: 2", b"ok")


async def silence(stream: SocketStream) -> None:
    await anyio.sleep_forever()


async def hang_up(stream: SocketStream) -> None:
    await stream.aclose()


async def no_tool(
    argv: tuple[str, ...],
    *,
    cwd: str,
    env: Mapping[str, str],
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
) -> ToolResult:
    raise AssertionError("no tool is needed")


@asynccontextmanager
async def a_prober() -> AsyncIterator[Prober]:
    prober = Prober()
    try:
        with anyio.fail_after(BOUND_S):
            yield prober
    finally:
        await prober.aclose()


async def check(prober: Prober, settings: HealthSettings, port: int = 0, host: str = "127.0.0.1") -> CheckResult:
    values = {"port": str(port), "host": host, "name": "web", "log_dir": "/logs"}
    return await prober.check(settings, values=values, env={}, cwd="/", run_tool=no_tool)


def http(**settings: Any) -> HealthSettings:
    return HealthSettings(kind="http", **{"http": "http://{host}:{port}/health", **settings})


def ask(answer: Answer, settings: HealthSettings) -> CheckResult:
    async def main() -> CheckResult:
        async with serving(answer) as server, a_prober() as prober:
            return await check(prober, settings, server.port)

    return anyio.run(main)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# --- http ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 204, 301, 399])
def test_a_status_from_200_to_399_is_healthy(code: int) -> None:
    result = ask(status(code) if code != 204 else answering("HTTP/1.1 204 None"), http())
    assert result.ok
    assert result.status_code == code
    assert result.error is None
    assert result.latency_s is not None
    assert 0 <= result.latency_s < BOUND_S


@pytest.mark.parametrize("code", [400, 404, 500, 503])
def test_any_other_status_is_not(code: int) -> None:
    result = ask(status(code), http())
    assert result[0] is False
    assert result[2:] == (code, f"answered {code}")
    assert result.latency_s is not None


def test_expected_statuses_replace_the_range() -> None:
    assert ask(status(404), http(expect_status=(200, 404))).ok
    result = ask(status(301), http(expect_status=(200, 204)))
    assert (result.ok, result.error) == (False, "answered 301 instead of 200 or 204")


def test_a_redirect_is_not_followed() -> None:
    result = ask(answering("HTTP/1.1 302 Found\nLocation: http://127.0.0.1:1/\nContent-Length: 0"), http())
    assert (result.ok, result.status_code) == (True, 302)


def test_a_server_that_does_not_answer_fails_after_the_timeout() -> None:
    began = time.monotonic()
    assert ask(silence, http(timeout=0.2)) == (False, None, None, "no answer within 0.2 s")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (hang_up, "the connection was closed without an answer"),
        (answering("220 mail.example ESMTP"), "what came back is no HTTP"),
    ],
)
def test_an_answer_that_is_no_http_is_a_sentence(answer: Answer, error: str) -> None:
    assert ask(answer, http()) == (False, None, None, error)


def test_nobody_listening_is_connection_refused() -> None:
    async def main() -> None:
        port = closed_port()
        async with a_prober() as prober:
            refused = (False, None, None, "connection refused")
            assert await check(prober, http(), port) == refused
            assert await check(prober, http(http="http://localhost:{port}/"), port) == refused
            assert await check(prober, HealthSettings(kind="tcp", tcp="{host}:{port}"), port) == refused

    anyio.run(main)


def test_a_host_that_does_not_exist_is_named_as_the_cause() -> None:
    async def main() -> None:
        async with a_prober() as prober:
            for settings in (
                http(http="http://no-such-host.invalid/"),
                HealthSettings(kind="tcp", tcp="no-such-host.invalid:80"),
            ):
                error = (await check(prober, settings)).error
                assert error is not None
                assert error.startswith("the host name is not known: ")

    anyio.run(main)


def test_a_body_without_end_counts_by_its_status_and_is_not_waited_for() -> None:
    async def stream_for_ever(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await anyio.sleep_forever()

    async def flood(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"x" * 65_536)

    began = time.monotonic()
    for answer in (stream_for_ever, flood):
        assert ask(answer, http(timeout=10)).ok
    assert time.monotonic() - began < 8


def test_a_body_that_breaks_off_counts_by_its_status() -> None:
    async def cut(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await stream.aclose()

    assert ask(cut, http()).ok


def test_no_check_leaves_a_connection_open() -> None:
    async def main() -> None:
        async with serving(status(200)) as server, a_prober() as prober:
            for _ in range(3):
                server.closed = anyio.Event()
                assert (await check(prober, http(), server.port)).ok
                await server.closed.wait()  # the server never closes by itself
            assert server.open == 0

    anyio.run(main)


def test_a_server_without_address_reuse_can_bind_its_port_again_after_a_check() -> None:
    async def main() -> None:
        async with a_prober() as prober:
            async with serving(status(200)) as server:
                assert (await check(prober, http(), server.port)).ok
                await server.closed.wait()
            with socket.socket() as again:
                again.bind(("127.0.0.1", server.port))

    anyio.run(main)


def test_checks_that_are_cancelled_leave_nothing_behind() -> None:
    async def main() -> None:
        async with serving(silence) as server, a_prober() as prober:
            await check(prober, http(timeout=0.01), server.port)
            before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
            for _ in range(30):
                with anyio.move_on_after(0.005):
                    await check(prober, http(timeout=BOUND_S), server.port)
            while server.open:
                await anyio.sleep(0.01)  # bounded by the prober's own bound
            if sys.platform == "linux":
                assert len(os.listdir("/proc/self/fd")) <= before

    async def silence(stream: SocketStream) -> None:
        pass  # and wait until the client closes

    anyio.run(main)


def test_a_hanging_check_delays_no_other() -> None:
    async def main() -> None:
        async with (
            serving(silence) as hanging,
            serving(status(200)) as well,
            a_prober() as prober,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(150):  # more than a pool of connections usually has
                tasks.start_soon(check, prober, http(timeout=BOUND_S), hanging.port)
            while len(hanging.requests) < 150:
                await anyio.sleep(0.01)
            assert (await check(prober, http(), well.port)).ok
            tasks.cancel_scope.cancel()

    anyio.run(main)


def test_first_checks_at_once_share_one_transport() -> None:
    async def main() -> None:
        results: list[CheckResult] = []

        async with serving(status(200)) as server, a_prober() as prober:

            async def one() -> None:
                results.append(await check(prober, http(), server.port))

            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(one)
        assert [result.ok for result in results] == [True] * 20

    anyio.run(main)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert ask(status(200), http()).ok


def test_a_cookie_of_one_sidecar_is_not_sent_to_another() -> None:
    async def main() -> None:
        answer = answering("HTTP/1.1 200 OK\nSet-Cookie: session=1; Path=/\nContent-Length: 0")
        async with serving(answer) as server, a_prober() as prober:
            for _ in range(2):
                assert (await check(prober, http(), server.port)).ok
            assert [b"cookie" in request.lower() for request in server.requests] == [False, False]

    anyio.run(main)


def test_the_request_names_its_host_and_port() -> None:
    async def main() -> None:
        async with serving(status(200)) as server, a_prober() as prober:
            await check(prober, http(), server.port)
            head = server.requests[0].decode().splitlines()
            assert head[0] == "GET /health HTTP/1.1"
            assert f"Host: 127.0.0.1:{server.port}" in head

    anyio.run(main)


def test_an_ipv6_host_is_put_in_brackets() -> None:
    async def main() -> None:
        async with serving(status(200), "::1") as server, a_prober() as prober:
            assert (await check(prober, http(), server.port, host="::1")).ok
            assert (await check(prober, HealthSettings(kind="tcp", tcp="{host}:{port}"), server.port, host="::1")).ok

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    anyio.run(main)


def test_a_stop_request_uses_its_method_and_its_bound() -> None:
    async def main() -> None:
        async with serving(status(202)) as server, a_prober() as prober:
            result = await prober.http_request("POST", f"http://127.0.0.1:{server.port}/shutdown", 5)
            assert (result.ok, result.status_code) == (True, 202)
            assert server.requests[0].startswith(b"POST /shutdown HTTP/1.1\r\n")
            assert b"content-length: 0" in server.requests[0].lower()
        async with serving(silence) as server, a_prober() as prober:
            result = await prober.http_request("POST", f"http://127.0.0.1:{server.port}/", 0.1)
            assert result.error == "no answer within 0.1 s"

    anyio.run(main)


def test_a_url_that_only_the_values_made_wrong_is_a_failed_check() -> None:
    async def main() -> None:
        async with a_prober() as prober:
            for url in ("http://[::1", "ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/", "http://\x00/"):
                result = await prober.http_request("GET", url, 5)
                assert not result.ok
                assert result.error

    anyio.run(main)


def test_the_prober_can_be_used_after_it_was_closed() -> None:
    async def main() -> None:
        async with serving(status(200)) as server, a_prober() as prober:
            assert (await check(prober, http(), server.port)).ok
            await prober.aclose()
            assert (await check(prober, http(), server.port)).ok

    anyio.run(main)


# --- https -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bridge-test"
    names = "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    subprocess.run(
        [openssl, *options.split(), *names.split()],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=30,
    )
    return folder


@asynccontextmanager
async def serving_tls(certificate: Path) -> AsyncIterator[int]:
    """A TLS server in a thread: asyncio's own logs handshakes that fail."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(BOUND_S)
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(65_536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    secure.recv(1)
            except OSError:
                pass  # the client did not trust the certificate

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, serve, listener)
            yield listener.getsockname()[1]


def ask_tls(certificate: Path) -> CheckResult:
    async def main() -> CheckResult:
        async with serving_tls(certificate) as port, a_prober() as prober:
            return await check(prober, http(http="https://{host}:{port}/"), port)

    return anyio.run(main)


def test_a_certificate_that_nobody_vouches_for_fails_the_check(certificate: Path) -> None:
    result = ask_tls(certificate)
    assert (result.ok, result.status_code) == (False, None)
    assert result.error is not None
    assert result.error.startswith("the certificate is not trusted: self")


def test_a_certificate_that_the_system_trusts_passes(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    assert ask_tls(certificate).ok


def test_https_to_a_plain_server_says_so() -> None:
    async def main() -> CheckResult:
        async def refuse(stream: SocketStream) -> None:
            async with stream:
                await stream.receive()
                await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, a_prober() as prober:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, refuse)
                port = listener.extra(SocketAttribute.local_port)
                result = await check(prober, http(http="https://{host}:{port}/"), port)
                tasks.cancel_scope.cancel()
            return result

    result = anyio.run(main)
    assert result.error is not None
    assert result.error.startswith("TLS failed: ")


# --- tcp -------------------------------------------------------------------------------------------------------------


def test_a_server_that_accepts_connections_passes_a_tcp_check() -> None:
    result = ask(silence, HealthSettings(kind="tcp", tcp="{host}:{port}"))
    assert result.ok
    assert result.latency_s is not None
    assert (result.status_code, result.error) == (None, None)


def test_a_tcp_check_of_a_full_backlog_fails_after_its_timeout() -> None:
    async def main() -> CheckResult:
        async with a_prober() as prober:
            return await check(prober, HealthSettings(kind="tcp", tcp="{host}:{port}", timeout=0.2), port)

    clients: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        try:
            for _ in range(4):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                clients.append(client)
            assert anyio.run(main) == (False, None, None, "no answer within 0.2 s")
        finally:
            for client in clients:
                client.close()


# --- command ---------------------------------------------------------------------------------------------------------


class Tool:
    """Stands for the runner of helper programs; how those run is shown with the runner."""

    def __init__(self, outcome: ToolResult | Exception) -> None:
        self._outcome = outcome
        self.calls: list[tuple[tuple[str, ...], str, Mapping[str, str], float]] = []

    async def __call__(
        self,
        argv: tuple[str, ...],
        *,
        cwd: str,
        env: Mapping[str, str],
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> ToolResult:
        self.calls.append((argv, cwd, env, timeout_s))
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize(
    ("outcome", "ok", "error"),
    [
        (ToolResult(Ended(0, None), ["fine"]), True, None),
        (ToolResult(Ended(3, None), ["first", "no database"]), False, "the check command exited with 3: no database"),
        (ToolResult(Ended(1, None), []), False, "the check command exited with 1"),
        (ToolResult(Ended(None, "SIGSEGV"), []), False, "the check command was ended by SIGSEGV"),
        (ToolResult(None, ["working"]), False, "no answer within 2.5 s"),
        (SpawnError("missing_program", "There is no program pg_isready."), False, "There is no program pg_isready"),
        (OSError(24, "Too many open files"), False, "the check command could not be run: Too many open files"),
    ],
)
def test_a_command_is_judged_by_its_exit(outcome: ToolResult | Exception, ok: bool, error: str | None) -> None:
    tool = Tool(outcome)
    settings = HealthSettings(kind="command", command=("pg_isready", "-p", "{port}"), timeout=2.5)
    values = {"port": "5432"}

    async def main() -> CheckResult:
        return await Prober().check(settings, values=values, env={"A": "1"}, cwd="/srv", run_tool=tool)

    result = anyio.run(main)
    assert (result.ok, result.status_code, result.error) == (ok, None, error)
    assert tool.calls == [(("pg_isready", "-p", "5432"), "/srv", {"A": "1"}, 2.5)]


@pytest.mark.parametrize("kind", ["log", "none"])
def test_a_kind_that_asks_nobody_is_a_mistake_of_the_caller(kind: Any) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="asks nobody"):
            await check(Prober(), HealthSettings(kind=kind))

    anyio.run(main)


# --- when things are loaded ------------------------------------------------------------------------------------------


def test_httpx_is_imported_with_the_first_http_check_only() -> None:
    script = "import sys, bridge.supervision.probes; sys.exit('httpx' in sys.modules or 'httpcore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == 0
