"""What a bridge and its guardian leave when both are killed in the same instant is ended by the next bridge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.process.identity import boot_id, start_of
from bridge.process.trees import FILE_NAME
from tests.support import survivors
from tests.support.bridge import Bridge, Json
from tests.support.kit import Kit, free_port

pytestmark = pytest.mark.timeout(60, method="signal")

if sys.platform != "linux":
    pytest.skip("Linux", allow_module_level=True)


def kill_both(kit: Kit, bridge: Bridge) -> None:
    """SIGKILL to the bridge and to its guardian, frozen first, so that neither sees the other's end."""
    helpers = [pid for pid in survivors.descendants(bridge.pid) if pid not in kit.alive()]
    assert len(helpers) == 1
    both = [bridge.pid, *helpers]
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    bridge.kill()
    survivors.until(lambda: not survivors.alive(helpers[0]), 5, "the guardian is dead")


def quiet(kit: Kit) -> list[str]:
    """A sleeper that survives the end of its reader: tail watches its output."""
    return ["sh", "-c", f"exec {' '.join(kit.sleeper())} >/dev/null"]


def alerts_of(bridge: Bridge, sidecar: str | None = None) -> list[Json]:
    return [each for each in bridge.of("sidecar_alert", sidecar) if each["kind"] == "leftover_process"]


def shapes(kit: Kit, port: int) -> Json:
    """A plain server on a fixed port, one with an own-session daemon without environment, one that is deaf."""
    sleeper = " ".join(kit.sleeper())
    daemon = ["sh", "-c", f"exec >/dev/null; env -i setsid {sleeper} & exec {sleeper}"]
    return kit.config(
        plain=kit.server("--children", "1", port=port),
        daemon=kit.program(daemon),
        deaf=kit.server("--fork-away", "--empty-env", "--ignore-term", shutdown_timeout=0.5),
    )


def test_the_next_bridge_ends_what_both_left_before_it_starts_anything(kit: Kit) -> None:
    config = shapes(kit, free_port())
    with kit.bridge(config) as first:
        for name in config["sidecars"]:
            first.start(name)
        left = kit.wait_alive(6)
        kill_both(kit, first)
    assert kit.alive() == left
    config["sidecars"]["plain"]["autostart"] = True
    with kit.bridge(config) as second:
        status = second.wait_state("plain", "running")
        # Its port is the one that the leftover had.
        assert not [pid for pid in left if survivors.alive(pid)]
        for name, count in (("plain", 2), ("daemon", 2), ("deaf", 2)):
            raised, cleared = alerts_of(second, name)
            assert (raised["severity"], raised["cleared"], cleared["cleared"]) == ("warning", False, True)
            assert raised["data"]["ended"] is True
            assert len(raised["data"]["pids"]) == count
            assert set(raised["data"]["pids"]) <= set(left)
            assert name in raised["message"]
        events = [e for e in second.call("get_sidecar_events", {"sidecar": "deaf"}) if e["kind"] == "alert"]
        assert events[0]["data"]["kind"] == "leftover_process"
        assert events[0]["data"]["ended"] is True
        assert status is not None
        assert alerts_of(second)[0]["seq"] < second.of("sidecar_state_changed", "plain")[-1]["seq"]


def test_requests_are_answered_while_leftovers_take_their_time(kit: Kit) -> None:
    config = kit.config(web=kit.server("--ignore-term", port=free_port(), shutdown_timeout=1))
    with kit.bridge(config) as first:
        first.start()
        kill_both(kit, first)
    with kit.bridge(config) as second:
        start = second.send("start_sidecar")
        assert second.call("ping") == "pong"
        assert second.status()["state"] == "starting"
        assert len(alerts_of(second)) == 0
        assert second.result(start)["state"] == "running"
        assert len(alerts_of(second)) == 2


def test_a_bridge_that_ends_while_it_waits_for_leftovers_leaves_them_to_the_next(kit: Kit) -> None:
    config = kit.config(web=kit.server("--ignore-term", port=free_port(), shutdown_timeout=1, autostart=True))
    with kit.bridge(config) as first:
        first.wait_state("web", "running")
        kill_both(kit, first)
    with kit.bridge(config) as second:
        second.wait_state("web", "starting")
        second.close()
    with kit.bridge(config) as third:
        third.wait_state("web", "running")
        assert len(kit.alive()) == 1


