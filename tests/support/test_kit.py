"""The test kit itself: the client, the transcript player and the fault sidecar do what the end-to-end tests assume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import survivors
from .bridge import Bridge, RpcError
from .kit import Kit, control, fetch, stranger
from .transcript import Mismatch, Player, match, parse

assert sys.platform != "win32"

ECHO = [sys.executable, str(Path(__file__).with_name("echo_bridge.py"))]


def echo(kit: Kit) -> Bridge:
    return kit.bridge({"sidecars": {}}, command=ECHO)


@contextmanager
def sidecar(kit: Kit, *flags: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        kit.fault(*flags), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            for pid in kit.alive():
                survivors.kill(pid)


def deaf(pid: int) -> bool:
    """Whether a process has got as far as ignoring SIGTERM."""
    ignored = Path(f"/proc/{pid}/status").read_text().split("SigIgn:")[1].split()[0]
    return bool(int(ignored, 16) & 1 << (signal.SIGTERM - 1))


def port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().split()[-1])


# --- the client -------------------------------------------------------------------------------------------------------


def test_the_client_tells_results_errors_and_notifications_apart(kit: Kit) -> None:
    with echo(kit) as bridge:
        assert bridge.call("ping") == "pong"
        error = bridge.refusal("nonsense")
        assert (error.code, error.kind, error.message) == (-32601, "method_not_found", "no nonsense")
        since = bridge.mark()
        bridge.call("tell")
        assert bridge.wait_for("told", lambda p: p["number"] == 2, since=since)["number"] == 2
        assert [params["number"] for params in bridge.of("told")] == [0, 1, 2]


def test_the_client_bounds_its_waits(kit: Kit) -> None:
    with echo(kit) as bridge, pytest.raises(AssertionError, match=r"not within 0.05 s: a never notification"):
        bridge.wait_for("never", timeout=0.05)


def test_the_client_notices_that_the_bridge_ended_instead_of_waiting(kit: Kit) -> None:
    began = time.monotonic()
    with echo(kit) as bridge:
        with pytest.raises(AssertionError, match="ended before"):
            bridge.call("exit", ["0"], timeout=20)
        assert bridge.wait_exit() == 0
    assert time.monotonic() - began < 10


def test_the_client_fails_on_another_exit_code_than_0(kit: Kit) -> None:
    with pytest.raises(AssertionError, match="exit code 4"), echo(kit) as bridge:
        bridge.send("exit", ["4"])
        bridge.close()


def test_the_client_fails_on_a_gap_in_seq(kit: Kit) -> None:
    with pytest.raises(AssertionError, match="seq 7 where 2 was due"), echo(kit) as bridge:
        bridge.call("skip")


def test_the_client_fails_on_a_line_that_is_no_json(kit: Kit) -> None:
    with pytest.raises(AssertionError, match="no JSON on the wire"), echo(kit) as bridge:
        bridge.call("garble")


def test_the_client_stops_reading_on_request(kit: Kit) -> None:
    with echo(kit) as bridge:
        bridge.call("ping")
        bridge.pause_reading()
        id = bridge.send("ping")
        with pytest.raises(AssertionError):
            bridge.answer(id, timeout=0.2)
        bridge.resume_reading()
        assert bridge.result(id) == "pong"


def test_a_survivor_is_named_and_ended(kit: Kit) -> None:
    with subprocess.Popen(kit.sleeper()) as process:
        with pytest.raises(AssertionError, match=f"alive 0.05 s after the end: .*{process.pid} tail -f"):
            survivors.assert_gone(kit.token, 0.05)
        assert process.wait(5) == -survivors.SIGKILL


# --- transcripts ------------------------------------------------------------------------------------------------------


def play(kit: Kit, text: str) -> None:
    path = kit.folder / "test.rpc"
    path.write_text(text)
    Player(parse(path), kit).play(command=ECHO)


GOOD = """
# a comment
config:
[sidecars]
---
< {"method": "bridge_ready", "params": {"protocol_version": "1", "pid": "<int>"}}
> {"id": 1, "method": "ping"}
< {"jsonrpc": "2.0", "id": 1, "result": "pong"}
> {"id": 2, "method": "tell"}
<? {"method": "told", "params": {"number": 2}}
<? {"method": "told", "params": {"number": 0}}
< {"id": 2, "result": {"name": "<name:n>", "port": "<name:port>", "...": "..."}}
~ told
> {"id": 3, "method": "tell"}
< {"id": 3, "result": {"name": "<re:^n-\\\\d$>", "port": "<name:port>", "ratio": "<float>", "ok": true}}
> {"id": 4, "method": "echo", "params": ["{{n}}", {{port}}, "{{TOKEN}}"]}
< {"id": 4, "result": ["n-1", 5, "..."]}
> {nonsense
< {"id": null, "error": {"code": -32700, "...": "..."}}
>x 7b0a
< {"id": null, "error": {"code": -32700, "...": "..."}}
"""


def test_a_transcript_is_played(kit: Kit) -> None:
    play(kit, GOOD)


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ('"result": "pong"', '"result": "peng"', "expected 'peng', got 'pong'"),
        ('"pid": "<int>"', '"pid": "<string>"', "expected <string>, got 7"),
        ('"pid": "<int>"', '"...": "..", "none": 1', "none is missing"),
        (', "ok": true', "", "unexpected members"),
        (', "ok": true', ', "ok": 1', "expected 1, got True"),
        ('["n-1", 5, "..."]', '["n-1", 5]', "expected 2 items"),
        ('["n-1", 5, "..."]', '["n-1", "<name:n>", "..."]', "again, got 5"),
        ("~ told\n", "", "id is missing"),
    ],
)
def test_a_transcript_that_does_not_fit_says_where(kit: Kit, line: str, instead: str, said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        play(kit, GOOD.replace(line, instead))


def test_a_transcript_is_bounded_where_nothing_comes(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.transcript.LINE_TIMEOUT_S", 0.1)
    with pytest.raises(Mismatch, match=r"(?s)test.rpc:\d+: <\? .*looked at"):
        play(kit, GOOD + '<? {"method": "never", "params": {}}\n')


def test_a_transcript_does_not_wait_for_another_answer_to_the_same_request(kit: Kit) -> None:
    began = time.monotonic()
    with pytest.raises(Mismatch, match="expected 'peng', got 'pong'"):
        play(kit, '> {"id": 1, "method": "ping"}\n<? {"id": 1, "result": "peng"}\n')
    assert time.monotonic() - began < 10


def test_a_transcript_waits_for_the_exit(kit: Kit) -> None:
    play(kit, '> {"id": 1, "method": "exit", "params": [3]}\n! wait exit 3\n')
    with pytest.raises(Mismatch, match="exit code 3"):
        play(kit, '> {"id": 1, "method": "exit", "params": [3]}\n! wait exit 0\n')


@pytest.mark.parametrize("text", ["what is this", "config:\nno end", "<no space"])
def test_a_file_that_is_no_transcript_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.rpc"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.rpc"):
        parse(path)


def test_a_transcript_tells_which_methods_and_codes_it_covers(tmp_path: Path) -> None:
    path = tmp_path / "some.rpc"
    path.write_text(
        '> {"id":1,"method":"ping"}\n< {"id":1,"result":"pong"}\n'
        '> {"id":2,"method":"other"}\n< {"id":2,"error":{"code":1001,"...":"..."}}\n> {broken\n'
    )
    transcript = parse(path)
    assert transcript.sent_methods() == {"ping"}
    assert transcript.error_codes() == {1001}


@pytest.mark.parametrize(
    ("expected", "got", "fits"),
    [
        ("<any>", None, True),
        ("<int>", 1, True),
        ("<int>", 1.5, False),
        ("<int>", True, False),
        ("<float>", 1, True),
        ("<time>", "2026-11-24T20:45:10.123Z", True),
        ("<time>", "2026-11-24T20:45:10Z", False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": None}, {}, False),
        (["..."], [], True),
        ([1, "..."], [], False),
    ],
)
def test_a_value_matches_what_is_expected(expected: Any, got: Any, fits: bool) -> None:
    assert (match(expected, got, {}) is None) is fits


# --- the fault sidecar ------------------------------------------------------------------------------------------------


def test_the_fault_sidecar_changes_its_health_on_request(kit: Kit) -> None:
    with sidecar(kit, "--port", "0") as process:
        port = port_of(process)
        assert fetch(port, "/health") == "ok"
        control(port, "status/500")
        with pytest.raises(AssertionError, match="500 not ok"):
            fetch(port, "/health")
        control(port, "status/200")
        control(port, "hang")
        with pytest.raises(TimeoutError):
            fetch(port, "/health", timeout=0.2)
        control(port, "unhang")
        assert fetch(port, "/health") == "ok"
        control(port, "leak")
        control(port, "crash/3")
        assert process.wait(5) == 3


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--exit-at-start", "7"], 7),
        (["--exit-after", "0.05", "--exit-code", "4"], 4),
        (["--crash-signal", "SIGSEGV"], -signal.SIGSEGV),
        (["--exit-after", "0.05", "--crash-signal", "SIGKILL"], -survivors.SIGKILL),
    ],
)
def test_the_fault_sidecar_ends_as_told(kit: Kit, flags: list[str], code: int) -> None:
    with sidecar(kit, *flags) as process:
        assert process.wait(5) == code


def test_the_fault_sidecar_ignores_signals_when_told(kit: Kit) -> None:
    with sidecar(kit, "--ignore-term", "--children", "1", "--print", "up") as process:
        assert process.stdout is not None
        process.stdout.readline()
        kit.wait_alive(2)
        for pid in kit.alive():
            survivors.until(lambda pid=pid: deaf(pid), 5, "SIGTERM ignored")  # type: ignore[misc]
            os.kill(pid, signal.SIGTERM)
        assert len(kit.alive()) == 2


def test_the_fault_sidecar_takes_its_time_to_stop(kit: Kit) -> None:
    with sidecar(kit, "--slow-stop", "0.3", "--term-code", "5", "--print", "up") as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        process.terminate()
        assert process.wait(5) == 5
        assert time.monotonic() - began >= 0.3
        assert b"stopped" in process.stdout.read()


def test_the_fault_sidecar_leaves_a_grandchild_in_its_own_session_without_environment(kit: Kit) -> None:
    with sidecar(kit, "--fork-away", "--empty-env", "--print", "up") as process:
        assert process.stdout is not None

        def others() -> list[int]:
            # The one between the two may still be there: it has the leader's session.
            session = os.getsid(process.pid)
            return [pid for pid in kit.alive() if survivors.alive(pid) and os.getsid(pid) != session]

        deadline = time.monotonic() + 10
        while not others() and time.monotonic() < deadline:
            time.sleep(0.01)
        (away,) = others()
        assert Path(f"/proc/{away}/environ").read_bytes() == b""
        process.kill()
        process.wait(5)
        assert survivors.alive(away)
        # It holds the pipe: there is no end of output although the leader is gone.
        os.set_blocking(process.stdout.fileno(), False)
        assert process.stdout.read(100) == b"up\n"
        assert process.stdout.read(100) is None


def test_the_fault_sidecar_stops_itself(kit: Kit) -> None:
    with sidecar(kit, "--stop-self") as process:
        survivors.until(lambda: survivors.state_of(process.pid) == "T", 5, "stopped")


def test_the_fault_sidecar_writes_what_it_is_told(kit: Kit) -> None:
    flags = ["--lines", "3", "--stderr-lines", "2", "--rubbish", "--no-newline", "--print-env", "NO_SUCH_NAME"]
    with sidecar(kit, *flags, "--exit-at-start", "0") as process:
        out, err = process.communicate(timeout=5)
    assert b"stdout line 000000002" in out
    assert b"NO_SUCH_NAME is unset" in out
    assert err.count(b"stderr line") == 2
    assert out.endswith(b"a line without its end")
    with pytest.raises(UnicodeDecodeError):
        out.decode()


def test_the_fault_sidecar_closes_its_pipes_and_lives(kit: Kit) -> None:
    with sidecar(kit, "--print", "last", "--close-pipes") as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"last\n"
        assert process.poll() is None


def test_the_fault_sidecar_counts_its_starts(kit: Kit) -> None:
    file = str(kit.work / "starts")
    for expected in (1, 1, None):
        with sidecar(kit, "--exit-nth", "2", file, "--print", "up") as process:
            if expected is None:
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n"
            else:
                assert process.wait(5) == expected


def test_the_fault_sidecar_ends_with_its_stdin(kit: Kit) -> None:
    with sidecar(kit, "--stdin-exits", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(5) == 0


def test_the_fault_sidecar_can_serve_from_a_child(kit: Kit) -> None:
    with sidecar(kit, "--port", "0", "--serve-in-child") as process:
        port = port_of(process)
        assert int(fetch(port, "/pid")) != process.pid


def test_a_stranger_answers_everything_with_200() -> None:
    with stranger() as port:
        assert survivors.listeners(port)
        assert fetch(port, "/anything") == "ok"
    assert not survivors.listeners(port)


def test_an_error_answer_keeps_what_it_told() -> None:
    error = RpcError({"code": 1001, "message": "none", "data": {"kind": "k", "sidecar": None, "detail": [1]}})
    assert (error.kind, error.detail) == ("k", [1])
    assert json.dumps(error.data)
