"""The ladder of a stop, for the whole tree, and the proof that nothing of it is left."""

from __future__ import annotations

import time

import pytest

from tests.support import survivors
from tests.support.kit import Kit, control

pytestmark = pytest.mark.timeout(60, method="signal")

LONG_S = 60
QUICK_S = 5.0
"""Far below LONG_S and far above what a stop takes on a busy machine."""


def test_a_polite_sidecar_ends_by_its_own_way(kit: Kit) -> None:
    nap = kit.sidecar("--slow-stop", "0.3", "--term-code", "7", "--print", "up", health={"log": "up"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        since = bridge.mark()
        status = bridge.call("stop_sidecar")
        assert bridge.states("nap", since) == ["stopping", "stopped"]
        last = status["last_exit"]
        assert (last["code"], last["signal"], last["cause"]) == (7, None, "stop_requested")
        assert [entry["text"] for entry in bridge.call("get_sidecar_logs")["entries"]][-1] == "stopped"


def test_a_stubborn_sidecar_is_killed_after_its_time(kit: Kit) -> None:
    nap = kit.sidecar("--ignore-term", "--print", "up", health={"log": "up"}, shutdown_timeout=0.5)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        began = time.monotonic()
        status = bridge.call("stop_sidecar")
        took = time.monotonic() - began
        assert 0.5 <= took < QUICK_S
        assert status["last_exit"]["signal"] == "SIGKILL"
        assert kit.alive() == []


def test_a_forced_stop_does_not_wait(kit: Kit) -> None:
    nap = kit.sidecar("--ignore-term", "--print", "up", health={"log": "up"}, shutdown_timeout=LONG_S)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        began = time.monotonic()
        assert bridge.call("stop_sidecar", {"force": True})["state"] == "stopped"
        assert time.monotonic() - began < QUICK_S
        assert kit.alive() == []


def test_a_forced_stop_overtakes_a_patient_one(kit: Kit) -> None:
    nap = kit.sidecar("--ignore-term", "--print", "up", health={"log": "up"}, shutdown_timeout=LONG_S)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        patient = bridge.send("stop_sidecar")
        bridge.wait_state("nap", "stopping")
        assert bridge.call("stop_sidecar", {"force": True})["state"] == "stopped"
        assert bridge.result(patient)["state"] == "stopped"
        assert bridge.states("nap").count("stopping") == 1


def test_stops_that_come_together_share_one(kit: Kit) -> None:
    nap = kit.sidecar("--slow-stop", "0.4", "--print", "up", health={"log": "up"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        ids = [bridge.send("stop_sidecar") for _ in range(3)]
        unwaiting = bridge.send("stop_sidecar", {"wait": False})
        assert bridge.result(unwaiting)["state"] == "stopping"
        assert {bridge.result(id)["state"] for id in ids} == {"stopped"}
        assert bridge.states("nap").count("stopping") == 1
        log = [entry["text"] for entry in bridge.call("get_sidecar_logs")["entries"]]
        assert len([text for text in log if text.startswith("stopping")]) == 1


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--children", "3"], id="children of its group"),
        pytest.param(["--fork-away"], id="a grandchild of its own session"),
        pytest.param(["--fork-away", "--empty-env"], id="and without an environment"),
        pytest.param(["--fork-away", "--empty-env", "--children", "2", "--ignore-term"], id="all of it, and deaf"),
    ],
)
def test_the_whole_tree_is_gone_when_a_stop_is_answered(kit: Kit, flags: list[str]) -> None:
    with kit.bridge(kit.config(web=kit.server(*flags, shutdown_timeout=0.5))) as bridge:
        bridge.start()
        members = (
            1 + flags.count("--fork-away") + sum(int(flags[i + 1]) for i, f in enumerate(flags) if f == "--children")
        )
        kit.wait_alive(members)
        bridge.call("stop_sidecar")
        assert kit.alive() == []


def test_a_tree_that_grew_while_it_ran_is_gone_too(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--empty-env"))) as bridge:
        port = bridge.start()["port"]
        for request in ("away", "child", "away"):
            control(port, request)
        kit.wait_alive(4)
        bridge.call("stop_sidecar", {"force": True})
        assert kit.alive() == []


def test_what_a_leader_leaves_behind_by_itself_is_ended_before_its_exit_counts(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--fork-away", "--empty-env", "--children", "1"))) as bridge:
        port = bridge.start()["port"]
        kit.wait_alive(3)
        control(port, "exit/0")
        bridge.wait_state("web", "stopped")
        assert kit.alive() == []


def test_a_suspended_sidecar_can_be_stopped(kit: Kit) -> None:
    nap = kit.sidecar("--print", "up", "--stop-self", health={"log": "up"}, shutdown_timeout=LONG_S)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        pid = bridge.start()["pid"]
        survivors.until(lambda: survivors.state_of(pid) == "T", 5, "suspended")
        began = time.monotonic()
        status = bridge.call("stop_sidecar")
        assert time.monotonic() - began < QUICK_S
        assert status["last_exit"]["signal"] == "SIGTERM"


def test_the_stop_signal_is_the_configured_one(kit: Kit) -> None:
    nap = kit.sidecar("--print", "up", health={"log": "up"}, stop_signal="SIGHUP")
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        assert bridge.call("stop_sidecar")["last_exit"]["signal"] == "SIGHUP"


def test_a_stop_closes_stdin_first(kit: Kit) -> None:
    flags = ("--stdin-exits", "--ignore-term", "--print", "up")
    nap = kit.sidecar(*flags, stdin="pipe", health={"log": "up"}, shutdown_timeout=LONG_S)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        began = time.monotonic()
        status = bridge.call("stop_sidecar")
        assert time.monotonic() - began < QUICK_S
        assert (status["last_exit"]["code"], status["last_exit"]["cause"]) == (0, "stop_requested")
        bridge.wait_log("stdin ended")


def test_a_stop_asks_by_http_first(kit: Kit) -> None:
    web = kit.server("--ignore-term", stop_http="POST http://127.0.0.1:{port}/shutdown", shutdown_timeout=LONG_S)
    with kit.bridge(kit.config(web=web)) as bridge:
        bridge.start()
        began = time.monotonic()
        status = bridge.call("stop_sidecar")
        assert time.monotonic() - began < QUICK_S
        assert status["last_exit"]["code"] == 0
        bridge.wait_log("asked to shut down")


@pytest.mark.parametrize("path", ["/health", "/control/nothing"], ids=["no answer", "an error answer"])
def test_a_stop_goes_on_where_http_does_not_help(kit: Kit, path: str) -> None:
    web = kit.server(
        stop_http="POST http://127.0.0.1:{port}" + path, shutdown_timeout=1, health={"failure_threshold": 99}
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        port = bridge.start()["port"]
        if path == "/health":
            control(port, "hang")
        began = time.monotonic()
        assert bridge.call("stop_sidecar")["state"] == "stopped"
        assert time.monotonic() - began < QUICK_S
        assert kit.alive() == []


def test_a_sidecar_that_closed_its_pipes_is_still_watched_and_stopped(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--close-pipes"))) as bridge:
        port = bridge.start()["port"]
        assert bridge.status()["state"] == "running"
        control(port, "crash/3")
        bridge.wait_state("web", "running", generation=2)
        assert bridge.call("stop_sidecar")["state"] == "stopped"


def test_stdin_is_empty_unless_it_is_a_pipe(kit: Kit) -> None:
    command = f"readlink /proc/self/fd/0; exec {' '.join(kit.sleeper())}"
    nap = kit.program(["sh", "-c", command], health={"log": "^/dev/null$"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        assert bridge.start()["state"] == "running"
