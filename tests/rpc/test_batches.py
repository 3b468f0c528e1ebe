"""Arrays of requests."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest

from bridge.rpc.messages import BATCH_MEMBERS_MAX, Fault, parse

from .peer import served

pytestmark = pytest.mark.anyio


def call(method: str = "ping", **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **members}


async def test_a_batch_is_answered_by_one_array_with_an_answer_for_each_request() -> None:
    async with served() as it:
        batch = [call(id=1), call(), call("nope", id=2), 1, {"foo": 1}, [call(id=9)], call(id="x")]
        answer = await it.peer.exchange(json.dumps(batch).encode())
        outcomes = sorted((str(a["id"]), a.get("result") or a["error"]["code"]) for a in answer)
        assert outcomes == sorted(
            [("1", "pong"), ("2", -32601), ("None", -32600), ("None", -32600), ("None", -32600), ("x", "pong")]
        )


async def test_invalid_members_alone_are_answered_in_an_array_too() -> None:
    async with served() as it:
        answer = await it.peer.exchange(b"[1,2,3]")
        assert [a["error"]["code"] for a in answer] == [-32600] * 3
        assert [a["id"] for a in answer] == [None] * 3


async def test_an_empty_array_is_one_error_and_no_array() -> None:
    async with served() as it:
        answer = await it.peer.exchange(b" [ ] ")
        assert answer["error"]["code"] == -32600


async def test_a_batch_without_requests_to_answer_is_not_answered() -> None:
    async with served() as it:
        await it.peer.send(
            json.dumps([call(), call("nope"), {"jsonrpc": "2.0", "result": 1, "id": 1}]).encode() + b"\n"
        )
        assert await it.peer.pings()


async def test_a_batch_with_a_syntax_error_is_one_parse_error() -> None:
    async with served() as it:
        answer = await it.peer.exchange(b'[{"jsonrpc":"2.0","method":"ping","id":1},{"jsonrpc":"2.0","method"]')
        assert (answer["error"]["code"], answer["id"]) == (-32700, None)


async def test_members_run_at_once_and_the_slowest_ends_the_batch() -> None:
    async with served() as it:
        batch = [call("start_sidecar", params=["a"], id=1), call(id=2), call("start_sidecar", params=["b"], id=3)]
        await it.peer.send(json.dumps(batch).encode() + b"\n")
        assert await it.peer.pings()
        assert it.stage.began == ["a", "b"]
        it.stage.release.set()
        assert sorted((a["id"], a["result"]) for a in await it.peer.message()) == [(1, "a"), (2, "pong"), (3, "b")]


async def test_a_member_can_be_cancelled_alone() -> None:
    async with served() as it:
        batch = [call("start_sidecar", params=["a"], id=1), call("start_sidecar", params=["b"], id=2)]
        await it.peer.send(json.dumps(batch).encode() + b"\n")
        assert await it.peer.pings()
        await it.peer.send(json.dumps([call("$/cancelRequest", params={"id": 1})]).encode() + b"\n")
        assert await it.peer.pings()
        it.stage.release.set()
        answers = {a["id"]: a for a in await it.peer.message()}
        assert answers[1]["error"]["code"] == -32800
        assert answers[2]["result"] == "b"


async def test_answers_that_do_not_fit_into_the_line_are_replaced_by_errors() -> None:
    async with served(max_message_bytes=65_536) as it:
        batch = [call("get_sidecar_logs", params={"lines": 24_000}, id=n) for n in range(5)] + [call(id=9)]
        await it.peer.send(json.dumps(batch).encode() + b"\n")
        line = await it.peer.line()
        assert len(line) < 65_536
        answers = {a["id"]: a for a in json.loads(line)}
        assert len(answers) == 6
        assert answers[9]["result"] == "pong"
        assert [("result" in answers[n]) for n in range(5)] == [True, True, False, False, False]
        assert answers[4]["error"]["code"] == -32603


async def test_a_batch_whose_answers_could_not_fit_is_refused_before_any_of_it_runs() -> None:
    async with served(max_message_bytes=65_536) as it:
        batch = b"[" + b",".join(json.dumps(call("start_sidecar", id=n)).encode() for n in range(640)) + b"]"
        answer = await it.peer.exchange(batch)
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
        assert it.stage.began == []


async def test_ten_thousand_members_are_answered_within_the_usual_limit() -> None:
    async with served() as it:
        answer = await it.peer.exchange(json.dumps([call(id=n) for n in range(10_000)]).encode())
        assert sorted(a["id"] for a in answer) == list(range(10_000))


@pytest.mark.parametrize(
    "batch",
    [
        b"[" + b",".join([b"1"] * 2_000_000) + b"]",
        b"[" + b",".join([b"{}"] * 1_300_000) + b"]",
        b"[" + b",".join([b'{"jsonrpc":"2.0","method":"ping"}'] * (BATCH_MEMBERS_MAX + 1)) + b"]",
        b"[" + b",".join([b"[]"] * 1_300_000) + b"]",
    ],
    ids=["numbers", "empty objects", "notifications", "arrays"],
)
def test_more_members_than_a_batch_may_have_are_refused_at_once_and_in_little_memory(batch: bytes) -> None:
    tracemalloc.start()
    try:
        begin = time.process_time()
        parsed = parse(batch)
        spent_s, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(parsed, Fault)
    assert (parsed.code, parsed.id) == (-32600, b"null")
    assert str(BATCH_MEMBERS_MAX) in parsed.message
    # Taking two million members apart took 6 s and 600 MB.
    assert spent_s < 3
    assert peak < 100_000_000


async def test_one_error_answers_a_batch_with_too_many_members_and_the_next_line_is_served() -> None:
    async with served() as it:
        answer = await it.peer.exchange(b"[" + b",".join([b"1"] * 2_000_000) + b"]")
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
        assert await it.peer.pings()


def test_a_malformed_array_is_a_parse_error_however_many_members_it_has() -> None:
    parsed = parse(b"[" + b"1," * 100_000 + b"]")
    assert isinstance(parsed, Fault)
    assert parsed.code == -32700


async def test_a_batch_of_few_members_may_have_params_with_many_commas() -> None:
    async with served() as it:
        batch = [call(id=1), call("get_sidecar_status", params={"sidecar": "," * 500_000}, id=2)]
        batch.append(call(params=list(range(200_000)), id=3))
        answers = {a["id"]: a for a in await it.peer.exchange(json.dumps(batch).encode())}
        assert answers[1]["result"] == "pong"
        assert answers[2]["error"]["code"] == 1001
        assert answers[3]["error"]["code"] == -32602


async def test_as_many_members_as_a_batch_may_have_are_served() -> None:
    async with served(max_message_bytes=16 << 20, max_outbound_bytes=32 << 20) as it:
        answer = await it.peer.exchange(json.dumps([call(id=n) for n in range(BATCH_MEMBERS_MAX)]).encode())
        assert len(answer) == BATCH_MEMBERS_MAX
