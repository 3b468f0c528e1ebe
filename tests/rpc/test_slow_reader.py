"""A shell that stops reading: nothing stalls, memory stays bounded, answers are kept, losses are counted."""

from __future__ import annotations

import json
import os
from typing import Any

import anyio
import pytest

from bridge import model
from bridge.rpc import server as server_module
from bridge.rpc.outbox import Outbox
from bridge.rpc.server import MESSAGE_BYTES_MIN

from . import peer
from .peer import served

pytestmark = pytest.mark.anyio

PING = b'{"jsonrpc":"2.0","method":"ping","id":%d}\n'


async def test_ten_thousand_requests_are_answered_to_a_client_that_writes_before_it_reads() -> None:
    async with served() as it:
        request = b'{"jsonrpc":"2.0","method":"get_sidecar_logs","params":{"lines":236},"id":%d}\n'
        await it.peer.send(b"".join(request % n for n in range(10_000)))
        for n in range(10_000):
            answer = json.loads(await it.peer.line())
            assert (answer["id"], len(answer["result"])) == (n, 236)


async def test_reading_pauses_before_memory_grows_and_no_answer_is_lost() -> None:
    async with served(max_outbound_bytes=1 << 20) as it:
        sent = 0
        request = b'{"jsonrpc":"2.0","method":"get_sidecar_logs","params":{"lines":10000},"id":%d}\n'
        with anyio.move_on_after(server_module.LAST_ANSWERS_S) as scope:
            while sent < 40_000:
                block = b"".join(request % n for n in range(sent, sent + 200))
                await it.peer.send(block)
                sent += 200
                assert it.outbox.pending_bytes < 1 << 20
        assert scope.cancelled_caught, "the server went on reading"
        # The block that was under way is unfinished; what was sent before it must be answered, in order.
        for n in range(sent):
            assert json.loads(await it.peer.line())["id"] == n


async def test_the_loop_and_notifications_go_on_while_nobody_reads() -> None:
    async with served(max_outbound_bytes=1 << 20) as it:
        await it.peer.send(b"".join(PING % n for n in range(2_000)))
        published = 0
        for round_ in range(300):
            it.outbox.publish(peer.log_lines("s", [f"{round_} " + "x" * 1000] * 10))
            published += 10
            it.outbox.publish(peer.metrics("web", round_))
            it.outbox.publish(peer.state_changed("web", round_))
            it.outbox.publish(peer.alert(str(round_)))
            assert it.outbox.pending_bytes <= 1 << 20
            await anyio.lowlevel.checkpoint()
        assert it.outbox.counters.sidecar_log > 0
        await it.peer.send(PING % 9999)
        answers, seqs, lines, alerts, states, samples, dropped = [], [], 0, [], [], 0, 0
        while True:
            message = await it.peer.message()
            if "id" in message:
                answers.append(message["id"])
            else:
                seqs.append(message["params"]["seq"])
                match message["method"]:
                    case "sidecar_log":
                        lines += len(message["params"]["entries"])
                        dropped += message["params"]["dropped"]
                        last = message["params"]["entries"][-1]["text"]
                    case "sidecar_metrics":
                        samples += 1 + message["params"]["dropped"]
                    case "sidecar_alert":
                        alerts.append(message["params"]["kind"])
                    case "sidecar_state_changed":
                        states.append(message["params"]["status"]["generation"])
            if 9999 in answers and it.outbox.pending_bytes == 0 and lines + dropped == published and samples == 300:
                break
        assert answers == [*range(2_000), 9999]
        assert seqs == list(range(1, len(seqs) + 1))
        assert alerts == [str(n) for n in range(300)]
        assert states == sorted(states)
        assert states[-1] == 299
        assert len(states) + it.outbox.counters.sidecar_state_changed == 300
        assert last.startswith("299 ")
        assert dropped == it.outbox.counters.sidecar_log
        assert await it.peer.pings()


async def test_a_waiting_request_can_be_cancelled_while_nobody_reads() -> None:
    async with served(max_outbound_bytes=1 << 20) as it:
        fill = b'{"jsonrpc":"2.0","method":"get_sidecar_logs","params":{"lines":100000},"id":"fill"}\n'
        await it.peer.send(fill * 20)
        await it.peer.ask("start_sidecar", ["a"], id=1)
        await it.peer.send(b'{"jsonrpc":"2.0","method":"$\\/cancelRequest","params":{"id":1}}\n')
        await it.peer.send(PING % 2)
        for _ in range(20):
            assert (await it.peer.message())["id"] == "fill"
        assert (await it.peer.message())["error"]["code"] == -32800
        assert (await it.peer.message())["result"] == "pong"
        assert it.stage.began == []


