"""One question to a sidecar -> whether it is well: over HTTP, by a TCP connection, by a command.

A check never raises and never takes longer than its timeout; what went wrong becomes a sentence. When checks are made
is `monitor`'s business, what follows from them `core.health`'s, and whether the right process answered the sidecar's.

Each HTTP check has a connection of its own, closed by this side as soon as the answer is there. A kept one would spare
a third of the work, but single-threaded servers serve nobody else while it is open, some servers wait for it when they
are asked to stop, it breaks whenever the sidecar restarts, and it does not show that the server still accepts
connections. Closing first leaves the pause that TCP wants after a close with this side, so that the sidecar can bind
its port again at once.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import anyio

from bridge.process.base import SpawnError
from bridge.settings import HealthSettings, fill, url_values

from .tools import ToolResult, ToolRunner

if TYPE_CHECKING:
    import httpx

BODY_BYTES_MAX = 65_536
BODY_S = 0.25
"""The body says nothing that counts. It is read, so that the server can end its answer in peace, but not for ever: an
endpoint may stream."""
OUTPUT_CHARS_MAX = 200
"""As much of a command's last line as fits a sentence."""
CAUSES_MAX = 20
"""How far the chain behind an exception is followed."""

_CONNECT_ERRORS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "the connection was reset",
    errno.EPIPE: "the connection was reset",
    errno.ECONNABORTED: "the connection was reset",
    errno.EHOSTUNREACH: "the host cannot be reached",
    errno.ENETUNREACH: "the network cannot be reached",
    errno.EADDRNOTAVAIL: "the address cannot be reached from here",
    errno.EMFILE: "the bridge has no free file descriptor",
    errno.ENFILE: "the system has no free file descriptor",
}


class CheckResult(NamedTuple):
    """What a check found. `latency_s` is None without an answer, `error` a sentence without a full stop."""

    ok: bool
    latency_s: float | None
    status_code: int | None
    error: str | None


class Prober:
    """Makes checks, any number at once; belongs to one event loop."""

    def __init__(self) -> None:
        self._plain: httpx.AsyncHTTPTransport | None = None
        self._secure: httpx.AsyncHTTPTransport | None = None
        # One at a time: the first check imports httpx in a thread, those that come meanwhile wait for it.
        self._loading = anyio.CapacityLimiter(1)

    async def check(
        self,
        settings: HealthSettings,
        *,
        values: Mapping[str, str],
        env: Mapping[str, str],
        cwd: str,
        run_tool: ToolRunner,
    ) -> CheckResult:
        """Make the check of kind http, tcp or command that `settings` asks for.

        `values` fills its templates; `env`, `cwd` and `run_tool` are for a command. Raises ValueError for another kind.
        """
        match settings.kind:
            case "http":
                url = fill(settings.http, url_values(values))
                return await self._http("GET", url, settings.timeout, settings.expect_status)
            case "tcp":
                return await _tcp(fill(settings.tcp, url_values(values)), settings.timeout)
            case "command":
                argv = tuple(fill(part, values) for part in settings.command)
                return await _command(argv, cwd=cwd, env=env, timeout_s=settings.timeout, run_tool=run_tool)
        raise ValueError(f"a health check of kind {settings.kind} asks nobody")

    async def http_request(self, method: str, url: str, timeout_s: float) -> CheckResult:
        """Send a request without a body; an answer of 200 to 399 is ok. Never raises."""
        return await self._http(method, url, timeout_s, ())

    async def aclose(self) -> None:
        """End the requests that are under way. The prober can still be used."""
        transports, self._plain, self._secure = (self._plain, self._secure), None, None
        for transport in transports:
            if transport is not None:
                await transport.aclose()

    async def _http(self, method: str, url: str, timeout_s: float, expect_status: tuple[int, ...]) -> CheckResult:
        try:
            transport = await self._transport(secure=url[:6].lower() == "https:")
            return await _ask(transport, method, url, timeout_s, expect_status)
        except Exception as error:  # noqa: BLE001 - whatever a server can make httpx raise is a failed check
            return _failed(_sentence(error))

    async def _transport(self, *, secure: bool) -> httpx.AsyncHTTPTransport:
        """What sends requests: no proxies, cookies, redirects or log lines, all of which belong to httpx's client."""
        transport = self._secure if secure else self._plain
        if transport is not None:
            return transport
        made = await anyio.to_thread.run_sync(_make_transport, secure, abandon_on_cancel=True, limiter=self._loading)
        # Whoever waited for the same thread may have been faster.
        if secure:
            self._secure = self._secure or made
            return self._secure
        self._plain = self._plain or made
        return self._plain


