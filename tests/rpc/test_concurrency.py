"""Requests run at once with each other, begin in order, and can be cancelled."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import anyio
import pytest

from bridge import model
from bridge.rpc import server as server_module
from bridge.rpc.outbox import Outbox

from .peer import LIMIT_S, served

assert sys.platform != "win32"

pytestmark = pytest.mark.anyio

CANCEL = "$/cancelRequest"


def note(method: str, params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n"


async def test_a_request_that_waits_delays_no_other() -> None:
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        assert await it.peer.pings()
        it.stage.release.set()
        assert await it.peer.message() == {"jsonrpc": "2.0", "result": "a", "id": 1}


async def test_requests_begin_in_the_order_in_which_they_came() -> None:
    async with served() as it:
        names = [str(n) for n in range(50)]
        await it.peer.send(
            b"".join(
                json.dumps({"jsonrpc": "2.0", "method": "restart_sidecar", "params": [name], "id": name}).encode()
                + b"\n"
                for name in names
            )
        )
        assert sorted(a["result"] for a in await it.peer.messages(50)) == sorted(names)
        assert it.stage.began == names


async def test_a_notification_that_a_request_causes_comes_before_its_answer() -> None:
    async with served() as it:
        await it.peer.ask("stop_sidecar")
        first, second = await it.peer.messages(2)
        assert (first["method"], first["params"]["kind"], first["params"]["seq"]) == ("sidecar_alert", "caused", 1)
        assert second["result"] == "stopped"


@pytest.mark.parametrize(
    ("given", "named"),
    [("1", "1"), ('"a"', '"\\u0061"'), ("1.0", "1"), ("null", "null"), ("12345678901234567890", None)],
)
async def test_a_running_request_is_cancelled_by_its_id(given: str, named: str | None) -> None:
    async with served() as it:
        await it.peer.send(f'{{"jsonrpc":"2.0","method":"start_sidecar","params":["a"],"id":{given}}}\n'.encode())
        assert await it.peer.pings()
        await it.peer.send(f'{{"jsonrpc":"2.0","method":"{CANCEL}","params":{{"id":{named or given}}}}}\n'.encode())
        answer = await it.peer.message()
        assert answer["error"]["code"] == -32800
        assert answer["error"]["data"]["kind"] == "request_cancelled"
        assert it.stage.cancelled == ["a"]


async def test_two_running_requests_with_one_id_are_both_cancelled() -> None:
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        await it.peer.ask("start_sidecar", ["b"], id=1)
        await it.peer.ask("start_sidecar", ["c"], id=2)
        assert await it.peer.pings()
        await it.peer.send(note(CANCEL, [1]))
        assert [a["error"]["code"] for a in await it.peer.messages(2)] == [-32800, -32800]
        it.stage.release.set()
        assert (await it.peer.message())["result"] == "c"


@pytest.mark.parametrize("params", [{"id": 99}, {}, [], None, {"id": {}}, {"id": [1]}, {"id": 1e300}, [True]])
async def test_cancelling_what_does_not_run_does_nothing(params: Any) -> None:
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        await it.peer.send(note(CANCEL, params))
        assert await it.peer.pings()
        assert it.stage.cancelled == []


async def test_a_cancellation_sent_as_a_request_is_answered() -> None:
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        await it.peer.ask(CANCEL, {"id": 1}, id=2)
        answers = {a["id"]: a for a in await it.peer.messages(2)}
        assert answers[1]["error"]["code"] == -32800
        assert answers[2]["result"] is None


@pytest.mark.parametrize("params", [{}, [], None, {"id": {}}, {"id": [1]}, [True], {"ids": 1}])
async def test_a_cancellation_sent_as_a_request_that_names_no_id_is_an_error(params: Any) -> None:
    async with served() as it:
        await it.peer.ask(CANCEL, params, id=2)
        error = (await it.peer.message())["error"]
        assert (error["code"], error["data"]["detail"]) == (-32602, {"field": "id"})
        assert error["message"].startswith("params.id: ")


async def test_a_cancellation_of_what_does_not_run_is_answered() -> None:
    async with served() as it:
        await it.peer.ask(CANCEL, {"id": 99}, id=2)
        assert await it.peer.message() == {"jsonrpc": "2.0", "result": None, "id": 2}


async def test_a_request_that_is_answered_already_cannot_be_cancelled() -> None:
    async with served() as it:
        await it.peer.ask("restart_sidecar", ["a"], id=1)
        assert (await it.peer.message())["result"] == "a"
        await it.peer.send(note(CANCEL, {"id": 1}))
        assert await it.peer.pings()


async def test_beyond_the_bound_requests_wait_for_their_turn_and_can_be_cancelled_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "RUNNING_MAX", 2)
    async with served() as it:
        for n in range(5):
            await it.peer.ask("start_sidecar", [str(n)], id=n)
        await it.peer.send(note(CANCEL, {"id": 2}))
        assert await it.peer.message() == {**await_error(2), "id": 2}
        await it.peer.send(note(CANCEL, {"id": 0}))
        assert await it.peer.message() == {**await_error(0), "id": 0}
        assert await it.peer.pings()
        assert it.stage.began == ["0", "1", "3"]
        it.stage.release.set()
        rest = {a["id"]: a["result"] for a in await it.peer.messages(3)}
        assert rest == {1: "1", 3: "3", 4: "4"}
        assert it.stage.began == ["0", "1", "3", "4"]


async def test_what_waits_for_its_turn_delays_nothing_that_needs_no_turn_and_no_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "RUNNING_MAX", 2)
    async with served() as it:
        for n in range(100):
            await it.peer.ask("start_sidecar", [str(n)], id=n)
        assert await it.peer.pings()
        await it.peer.ask("shutdown", id="s")
        assert await it.peer.message() == {"jsonrpc": "2.0", "result": "later", "id": "s"}
        assert it.stage.began == ["0", "1"]


async def test_what_goes_ahead_has_a_bound_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RUNNING_MAX", 1)
    monkeypatch.setattr(server_module, "URGENT_RUNNING_MAX", 1)
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        await it.peer.ask("shutdown", id="s")
        assert await it.peer.pings()
        it.stage.release.set()
        assert [a["id"] for a in await it.peer.messages(2)] == [1, "s"]


async def test_what_still_waits_for_its_turn_at_the_end_of_input_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RUNNING_MAX", 1)
    monkeypatch.setattr(server_module, "LAST_ANSWERS_S", 0.1)
    async with served() as it:
        for n in range(3):
            await it.peer.ask("start_sidecar", [str(n)], id=n)
        it.peer.hang_up()
        assert await it.end() == "eof"
        assert await it.server.drain(5.0)
        answers = await it.peer.messages(3)
        assert sorted(a["id"] for a in answers) == [0, 1, 2]
        assert {a["error"]["code"] for a in answers} == {-32800}
        assert it.stage.began == ["0"]


async def test_few_long_answers_are_in_the_making_at_a_time_and_short_ones_pass_them() -> None:
    async with served() as it:
        for n in range(5):
            await it.peer.ask("list_sidecar_log_files", [str(n)], id=n)
        assert await it.peer.pings()
        await it.peer.ask("restart_sidecar", ["r"], id="r")
        assert (await it.peer.message())["result"] == "r"
        assert it.stage.bulky_running == server_module.BULKY_RUNNING_MAX
        await it.peer.send(note(CANCEL, {"id": 3}))
        assert await it.peer.message() == {**await_error(0), "id": 3}
        it.stage.release.set()
        assert sorted(a["id"] for a in await it.peer.messages(4)) == [0, 1, 2, 4]
        assert it.stage.bulky_running_peak == server_module.BULKY_RUNNING_MAX
        assert "3" not in it.stage.began


def await_error(number: int) -> dict[str, Any]:
    data = {"kind": "request_cancelled", "sidecar": None, "detail": None}
    return {
        "jsonrpc": "2.0",
        "error": {"code": -32800, "message": "The request was cancelled.", "data": data},
        "id": number,
    }


async def test_the_end_of_input_ends_the_server_and_cancels_what_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LAST_ANSWERS_S", 0.1)
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        assert await it.peer.pings()
        it.peer.hang_up()
        assert await it.end() == "eof"
        assert it.stage.cancelled == ["a"]
        assert await it.server.drain(5.0)
        assert (await it.peer.message())["error"]["code"] == -32800


async def test_a_shell_that_is_gone_altogether_is_not_waited_for() -> None:
    async with served() as it:
        await it.peer.ask("start_sidecar", ["a"], id=1)
        assert await it.peer.pings()
        it.peer.hang_up()
        it.peer.stop_reading()
        with anyio.fail_after(server_module.LAST_ANSWERS_S - 0.5):
            await it.ended.wait()


async def test_an_output_that_nobody_reads_any_more_ends_the_server() -> None:
    async with served() as it:
        it.peer.stop_reading()
        await it.peer.ask("ping")
        assert await it.end() == "broken"
        it.outbox.publish(model.BridgeClosing("eof"))
        assert it.outbox.pending_bytes == 0
        assert await it.server.drain(1.0) is False


async def test_an_output_that_nobody_reads_any_more_ends_a_server_that_has_nothing_to_say() -> None:
    async with served() as it:
        assert await it.peer.pings()
        it.peer.stop_reading()
        assert await it.end() == "broken"


async def test_a_reader_that_was_gone_before_the_first_word_ends_the_server() -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.close(out_read)
    try:
        box = Outbox(epoch="e", next_seq=1, max_message_bytes=1 << 20, max_outbound_bytes=1 << 20)
        server = server_module.RpcServer(in_read, out_write, outbox=box, handlers={}, max_message_bytes=1 << 20)
        with anyio.fail_after(LIMIT_S):
            assert await server.run() == "broken"
    finally:
        for fd in (in_read, in_write, out_write):
            os.close(fd)


async def test_what_is_published_after_the_end_is_written_by_drain() -> None:
    async with served() as it:
        it.peer.hang_up()
        assert await it.end() == "eof"
        it.outbox.publish(model.BridgeClosing("eof"))
        assert await it.server.drain(5.0) is True
        assert (await it.peer.message())["method"] == "bridge_closing"
        for _ in range(1000):
            it.outbox.publish(model.SystemResumed("t" * 1000, 1.0))
        assert await it.server.drain(0.05) is False


async def test_descriptors_are_left_open_and_as_they_were_found() -> None:
    async with served() as it:
        assert await it.peer.pings()
        assert os.get_blocking(it.out_fd) is False
        it.peer.hang_up()
        await it.end()
        assert os.get_blocking(it.out_fd) is True


async def test_requests_in_the_callers_group_go_on_after_the_end_of_input() -> None:
    async with served() as it:
        in_read, in_write = os.pipe()
        try:
            other = server_module.RpcServer(
                in_read,
                it.out_fd,
                outbox=it.outbox,
                handlers=it.stage.handlers(),
                max_message_bytes=1 << 20,
            )
            async with anyio.create_task_group() as tasks:
                os.write(in_write, b'{"jsonrpc":"2.0","method":"start_sidecar","params":["a"],"id":1}\n')
                os.close(in_write)
                assert await other.run(tasks) == "eof"
                assert it.stage.began == ["a"]
                it.stage.release.set()
                assert await other.finish(5.0)
                assert (await it.peer.message())["result"] == "a"
                tasks.cancel_scope.cancel()
        finally:
            os.close(in_read)


async def test_what_is_cancelled_while_it_waits_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RUNNING_MAX", 4)
    monkeypatch.setattr(server_module, "QUEUE_BYTES_MAX", 64 * server_module.WORK_BYTES)
    async with served() as it:
        for number in range(5):  # the last one waits, and is the head of the queue for good
            await it.peer.ask("start_sidecar", ["a"], id=number)
        for number in range(200):
            await it.peer.ask("start_sidecar", ["a"], id=f"q{number}")
            await it.peer.send(note(CANCEL, {"id": f"q{number}"}))
            answer = await it.peer.message()
            assert (answer["id"], answer["error"]["code"]) == (f"q{number}", -32800)
        assert await it.peer.pings()
        it.stage.release.set()
