"""What a start needs first: files checked and installed, other sidecars running."""

from __future__ import annotations

import time

import pytest

from tests.support.bridge import Json
from tests.support.kit import Kit, control

pytestmark = pytest.mark.timeout(60, method="signal")


def needing(kit: Kit, check: Json, install: list[str] | None = None, **fields: object) -> Json:
    dependencies: Json = {"check": check}
    if install is not None:
        dependencies["install"] = install
    # Paths and programs alike begin at the configuration's folder.
    return kit.sidecar(dependencies={**dependencies, **fields}, cwd=None)


def stages(bridge_notes: list[Json]) -> list[str]:
    return list(dict.fromkeys(params["progress"]["stage"] for params in bridge_notes))


# --- check and install ------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_installed(kit: Kit) -> None:
    (kit.home / "there").mkdir(parents=True)
    nap = needing(kit, {"path": "there"}, ["touch", "installed"])
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        assert "installing_dependencies" not in stages(bridge.of("sidecar_start_progress"))
        assert not (kit.home / "installed").exists()


def test_what_is_missing_is_installed_once(kit: Kit) -> None:
    install = ["sh", "-c", "echo run >> runs; touch there"]
    with kit.bridge(kit.config(nap=needing(kit, {"path": "there"}, install))) as bridge:
        bridge.start()
        bridge.call("restart_sidecar")
        assert (kit.home / "runs").read_text() == "run\n"


def test_a_check_may_be_a_command(kit: Kit) -> None:
    nap = needing(kit, {"command": ["test", "-e", "there"]}, ["touch", "there"])
    with kit.bridge(kit.config(nap=nap)) as bridge:
        assert bridge.start()["state"] == "running"
        assert (kit.home / "there").exists()


def test_the_installers_last_line_is_the_message(kit: Kit) -> None:
    script = "echo fetching; echo 'added 12 packages' >&2; while ! test -e go; do sleep 0.05; done; touch there"
    with kit.bridge(kit.config(nap=needing(kit, {"path": "there"}, ["sh", "-c", script]))) as bridge:
        start = bridge.send("start_sidecar")
        params = bridge.wait_for("sidecar_start_progress", lambda p: "added 12 packages" in p["progress"]["message"])
        assert params["progress"]["stage"] == "installing_dependencies"
        assert bridge.status()["state"] == "starting"
        (kit.home / "go").touch()
        assert bridge.result(start)["state"] == "running"


FAILURES: dict[str, tuple[list[str] | None, str]] = {
    "the installer fails": (["sh", "-c", "echo no network; echo really none >&2; exit 9"], "really none"),
    "the installer is missing": (["no-such-installer"], "no-such-installer"),
    "the installer succeeds and nothing is there": (["true"], ""),
    "there is no installer": (None, ""),
}


@pytest.mark.parametrize(("install", "said"), FAILURES.values(), ids=FAILURES.keys())
def test_dependencies_that_stay_missing_fail_the_start(kit: Kit, install: list[str] | None, said: str) -> None:
    with kit.bridge(kit.config(nap=needing(kit, {"path": "missing"}, install))) as bridge:
        error = bridge.refusal("start_sidecar")
        assert (error.code, error.kind) == (1005, "dependency_failed")
        assert said in error.message + str(error.detail)
        status = bridge.status()
        assert (status["state"], status["error"]["kind"]) == ("failed", "dependency_failed")
        assert bridge.states("nap") == ["starting", "failed"]
        assert kit.alive() == []


def test_an_installer_that_takes_too_long_is_ended_with_all_that_it_started(kit: Kit) -> None:
    install = kit.fault("--label", "installer", "--children", "1", "--fork-away", "--empty-env", "--ignore-term")
    nap = needing(kit, {"path": "missing"}, install, timeout=0.6)
    with kit.bridge(kit.config(nap=nap)) as bridge:
        error = bridge.refusal("start_sidecar")
        assert error.kind == "dependency_failed"
        assert kit.alive() == []


@pytest.mark.parametrize("force", [False, True])
def test_a_stop_during_the_install_ends_the_installers_tree(kit: Kit, force: bool) -> None:
    install = kit.fault("--children", "1", "--fork-away", "--empty-env", "--print", "installing")
    with kit.bridge(kit.config(nap=needing(kit, {"path": "missing"}, install))) as bridge:
        start = bridge.send("start_sidecar")
        bridge.wait_for("sidecar_start_progress", lambda p: p["progress"]["stage"] == "installing_dependencies")
        kit.wait_alive(3)
        assert bridge.call("stop_sidecar", {"force": force})["state"] == "stopped"
        assert kit.alive() == []
        assert bridge.answer(start)["error"]["code"] == 1008


def test_the_end_of_input_during_the_install_ends_the_installers_tree(kit: Kit) -> None:
    install = kit.fault("--children", "1", "--fork-away", "--empty-env")
    with kit.bridge(kit.config(nap=needing(kit, {"path": "missing"}, install))) as bridge:
        bridge.send("start_sidecar")
        kit.wait_alive(3)
        bridge.close()
        assert kit.alive() == []


# --- depends_on -------------------------------------------------------------------------------------------------------


def moments(bridge_notes: list[Json]) -> list[tuple[str, str]]:
    return [(params["sidecar"], params["state"]) for params in bridge_notes]


