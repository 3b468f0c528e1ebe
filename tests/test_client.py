"""The blocking client against programs that speak, flood, mumble and die."""

from __future__ import annotations

import sys
import time

import psutil
import pytest

from bridge.client import MESSAGES_MAX, BridgeEnded, CallError, Client, Json, NotInTime

ECHO = [sys.executable, "-m", "tests.support.echo_bridge"]
FLOOD = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    for number in range({count}):
        print(json.dumps({{"jsonrpc": "2.0", "method": "told", "params": {{"number": number}}}}))
    print(json.dumps({{"jsonrpc": "2.0", "id": request["id"], "result": "done"}}), flush=True)
"""
CROSSED = """
import json, sys
first = json.loads(sys.stdin.readline())
second = json.loads(sys.stdin.readline())
for request in (second, first):
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["method"]}), flush=True)
sys.stdin.read()
"""


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_notifications_come_in_order_and_before_the_answer_they_precede() -> None:
    seen: list[tuple[str, Json]] = []
    with Client(ECHO, on_notification=lambda name, params: seen.append((name, params))) as client:
        result = client.call("tell")
        assert result["name"] == "n-1"
        assert [params["number"] for name, params in seen if name == "told"] == [0, 1, 2]
        assert client.close() == 0


def test_more_notifications_than_are_read_ahead_all_arrive() -> None:
    count = MESSAGES_MAX * 3
    seen: list[int] = []
    command = python(FLOOD.format(count=count))
    with Client(command, on_notification=lambda _, params: seen.append(params["number"])) as client:
        assert client.call("anything") == "done"
    assert seen == list(range(count))


def test_a_client_that_never_waits_can_be_closed_in_a_flood() -> None:
    with Client(python(FLOOD.format(count=MESSAGES_MAX * 3))) as client:
        client.send("anything")
        assert client.close() == 0


def test_answers_that_cross_reach_their_requests() -> None:
    with Client(python(CROSSED)) as client:
        first, second = client.send("one"), client.send("two")
        assert client.answer(first) == "one"
        assert client.answer(second) == "two"


def test_an_error_answer_is_raised_with_what_it_says() -> None:
    with Client(ECHO) as client, pytest.raises(CallError, match="no nonsense") as caught:
        client.call("nonsense")
    assert (caught.value.code, caught.value.kind) == (-32601, "method_not_found")


def test_lines_that_are_no_messages_are_passed_over() -> None:
    with Client(ECHO) as client:
        assert client.call("garble") is None
        assert client.call("ping") == "pong"


def test_the_end_of_the_command_ends_a_wait_and_tells_its_exit_code() -> None:
    with Client(ECHO) as client, pytest.raises(BridgeEnded) as caught:
        client.call("exit", [3])
    assert caught.value.exit_code == 3


def test_a_request_to_a_command_that_has_ended_is_refused() -> None:
    with Client(python("")) as client:
        client.pump(10)
        with pytest.raises(BridgeEnded):
            for _ in range(100):
                client.call("ping")


def test_a_wait_is_bounded() -> None:
    with Client(python("import sys; sys.stdin.read()")) as client:
        began = time.monotonic()
        with pytest.raises(NotInTime):
            client.call("ping", timeout_s=0.1)
        assert time.monotonic() - began < 5


def test_a_command_that_ignores_the_end_of_its_input_is_killed_when_the_block_ends() -> None:
    stubborn = "import time; print('{}', flush=True); time.sleep(60)"
    with Client(python(stubborn), close_timeout_s=0.2) as client:
        with pytest.raises(NotInTime):
            client.close()
        pid = client.pid
    assert not psutil.pid_exists(pid)


def test_what_outlived_its_bound_is_not_waited_for_twice() -> None:
    stubborn = "import time; print('{}', flush=True); time.sleep(60)"
    with Client(python(stubborn), close_timeout_s=3) as client:
        with pytest.raises(NotInTime):
            client.close()
        began = time.monotonic()
    assert time.monotonic() - began < 2


def test_a_bound_given_to_close_leaves_the_rest_of_the_other() -> None:
    patient = "import sys, time; sys.stdin.read(); time.sleep(1)"
    with Client(python(patient)) as client:
        with pytest.raises(NotInTime):
            client.close(0.1)
        process = psutil.Process(client.pid)
        assert process.is_running()
    assert client.close() == 0


def test_a_descendant_that_keeps_the_output_open_does_not_hold_up_the_end() -> None:
    lingering = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(4)'])"
    with Client(python(lingering)) as client:
        began = time.monotonic()
        assert client.close() == 0
        assert time.monotonic() - began < 3