def _make_transport(secure: bool) -> httpx.AsyncHTTPTransport:
    """Takes tens of milliseconds, most of it for imports and certificates; called in a thread."""
    import httpx

    # The system's store, and not a bundle of public authorities: what signs a certificate for this computer is there.
    verify = ssl.create_default_context() if secure else False
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)


async def _ask(
    transport: httpx.AsyncHTTPTransport, method: str, url: str, timeout_s: float, expect_status: tuple[int, ...]
) -> CheckResult:
    import httpx

    request = httpx.Request(method, url, headers={"Accept": "*/*", "User-Agent": "sidecar-bridge"})
    began = anyio.current_time()
    response: httpx.Response | None = None
    with anyio.move_on_after(timeout_s):
        response = await transport.handle_async_request(request)
    if response is None:
        return _no_answer(timeout_s)
    latency_s = anyio.current_time() - began
    try:
        with anyio.move_on_after(min(BODY_S, max(timeout_s - latency_s, 0.0))):
            await _drop_body(response)
    except httpx.TransportError:
        pass  # the status has been read; how the rest broke off changes nothing
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()
    status = response.status_code
    if status in expect_status if expect_status else 200 <= status < 400:
        return CheckResult(True, latency_s, status, None)
    wanted = f" instead of {' or '.join(map(str, expect_status))}" if expect_status else ""
    return CheckResult(False, latency_s, status, f"answered {status}{wanted}")


async def _drop_body(response: httpx.Response) -> None:
    size = 0
    async for chunk in response.stream:  # type: ignore[union-attr]  # from an async transport it is async
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            return


async def _tcp(address: str, timeout_s: float) -> CheckResult:
    host, _, port = address.rpartition(":")
    began = anyio.current_time()
    latency_s: float | None = None
    try:
        with anyio.move_on_after(timeout_s):
            stream = await anyio.connect_tcp(host.removeprefix("[").removesuffix("]"), int(port))
            latency_s = anyio.current_time() - began
            await stream.aclose()
    except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
        return _failed(_sentence(error))
    return _no_answer(timeout_s) if latency_s is None else CheckResult(True, latency_s, None, None)


async def _command(
    argv: tuple[str, ...], *, cwd: str, env: Mapping[str, str], timeout_s: float, run_tool: ToolRunner
) -> CheckResult:
    began = anyio.current_time()
    try:
        result = await run_tool(argv, cwd=cwd, env=env, timeout_s=timeout_s)
    except SpawnError as error:
        return _failed(error.message.rstrip("."))
    except OSError as error:
        return _failed(f"the check command could not be run: {error.strerror}")
    if result.ended is None:
        return _no_answer(timeout_s)
    latency_s = anyio.current_time() - began
    return CheckResult(True, latency_s, None, None) if result.ok else CheckResult(False, latency_s, None, _said(result))


def _said(result: ToolResult) -> str:
    assert result.ended is not None
    ended = result.ended
    how = f"was ended by {ended.signal}" if ended.signal is not None else f"exited with {ended.code}"
    last = f": {result.tail[-1][:OUTPUT_CHARS_MAX]}" if result.tail else ""
    return f"the check command {how}{last}"


def _failed(error: str) -> CheckResult:
    return CheckResult(False, None, None, error)


def _no_answer(timeout_s: float) -> CheckResult:
    return _failed(f"no answer within {timeout_s:g} s")


# --- why nothing came back -------------------------------------------------------------------------------------------


def _sentence(error: BaseException) -> str:
    """What broke a connection, from the whole chain behind an exception: libraries wrap what the system said."""
    chain = list(_causes(error))
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return f"TLS failed: {each.reason or each}"
    for each in chain:
        if isinstance(each, OSError) and type(each).__name__ == "gaierror":
            return f"the host name is not known: {each.strerror}"
        if isinstance(each, OSError) and each.errno is not None:
            return _CONNECT_ERRORS.get(each.errno) or f"the connection failed: {each.strerror}"
    if type(error).__name__ == "RemoteProtocolError" and "disconnected" in str(error):
        return "the connection was closed without an answer"
    return _PROTOCOL_ERRORS.get(type(error).__name__) or f"the check failed: {str(error) or type(error).__name__}"


_PROTOCOL_ERRORS = {
    "RemoteProtocolError": "what came back is no HTTP",
    "LocalProtocolError": "the request cannot be written as HTTP",
    "ReadError": "the connection was reset",
    "WriteError": "the connection was reset",
    "InvalidURL": "the URL is not valid",
    "UnsupportedProtocol": "the URL is neither http nor https",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what is behind it, the members of groups too."""
    pending = [error]
    for _ in range(CAUSES_MAX):
        if not pending:
            return
        each = pending.pop(0)
        yield each
        if isinstance(each, BaseExceptionGroup):
            pending.extend(each.exceptions)
        behind = each.__cause__ or each.__context__
        if behind is not None:
            pending.append(behind)
