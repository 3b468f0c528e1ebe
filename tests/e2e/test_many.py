"""A hundred sidecars at once."""

from __future__ import annotations

import pytest

from tests.support import survivors
from tests.support.kit import Kit

pytestmark = pytest.mark.timeout(120, method="signal")

COUNT = 100


def test_a_hundred_sidecars_start_crash_and_stop(kit: Kit) -> None:
    names = [f"n{number:03d}" for number in range(COUNT)]
    config = kit.config(**{name: kit.program(kit.sleeper(), autostart=True) for name in names})
    with kit.bridge(config) as bridge:
        for name in names:
            bridge.wait_state(name, "running")
        assert len(kit.alive()) == COUNT
        statuses = bridge.call("list_sidecars")
        assert [status["sidecar"] for status in statuses] == names
        for status in statuses:
            survivors.kill(status["pid"])
        for name in names:
            bridge.wait_state(name, "running", generation=2)
        assert len(kit.alive()) == COUNT
        for id in [bridge.send("stop_sidecar", {"sidecar": name}) for name in names]:
            assert bridge.result(id)["state"] == "stopped"
        assert kit.alive() == []
        for id in [bridge.send("start_sidecar", {"sidecar": name}) for name in names]:
            assert bridge.result(id)["state"] == "running"
        bridge.close()
        assert kit.alive() == []


def test_a_killed_bridge_of_a_hundred_leaves_none(kit: Kit) -> None:
    config = kit.config(**{f"n{number}": kit.program(kit.sleeper(), autostart=True) for number in range(COUNT)})
    with kit.bridge(config) as bridge:
        survivors.wait_for_carriers(kit.token, COUNT, 30)
        bridge.kill()
        kit.assert_gone(2.0)
