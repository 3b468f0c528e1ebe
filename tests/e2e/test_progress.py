"""Stages and fractions of a start."""

from __future__ import annotations

import pytest

from tests.support.bridge import Json
from tests.support.kit import Kit

pytestmark = pytest.mark.timeout(60, method="signal")

STAGES = [
    "checking_dependencies",
    "installing_dependencies",
    "spawning_process",
    "waiting_for_health",
    "ready",
]


def assert_sound(progress: list[Json]) -> None:
    """What holds for every start: nothing falls, everything is within its bounds."""
    fractions = [one["fraction"] for one in progress]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    steps = [one["step"] for one in progress]
    assert steps == sorted(steps)
    assert all(1 <= one["step"] <= one["total_steps"] for one in progress)
    order = [STAGES.index(one["stage"]) for one in progress]
    assert order == sorted(order)
    elapsed = [one["elapsed"] for one in progress]
    assert elapsed == sorted(elapsed)
    assert all(one["message"] for one in progress)


def stages(progress: list[Json]) -> list[str]:
    return list(dict.fromkeys(one["stage"] for one in progress))


def test_a_start_with_an_installer_goes_through_five_stages(kit: Kit) -> None:
    web = kit.server(
        "--ready-after",
        "0.3",
        dependencies={
            "check": {"path": "installed"},
            "install": ["sh", "-c", "for n in 1 2 3; do echo step $n; sleep 0.2; done; touch installed"],
        },
        cwd=None,
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        status = bridge.start("web")
        progress = [params["progress"] for params in bridge.of("sidecar_start_progress", "web")]
        assert stages(progress) == STAGES
        assert_sound(progress)
        assert progress[-1]["fraction"] == 1
        messages = [one["message"] for one in progress if one["stage"] == "installing_dependencies"]
        assert any("step 3" in message for message in messages), messages
        assert status["state"] == "running"


def test_a_start_without_dependencies_has_fewer_stages(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        bridge.start()
        progress = [params["progress"] for params in bridge.of("sidecar_start_progress", "web")]
        assert stages(progress)[-3:] == STAGES[-3:]
        assert "installing_dependencies" not in stages(progress)
        assert_sound(progress)


def test_each_start_begins_anew(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        bridge.start()
        since = bridge.mark()
        bridge.call("restart_sidecar")
        progress = [params["progress"] for params in bridge.of("sidecar_start_progress", "web", since)]
        assert progress[0]["fraction"] < 1
        assert_sound(progress)
        assert progress[-1]["fraction"] == 1


def test_the_status_shows_the_progress_of_a_start_under_way(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--ready-after", "60"))) as bridge:
        bridge.send("start_sidecar")
        bridge.wait_for("sidecar_start_progress", lambda p: p["progress"]["stage"] == "waiting_for_health")
        progress = bridge.status()["progress"]
        assert progress["stage"] == "waiting_for_health"
        bridge.call("stop_sidecar")
        assert bridge.status()["progress"] is None
