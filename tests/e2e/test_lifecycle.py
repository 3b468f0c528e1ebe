"""Start, stop and restart on request, shared, overtaken and cancelled."""

from __future__ import annotations

import time

import pytest

from tests.support import survivors
from tests.support.kit import Kit, control, fetch

pytestmark = pytest.mark.timeout(60, method="signal")

LONG_S = 60
"""A wait in a configuration that no test has the time for: whoever comes back earlier did not wait for it."""


def test_a_started_sidecar_serves_and_its_status_says_so(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        status = bridge.start("web")
        assert status["state"] == "running"
        assert status["health"] == "healthy"
        assert status["generation"] == 1
        assert status["restart_count"] == 0
        assert status["error"] is None
        assert status["last_exit"] is None
        assert status["uptime"] >= 0
        assert status["url"].rstrip("/") == f"http://127.0.0.1:{status['port']}"
        assert int(fetch(status["port"], "/pid")) == status["pid"]
        assert kit.token in status["command"]
        assert bridge.states("web") == ["starting", "running"]
        later = bridge.status("web")
        assert later["uptime"] >= status["uptime"]
        assert {key: later[key] for key in ("pid", "since", "port")} == {
            key: status[key] for key in ("pid", "since", "port")
        }
    assert not survivors.listeners(status["port"])


def test_the_name_may_be_left_out_where_there_is_one_sidecar(kit: Kit) -> None:
    with kit.bridge(kit.config(only=kit.sidecar())) as bridge:
        assert bridge.call("start_sidecar")["sidecar"] == "only"
        assert bridge.call("get_sidecar_status", [])["state"] == "running"
        assert bridge.call("stop_sidecar", {})["state"] == "stopped"


def test_an_autostart_follows_bridge_ready(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(autostart=True))) as bridge:
        bridge.wait_state("web", "running")
        assert bridge.notifications[0]["method"] == "bridge_ready"
        assert bridge.notifications[0]["params"]["sidecars"] == ["web"]


def test_a_start_of_what_runs_is_refused(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        bridge.start()
        error = bridge.refusal("start_sidecar")
        assert (error.code, error.kind, error.data["sidecar"]) == (1002, "already_running", "nap")
        assert bridge.status()["generation"] == 1


def test_starts_that_come_together_share_one(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "0.5"))) as bridge:
        ids = [bridge.send("start_sidecar", {"wait": wait}) for wait in (False, True, True, True)]
        first, *others = [bridge.result(id) for id in ids]
        assert first["state"] == "starting"
        assert {(status["state"], status["pid"], status["generation"]) for status in others} == {
            ("running", others[0]["pid"], 1)
        }
        assert bridge.states("web") == ["starting", "running"]


def test_a_restart_replaces_the_process_without_counting(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(backoff_initial=LONG_S, backoff_max=LONG_S))) as bridge:
        first = bridge.start()
        since = bridge.mark()
        second = bridge.call("restart_sidecar")
        assert second["state"] == "running"
        assert second["pid"] != first["pid"]
        assert second["generation"] == 2
        assert second["restart_count"] == 0
        assert second["last_exit"]["cause"] == "restart_requested"
        assert bridge.states("web", since) == ["stopping", "starting", "running"]
        assert not survivors.alive(first["pid"])
        assert bridge.of("sidecar_alert") == []


def test_restarts_that_come_together_share_one(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--slow-stop", "0.3"))) as bridge:
        bridge.start()
        ids = [bridge.send("restart_sidecar") for _ in range(4)]
        results = [bridge.result(id) for id in ids]
        assert {status["generation"] for status in results} == {2}
        assert len({status["pid"] for status in results}) == 1


def test_a_restart_of_what_is_stopped_starts_it(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        status = bridge.call("restart_sidecar")
        assert (status["state"], status["generation"]) == ("running", 1)
        assert bridge.states("nap") == ["starting", "running"]


def test_a_restart_without_waiting_answers_at_once(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar("--slow-stop", "0.5"))) as bridge:
        bridge.start()
        bridge.wait_state("nap", "running")
        since = bridge.mark()
        assert bridge.call("restart_sidecar", {"wait": False})["state"] in ("stopping", "starting")
        bridge.wait_state("nap", "running", since=since, generation=2)


def test_a_start_while_stopping_waits_for_the_end_and_starts(kit: Kit) -> None:
    nap = kit.sidecar("--slow-stop", "0.5", "--print", "up", health={"log": "up"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        first = bridge.start()
        stop = bridge.send("stop_sidecar")
        bridge.wait_state("nap", "stopping")
        start = bridge.send("start_sidecar")
        status = bridge.result(start)
        assert (status["state"], status["generation"]) == ("running", 2)
        assert not survivors.alive(first["pid"])
        assert bridge.answer(stop)["result"]["sidecar"] == "nap"


def test_a_stop_overtakes_a_start(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "60", startup_timeout=LONG_S))) as bridge:
        start = bridge.send("start_sidecar")
        bridge.wait_state("web", "starting")
        kit.wait_alive(1)
        assert bridge.call("stop_sidecar")["state"] == "stopped"
        assert kit.alive() == []
        message = bridge.answer(start)
        assert message["error"]["code"] == 1008
        assert bridge.states("web") == ["starting", "stopping", "stopped"]


def test_a_restart_of_what_is_starting_starts_anew(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "0.3"))) as bridge:
        bridge.send("start_sidecar", {"wait": False})
        bridge.wait_state("web", "starting")
        status = bridge.call("restart_sidecar")
        assert status["state"] == "running"
        assert status["generation"] in (1, 2)
        assert len(kit.alive()) == 1


