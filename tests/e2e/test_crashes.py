"""Unrequested exits: noticed, explained, restarted after a backoff, and given up on at the limits."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from tests.support import survivors
from tests.support.bridge import Bridge, Json
from tests.support.kit import Kit, control

pytestmark = pytest.mark.timeout(60, method="signal")

NOTICED_S = 1.0
"""The protocol says 100 ms; a machine with every core busy needs some slack."""


def seconds(time_text: str) -> float:
    return datetime.fromisoformat(time_text).timestamp()


def backoffs(bridge: Bridge, sidecar: str) -> list[Json]:
    return [p["status"] for p in bridge.of("sidecar_state_changed", sidecar) if p["state"] == "backoff"]


def test_a_killed_sidecar_is_back(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        first = bridge.start()
        since = bridge.mark()
        killed = time.monotonic()
        survivors.kill(first["pid"])
        backoff = bridge.wait_state("web", "backoff", since=since)["status"]
        assert time.monotonic() - killed < NOTICED_S
        second = bridge.wait_state("web", "running", since=since)["status"]
        assert bridge.states("web", since) == ["backoff", "starting", "running"]
        assert backoff["last_exit"]["signal"] == "SIGKILL"
        assert backoff["last_exit"]["code"] is None
        assert backoff["last_exit"]["cause"] == "crash"
        assert backoff["last_exit"]["uptime"] > 0
        assert backoff["uptime"] is None
        assert second["generation"] == 2
        assert second["restart_count"] == 1
        assert second["pid"] != first["pid"]
        assert second["error"] is None
        alert = bridge.wait_alert("crashed", since=since)
        assert alert["sidecar"] == "web"
        assert len([a for a in bridge.of("sidecar_alert") if a["kind"] == "crashed" and not a["cleared"]]) == 1


@pytest.mark.parametrize(("request_", "code", "name"), [("crash/3", 3, None), ("signal/SIGSEGV", None, "SIGSEGV")])
def test_an_exit_is_told_as_it_was(kit: Kit, request_: str, code: int | None, name: str | None) -> None:
    web = kit.server("--print-err", "first words", "--print-err", "last words")
    with kit.bridge(kit.config(web=web)) as bridge:
        port = bridge.start()["port"]
        control(port, request_)
        last = bridge.wait_state("web", "backoff")["status"]["last_exit"]
        assert (last["code"], last["signal"]) == (code, name)
        assert last["stderr_tail"] == ["first words", "last words"]
        assert 1 <= len(last["checks"]) <= 5
        assert all(check["ok"] for check in last["checks"])


def test_an_exit_is_noticed_although_a_grandchild_holds_the_pipes_and_the_grandchild_is_ended(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--fork-away", "--children", "1"))) as bridge:
        first = bridge.start()
        old = set(kit.wait_alive(3))
        killed = time.monotonic()
        survivors.kill(first["pid"])
        bridge.wait_state("web", "backoff")
        assert time.monotonic() - killed < NOTICED_S
        bridge.wait_state("web", "running", generation=2)
        assert not [pid for pid in old if survivors.alive(pid)]


def test_an_exit_is_noticed_although_a_descendant_fills_the_pipes(kit: Kit) -> None:
    script = f"(exec setsid yes {kit.token}) & sleep 1; exit 3"
    with kit.bridge(kit.config(web=kit.program(["sh", "-c", script], restart="never"))) as bridge:
        bridge.start()
        assert bridge.wait_state("web", "failed", 10)["status"]["last_exit"]["code"] == 3
        assert kit.alive() == []


def test_the_last_words_of_a_crash_are_kept(kit: Kit) -> None:
    web = kit.server("--stderr-lines", "2000", "--exit-but", "1", str(kit.work / "starts"), max_restarts=0)
    with kit.bridge(kit.config(web=web)) as bridge:
        port = bridge.start()["port"]
        control(port, "stderr/the very last words")
        control(port, "crash/9")
        last = bridge.wait_state("web", "failed")["status"]["last_exit"]
        assert last["stderr_tail"][-1] == "the very last words"
        page = bridge.call("get_sidecar_logs", {"log_type": "stderr", "lines": 1})
        assert page["entries"][-1]["text"] == "the very last words"


@pytest.mark.parametrize(
    ("policy", "ending", "states"),
    [
        ("on_failure", "exit/0", ["stopped"]),
        ("on_failure", "exit/1", ["backoff", "starting", "running"]),
        ("always", "exit/0", ["backoff", "starting", "running"]),
        ("always", "exit/1", ["backoff", "starting", "running"]),
        ("never", "exit/0", ["stopped"]),
        ("never", "exit/1", ["failed"]),
        ("never", "signal/SIGKILL", ["failed"]),
    ],
)
def test_the_policy_decides_what_follows_an_exit(kit: Kit, policy: str, ending: str, states: list[str]) -> None:
    with kit.bridge(kit.config(web=kit.server(restart=policy))) as bridge:
        port = bridge.start()["port"]
        since = bridge.mark()
        control(port, ending)
        status = bridge.wait_state("web", states[-1], since=since)["status"]
        assert bridge.states("web", since) == states
        if states == ["failed"]:
            assert status["error"]["kind"] == "crashed"
        if states == ["stopped"]:
            assert status["error"] is None
            assert status["last_exit"]["code"] == 0


def test_an_exit_code_that_is_permanent_is_not_retried(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(permanent_exit_codes=[78, 79]))) as bridge:
        port = bridge.start()["port"]
        since = bridge.mark()
        control(port, "crash/78")
        status = bridge.wait_state("web", "failed", since=since)["status"]
        assert bridge.states("web", since) == ["failed"]
        assert status["restart_count"] == 0
        assert status["last_exit"]["code"] == 78
        assert status["error"]["kind"] == "crashed"


def test_the_backoff_doubles_up_to_its_bound_and_the_limit_ends_it(kit: Kit) -> None:
    web = kit.server(
        "--exit-but",
        "1",
        str(kit.work / "starts"),
        backoff_initial=0.1,
        backoff_factor=2,
        backoff_max=0.3,
        max_restarts=4,
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        control(bridge.start()["port"], "crash/1")
        failed = bridge.wait_state("web", "failed")["status"]
        waits = backoffs(bridge, "web")
        delays = [seconds(status["retry_at"]) - seconds(status["since"]) for status in waits]
        assert delays == pytest.approx([0.1, 0.2, 0.3, 0.3], abs=0.03)
        assert failed["restart_count"] == 4
        assert failed["error"]["kind"] == "restart_limit_exceeded"
        assert failed["error"]["detail"] is not None
        assert failed["retry_at"] is None
        assert bridge.wait_alert("restart_limit")["severity"] == "critical"
        begins = [seconds(p["at"]) for p in bridge.of("sidecar_state_changed") if p["state"] == "starting"][1:]
        for status, begin in zip(waits, begins, strict=True):
            assert begin >= seconds(status["retry_at"]) - 0.01
        # Entered straight from the failure: the process that ended last had been starting.
        assert bridge.of("sidecar_state_changed")[-1]["previous"] == "starting"


def test_jitter_lengthens_the_backoff_within_its_bound(kit: Kit) -> None:
    web = kit.server(
        "--exit-but",
        "1",
        str(kit.work / "starts"),
        backoff_initial=0.05,
        backoff_max=0.05,
        backoff_jitter=0.1,
        max_restarts=6,
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        control(bridge.start()["port"], "crash/1")
        bridge.wait_state("web", "failed")
        delays = [seconds(status["retry_at"]) - seconds(status["since"]) for status in backoffs(bridge, "web")]
        assert all(0.03 <= delay <= 0.17 for delay in delays)
        assert len({round(delay, 2) for delay in delays}) > 1


def test_with_no_restarts_allowed_the_first_failure_is_the_last(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(max_restarts=0))) as bridge:
        control(bridge.start()["port"], "crash/1")
        status = bridge.wait_state("web", "failed")["status"]
        assert bridge.states("web") == ["starting", "running", "failed"]
        assert status["error"]["kind"] == "restart_limit_exceeded"


@pytest.mark.parametrize("method", ["start_sidecar", "restart_sidecar"])
def test_only_an_operator_leaves_failed_and_the_count_begins_anew(kit: Kit, method: str) -> None:
    starts = kit.work / "starts"
    web = kit.server("--exit-but", "1", str(starts), max_restarts=1)
    with kit.bridge(kit.config(web=web)) as bridge:
        control(bridge.start()["port"], "crash/1")
        bridge.wait_state("web", "failed")
        starts.write_text("")
        status = bridge.call(method)
        assert (status["state"], status["restart_count"], status["error"]) == ("running", 0, None)
        bridge.wait_alert("restart_limit", cleared=True)
        since = bridge.mark()
        starts.write_text("")
        control(status["port"], "crash/1")
        assert bridge.wait_state("web", "running", since=since)["status"]["restart_count"] == 1


def test_a_stable_time_sets_the_count_back(kit: Kit) -> None:
    web = kit.server(max_restarts=1, stable_after=0.3, health={"success_threshold": 1, "interval": 0.1})
    with kit.bridge(kit.config(web=web)) as bridge:
        bridge.start()
        for generation in (2, 3, 4):
            survivors.kill(bridge.status()["pid"])
            bridge.wait_state("web", "running", generation=generation)
            survivors.until(lambda: bridge.status()["restart_count"] == 0, 10, "the count is 0 again")
        assert "failed" not in bridge.states("web")


def test_crashing_before_the_stable_time_keeps_the_count(kit: Kit) -> None:
    web = kit.server(max_restarts=2, stable_after=30, health={"success_threshold": 1, "interval": 0.05})
    with kit.bridge(kit.config(web=web)) as bridge:
        bridge.start()
        for count in (1, 2):
            survivors.kill(bridge.status()["pid"])
            assert bridge.wait_state("web", "running", restart_count=count)["status"]["generation"] == count + 1
        survivors.kill(bridge.status()["pid"])
        bridge.wait_state("web", "failed")


def test_flapping_ends_what_the_limit_never_would(kit: Kit) -> None:
    web = kit.server(
        max_restarts=2,
        stable_after=0,
        flapping_restarts=3,
        flapping_window=600,
        health={"success_threshold": 1, "interval": 0.05},
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        bridge.start()
        for generation in (2, 3, 4):
            survivors.until(lambda: bridge.status()["restart_count"] == 0, 10, "the count is 0 again")
            survivors.kill(bridge.status()["pid"])
            bridge.wait_state("web", "running", generation=generation)
        survivors.until(lambda: bridge.status()["restart_count"] == 0, 10, "the count is 0 again")
        survivors.kill(bridge.status()["pid"])
        status = bridge.wait_state("web", "failed")["status"]
        assert status["error"]["kind"] == "restart_limit_exceeded"
        bridge.wait_alert("flapping")
        assert bridge.states("web").count("backoff") == 3


def test_a_failing_automatic_restart_counts_and_is_tried_again(kit: Kit) -> None:
    starts = kit.work / "starts"
    with kit.bridge(kit.config(web=kit.server("--exit-but", "1", str(starts), max_restarts=20))) as bridge:
        control(bridge.start()["port"], "crash/1")
        bridge.wait_state("web", "backoff", restart_count=3)
        since = bridge.mark()
        starts.write_text("")
        status = bridge.wait_state("web", "running", since=since)["status"]
        assert status["error"] is None
        assert status["restart_count"] >= 3


def test_an_autostart_that_fails_is_tried_again(kit: Kit) -> None:
    web = kit.server("--exit-nth", "2", str(kit.work / "starts"), autostart=True)
    with kit.bridge(kit.config(web=web)) as bridge:
        status = bridge.wait_state("web", "running")["status"]
        assert status["generation"] == 3
        assert status["restart_count"] == 2
        assert bridge.states("web") == ["starting", "backoff", "starting", "backoff", "starting", "running"]
        kinds = [p["status"]["error"]["kind"] for p in bridge.of("sidecar_state_changed") if p["state"] == "backoff"]
        assert kinds == ["exited_early", "exited_early"]


def test_the_respawn_follows_at_once_without_a_backoff(kit: Kit) -> None:
    nap = kit.program(kit.sleeper(), backoff_initial=0, backoff_max=0, max_restarts=100, flapping_restarts=100)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        for generation in range(2, 12):
            survivors.kill(bridge.status()["pid"])
            bridge.wait_state("nap", "running", generation=generation)
        assert len(kit.alive()) == 1


@pytest.mark.parametrize(
    ("last_words", "cause_class"),
    [
        ("ModuleNotFoundError: No module named 'playwright'", "missing_module"),
        ("Error: Cannot find module 'express'", "missing_module"),
        ("error while loading shared libraries: libfoo.so.1: cannot open shared object file", "missing_library"),
        ("OSError: [Errno 98] Address already in use", "port_in_use"),
        ("Error: listen EADDRINUSE: address already in use :::8080", "port_in_use"),
        ("PermissionError: [Errno 13] Permission denied: '/etc/shadow'", "permission"),
        ("FATAL ERROR: JavaScript heap out of memory", "out_of_memory"),
        ("something quite different", "unknown"),
    ],
)
def test_the_output_explains_the_exit(kit: Kit, last_words: str, cause_class: str) -> None:
    web = kit.server("--print-err", last_words, "--exit-at-start", "1")
    with kit.bridge(kit.config(web=web)) as bridge:
        error = bridge.refusal("start_sidecar")
        assert error.kind == "exited_early"
        last = bridge.status()["last_exit"]
        assert last["cause_class"] == cause_class
        assert (last["hint"] is None) is (cause_class == "unknown")


def test_a_late_word_of_an_old_process_changes_nothing(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--children", "1"))) as bridge:
        for _ in range(5):
            bridge.call("restart_sidecar")
        assert bridge.status()["generation"] == 5
        assert bridge.of("sidecar_alert") == []
        kit.wait_alive(2)
