"""One line -> requests and faults; answers and notifications -> bytes of one line.

Pure functions on bytes: nothing here runs a method or touches a stream. Imports little, so that `bridge_ready` can be
written before anything heavy is loaded. `rpc.dispatch` runs what `parse` returns.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from .. import model
from ..errors import QUOTED_CHARS_MAX

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601

BATCH_MEMBERS_MAX: Final = 20_000
"""Requests in one batch. The answers to more do not fit into a line of the usual limit; and each costs time in which
nothing else is served, all of it before the first answer."""

ABSENT: Final = Raw()
NULL_ID: Final = b"null"

_ID_STARTS: Final = frozenset(b'"-0123456789n')
_PARAMS_STARTS: Final = frozenset(b"{[n")
_EXACT_FLOAT_MAX: Final = 2.0**53
"""Above it two different integers may be the same float."""


class Request(Struct, gc=False):
    """A valid request object. `id` is ABSENT for a notification; both id and params are the client's own bytes."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = ABSENT
    id: Raw = ABSENT


class _Member(Struct, gc=False):
    """Any object, for counting."""


class Fault(NamedTuple):
    """An error on its way to the client: code, sentence and `data`, and the id to answer with."""

    code: int
    kind: str
    message: str
    detail: Any = None
    sidecar: str | None = None
    id: bytes = NULL_ID


Parsed = Request | Fault | None
"""None is a response object, which is ignored."""

_as_request: Final = msgspec.json.Decoder(Request)
_as_object: Final = msgspec.json.Decoder(dict[str, Raw])
_as_array: Final = msgspec.json.Decoder(list[Raw])
_as_members: Final = msgspec.json.Decoder(list[_Member])
_as_value: Final = msgspec.json.Decoder(Raw)
_as_text: Final = msgspec.json.Decoder(str)
_encoder: Final = msgspec.json.Encoder()

UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""What msgspec raises on bytes that it cannot turn into values (RecursionError: nested too deeply)."""


def parse(line: bytes) -> Parsed | list[Parsed]:
    """Read one line, stripped and not empty. A batch is a list with one item per member, never an empty one."""
    # Values that are only skipped are not checked for UTF-8 by msgspec.
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return Fault(PARSE_ERROR, "parse_error", f"The line is not valid UTF-8 at byte {error.start}.")
    start = line[:1]
    if start == b"{":
        return _parse_object(line)
    try:
        if start != b"[":
            _as_value.decode(line)
            return _no_request("a request is an object or an array of them")
        if _has_too_many(line):
            return _no_request(f"a batch is an array of at most {BATCH_MEMBERS_MAX} objects")
        members = _as_array.decode(line)
    except UNREADABLE as error:
        return _unreadable(error)
    if not members:
        return _no_request("an empty array is no batch")
    return [_parse_member(bytes(member)) for member in members]


def _has_too_many(line: bytes) -> bool:
    """Whether an array has so many members that they should not even be taken apart. Raises UNREADABLE.

    Long arrays with a member that is no object count as such: then some comma-rich text is no batch anyhow.
    """
    if line.count(b",") < BATCH_MEMBERS_MAX:
        return False
    _as_value.decode(line)  # malformed is malformed, however long
    try:
        return len(_as_members.decode(line)) > BATCH_MEMBERS_MAX
    except msgspec.ValidationError:
        return True


def _parse_member(text: bytes) -> Parsed:
    if text[:1] != b"{":
        return _no_request("a member of a batch is an object")
    return _parse_object(text)


def _parse_object(text: bytes) -> Parsed:
    try:
        request = _as_request.decode(text)
    except UNREADABLE:
        return _explain_object(text)
    if (request.id is ABSENT or bytes(request.id)[0] in _ID_STARTS) and (
        request.params is ABSENT or bytes(request.params)[0] in _PARAMS_STARTS
    ):
        return request
    return _explain_object(text)


def _explain_object(text: bytes) -> Fault | None:
    """Say what is wrong with an object that is no valid request."""
    # Decoded anew without types: a typed decode stops at the first mismatch and does not see what is malformed behind.
    try:
        members = _as_object.decode(text)
    except UNREADABLE as error:
        return _unreadable(error)
    if "method" not in members and ("result" in members or "error" in members):
        return None
    given_id = bytes(members.get("id", ABSENT)) or NULL_ID
    if given_id[0] not in _ID_STARTS:
        return _no_request("id is a string, a number or null")
    if (
        "jsonrpc" not in members
        or bytes(members["jsonrpc"])[:1] != b'"'
        or _as_text.decode(members["jsonrpc"]) != "2.0"
    ):
        return _no_request('jsonrpc is "2.0"', given_id)
    if "method" not in members or bytes(members["method"])[:1] != b'"':
        return _no_request("method is a string", given_id)
    return _no_request("params is an object or an array", given_id)


def _no_request(expected: str, given_id: bytes = NULL_ID) -> Fault:
    return Fault(INVALID_REQUEST, "invalid_request", f"This is no valid request: {expected}.", id=given_id)


def _unreadable(error: Exception) -> Fault:
    if isinstance(error, RecursionError):
        return Fault(PARSE_ERROR, "parse_error", "The line is nested too deeply.")
    reason = str(error).removeprefix("JSON is malformed: ")[:QUOTED_CHARS_MAX]
    return Fault(PARSE_ERROR, "parse_error", f"The line is not valid JSON: {reason[:1].lower()}{reason[1:]}.")


# --- ids and cancellation --------------------------------------------------------------------------------------------


def id_key(raw: bytes) -> bytes | str:
    """What two spellings of the same id have in common: `"a"` and `"\\u0061"`, `1` and `1.0`."""
    if raw[:1] == b'"':
        return _as_text.decode(raw)
    if any(mark in raw for mark in b".eE") or raw == b"-0":
        value = float(raw)
        if value.is_integer() and abs(value) <= _EXACT_FLOAT_MAX:
            return b"%d" % int(value)
    return raw


def cancelled_id(params: Raw) -> bytes | str | None:
    """The key of the id that a `$/cancelRequest` names, by name or by position; None where it names none."""
    raw = bytes(params)
    try:
        named = raw[:1] == b"{"
        given = bytes(_as_object.decode(raw).get("id", ABSENT) if named else _as_array.decode(raw)[0])
    except (*UNREADABLE, IndexError):
        return None
    return id_key(given) if given and given[0] in _ID_STARTS else None


# --- what the bridge writes ------------------------------------------------------------------------------------------


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # File names and arguments from the operating system may hold lone surrogates, which JSON cannot.
        return _encoder.encode(_without_surrogates(msgspec.to_builtins(value)))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def encode_result(result: Any, given_id: bytes) -> bytes:
    """A success answer, without line end. Raises what msgspec raises on a value that is no JSON."""
    return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (_encode(result), given_id)


def encode_fault(fault: Fault, given_id: bytes) -> bytes:
    """An error answer, without line end. Never fails: what is no JSON is left out of it."""
    error: dict[str, Any] = {
        "code": fault.code,
        "message": fault.message,
        "data": {"kind": fault.kind, "sidecar": fault.sidecar, "detail": fault.detail},
    }
    try:
        encoded = _encode(error)
    except (TypeError, ValueError, OverflowError, RecursionError):
        encoded = _encode({**error, "data": {"kind": fault.kind, "sidecar": fault.sidecar, "detail": None}})
    return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (encoded, given_id)


def encode_body(params: model.Notification) -> bytes:
    """The params of a notification as a JSON object, still without `seq` and `epoch`."""
    return _encode(params)


def encode_notification(name: str, body: bytes, *, epoch: str, seq: int) -> bytes:
    """A notification with its `\\n`; `body` is what `encode_body` returned."""
    separator = b"," if len(body) > 2 else b""
    return b'{"jsonrpc":"2.0","method":"%b","params":{"seq":%d,"epoch":%b%b%b}\n' % (
        name.encode(),
        seq,
        _encode(epoch),
        separator,
        body[1:],
    )


def encode_ready(params: model.BridgeReady, *, epoch: str, seq: int) -> bytes:
    """The first line of every bridge, with its `\\n`."""
    return encode_notification("bridge_ready", encode_body(params), epoch=epoch, seq=seq)