async def test_rubbish_does_not_grow_memory_either_while_nobody_reads() -> None:
    async with served(max_outbound_bytes=1 << 20) as it:
        with anyio.move_on_after(1.0) as scope:
            for _ in range(1_000):
                await it.peer.send(b"1\n" * 30_000)
                assert it.outbox.pending_bytes < 1 << 20
        assert scope.cancelled_caught


async def test_long_answers_are_made_only_as_the_shell_reads_them() -> None:
    async with served(max_outbound_bytes=4 << 20) as it:
        for n in range(200):
            await it.peer.ask("list_sidecar_log_files", ["a"], id=n)
        assert await it.peer.pings()
        it.stage.release.set()
        with anyio.move_on_after(0.3):
            while True:
                assert it.outbox.pending_bytes < 4 << 20
                await anyio.lowlevel.checkpoint()
        assert it.outbox.full
        answers = await it.peer.messages(200)
        assert sorted(a["id"] for a in answers) == list(range(200))
        assert {len(a["result"]) for a in answers} == {peer.BULKY_BYTES}
        assert it.stage.bulky_running_peak <= server_module.BULKY_RUNNING_MAX
        assert await it.peer.pings()


async def test_answers_of_requests_that_end_all_at_once_keep_to_the_bound() -> None:
    async with served(max_outbound_bytes=1 << 20) as it:
        for n in range(1_000):
            await it.peer.ask("start_sidecar", ["x" * 10_000], id=n)
        assert await it.peer.pings()
        it.stage.release.set()
        with anyio.move_on_after(0.3):
            while True:
                assert it.outbox.pending_bytes < 1 << 20
                await anyio.lowlevel.checkpoint()
        assert it.outbox.full
        answers = await it.peer.messages(1_000)
        assert sorted(a["id"] for a in answers) == list(range(1_000))
        assert {len(a["result"]) for a in answers} == {10_000}


async def test_batches_that_wait_hold_no_more_than_a_line_of_answers_together() -> None:
    async with served(max_message_bytes=1 << 16) as it:
        fast = {"jsonrpc": "2.0", "method": "get_sidecar_logs", "params": {"lines": 40_000}, "id": "fast"}
        slow = {"jsonrpc": "2.0", "method": "start_sidecar", "params": ["a"], "id": "slow"}
        for _ in range(20):
            await it.peer.send(json.dumps([slow, fast]).encode() + b"\n")
        assert await it.peer.pings()
        it.stage.release.set()
        fits = 0
        for batch in await it.peer.messages(20):
            answers = {a["id"]: a for a in batch}
            assert answers["slow"]["result"] == "a"
            fits += "result" in answers["fast"]
            assert "result" in answers["fast"] or answers["fast"]["error"]["code"] == -32603
        assert fits == 2
        assert len((await it.peer.exchange(json.dumps([fast]).encode()))[0]["result"]) == 40_000


# --- the outbox by itself --------------------------------------------------------------------------------------------


def outbox(max_outbound_bytes: int = 100_000, max_message_bytes: int = 1 << 20) -> Outbox:
    return Outbox(epoch="e", next_seq=5, max_message_bytes=max_message_bytes, max_outbound_bytes=max_outbound_bytes)


def written(box: Outbox) -> list[dict[str, object]]:
    data = b""
    while part := box.peek():
        data += part
        box.wrote(len(part))
    return [json.loads(line) for line in data.splitlines()]


def test_answers_go_ahead_of_log_lines_and_metrics_but_not_of_what_they_caused() -> None:
    box = outbox()
    box.publish(peer.log_lines("s", ["a"]))
    box.publish(peer.metrics("web", 1))
    box.publish(peer.alert("caused"))
    box.publish(peer.progress("web", 1))
    box.answer(b'{"id":1}')
    box.publish(peer.alert("later"))
    assert [m.get("method", "answer") for m in written(box)] == [
        "sidecar_alert",
        "sidecar_start_progress",
        "answer",
        "sidecar_alert",
        "sidecar_log",
        "sidecar_metrics",
    ]
    assert box.seq == 9
    assert box.messages_out == 6


def test_states_are_not_replaced_for_a_reader_that_keeps_up() -> None:
    box = outbox()
    for generation in range(3):
        box.publish(peer.state_changed("web", generation))
    assert len(written(box)) == 3
    assert box.counters.sidecar_state_changed == 0


