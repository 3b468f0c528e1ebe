"""What a sidecar finds when it starts, and what nobody finds: secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.kit import Kit, control, fetch

pytestmark = pytest.mark.timeout(60, method="signal")

SECRET = "hunter2-0123456789"


OF_THE_C_LIBRARY = 3 << 31
"""Signals 32 and 33: programs that make starts have them ignored, and nobody but the C library may change that."""


def environment(kit: Kit, pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


def test_a_sidecar_gets_the_bridges_environment_and_a_few_names_more(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server()), env={"E2E_PASSED_ON": "yes ü", "PYTHONUTF8": None}) as bridge:
        env = environment(kit, bridge.start()["pid"])
        assert env["PYTHONUNBUFFERED"] == "1"
        assert env["PYTHONUTF8"] == "1"
        assert env["SIDECAR_NAME"] == "web"
        assert env["E2E_PASSED_ON"] == "yes ü"
        assert set(bridge.env) <= set(env)
        assert env["SIDECAR_BRIDGE_MARK"]


def test_what_is_set_already_is_not_changed(kit: Kit) -> None:
    web = kit.server(env={"PYTHONUTF8": "0"})
    with kit.bridge(kit.config(web=web), env={"PYTHONUNBUFFERED": "x"}) as bridge:
        env = environment(kit, bridge.start()["pid"])
        assert (env["PYTHONUTF8"], env["PYTHONUNBUFFERED"]) == ("0", "x")


def test_words_in_braces_are_filled_in_everywhere(kit: Kit) -> None:
    web = kit.server(
        "--label",
        "{name} {{braces}} $$dollar",
        env={"PORT": "{port}", "WHERE": "{host}:{port} of {name} in {log_dir}"},
    )
    with kit.bridge(kit.config(web=web)) as bridge:
        status = bridge.start()
        env = environment(kit, status["pid"])
        assert env["PORT"] == str(status["port"])
        assert env["WHERE"].startswith(f"127.0.0.1:{status['port']} of web in ")
        assert env["WHERE"].split(" in ")[1].startswith(str(bridge.log_dir))
        assert "web {braces} $dollar" in status["command"]


def test_names_of_the_environment_are_filled_in(kit: Kit) -> None:
    config = {"log_dir": "${E2E_DATA}/my logs", **kit.config(nap=kit.sidecar(env={"GREETING": "hi ${E2E_WHO}"}))}
    with kit.bridge(config, env={"E2E_DATA": str(kit.work), "E2E_WHO": "world"}) as bridge:
        assert environment(kit, bridge.start()["pid"])["GREETING"] == "hi world"
        assert bridge.call("get_bridge_info")["log_dir"] == str(kit.work / "my logs")


def test_a_sidecar_starts_in_the_folder_of_the_configuration(kit: Kit) -> None:
    (kit.folder / "bridge" / "below").mkdir(parents=True)
    config = kit.config(here=kit.sidecar(cwd=None), below=kit.sidecar(cwd="below"))
    with kit.bridge(config) as bridge:
        for name, folder in (("here", "bridge"), ("below", "bridge/below")):
            pid = bridge.start(name)["pid"]
            assert Path(f"/proc/{pid}/cwd").readlink() == kit.folder / folder


def test_a_sidecar_starts_with_default_signals_and_three_descriptors(kit: Kit) -> None:
    nap = kit.program(kit.sleeper())
    with kit.bridge(kit.config(nap=nap, other=kit.sidecar())) as bridge:
        bridge.start("other")
        pid = bridge.start("nap")["pid"]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["SigIgn"], 16) & ~OF_THE_C_LIBRARY == 0
        assert int(status["SigBlk"], 16) == 0
        # tail itself opens its file and an inotify descriptor.
        links = {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        foreign = [link for name, link in links.items() if int(name) > 2 and ("pipe" in link or "socket" in link)]
        assert foreign == []
        assert links["0"] == "/dev/null"
        assert links["1"].startswith("pipe:")
        assert links["2"].startswith("pipe:")
        assert links["1"] != links["2"]


def test_output_of_a_python_sidecar_comes_without_delay(kit: Kit) -> None:
    script = "import time\nprint('at once')\ntime.sleep(1000)"
    nap = kit.program([sys.executable, "-c", script, kit.token], health={"log": "at once"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        assert bridge.start()["state"] == "running"


def test_a_secret_is_shown_nowhere(kit: Kit) -> None:
    web = kit.server(
        "--label",
        SECRET,
        "--print-err",
        f"cannot log in with {SECRET}",
        env={"API_KEY": SECRET, "HARMLESS": "plain"},
        secrets=["API_KEY"],
        restart="never",
    )
    with kit.bridge(kit.config(web=web), args=["--log-level", "debug"]) as bridge:
        port = bridge.start()["port"]
        assert fetch(port, "/env/API_KEY") == SECRET
        control(port, "crash/3")
        bridge.wait_state("web", "failed")
        for method in ("get_sidecar_status", "list_sidecars", "get_sidecar_events", "get_bridge_info"):
            assert SECRET not in json.dumps(bridge.call(method))
        bridge.close()
        assert all(SECRET.encode() not in line for line in bridge.lines)
        assert SECRET not in bridge.stderr
    assert SECRET in (bridge.log_dir / "sidecar-stderr.log").read_text()


def test_a_secret_that_the_bridge_inherits_is_shown_nowhere_either(kit: Kit) -> None:
    web = kit.server(
        "--label", "${API_KEY}", "--exit-at-start", "1", "--print-err", f"no {SECRET}", secrets=["API_KEY"]
    )
    with kit.bridge(kit.config(web=web), env={"API_KEY": SECRET}) as bridge:
        error = bridge.refusal("start_sidecar")
        assert SECRET not in str(error)
        bridge.close()
        assert all(SECRET.encode() not in line for line in bridge.lines)
        assert SECRET not in bridge.stderr
