"""Checks of every kind, their thresholds, and what a failing, hanging or foreign answer leads to."""

from __future__ import annotations

import os
import socket
import time

import pytest

from tests.support import survivors
from tests.support.bridge import Json
from tests.support.kit import Kit, control, stranger

pytestmark = pytest.mark.timeout(60, method="signal")

QUICK: Json = {"interval": 0.1, "retry_interval": 0.05, "timeout": 0.3, "failure_threshold": 2}


@pytest.mark.parametrize("fault", ["status/500", "hang", "close-listener", "stop"])
def test_a_sidecar_that_fails_its_checks_is_started_again(kit: Kit, fault: str) -> None:
    with kit.bridge(kit.config(web=kit.server(health=QUICK, shutdown_timeout=0.5))) as bridge:
        first = bridge.start()
        since = bridge.mark()
        control(first["port"], fault)
        changed = bridge.wait_for("sidecar_health_changed", lambda p: p["health"] == "unhealthy", since=since)
        assert changed["check"]["ok"] is False
        assert changed["check"]["error"]
        bridge.wait_alert("unhealthy", since=since)
        status = bridge.wait_state("web", "running", since=since)["status"]
        assert bridge.states("web", since) == ["stopping", "backoff", "starting", "running"]
        assert status["generation"] == 2
        assert status["restart_count"] == 1
        assert status["health"] == "healthy"
        assert status["last_exit"]["cause"] == "health"
        assert [check["ok"] for check in status["last_exit"]["checks"]][-2:] == [False, False]
        assert not survivors.alive(first["pid"])
        bridge.wait_alert("unhealthy", cleared=True, since=since)


def test_failures_below_the_threshold_change_nothing(kit: Kit) -> None:
    health = {**QUICK, "failure_threshold": 1000}
    with kit.bridge(kit.config(web=kit.server(health=health))) as bridge:
        port = bridge.start()["port"]
        control(port, "status/500")
        survivors.until(lambda: bridge.call("get_sidecar_health")["consecutive_failures"] >= 3, 10, "three failures")
        assert bridge.status()["health"] == "healthy"
        control(port, "status/200")
        survivors.until(lambda: bridge.call("get_sidecar_health")["consecutive_successes"] >= 2, 10, "two successes")
        assert bridge.call("get_sidecar_health")["consecutive_failures"] == 0
        assert bridge.status()["generation"] == 1
        assert bridge.states("web") == ["starting", "running"]


def test_the_history_of_checks_is_kept_and_bounded(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(health={**QUICK, "interval": 0.05}))) as bridge:
        bridge.start()
        survivors.until(lambda: len(bridge.call("get_sidecar_health")["checks"]) >= 4, 10, "four checks")
        page = bridge.call("get_sidecar_health", {"limit": 2})
        assert page["health"] == "healthy"
        assert len(page["checks"]) == 2
        assert page["checks"][0]["at"] <= page["checks"][1]["at"]
        assert all(check["status_code"] == 200 and check["latency"] >= 0 for check in page["checks"])


def test_a_check_on_request_is_made_now(kit: Kit) -> None:
    health = {"interval": 600, "timeout": 0.3}
    with kit.bridge(kit.config(web=kit.server(health=health))) as bridge:
        port = bridge.start()["port"]
        assert bridge.call("check_sidecar_health")["ok"] is True
        control(port, "status/404")
        check = bridge.call("check_sidecar_health")
        assert (check["ok"], check["status_code"]) == (False, 404)
        control(port, "hang")
        check = bridge.call("check_sidecar_health")
        assert (check["ok"], check["status_code"]) == (False, None)
        bridge.call("stop_sidecar", {"force": True})
        assert bridge.refusal("check_sidecar_health").code == 1003


@pytest.mark.parametrize(
    ("status", "expect", "well"),
    [(204, None, True), (302, None, True), (404, None, False), (503, [200, 503], True), (200, [204], False)],
)
def test_which_status_is_well(kit: Kit, status: int, expect: list[int] | None, well: bool) -> None:
    health = {"expect_status": expect} if expect else {}
    web = kit.server("--status", str(status), health=health, startup_timeout=10 if well else 0.6)
    with kit.bridge(kit.config(web=web)) as bridge:
        if well:
            assert bridge.start()["health"] == "healthy"
        else:
            assert bridge.refusal("start_sidecar").kind == "startup_timeout"


def test_a_sidecar_may_take_its_time_to_be_well(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "0.3", "--warm-up", "0.5"))) as bridge:
        status = bridge.start()
        assert status["state"] == "running"
        assert bridge.states("web") == ["starting", "running"]


def test_checks_never_go_through_a_proxy(kit: Kit) -> None:
    nowhere = "http://127.0.0.1:1"
    env = {"HTTP_PROXY": nowhere, "http_proxy": nowhere, "ALL_PROXY": nowhere, "all_proxy": nowhere, "NO_PROXY": None}
    with kit.bridge(kit.config(web=kit.server()), env=env) as bridge:
        assert bridge.start()["health"] == "healthy"


