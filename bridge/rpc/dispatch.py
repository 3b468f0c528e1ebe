"""One request -> one outcome: finds the method, validates its params, runs its handler, maps what was raised.

The one door from an exception to the wire, and the home of jsonrpcserver: each request goes through the `call` of its
dispatcher or async dispatcher. Knows no streams, ids or batches; `rpc.server` has those.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Raw

from .. import contract, model
from ..errors import BridgeError, InvalidParams, RequestCancelled, shorten
from .messages import METHOD_NOT_FOUND, Fault, Request, encode_fault, encode_result
from .params import ParamsReader

Handler = Callable[[Any], Any]
"""Takes the method's params Struct and returns its result or an awaitable of it. A plain `def` runs inline, so it must
not wait; what is awaited runs in a task of its own."""

logger = logging.getLogger("bridge.rpc")

INCIDENT_BYTES: Final = 4


class Success(NamedTuple):
    """A result on its way to the client."""

    method: str
    value: Any


Outcome = Success | Fault


def _expected(error: BridgeError) -> Fault:
    return Fault(error.code, error.kind, error.message, error.detail, error.sidecar)


CANCELLED: Final = Fault(RequestCancelled.code, RequestCancelled.kind, "The request was cancelled.")
NO_ID_TO_CANCEL: Final = _expected(
    InvalidParams.of("id", "expected the id of the request to cancel, a string, a number or null")
)


class Work:
    """A request whose handler waits, not begun yet: to be finished or dropped, once."""

    __slots__ = ("_json_rpc", "_value", "bulky", "method")

    def __init__(self, method: str, value: Awaitable[Any], json_rpc: _JsonRpc) -> None:
        self.method = method
        self.bulky = contract.METHODS[method].bulky
        self._value = value
        self._json_rpc = json_rpc

    async def finish(self) -> Outcome:
        """Run it to its end."""
        rpc, name = self._json_rpc, self.method

        async def method() -> Any:
            try:
                return rpc.success(await self._value)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
                return rpc.error(_fault_of(error, name))

        return _unwrap(name, await rpc.async_call(rpc.request(name, [], rpc.no_id), rpc.no_context, method))

    def drop(self) -> None:
        """Let it never begin."""
        close = getattr(self._value, "close", None)  # a coroutine complains when it is neither awaited nor closed
        if close is not None:
            close()


class _Row(NamedTuple):
    read: Callable[[Raw], model.Params]
    method: Callable[[model.Params], Any]
    """The handler as jsonrpcserver wants it: returns a result of that package and never raises."""


class Dispatcher:
    """Runs requests against a table of handlers, one per method of the contract that is served."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        unknown = handlers.keys() - contract.METHODS.keys()
        if unknown:
            raise ValueError(f"not in the contract: {', '.join(sorted(unknown))}")
        self._json_rpc = rpc = _load()
        self._call, self._request, self._no_id, self._no_context = rpc.call, rpc.request, rpc.no_id, rpc.no_context
        self._rows = {
            name: _Row(ParamsReader(contract.METHODS[name].params).read, self._guard(name, handler))
            for name, handler in handlers.items()
        }

    def begin(self, request: Request) -> Outcome | Work:
        """Run a request as far as it goes without waiting. Work is returned where its handler waits."""
        name = request.method
        row = self._rows.get(name)
        if row is None:
            return Fault(METHOD_NOT_FOUND, "method_not_found", f"There is no method {shorten(name)}.")
        try:
            params = row.read(request.params)
        except InvalidParams as error:
            return _fault_of(error, name)
        outcome = _unwrap(name, self._call(self._request(name, [params], self._no_id), self._no_context, row.method))
        if isinstance(outcome, Success) and hasattr(outcome.value, "__await__"):
            return Work(name, outcome.value, self._json_rpc)
        return outcome

    def _guard(self, name: str, handler: Handler) -> Callable[[model.Params], Any]:
        """jsonrpcserver would log each exception and send its text to the client, so it never gets to see one."""
        success, error_result = self._json_rpc.success, self._json_rpc.error

        def method(params: model.Params) -> Any:
            try:
                return success(handler(params))
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
                return error_result(_fault_of(error, name))

        return method


def encode(outcome: Outcome, given_id: bytes, bytes_max: int) -> bytes:
    """The answer without line end, at most `bytes_max` long as long as the id is at most half of that.

    A result that cannot be encoded, or is too long, becomes an internal error.
    """
    if isinstance(outcome, Success):
        name = outcome.method
        try:
            encoded = encode_result(outcome.value, given_id)
        except Exception as error:  # noqa: BLE001 - msgspec raises TypeError, UnicodeEncodeError, RecursionError, ...
            encoded = encode_fault(_fault_of(error, name), given_id)
    else:
        name = outcome.kind
        encoded = encode_fault(outcome, given_id)
    if len(encoded) > bytes_max:
        return encode_fault(too_long(name, len(encoded), bytes_max), given_id)
    return encoded


def too_long(what: str, size: int, bytes_max: int) -> Fault:
    """An answer that would be longer than the message limit."""
    incident = os.urandom(INCIDENT_BYTES).hex()
    logger.error("incident %s: the answer to %s has %d bytes, the limit is %d", incident, what, size, bytes_max)
    return Fault(
        BridgeError.code,
        BridgeError.kind,
        f"The answer is too long for a line; ask for less (incident {incident}).",
        {"incident": incident, "bytes": size, "limit": bytes_max},
    )


def _fault_of(error: Exception, method: str) -> Fault:
    """The one place where an exception becomes an error of the protocol."""
    if isinstance(error, BridgeError) and type(error) is not BridgeError:
        return _expected(error)
    incident = os.urandom(INCIDENT_BYTES).hex()
    logger.error("incident %s in %s", incident, method, exc_info=error)
    return Fault(
        BridgeError.code,
        BridgeError.kind,
        f"The bridge failed in {method}; its error output says more under incident {incident}.",
        {"incident": incident},
    )


# --- jsonrpcserver ---------------------------------------------------------------------------------------------------


class _JsonRpc(NamedTuple):
    call: Callable[..., Any]
    async_call: Callable[..., Awaitable[Any]]
    request: Callable[..., Any]
    success: Callable[[Any], Any]
    error: Callable[[Fault], Any]
    no_id: Any
    no_context: Any


def _load() -> _JsonRpc:
    """Import what is used of jsonrpcserver, without its package.

    The package's `__init__` imports jsonschema and http.server, four fifths of its time and the cause of its
    DeprecationWarning, for parts that are not used here. So an empty package stands in while the submodules are
    imported, and is taken away again for whoever wants the whole.
    """
    name = "jsonrpcserver"
    stand_in = None
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        stand_in = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        from jsonrpcserver.async_dispatcher import call as async_call
        from jsonrpcserver.dispatcher import call
        from jsonrpcserver.request import Request as JsonRpcRequest
        from jsonrpcserver.result import Error
        from jsonrpcserver.result import Success as SuccessResult
        from jsonrpcserver.sentinels import NOCONTEXT, NOID
    finally:
        if stand_in is not None:
            del sys.modules[name]

    def error(fault: Fault) -> Any:
        return Error(fault.code, fault.message, fault)

    return _JsonRpc(call, async_call, JsonRpcRequest, SuccessResult, error, NOID, NOCONTEXT)


def _unwrap(name: str, result: Any) -> Outcome:
    """The outcome in an Either of jsonrpcserver; the `data` of its errors is the whole Fault."""
    try:
        return Success(name, result._value.result)
    except AttributeError:
        fault: Fault = result._error.data
        return fault