def test_an_overtaken_state_is_replaced_behind_the_answers_that_came_meanwhile() -> None:
    box = outbox()
    box.answer(b'{"id":"' + b"x" * 70_000 + b'"}')
    box.publish(peer.state_changed("web", 1))
    box.publish(peer.state_changed("api", 1))
    box.answer(b'{"id":1}')
    box.publish(peer.state_changed("web", 2))
    rest = written(box)[1:]
    assert [m["params"]["sidecar"] if "params" in m else m["id"] for m in rest] == ["api", 1, "web"]  # type: ignore[index]
    assert box.counters.sidecar_state_changed == 1


def test_the_oldest_are_dropped_first_and_told_in_the_next_of_the_same_source() -> None:
    box = outbox(max_outbound_bytes=20_000)
    for n in range(30):
        box.publish(peer.log_lines("s", [f"{n}", "y" * 1000], dropped=1 if n == 0 else 0))
    box.publish(peer.log_lines("t", ["z"]))
    messages = [m["params"] for m in written(box)]
    first = int(messages[0]["entries"][0]["text"])  # type: ignore[index]
    assert first > 0
    assert [p["dropped"] for p in messages] == [2 * first + 1] + [0] * (len(messages) - 1)  # type: ignore[index]
    assert messages[-1]["subscription"] == "t"  # type: ignore[index]
    assert box.counters.sidecar_log == 2 * first + 1
    box.publish(peer.log_lines("s", ["next"]))
    assert written(box)[0]["params"]["dropped"] == 0  # type: ignore[index]


def test_what_may_not_be_dropped_is_kept_above_the_bound() -> None:
    box = outbox(max_outbound_bytes=5_000)
    for n in range(100):
        box.publish(peer.alert(str(n)))
        box.publish(peer.metrics("web", n))
    assert [m["method"] for m in written(box)] == ["sidecar_alert"] * 100
    assert box.counters.sidecar_metrics == 100
    box.publish(peer.metrics("web", 1))
    assert written(box)[0]["params"]["dropped"] == 100  # type: ignore[index]


def test_log_lines_above_the_message_limit_go_in_parts() -> None:
    box = outbox(max_message_bytes=8192)
    box.publish(peer.log_lines("s", ["x" * 3000] * 5, dropped=3))
    data = bytes(box.peek())
    assert all(len(line) < 8192 for line in data.splitlines())
    messages = [m["params"] for m in written(box)]
    assert sum(len(p["entries"]) for p in messages) == 5  # type: ignore[index,misc]
    assert [p["dropped"] for p in messages] == [3] + [0] * (len(messages) - 1)  # type: ignore[index]


def test_an_entry_that_no_line_can_hold_counts_as_dropped(caplog: pytest.LogCaptureFixture) -> None:
    box = outbox(max_message_bytes=4096)
    box.publish(peer.log_lines("s", ["x" * 5000]))
    box.publish(peer.log_lines("s", ["y"]))
    assert [m["params"]["dropped"] for m in written(box)] == [1]  # type: ignore[index]
    assert "above the message limit" in caplog.text


def test_text_that_json_cannot_hold_does_not_stop_a_notification() -> None:
    box = outbox()
    box.publish(peer.alert("k", {"path": "a\udc80"}))
    assert written(box)[0]["params"]["data"] == {"path": "a?"}  # type: ignore[index]


def test_partial_writes_tear_no_line() -> None:
    box = outbox()
    for n in range(20):
        box.publish(peer.alert(str(n)))
    data = b""
    while part := box.peek():
        data += part[:7]
        box.wrote(min(7, len(part)))
    assert [json.loads(line)["params"]["kind"] for line in data.splitlines()] == [str(n) for n in range(20)]


def long_status() -> model.StateChanged:
    """Everything in it is as long as it gets, and longer."""
    params = peer.state_changed("web", 7)
    params.status.last_exit = model.Exit(
        1, None, peer.AT, "crash", "unknown", "h" * 5_000, 1.0, ["\x00" * 1_000] * 20, [health_check()] * 5
    )
    params.status.error = model.SidecarFailure("crashed", "m" * 5_000, {"tail": ["d" * 1_000] * 20}, ["e" * 1_000] * 20)
    return params


def health_check() -> model.HealthCheck:
    return model.HealthCheck(peer.AT, False, None, None, "c" * 1_000)


