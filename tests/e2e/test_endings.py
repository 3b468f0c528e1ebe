"""Every way in which a bridge ends, and that it takes everything along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import survivors
from tests.support.bridge import Bridge, Json
from tests.support.kit import Kit

pytestmark = pytest.mark.timeout(60, method="signal")

GUARDIAN_GONE_S = 3.5
"""The protocol gives the guardian 3 s after its work."""


def family(kit: Kit, *more: str, **fields: object) -> Json:
    """Sidecars with children in and out of their group, with and without environment: 6 processes."""
    flags = ("--children", "1", "--fork-away", *more)
    return kit.config(a=kit.server(*flags, **fields), b=kit.server(*flags, "--empty-env", **fields))  # type: ignore[arg-type]


def start_family(kit: Kit, bridge: Bridge) -> list[int]:
    for name in ("a", "b"):
        bridge.start(name)
    kit.wait_alive(6)
    return survivors.descendants(bridge.pid)


def assert_helpers_gone(kit: Kit, helpers: list[int]) -> None:
    survivors.until(
        lambda: not [pid for pid in helpers if survivors.alive(pid)],
        GUARDIAN_GONE_S,
        f"no helper process is left of {[survivors.command_line(pid) for pid in helpers]}",
    )


def end_of_input(bridge: Bridge) -> None:
    bridge.close_stdin()


def terminate(bridge: Bridge) -> None:
    bridge.send_signal(signal.SIGTERM)


def interrupt(bridge: Bridge) -> None:
    bridge.send_signal(signal.SIGINT)


def shutdown(bridge: Bridge) -> None:
    assert bridge.call("shutdown") is None


@pytest.mark.parametrize(
    ("end", "reason"),
    [(end_of_input, "eof"), (terminate, "signal"), (interrupt, "signal"), (shutdown, "shutdown")],
    ids=["end of input", "SIGTERM", "SIGINT", "shutdown"],
)
def test_a_bridge_that_is_asked_to_end_stops_everything_and_exits_with_0(kit: Kit, end: object, reason: str) -> None:
    assert callable(end)
    with kit.bridge(family(kit)) as bridge:
        everything = start_family(kit, bridge)
        since = bridge.mark()
        end(bridge)
        assert bridge.wait_exit() == 0
        assert kit.alive() == []
        assert bridge.of("bridge_closing", since=since)[-1]["reason"] == reason
        for name in ("a", "b"):
            assert bridge.states(name, since) == ["stopping", "stopped"]
        last = bridge.of("sidecar_state_changed", "a", since)[-1]["status"]["last_exit"]
        assert last["cause"] == "shutdown"
        assert_helpers_gone(kit, everything)


def test_a_bridge_ends_at_once_where_there_is_nothing_to_stop(kit: Kit) -> None:
    with kit.bridge({"sidecars": {}}) as bridge:
        bridge.call("ping")
        began = time.monotonic()
        bridge.close()
        assert time.monotonic() - began < 4


def test_input_that_ended_before_the_start_ends_the_bridge(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server(autostart=True))) as bridge:
        bridge.close()
        assert kit.alive() == []


def test_what_was_asked_before_the_end_of_input_is_answered(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        ids = [bridge.send("ping") for _ in range(100)]
        bridge.close()
        assert [bridge.result(id) for id in ids] == ["pong"] * 100


def test_a_broken_stdout_is_an_end_too(kit: Kit) -> None:
    with kit.bridge({**family(kit), "metrics_interval": 0.1}) as bridge:
        start_family(kit, bridge)
        bridge.close_stdout()
        # The next notification meets the broken pipe.
        assert bridge.wait_exit() == 0
        assert kit.alive() == []


def test_an_end_in_the_middle_of_starts_and_backoffs_is_clean(kit: Kit) -> None:
    config = kit.config(
        starting=kit.server("--ready-after", "60", "--children", "1", autostart=True, startup_timeout=60),
        failing=kit.server("--exit-at-start", "1", autostart=True, backoff_initial=60, backoff_max=60),
    )
    with kit.bridge(config) as bridge:
        bridge.wait_state("failing", "backoff")
        kit.wait_alive(2)
        began = time.monotonic()
        bridge.close()
        assert time.monotonic() - began < 10
        assert kit.alive() == []


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_kills_at_once(kit: Kit, first: signal.Signals) -> None:
    with kit.bridge(family(kit, "--ignore-term", shutdown_timeout=60)) as bridge:
        start_family(kit, bridge)
        bridge.send_signal(first)
        bridge.wait_state("a", "stopping")
        began = time.monotonic()
        bridge.send_signal(signal.SIGTERM)
        assert bridge.wait_exit() == 0
        assert time.monotonic() - began < 10
        assert kit.alive() == []


def test_sidecars_are_stopped_side_by_side(kit: Kit) -> None:
    naps = {f"n{i}": kit.sidecar("--slow-stop", "1", "--print", "up", health={"log": "up"}) for i in range(5)}
    with kit.bridge(kit.config(**naps)) as bridge:
        for id in [bridge.send("start_sidecar", {"sidecar": name}) for name in naps]:
            bridge.result(id)
        began = time.monotonic()
        bridge.close()
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("more", [[], ["--ignore-term"]], ids=["polite", "deaf"])
def test_a_killed_bridge_leaves_nothing_of_any_tree(kit: Kit, more: list[str]) -> None:
    with kit.bridge(family(kit, *more)) as bridge:
        everything = start_family(kit, bridge)
        bridge.kill()
        kit.assert_gone(2.0)
        assert_helpers_gone(kit, everything)


def test_a_bridge_killed_during_an_install_leaves_nothing(kit: Kit) -> None:
    install = kit.fault("--children", "1", "--fork-away", "--empty-env")
    nap = kit.sidecar(dependencies={"check": {"path": "missing"}, "install": install})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.send("start_sidecar")
        kit.wait_alive(3)
        bridge.kill()
        kit.assert_gone(2.0)


def test_a_bridge_killed_in_the_middle_of_a_stop_leaves_nothing(kit: Kit) -> None:
    with kit.bridge(family(kit, "--ignore-term", shutdown_timeout=60)) as bridge:
        start_family(kit, bridge)
        bridge.send("stop_sidecar", {"sidecar": "a"})
        bridge.wait_state("a", "stopping")
        bridge.kill()
        kit.assert_gone(2.0)


def test_what_a_killed_bridge_had_captured_is_in_the_files_of_the_next(kit: Kit) -> None:
    config = kit.config(web=kit.server("--lines", "500"))
    with kit.bridge(config) as bridge:
        bridge.start()
        bridge.wait_log("stdout line 000000499")
        bridge.kill()
        kit.assert_gone(2.0)
    with kit.bridge(config) as bridge:
        entries = bridge.call("get_sidecar_logs", {"lines": 1000})["entries"]
        numbers = [entry["text"] for entry in entries if entry["text"].startswith("stdout line")]
        assert len(numbers) == 500
        assert bridge.start()["state"] == "running"


def test_the_death_of_the_named_parent_ends_the_bridge(kit: Kit) -> None:
    with (
        subprocess.Popen(["sleep", "20"]) as parent,
        kit.bridge(family(kit), args=["--parent-pid", str(parent.pid)]) as bridge,
    ):
        start_family(kit, bridge)
        parent.kill()
        parent.wait(5)
        # It is noticed within 1 s.
        bridge.wait_for("bridge_closing", timeout=2)
        assert bridge.wait_exit(10) == 0
        assert bridge.of("bridge_closing")[-1]["reason"] == "parent_died"
        assert kit.alive() == []


def test_a_second_bridge_on_the_same_folder_names_the_first_and_exits_with_3(kit: Kit) -> None:
    config = kit.config(nap=kit.sidecar())
    with kit.bridge(config) as first:
        first.start()
        with kit.bridge(config, check_wire=False) as second:
            assert second.wait_exit() == 3
            assert str(first.pid) in second.stderr
            assert second.lines == []
        assert first.status()["state"] == "running"
        first.close()
        with kit.bridge(config) as third:
            assert third.start()["state"] == "running"


def test_a_takeover_asks_the_first_to_end_and_goes_on(kit: Kit) -> None:
    config = kit.config(nap=kit.sidecar())
    with kit.bridge(config) as first:
        first.start()
        with kit.bridge(config, args=["--takeover"]) as second:
            assert second.start()["state"] == "running"
            assert first.wait_exit() == 0
            assert first.of("bridge_closing")[-1]["reason"] == "takeover"
            assert len(kit.alive()) == 1


def test_a_takeover_asks_and_waits_also_where_its_claim_cannot_be_written(kit: Kit) -> None:
    config = kit.config(nap=kit.sidecar())
    with kit.bridge(config) as first:
        first.start()
        (first.log_dir / ".bridge.claim" / "x").mkdir(parents=True)
        with kit.bridge(config, args=["--takeover"]) as second:
            assert second.start()["state"] == "running"
            assert first.wait_exit() == 0
            assert len(kit.alive()) == 1
            assert not list(second.log_dir.glob(".bridge.claim.*"))


def test_of_several_takeovers_the_newest_stays(kit: Kit) -> None:
    config = kit.config(nap=kit.sidecar("--slow-stop", "1"))
    with kit.bridge(config) as first:
        first.start()
        with kit.bridge(config, args=["--takeover"], reading=True) as second:
            survivors.until(lambda: (first.log_dir / ".bridge.claim").exists(), 10, "the second one's claim")
            with kit.bridge(config, args=["--takeover"]) as third:
                assert second.wait_exit() == 3
                assert third.start()["state"] == "running"
                assert first.wait_exit() == 0


def test_the_loss_of_a_helper_process_is_made_good(kit: Kit) -> None:
    with kit.bridge(family(kit)) as bridge:
        helpers = [pid for pid in start_family(kit, bridge) if pid not in kit.alive()]
        for pid in helpers:
            survivors.kill(pid)
        survivors.until(
            lambda: not helpers or [pid for pid in survivors.descendants(bridge.pid) if pid not in kit.alive()],
            10,
            "another helper process",
        )
        assert bridge.status("a")["state"] == "running"
        assert bridge.call("restart_sidecar", {"sidecar": "b"})["state"] == "running"
        kit.wait_alive(6)
        bridge.kill()
        kit.assert_gone(2.0)


def test_a_hangup_ends_nothing(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar())) as bridge:
        bridge.start()
        bridge.send_signal(signal.Signals["SIGHUP"])
        assert bridge.call("ping") == "pong"
        assert bridge.status()["generation"] == 1


def test_a_killed_bridge_holds_no_lock(kit: Kit) -> None:
    config = kit.config(nap=kit.sidecar())
    with kit.bridge(config) as first:
        first.start()
        first.kill()
    with kit.bridge(config) as second:
        assert second.start()["state"] == "running"


def test_a_shutdown_answers_once_everything_is_stopped(kit: Kit) -> None:
    nap = kit.sidecar("--slow-stop", "0.5", "--print", "up", health={"log": "up"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        assert bridge.call("shutdown") is None
        assert kit.alive() == []
        assert bridge.wait_exit() == 0


def test_nothing_starts_once_a_shutdown_has_begun(kit: Kit) -> None:
    slow = kit.sidecar("--slow-stop", "1", "--print", "up", health={"log": "up"}, shutdown_timeout=10)
    with kit.bridge(kit.config(slow=slow, other=kit.sidecar())) as bridge:
        bridge.start("slow")
        end = bridge.send("shutdown")
        bridge.wait_state("slow", "stopping")
        error = bridge.refusal("start_sidecar", {"sidecar": "other"})
        assert (error.code, error.kind) == (1016, "shutting_down")
        assert bridge.call("ping") == "pong"
        assert bridge.result(end) is None
        assert bridge.wait_exit() == 0


def test_the_stop_of_a_reader_that_reads_no_more_is_still_a_stop(kit: Kit) -> None:
    flood = kit.server("--flood", logs={"max_bytes": 1_000_000, "max_files": 2})
    # The line that was under way when the pipe was full is never finished: nobody takes it.
    with kit.bridge(kit.config(web=flood), check_wire=False) as bridge:
        bridge.start()
        bridge.call("subscribe_sidecar_logs")
        bridge.pause_reading()
        bridge.close_stdin()
        assert bridge.wait_exit(30) == 0
        assert kit.alive() == []


def test_the_bridge_is_the_same_by_its_command(kit: Kit) -> None:
    script = os.path.join(os.path.dirname(sys.executable), "sidecar-bridge")
    if not os.path.exists(script):
        pytest.skip("sidecar-bridge is not installed in this environment")
    with kit.bridge(kit.config(nap=kit.sidecar()), command=[script]) as bridge:
        assert bridge.start()["state"] == "running"
