"""The wire itself, over real pipes: bad input in any shape, many requests at once, big batches, odd chunks."""

from __future__ import annotations

import json

import pytest

from bridge.contract import METHODS
from tests.support.bridge import REPOSITORY, run_bridge
from tests.support.kit import Kit

pytestmark = pytest.mark.timeout(60, method="signal")

BAD_LINES = {
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "closed deep arrays": b"[" * 50_000 + b"]" * 50_000,
    "a huge number": b"1" * 100_000,
    "not a number": b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
    "a lone surrogate": b'{"jsonrpc":"2.0","id":"\\ud800","method":5}',
    "a zero byte": b'{"jsonrpc":"2.0","id":1,\x00"method":"ping"}',
    "invalid UTF-8": b'{"jsonrpc":"2.0","id":"\xc3\x28","method":"ping"}',
    "a byte order mark": b"\xef\xbb\xbf[]",
    "half a request": b'{"jsonrpc":"2.0","id":1,"met',
    "two values": b'{"jsonrpc":"2.0"}{"jsonrpc":"2.0"}',
    "a long key": b'{"' + b"k" * 1_000_000 + b'":1}',
    "many keys": b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b"}",
    "a method of another type": b'{"jsonrpc":"2.0","id":1,"method":{"a":[]}}',
    "a batch of nothing good": b"[1,null,[],{},true]",
    "more than the message limit": b'"' + b"x" * 5_000_000 + b'"',
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_bad_input_is_answered_by_errors_and_the_next_line_is_served(kit: Kit, line: bytes) -> None:
    with kit.bridge({"sidecars": {}}) as bridge:
        bridge.send_raw(line + b"\n")
        assert bridge.call("ping") == "pong"
        answers = [message for message in bridge.messages if not isinstance(message, dict) or "method" not in message]
        assert len(answers) == 2
        first = answers[0]
        for one in first if isinstance(first, list) else [first]:
            assert one["error"]["code"] in (-32700, -32600)
            assert one["error"]["data"].keys() == {"kind", "sidecar", "detail"}
        assert "Traceback" not in bridge.stderr


@pytest.mark.parametrize("id", ["1e999999", "1.50", "-0", "1" * 400, '"\\u00fc\\/"', "null"])
def test_an_id_is_echoed_as_it_was_written(kit: Kit, id: str) -> None:
    with kit.bridge({"sidecars": {}}) as bridge:
        bridge.send_raw(f'{{"jsonrpc":"2.0","id":{id},"method":"ping"}}\n'.encode())
        bridge.call("ping")
        line = next(line for line in bridge.lines if b"pong" in line)
        assert f'"id":{id}'.encode() in line.replace(b'"id": ', b'"id":')


def test_a_line_may_come_in_any_pieces(kit: Kit) -> None:
    with kit.bridge({"sidecars": {}}) as bridge:
        for byte in b'{"jsonrpc":"2.0","id":"\xc3\xbc","method":"ping"}\r\n':
            bridge.send_raw(bytes([byte]))
        assert bridge.result("ü") == "pong"
        bridge.send_raw(b'{"jsonrpc":"2.0","id":"a","method":"ping"}\n{"jsonrpc":"2.0","id":"b","method":"pi')
        assert bridge.result("a") == "pong"
        bridge.send_raw(b'ng"}\n')
        assert bridge.result("b") == "pong"


def test_a_thousand_requests_at_once_are_all_answered(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        lines = [json.dumps({"jsonrpc": "2.0", "id": n, "method": "get_sidecar_status"}) for n in range(1000)]
        bridge.send_raw("\n".join([*lines, ""]).encode())
        assert {bridge.result(n)["state"] for n in range(1000)} == {"stopped"}


def test_a_client_that_writes_everything_before_it_reads_is_served(kit: Kit) -> None:
    with kit.bridge({"sidecars": {}}, reading=False) as bridge:
        count = 2000
        for number in range(count):
            bridge.send("ping", id=f"n{number}")
        bridge.resume_reading()
        for number in range(count):
            assert bridge.result(f"n{number}") == "pong"


def test_a_big_batch_is_answered_by_one_array(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        batch = [{"jsonrpc": "2.0", "id": f"b{number}", "method": "ping"} for number in range(500)]
        batch.append({"jsonrpc": "2.0", "id": "start", "method": "start_sidecar"})
        bridge.send_raw(json.dumps(batch).encode() + b"\n")
        assert bridge.result("start")["state"] == "running"
        (array,) = [message for message in bridge.messages if isinstance(message, list)]
        assert {answer["id"] for answer in array} == {request["id"] for request in batch}


def test_params_by_position_and_by_name_are_the_same(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar(), other=kit.sidecar())) as bridge:
        assert bridge.call("start_sidecar", ["nap", True])["state"] == "running"
        assert bridge.call("stop_sidecar", {"force": True, "sidecar": "nap"})["state"] == "stopped"
        assert bridge.call("get_sidecar_logs", ["all", 5, "nap", None])["entries"] == []


def test_the_document_is_the_committed_one_and_names_every_method(kit: Kit) -> None:
    with kit.bridge({"sidecars": {}}) as bridge:
        document = bridge.call("rpc.discover")
        assert document == json.loads((REPOSITORY / "schemas" / "openrpc.json").read_text())
        assert {method["name"] for method in document["methods"]} == set(METHODS)


def test_one_call_can_be_made_from_a_command_line(kit: Kit) -> None:
    path = kit.folder / "sidecars.json"
    path.write_text(json.dumps({"log_dir": "logs", **kit.config(nap=kit.sidecar())}))
    done = run_bridge("call", "list_sidecars", "--config", str(path))
    assert done.returncode == 0, done.stderr
    assert [status["sidecar"] for status in json.loads(done.stdout)] == ["nap"]
    done = run_bridge("call", "start_sidecar", '{"sidecar": "none"}', "--config", str(path))
    assert done.returncode != 0
    assert b"1001" in done.stdout + done.stderr