def test_what_others_need_is_started_first_and_stopped_last(kit: Kit) -> None:
    config = kit.config(
        top=kit.server(autostart=True, depends_on=["middle"]),
        middle=kit.server(autostart=True, depends_on=["base"]),
        base=kit.server("--ready-after", "0.3", autostart=True),
    )
    with kit.bridge(config) as bridge:
        bridge.wait_state("top", "running")
        seen = [
            (params["sidecar"], params["progress"]["stage"] if "progress" in params else params["state"])
            for params in (message["params"] for message in bridge.notifications)
            if "progress" in params or "state" in params
        ]
        assert seen.index(("base", "running")) < seen.index(("middle", "spawning_process"))
        assert seen.index(("middle", "running")) < seen.index(("top", "spawning_process"))
        since = bridge.mark()
        bridge.close()
        seen = moments(bridge.of("sidecar_state_changed", since=since))
        assert seen.index(("top", "stopped")) < seen.index(("middle", "stopping"))
        assert seen.index(("middle", "stopped")) < seen.index(("base", "stopping"))


def test_a_start_starts_what_it_needs(kit: Kit) -> None:
    config = kit.config(top=kit.sidecar(depends_on=["base"]), base=kit.server("--ready-after", "0.2"))
    with kit.bridge(config) as bridge:
        assert bridge.start("top")["state"] == "running"
        assert bridge.status("base")["state"] == "running"


def test_a_stop_stops_first_what_depends_on_it(kit: Kit) -> None:
    config = kit.config(top=kit.sidecar(depends_on=["base"]), base=kit.sidecar(), other=kit.sidecar())
    with kit.bridge(config) as bridge:
        bridge.start("top")
        bridge.start("other")
        since = bridge.mark()
        assert bridge.call("stop_sidecar", {"sidecar": "base"})["state"] == "stopped"
        seen = moments(bridge.of("sidecar_state_changed", since=since))
        assert seen == [("top", "stopping"), ("top", "stopped"), ("base", "stopping"), ("base", "stopped")]
        assert bridge.status("other")["state"] == "running"


def test_what_depends_on_a_failure_is_not_started(kit: Kit) -> None:
    config = kit.config(
        top=kit.sidecar(depends_on=["base"]), base=kit.server("--print-err", "broken", "--exit-at-start", "4")
    )
    with kit.bridge(config) as bridge:
        error = bridge.refusal("start_sidecar", {"sidecar": "top"})
        assert (error.code, error.kind, error.data["sidecar"]) == (1020, "dependency_not_running", "top")
        assert "base" in error.message
        assert bridge.status("top")["generation"] == 0
        assert bridge.status("top")["error"]["kind"] == "dependency_not_running"
        assert bridge.status("base")["error"]["kind"] == "exited_early"


def test_a_crash_of_what_others_need_does_not_touch_them(kit: Kit) -> None:
    config = kit.config(top=kit.sidecar(depends_on=["base"]), base=kit.server())
    with kit.bridge(config) as bridge:
        bridge.start("top")
        control(bridge.status("base")["port"], "crash/3")
        bridge.wait_state("base", "running", generation=2)
        assert bridge.status("top")["generation"] == 1


def test_two_that_need_the_same_share_its_start(kit: Kit) -> None:
    config = kit.config(
        a=kit.sidecar(depends_on=["base"]), b=kit.sidecar(depends_on=["base"]), base=kit.server("--ready-after", "0.3")
    )
    with kit.bridge(config) as bridge:
        ids = [bridge.send("start_sidecar", {"sidecar": name}) for name in ("a", "b")]
        assert [bridge.result(id)["state"] for id in ids] == ["running", "running"]
        assert bridge.status("base")["generation"] == 1


# --- isolation --------------------------------------------------------------------------------------------------------


def test_a_slow_stop_delays_no_other_sidecar(kit: Kit) -> None:
    config = kit.config(
        slow=kit.sidecar("--ignore-term", "--print", "up", health={"log": "up"}, shutdown_timeout=60),
        web=kit.server(),
    )
    with kit.bridge(config) as bridge:
        bridge.start("slow")
        slow = bridge.send("stop_sidecar", {"sidecar": "slow"})
        bridge.wait_state("slow", "stopping")
        bridge.start("web")
        control(bridge.status("web")["port"], "crash/3")
        bridge.wait_state("web", "running", generation=2)
        bridge.call("stop_sidecar", {"sidecar": "web"})
        assert not bridge.answered(slow)
        bridge.call("stop_sidecar", {"sidecar": "slow", "force": True})
        assert bridge.result(slow)["state"] == "stopped"


def test_a_hanging_check_delays_no_other_sidecar(kit: Kit) -> None:
    config = kit.config(
        stuck=kit.server(health={"interval": 0.05, "timeout": 60}),
        web=kit.server(health={"interval": 0.05}),
    )
    with kit.bridge(config) as bridge:
        control(bridge.start("stuck")["port"], "hang")
        bridge.start("web")
        hanging = bridge.send("check_sidecar_health", {"sidecar": "stuck"})
        began = time.monotonic()
        for _ in range(10):
            assert bridge.call("check_sidecar_health", {"sidecar": "web"})["ok"]
        assert time.monotonic() - began < 10
        assert not bridge.answered(hanging)
        bridge.call("stop_sidecar", {"sidecar": "stuck"})


def test_a_flood_delays_neither_requests_nor_other_sidecars(kit: Kit) -> None:
    flood = kit.sidecar("--flood", logs={"max_bytes": 1_000_000, "max_files": 2})
    with kit.bridge(kit.config(flood=flood, web=kit.server())) as bridge:
        bridge.start("flood")
        bridge.start("web")
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            assert bridge.call("ping") == "pong"
            slowest = max(slowest, time.monotonic() - began)
        # The goal is milliseconds; what must not be is a starved loop.
        assert slowest < 1.0
        control(bridge.status("web")["port"], "crash/3")
        bridge.wait_state("web", "running", generation=2)
        assert bridge.call("stop_sidecar", {"sidecar": "flood"})["state"] == "stopped"
