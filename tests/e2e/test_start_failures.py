"""Starts that fail: each with its named error, the bridge unharmed, nothing left over."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support import survivors
from tests.support.bridge import Json
from tests.support.kit import Kit, free_port, stranger

pytestmark = pytest.mark.timeout(60, method="signal")


def not_executable(kit: Kit) -> Json:
    path = kit.work / "not-executable"
    path.write_text("#!/bin/sh\nexec sleep 100\n")
    return kit.program([str(path)])


def a_directory(kit: Kit) -> Json:
    (kit.work / "folder").mkdir()
    return kit.program([str(kit.work / "folder")])


def missing_interpreter(kit: Kit) -> Json:
    path = kit.work / "script"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    return kit.program([str(path)])


def no_program_format(kit: Kit) -> Json:
    path = kit.work / "data"
    path.write_bytes(b"\x00\x01\x02\x03")
    path.chmod(0o755)
    return kit.program([str(path)])


SPAWN_FAILURES = {
    "a missing program": lambda kit: kit.program([str(kit.work / "missing")]),
    "a name that is nowhere in PATH": lambda kit: kit.program(["no-such-program-anywhere"]),
    "not executable": not_executable,
    "a directory": a_directory,
    "a missing interpreter": missing_interpreter,
    "no program at all": no_program_format,
    "a missing working directory": lambda kit: kit.sidecar(cwd=str(kit.work / "missing")),
    "a file as working directory": lambda kit: kit.sidecar(cwd=str(Path(__file__))),
}


@pytest.mark.parametrize("make", SPAWN_FAILURES.values(), ids=SPAWN_FAILURES.keys())
def test_a_program_that_cannot_be_started_is_told_and_not_retried(kit: Kit, make: object) -> None:
    assert callable(make)
    config = kit.config(bad=make(kit), good=kit.sidecar())
    with kit.bridge(config) as bridge:
        error = bridge.refusal("start_sidecar", {"sidecar": "bad"})
        assert (error.code, error.kind, error.data["sidecar"]) == (1006, "spawn_failed", "bad")
        assert error.message
        assert "Traceback" not in error.message + bridge.stderr
        status = bridge.status("bad")
        assert (status["state"], status["pid"]) == ("failed", None)
        assert status["error"]["kind"] == "spawn_failed"
        assert bridge.states("bad") == ["starting", "failed"]
        assert bridge.start("good")["state"] == "running"


def test_a_missing_program_is_not_retried_by_an_autostart_either(kit: Kit) -> None:
    with kit.bridge(kit.config(bad=kit.program(["no-such-program-anywhere"], autostart=True))) as bridge:
        bridge.wait_state("bad", "failed")
        assert bridge.states("bad") == ["starting", "failed"]


def test_what_could_not_be_started_starts_once_it_can(kit: Kit) -> None:
    path = kit.work / "later"
    with kit.bridge(kit.config(late=kit.program([str(path)]))) as bridge:
        assert bridge.refusal("start_sidecar").kind == "spawn_failed"
        path.write_text(f"#!/bin/sh\nexec {' '.join(kit.sleeper())}\n")
        path.chmod(0o755)
        status = bridge.start()
        assert (status["state"], status["error"]) == ("running", None)


def test_an_early_exit_is_told_at_once_with_its_last_words(kit: Kit) -> None:
    web = kit.server("--print-err", "cannot go on", "--exit-at-start", "3", startup_timeout=30)
    with kit.bridge(kit.config(web=web)) as bridge:
        began = time.monotonic()
        error = bridge.refusal("start_sidecar")
        assert time.monotonic() - began < 10
        assert (error.code, error.kind) == (1007, "exited_early")
        assert "3" in error.message
        assert error.detail["code"] == 3
        assert error.detail["stderr_tail"] == ["cannot go on"]
        assert bridge.status()["error"]["stderr_tail"] == ["cannot go on"]
        assert bridge.states("web") == ["starting", "failed"]


def test_an_early_death_by_a_signal_is_told_by_its_name(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--crash-signal", "SIGSEGV"))) as bridge:
        error = bridge.refusal("start_sidecar")
        assert error.kind == "exited_early"
        assert "SIGSEGV" in error.message
        assert (error.detail["code"], error.detail["signal"]) == (None, "SIGSEGV")


def test_an_early_exit_is_noticed_although_a_grandchild_holds_the_pipes(kit: Kit) -> None:
    web = kit.server("--fork-away", "--empty-env", "--exit-after", "0.2", "--exit-code", "5", "--ready-after", "60")
    with kit.bridge(kit.config(web=web)) as bridge:
        began = time.monotonic()
        assert bridge.refusal("start_sidecar").kind == "exited_early"
        assert time.monotonic() - began < 5
        assert kit.alive() == []


def test_a_start_that_takes_too_long_is_stopped_tree_and_all(kit: Kit) -> None:
    web = kit.server(
        "--hang", "--children", "1", "--fork-away", "--ignore-term", startup_timeout=0.8, shutdown_timeout=0.3
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        began = time.monotonic()
        error = bridge.refusal("start_sidecar")
        assert 0.8 <= time.monotonic() - began < 8
        assert (error.code, error.kind) == (1004, "startup_timeout")
        assert kit.alive() == []
        assert bridge.states("web") == ["starting", "stopping", "failed"]
        assert bridge.status()["last_exit"]["signal"] == "SIGKILL"


def test_a_port_that_is_taken_is_told_with_its_holder(kit: Kit) -> None:
    with stranger() as port, kit.bridge(kit.config(web=kit.server(port=port, autostart=True))) as bridge:
        status = bridge.wait_state("web", "failed")["status"]
        assert status["error"]["kind"] == "port_in_use"
        # A stranger's port is nothing that a retry can mend.
        assert "backoff" not in bridge.states("web")
        assert kit.alive() == []
        error = bridge.refusal("start_sidecar")
        assert (error.code, error.kind) == (1010, "port_in_use")
        assert str(port) in error.message
        assert str(os.getpid()) in error.message
        assert error.detail["pid"] == os.getpid()
        bridge.wait_alert("port_in_use")


def test_a_port_that_became_free_is_taken(kit: Kit) -> None:
    port = free_port()
    with kit.bridge(kit.config(web=kit.server(port=port))) as bridge:
        with stranger(port):
            assert bridge.refusal("start_sidecar").kind == "port_in_use"
        status = bridge.start()
        assert status["port"] == port
        bridge.wait_alert("port_in_use", cleared=True)
    assert not survivors.listeners(port)


def test_a_fixed_port_is_kept_over_restarts(kit: Kit) -> None:
    port = free_port()
    with kit.bridge(kit.config(web=kit.server(port=port))) as bridge:
        assert bridge.start()["port"] == port
        for _ in range(3):
            assert bridge.call("restart_sidecar")["port"] == port


def test_a_log_folder_that_cannot_be_made_ends_the_bridge_with_2(kit: Kit) -> None:
    config = {"log_dir": str(Path(__file__) / "logs"), **kit.config(nap=kit.sidecar())}
    with kit.bridge(config, check_wire=False) as bridge:
        assert bridge.wait_exit() == 2
        assert str(Path(__file__)) in bridge.stderr
        assert "Traceback" not in bridge.stderr
        assert bridge.lines == []


def test_a_log_folder_that_is_read_only_is_told_and_the_sidecar_runs(kit: Kit) -> None:
    # Nobody can create a file there, the superuser included.
    config = {"log_dir": "/sys/kernel", **kit.config(nap=kit.sidecar("--print", "kept in memory"))}
    with kit.bridge(config) as bridge:
        assert bridge.start()["state"] == "running"
        bridge.wait_alert("log_write_failed")
        bridge.wait_log("kept in memory")
        assert bridge.call("stop_sidecar")["state"] == "stopped"