def test_a_stop_of_what_is_stopped_is_no_error(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        assert bridge.call("stop_sidecar")["state"] == "stopped"
        assert bridge.states("nap") == []


@pytest.mark.parametrize("method", ["start_sidecar", "restart_sidecar"])
def test_an_operator_does_not_wait_for_the_backoff(kit: Kit, method: str) -> None:
    with kit.bridge(kit.config(web=kit.server(backoff_initial=LONG_S, backoff_max=LONG_S))) as bridge:
        port = bridge.start()["port"]
        control(port, "crash/3")
        params = bridge.wait_state("web", "backoff")
        assert params["status"]["retry_at"] is not None
        assert params["status"]["pid"] is None
        status = bridge.call(method)
        assert (status["state"], status["generation"], status["retry_at"]) == ("running", 2, None)
        assert status["restart_count"] == 0


def test_a_stop_ends_the_backoff_for_good(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(backoff_initial=0.3, backoff_max=0.3))) as bridge:
        control(bridge.start()["port"], "crash/3")
        bridge.wait_state("web", "backoff")
        status = bridge.call("stop_sidecar")
        assert (status["state"], status["retry_at"]) == ("stopped", None)
        # Past the moment at which it would have started again.
        time.sleep(0.6)
        assert bridge.status()["state"] == "stopped"
        assert kit.alive() == []


@pytest.mark.parametrize("restart", ["on_failure", "always"])
def test_what_an_operator_stopped_stays_stopped_whatever_its_exit(kit: Kit, restart: str) -> None:
    nap = kit.sidecar(
        "--slow-stop",
        "0",
        "--term-code",
        "3",
        "--print",
        "up",
        health={"log": "up"},
        restart=restart,
        backoff_initial=0,
    )
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        status = bridge.call("stop_sidecar")
        assert status["state"] == "stopped"
        assert status["last_exit"]["code"] == 3
        assert status["last_exit"]["cause"] == "stop_requested"
        assert status["error"] is None
        time.sleep(0.3)
        assert bridge.status()["generation"] == 1
        assert bridge.of("sidecar_alert") == []


def test_a_cancelled_start_goes_on(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "0.5"))) as bridge:
        id = bridge.send("start_sidecar")
        bridge.wait_state("web", "starting")
        bridge.notify("$/cancelRequest", {"id": id})
        assert bridge.answer(id)["error"]["code"] == -32800
        bridge.wait_state("web", "running")


def test_a_cancelled_stop_goes_on(kit: Kit) -> None:
    nap = kit.sidecar("--slow-stop", "0.5", "--print", "up", health={"log": "up"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        id = bridge.send("stop_sidecar")
        bridge.wait_state("nap", "stopping")
        bridge.notify("$/cancelRequest", {"id": id})
        assert bridge.answer(id)["error"]["code"] == -32800
        bridge.wait_state("nap", "stopped")


def test_what_a_request_causes_is_told_before_its_answer(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        for method, state in (
            ("start_sidecar", "running"),
            ("restart_sidecar", "running"),
            ("stop_sidecar", "stopped"),
        ):
            id = bridge.send(method)
            bridge.result(id)
            answer = next(
                index
                for index, message in enumerate(bridge.messages)
                if message.get("id") == id and "result" in message
            )
            changes = [m for m in bridge.messages[:answer] if m.get("method") == "sidecar_state_changed"]
            assert changes[-1]["params"]["state"] == state


def test_requests_run_beside_a_slow_one(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "2"))) as bridge:
        slow = bridge.send("start_sidecar")
        bridge.wait_state("web", "starting")
        for _ in range(20):
            assert bridge.call("get_sidecar_status")["state"] == "starting"
        assert not bridge.answered(slow)
        bridge.call("stop_sidecar")


def test_the_journal_tells_requests_and_transitions_in_order(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        control(bridge.start()["port"], "crash/3")
        bridge.wait_state("web", "running", generation=2)
        bridge.call("stop_sidecar")
        events = bridge.call("get_sidecar_events", {"sidecar": "web"})
        numbers = [event["seq"] for event in events]
        assert numbers == sorted(numbers)
        assert {event["sidecar"] for event in events} <= {"web", None}
        assert all(event["message"] for event in events)
        last = bridge.call("get_sidecar_events", {"limit": 2})
        assert last == events[-2:]
        earlier = bridge.call("get_sidecar_events", {"before": last[0]["seq"], "limit": 1000})
        assert [event["seq"] for event in earlier] == numbers[:-2]


def test_metrics_are_there_as_soon_as_it_runs_and_are_its_own(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--children", "2")) | {"metrics_interval": 0}) as bridge:
        bridge.start()
        first = bridge.call("get_sidecar_metrics")["current"]
        assert first["processes"] == 3
        assert first["rss"] > 1_000_000
        bridge.call("restart_sidecar")
        again = bridge.call("get_sidecar_metrics")
        assert again["current"]["processes"] == 3
        assert again["current"]["at"] > first["at"]
        assert again["current"] == again["samples"][-1]
        assert bridge.of("sidecar_metrics") == []
        bridge.call("stop_sidecar")
        assert bridge.call("get_sidecar_metrics")["current"] is None
