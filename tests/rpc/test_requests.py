"""What one line is answered with."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from bridge import errors, model
from bridge.logs.cursor import parse_cursor
from bridge.logs.times import parse_rfc3339
from bridge.rpc.params import ParamsReader

from .peer import served

pytestmark = pytest.mark.anyio


def request(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"1",
        b"0",
        b"-7",
        b"1.5",
        b"1.0",
        b"1e2",
        b"1E400",
        b"-0",
        b"123456789012345678901234567890",
        b"null",
        b'"a"',
        b'""',
        b'"\\u0061\\/"',
        '"ü☃"'.encode(),
    ],
)
async def test_an_id_comes_back_byte_for_byte(raw: bytes) -> None:
    async with served() as it:
        await it.peer.send(b'{"jsonrpc":"2.0","method":"ping","id": ' + raw + b" }\n")
        assert await it.peer.line() == b'{"jsonrpc":"2.0","result":"pong","id":' + raw + b"}"


@pytest.mark.parametrize("raw", ["true", "false", "[]", "{}", "[1]"])
async def test_an_id_of_another_type_is_an_invalid_request_with_id_null(raw: str) -> None:
    async with served() as it:
        answer = await it.peer.exchange(f'{{"jsonrpc":"2.0","method":"ping","id":{raw}}}'.encode())
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)


@pytest.mark.parametrize(
    ("line", "given_id"),
    [
        ('{"jsonrpc":"2.0","method":1,"params":"bar","id":3}', 3),
        ('{"jsonrpc":"1.0","method":"ping","id":"x"}', "x"),
        ('{"method":"ping","id":4}', 4),
        ('{"jsonrpc":2.0,"method":"ping","id":4}', 4),
        ('{"jsonrpc":"2.0","id":5}', 5),
        ('{"jsonrpc":"2.0","method":"ping","params":"bar","id":6}', 6),
        ('{"jsonrpc":"2.0","method":"ping","params":7,"id":6}', 6),
        ('{"jsonrpc":"2.0","method":"ping","params":true}', None),
        ('{"jsonrpc":"2.0","method":1}', None),
        ("{}", None),
        ('{"foo":"boo"}', None),
        ("[]", None),
        ("1", None),
        ('"ping"', None),
        ("null", None),
        ("true", None),
    ],
)
async def test_a_value_that_is_no_request_is_answered_with_its_id_where_that_can_be_read(
    line: str, given_id: object
) -> None:
    async with served() as it:
        answer = await it.peer.exchange(line.encode())
        assert answer["error"]["code"] == -32600
        assert answer["error"]["data"] == {"kind": "invalid_request", "sidecar": None, "detail": None}
        assert answer["id"] == given_id
        assert await it.peer.pings()


async def test_blank_lines_carriage_returns_unknown_members_and_doubled_keys_are_fine() -> None:
    async with served() as it:
        await it.peer.send(b"\n  \t \r\n\r\n")
        await it.peer.send(b' {"jsonrpc":"2.0","x":[{}],"method":"nope","method":"ping","id":1,"id":2}\r\n')
        assert await it.peer.message() == {"jsonrpc": "2.0", "result": "pong", "id": 2}


async def test_notifications_are_never_answered_even_when_they_fail() -> None:
    async with served() as it:
        for method in ("ping", "nope", "get_sidecar_status", "get_sidecar_logs"):
            await it.peer.send(request(method=method, params={"bad": 1}) + b"\n")
        assert await it.peer.pings()


async def test_response_objects_are_ignored() -> None:
    async with served() as it:
        await it.peer.send(b'{"jsonrpc":"2.0","result":1,"id":1}\n{"jsonrpc":"2.0","error":{"code":1},"id":1}\n')
        assert await it.peer.pings()


@pytest.mark.parametrize("method", ["nope", "rpc.xyz", "", "__init__", "x" * 100_000, "ü"])
async def test_an_unknown_method_is_said_to_be_one(method: str) -> None:
    async with served() as it:
        answer = await it.peer.exchange(request(method=method, id=1))
        assert answer["error"]["code"] == -32601
        assert answer["error"]["data"]["kind"] == "method_not_found"
        assert len(answer["error"]["message"]) < 200


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lines": "x"}, "params.lines: expected an integer, got a string"),
        ({"lines": 1.5}, "params.lines: expected an integer, got a number"),
        ({"lines": True}, "params.lines: expected an integer, got a boolean"),
        ({"lines": 0}, "params.lines: expected an integer >= 1, got 0"),
        ({"log_type": "foo"}, 'params.log_type: expected one of all, stderr, stdout, got "foo"'),
        ({"level": {}}, "params.level: expected a string, got an object"),
        ({"sidecar": ["x"]}, "params.sidecar: expected a string, got an array"),
        (["all", "x"], "params.lines: expected an integer, got a string"),
        (list(range(9)), "params: expected at most 8"),
        ({"colour": 1}, "params.colour: unknown param; known are log_type, lines"),
    ],
)
async def test_wrong_params_are_named_with_what_was_expected(params: Any, message: str) -> None:
    async with served() as it:
        answer = await it.peer.exchange(request(method="get_sidecar_logs", params=params, id=1))
        assert answer["error"]["code"] == -32602
        assert answer["error"]["data"]["kind"] == "invalid_params"
        assert answer["error"]["message"].startswith(message)
        assert answer["error"]["message"].endswith(".")
        path, _, _ = message.partition(":")
        assert answer["error"]["data"]["detail"] == {"field": path.removeprefix("params").removeprefix(".") or None}


@pytest.mark.parametrize("params", [{}, None, [], [None]])
async def test_a_required_param_that_is_missing_is_named(params: Any) -> None:
    async with served() as it:
        answer = await it.peer.exchange(request(method="unsubscribe_sidecar_logs", params=params, id=1))
        assert answer["error"]["code"] == -32602
        assert answer["error"]["message"] in (
            "params.subscription: missing.",
            "params.subscription: expected a string, got null.",
        )
        assert answer["error"]["data"]["detail"] == {"field": "subscription"}


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: parse_cursor("x", "before"),
        lambda: parse_rfc3339("x", "before"),
        lambda: ParamsReader(model.GetEventsParams).read(Raw(b'{"before":"x"}')),
    ],
)
def test_whoever_refuses_a_param_names_it_in_one_form(refuse: Callable[[], object]) -> None:
    with pytest.raises(errors.InvalidParams, match=r"^params\.before: .*\.$") as caught:
        refuse()
    assert caught.value.detail == {"field": "before"}


def test_the_place_within_a_param_is_in_the_sentence_alone() -> None:
    class Wanted(model.Params):
        names: list[str]

    with pytest.raises(
        errors.InvalidParams, match=r"^params\.names\[1\]: expected a string, got an integer\.$"
    ) as caught:
        ParamsReader(Wanted).read(Raw(b'{"names":["a",5]}'))
    assert caught.value.detail == {"field": "names"}


@pytest.mark.parametrize("raw", ["1e400", "9" * 5000, "-1e-400", "[" * 500 + "]" * 500])
async def test_numbers_and_nesting_that_no_field_can_hold_are_wrong_params(raw: str) -> None:
    async with served() as it:
        line = f'{{"jsonrpc":"2.0","method":"get_sidecar_logs","params":{{"lines":{raw}}},"id":1}}'
        answer = await it.peer.exchange(line.encode())
        assert answer["error"]["code"] == -32602
        assert answer["error"]["message"].startswith("params.lines: ")
        assert len(answer["error"]["message"]) < 300


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ({"lines": 7}, 7),
        (["all", 8], 8),
        ([None, 9, None], 9),
        ({"lines": None, "log_type": None}, 100),
        ([], 100),
        ({}, 100),
        (None, 100),
    ],
)
async def test_params_go_by_name_or_position_and_null_means_left_out(params: Any, size: int) -> None:
    async with served() as it:
        answer = await it.peer.exchange(request(method="get_sidecar_logs", params=params, id=1))
        assert answer["result"] == "x" * size


async def test_an_expected_failure_keeps_its_code_kind_sentence_and_detail() -> None:
    async with served() as it:
        answer = await it.peer.exchange(request(method="get_sidecar_status", id=1))
        assert answer["error"] == {
            "code": 1001,
            "message": "There is no sidecar x.",
            "data": {"kind": "sidecar_not_found", "sidecar": "x", "detail": ["a", "b"]},
        }


@pytest.mark.parametrize("method", ["get_sidecar_health", "get_sidecar_metrics", "get_sidecar_events"])
async def test_a_defect_tells_the_client_an_incident_and_the_log_the_rest(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as it:
        with caplog.at_level(logging.ERROR, logger="bridge.rpc"):
            answer = await it.peer.exchange(request(method=method, id=1))
        error = answer["error"]
        incident = error["data"]["detail"]["incident"]
        assert error["code"] == -32603
        assert len(incident) == 8
        assert incident in error["message"]
        assert "secret" not in json.dumps(error)
        assert ".py" not in json.dumps(error)
        (record,) = caplog.records
        assert record.name == "bridge.rpc"
        assert incident in record.getMessage()
        assert record.exc_info is not None
        assert await it.peer.pings()


async def test_text_that_json_cannot_hold_is_replaced_in_results() -> None:
    async with served() as it:
        answer = await it.peer.exchange(request(method="get_sidecar_events", params={"before": 1}, id=1))
        assert answer["result"] == {"x": "?"}


async def test_a_handler_may_return_an_awaitable() -> None:
    async with served() as it:
        assert (await it.peer.exchange(request(method="list_sidecars", id=1)))["result"] == "later"


async def test_a_result_above_the_message_limit_becomes_an_error_that_says_so() -> None:
    async with served(max_message_bytes=65_536) as it:
        for lines, fits in ((65_536 - 60, True), (65_536, False), (100_000, False)):
            await it.peer.ask("get_sidecar_logs", {"lines": lines})
            line = await it.peer.line()
            assert len(line) < 65_536
            assert ("result" in json.loads(line)) is fits
        assert json.loads(line)["error"]["data"]["detail"]["limit"] == 65_535


async def test_an_id_that_leaves_no_room_for_an_answer_is_not_repeated() -> None:
    async with served(max_message_bytes=65_536) as it:
        answer = await it.peer.exchange(request(method="ping", id="x" * 40_000))
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
        answer = await it.peer.exchange(request(method="get_sidecar_logs", params={"lines": 64_000}, id="x" * 32_000))
        assert (answer["error"]["code"], answer["id"]) == (-32603, "x" * 32_000)