def test_leftovers_of_a_sidecar_that_is_configured_no_more_are_ended_too(kit: Kit) -> None:
    with kit.bridge(kit.config(old=kit.program(quiet(kit)))) as first:
        first.start()
        kill_both(kit, first)
    with kit.bridge(kit.config(new=kit.program(quiet(kit)))) as second:
        alert = second.wait_for("sidecar_alert", lambda each: each["kind"] == "leftover_process")
        assert alert["sidecar"] is None
        assert "of old" in alert["message"]
        kit.assert_gone()


def test_what_a_living_guardian_is_ending_is_left_to_it_and_no_alert(kit: Kit) -> None:
    config = kit.config(web=kit.server("--ignore-term", port=free_port(), shutdown_timeout=1, autostart=True))
    with kit.bridge(config) as first:
        first.wait_state("web", "running")
        first.kill()
    with kit.bridge(config) as second:
        second.wait_state("web", "running")
        assert len(kit.alive()) == 1
        assert alerts_of(second) == []


def test_a_living_bridge_with_another_folder_is_never_touched(kit: Kit) -> None:
    config = kit.config(nap=kit.program(quiet(kit)))
    with kit.bridge(config, name="other") as other:
        pid = other.start()["pid"]
        with kit.bridge(config) as first:
            first.start()
            kill_both(kit, first)
        with kit.bridge(config) as second:
            second.wait_for("sidecar_alert", lambda each: each["cleared"])
            assert kit.alive() == [pid]
            assert other.status()["pid"] == pid
            assert other.status()["generation"] == 1


@pytest.fixture
def bystander(kit: Kit) -> Iterator[int]:
    """A process that nobody's bridge started."""
    with subprocess.Popen(kit.sleeper(), stdout=subprocess.DEVNULL) as process:
        yield process.pid
        process.kill()


def write_past(bridge: Bridge, *trees: str, boot: str | None = None) -> Path:
    """A file as a bridge of another epoch, dead since, would have left it."""
    bridge.log_dir.mkdir(parents=True, exist_ok=True)
    path = bridge.log_dir / FILE_NAME
    lines = [f"sidecar-bridge-trees 1 {boot or boot_id()}", f"bridge {'ab' * 8} 999999999 1", *trees]
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


def test_a_process_with_the_number_and_start_of_a_leader_but_no_mark_is_left_alone_and_told(
    kit: Kit, bystander: int
) -> None:
    config = kit.config(nap=kit.program(quiet(kit)))
    first = kit.bridge(config)
    write_past(first, f"tree 1 {bystander} {start_of(bystander)} SIGTERM 5.000 nap")
    with first:
        first.start()
        alert = first.wait_for("sidecar_alert", lambda each: each["kind"] == "leftover_process")
        assert alert["data"] == {"pids": [bystander], "ended": False}
        assert (alert["sidecar"], alert["cleared"]) == ("nap", False)
        assert survivors.alive(bystander)
    # It is told of again, until it has gone.
    with kit.bridge(config) as second:
        second.wait_for("sidecar_alert", lambda each: each["kind"] == "leftover_process" and not each["cleared"])
        second.start()
        since = second.mark()
        survivors.kill(bystander)
        second.wait_for("sidecar_alert", lambda each: each["cleared"], since=since)
    with kit.bridge(config) as third:
        third.start()
        assert alerts_of(third) == []


@pytest.mark.parametrize("case", ["other start", "other boot", "rubbish", "symlink", "fifo"])
def test_a_stranger_is_neither_touched_nor_told_of(kit: Kit, bystander: int, case: str) -> None:
    bridge = kit.bridge(kit.config(nap=kit.program(quiet(kit))))
    start = int(start_of(bystander)) + (case == "other start")
    line = f"tree 1 {bystander} {start} SIGTERM 5.000 nap"
    path = write_past(bridge, line, boot="11111111-2222" if case == "other boot" else None)
    if case == "rubbish":
        path.write_bytes(b"\xff\x00 tree\n" * 1000 + path.read_bytes())
    elif case == "symlink":
        path.rename(kit.work / "elsewhere")
        path.symlink_to(kit.work / "elsewhere")
    elif case == "fifo":
        path.unlink()
        os.mkfifo(path)
    with bridge:
        bridge.start()
        assert alerts_of(bridge) == []
        assert survivors.alive(bystander)
        # The file is this bridge's own now, for its owner alone.
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text().endswith(" nap\n")
        assert "ab" * 8 not in path.read_text()
        ignored = case in ("rubbish", "symlink", "fifo")
        bridge.close()
        assert (FILE_NAME in bridge.stderr) is ignored
    if case == "symlink":
        assert "ab" * 8 in (kit.work / "elsewhere").read_text()
    assert not path.exists()