def test_a_state_change_above_the_message_limit_goes_without_its_tails() -> None:
    box = outbox(max_message_bytes=MESSAGE_BYTES_MIN)
    box.publish(long_status())
    assert len(box.peek()) <= MESSAGE_BYTES_MIN
    (message,) = written(box)
    params: Any = message["params"]
    assert (params["state"], params["status"]["generation"]) == ("running", 7)
    assert params["status"]["last_exit"] == {
        "code": 1,
        "signal": None,
        "at": peer.AT,
        "cause": "crash",
        "cause_class": "unknown",
        "hint": "h" * 5_000,
        "uptime": 1.0,
        "stderr_tail": [],
        "checks": [],
    }
    assert params["status"]["error"] == {"kind": "crashed", "message": "m" * 5_000, "detail": None, "stderr_tail": []}


def test_a_state_change_goes_out_however_long_its_texts_are() -> None:
    box = outbox(max_message_bytes=MESSAGE_BYTES_MIN)
    params = long_status()
    params.reason = params.status.message = "\x00" * 100_000
    params.status.command = ["\x00" * 100_000] * 1_000
    box.publish(params)
    assert len(box.peek()) <= MESSAGE_BYTES_MIN
    (message,) = written(box)
    told: Any = message["params"]
    assert (told["sidecar"], told["status"]["generation"], len(told["reason"])) == ("web", 7, 200)


def test_what_is_published_stays_as_its_publisher_has_it() -> None:
    params = long_status()
    outbox(max_message_bytes=MESSAGE_BYTES_MIN).publish(params)
    assert params == long_status()


def test_an_alert_above_the_message_limit_goes_without_its_data() -> None:
    box = outbox(max_message_bytes=MESSAGE_BYTES_MIN)
    box.publish(peer.alert("crashed", {"tail": "x" * 100_000}))
    (message,) = written(box)
    params: Any = message["params"]
    assert (params["kind"], params["message"], params["data"]) == ("crashed", "a message", None)


def test_what_was_lost_before_it_came_here_counts_once() -> None:
    box = outbox(max_message_bytes=8192)
    box.publish(peer.log_lines("s", ["a"], dropped=5))
    assert box.counters.sidecar_log == 5
    # In parts, with a part that no line can hold.
    box.publish(peer.log_lines("s", ["x" * 3_000, "x" * 3_000, "x" * 3_000, "x" * 9_000], dropped=7))
    assert box.counters.sidecar_log == 5 + 7 + 1
    box.publish(peer.log_lines("s", ["x" * 9_000], dropped=2))
    assert box.counters.sidecar_log == 5 + 7 + 1 + 2 + 1
    box.publish(peer.log_lines("s", ["a"]))
    told = sum(m["params"]["dropped"] for m in written(box))  # type: ignore[index]
    assert told == box.counters.sidecar_log


def test_lost_here_after_a_loss_elsewhere_counts_both() -> None:
    box = outbox(max_outbound_bytes=10_000)
    for _ in range(50):
        box.publish(peer.log_lines("s", ["x" * 1_000], dropped=3))
    told = written(box)
    assert sum(m["params"]["dropped"] for m in told) == box.counters.sidecar_log  # type: ignore[index]
    assert len(told) + box.counters.sidecar_log == 50 + 50 * 3


def test_what_was_begun_elsewhere_is_written_first() -> None:
    box = Outbox(epoch="e", next_seq=2, max_message_bytes=8192, max_outbound_bytes=8192, first=b'_ready"}\n')
    assert box.pending_bytes == 9
    box.publish(peer.alert("k"))
    box.answer(b'{"id":1}')
    data = b""
    while part := box.peek():
        data += part[:4]
        box.wrote(min(4, len(part)))
    first, notice, answer = data.splitlines()
    assert first == b'_ready"}'
    assert json.loads(notice)["params"]["seq"] == 2
    assert json.loads(answer) == {"id": 1}
    assert box.pending_bytes == 0


async def test_what_was_begun_before_the_server_came_is_finished_by_it() -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    shell = peer.Peer(in_write, out_read)
    box = Outbox(epoch="e", next_seq=2, max_message_bytes=1 << 20, max_outbound_bytes=1 << 20, first=b'ready"\n')
    server = server_module.RpcServer(in_read, out_write, outbox=box, handlers={}, max_message_bytes=1 << 20)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.run)
            assert await shell.line() == b'ready"'
            shell.hang_up()
    finally:
        shell.hang_up()
        shell.stop_reading()
        os.close(in_read)
        os.close(out_write)