def test_a_check_reads_no_body_that_never_ends(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--endless-body", health={"timeout": 1}))) as bridge:
        assert bridge.start()["health"] == "healthy"
        for _ in range(3):
            assert bridge.call("check_sidecar_health")["ok"]


def test_a_tcp_check_is_content_with_a_connection(kit: Kit) -> None:
    health = {"tcp": "127.0.0.1:{port}", "interval": 0.1, "retry_interval": 0.05, "failure_threshold": 2}
    web = kit.sidecar("--port", "{port}", "--tcp-only", "--ready-after", "0.3", port=0, health=health)
    with kit.bridge(kit.config(web=web)) as bridge:
        status = bridge.start()
        assert status["health"] == "healthy"
        with socket.create_connection(("127.0.0.1", status["port"])):
            pass


def test_a_command_check_follows_its_exit_code(kit: Kit) -> None:
    flag = kit.work / "well"
    health = {"command": ["test", "-e", str(flag)], "interval": 0.1, "retry_interval": 0.05, "failure_threshold": 2}
    with kit.bridge(kit.config(nap=kit.sidecar(health=health))) as bridge:
        start = bridge.send("start_sidecar")
        bridge.wait_state("nap", "starting")
        flag.touch()
        assert bridge.result(start)["health"] == "healthy"
        flag.unlink()
        bridge.wait_state("nap", "stopping")
        flag.touch()
        status = bridge.wait_state("nap", "running", generation=2)["status"]
        assert status["last_exit"]["cause"] == "health"


def test_a_command_check_that_hangs_is_ended_with_all_that_it_started(kit: Kit) -> None:
    flag = kit.work / "hang"
    fault = " ".join(kit.fault("--label", "check", "--fork-away", "--ignore-term", "--children", "1"))
    health = {
        "command": ["sh", "-c", f"test -e {flag} || exit 0; exec {fault}"],
        "timeout": 0.5,
        "interval": 0.1,
        "retry_interval": 0.1,
        "failure_threshold": 1000,
    }
    with kit.bridge(kit.config(nap=kit.sidecar(health=health))) as bridge:
        bridge.start()
        flag.touch()
        survivors.until(lambda: bridge.call("get_sidecar_health")["consecutive_failures"] >= 2, 15, "two failures")
        flag.unlink()
        survivors.until(lambda: bridge.call("get_sidecar_health")["consecutive_successes"] >= 1, 10, "well again")
        kit.wait_alive(1)


def test_a_pattern_in_the_output_means_ready(kit: Kit) -> None:
    nap = kit.sidecar("--print-later", "0.3", "Server ready on 1234", health={"log": "ready on [0-9]+"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        status = bridge.start()
        assert status["state"] == "running"
        assert status["health"] == "healthy"
        bridge.wait_log("ready on 1234")


def test_a_pattern_that_never_comes_is_a_timeout(kit: Kit) -> None:
    nap = kit.sidecar("--print", "not yet", health={"log": "ready"}, startup_timeout=0.5)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        assert bridge.refusal("start_sidecar").code == 1004
        assert kit.alive() == []


def test_without_a_check_it_must_live_for_a_while(kit: Kit) -> None:
    nap = kit.sidecar(health={"none": True, "ready_after": 0.5})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        began = time.monotonic()
        status = bridge.start()
        assert time.monotonic() - began >= 0.5
        assert (status["state"], status["health"]) == ("running", "unknown")


def test_without_a_check_an_early_exit_is_still_noticed(kit: Kit) -> None:
    nap = kit.sidecar("--exit-after", "0.1", "--exit-code", "3", health={"none": True, "ready_after": 5})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        began = time.monotonic()
        error = bridge.refusal("start_sidecar")
        assert time.monotonic() - began < 4
        assert error.code == 1007


def test_a_child_of_the_sidecar_may_own_the_port(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--serve-in-child"))) as bridge:
        assert bridge.start()["health"] == "healthy"


def test_a_stranger_on_the_port_is_not_taken_for_the_sidecar(kit: Kit) -> None:
    # The sidecar never opens the port that the bridge picked; somebody else does.
    web = kit.sidecar("--label", "{port}", port=0, health=kit.http(), startup_timeout=2)
    with kit.bridge(kit.config(web=web)) as bridge:
        start = bridge.send("start_sidecar")
        bridge.wait_for("sidecar_start_progress", lambda p: p["progress"]["stage"] == "waiting_for_health")
        with stranger(bridge.status()["port"]):
            alert = bridge.wait_alert("foreign_listener")
            assert str(os.getpid()) in str(alert["message"]) + str(alert["data"])
            assert bridge.status()["state"] == "starting"
            error = bridge.answer(start)["error"]
        assert error["code"] == 1017
        assert bridge.status()["error"]["kind"] == "foreign_listener"


def test_a_stranger_is_taken_where_nobody_wants_to_know(kit: Kit) -> None:
    web = kit.sidecar("--label", "{port}", port=0, health=kit.http(verify_owner=False))
    with kit.bridge(kit.config(web=web)) as bridge:
        start = bridge.send("start_sidecar")
        bridge.wait_for("sidecar_start_progress", lambda p: p["progress"]["stage"] == "waiting_for_health")
        with stranger(bridge.status()["port"]):
            assert bridge.result(start)["health"] == "healthy"
            bridge.call("stop_sidecar")


def test_with_restart_never_failing_checks_are_told_and_end_nothing(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(health=QUICK, restart="never"))) as bridge:
        port = bridge.start()["port"]
        control(port, "status/500")
        bridge.wait_alert("unhealthy")
        status = bridge.status()
        assert (status["state"], status["health"], status["generation"]) == ("running", "unhealthy", 1)
        control(port, "status/200")
        bridge.wait_alert("unhealthy", cleared=True)
        assert bridge.status()["health"] == "healthy"


def test_a_sidecar_that_was_killed_while_a_check_hangs_is_back_at_once(kit: Kit) -> None:
    health = {"interval": 0.05, "timeout": 30}
    with kit.bridge(kit.config(web=kit.server(health=health))) as bridge:
        first = bridge.start()
        control(first["port"], "hang")
        check = bridge.send("check_sidecar_health")
        survivors.kill(first["pid"])
        bridge.wait_state("web", "running", timeout=10, generation=2)
        assert bridge.answer(check) is not None
