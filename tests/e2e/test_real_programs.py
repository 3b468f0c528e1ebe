"""Programs that people really run as sidecars: started, killed, recovered, restarted, stopped, nothing left over."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import survivors
from tests.support.bridge import Bridge, Json
from tests.support.kit import Kit, fetch, free_port

pytestmark = pytest.mark.timeout(90, method="signal")

REAL = Path(__file__).parents[1] / "support" / "real"
START_S = 40
"""npm takes a second on a free machine, and several on a busy one."""


def real(kit: Kit, command: list[str], *, path: str = "/", **fields: object) -> Json:
    """A real program with the token in its environment, which also finds processes that rewrite their command line."""
    env = {"E2E_TOKEN": kit.token, "PORT": "{port}"}
    health = {"http": "http://127.0.0.1:{port}" + path, "interval": 1}
    fields.setdefault("port", 0)
    fields.setdefault("cwd", str(kit.work))
    return kit.program(command, env=env, health=health, startup_timeout=START_S, **fields)


def tree(status: Json, least: int) -> set[int]:
    """The leader and its descendants, once there are enough of them."""
    pid = status["pid"]
    found = survivors.until(
        lambda: len(pids := {pid, *survivors.descendants(pid)}) >= least and pids, 10, f"{least} processes below {pid}"
    )
    assert isinstance(found, set)
    return found


def assert_dead(pids: set[int]) -> None:
    left = [f"{pid} {survivors.command_line(pid)}" for pid in pids if survivors.alive(pid)]
    assert left == []


def play(kit: Kit, app: Json, *, processes: int, path: str = "/") -> None:
    """The life of a sidecar. `processes`: how many it has at least."""

    def serving(bridge: Bridge, status: Json) -> set[int]:
        assert (status["state"], status["health"]) == ("running", "healthy")
        assert fetch(status["port"], path)
        return tree(status, processes)

    with kit.bridge(kit.config(app=app)) as bridge:
        first = bridge.start("app", timeout=START_S + 5)
        old = serving(bridge, first)

        survivors.kill(first["pid"])
        second = bridge.wait_state("app", "running", START_S + 5, generation=2)["status"]
        assert second["last_exit"]["signal"] == "SIGKILL"
        assert second["restart_count"] == 1
        assert_dead(old)
        old = serving(bridge, second)

        third = bridge.call("restart_sidecar", timeout=START_S + 5)
        assert third["generation"] == 3
        assert_dead(old)
        old = serving(bridge, third)

        assert bridge.call("stop_sidecar")["state"] == "stopped"
        assert_dead(old)
        assert kit.alive() == []
        assert not survivors.listeners(third["port"])

        # And once more, ended by the death of the bridge.
        old = serving(bridge, bridge.start("app", timeout=START_S + 5))
        bridge.kill()
        kit.assert_gone(2.0)
        assert_dead(old)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_node_server_under_npm(kit: Kit) -> None:
    folder = kit.work / "npm_app"
    shutil.copytree(REAL / "npm_app", folder)
    app = real(kit, ["npm", "start"], path="/health", cwd=str(folder))
    app["env"] |= {"npm_config_update_notifier": "false", "npm_config_cache": str(kit.work / "npm-cache")}
    play(kit, app, processes=2, path="/health")


def test_pythons_own_file_server(kit: Kit) -> None:
    app = real(kit, [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"])
    play(kit, app, processes=1)


@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="uvicorn is not installed")
def test_uvicorn_with_two_workers(kit: Kit) -> None:
    shutil.copy(REAL / "asgi_app.py", kit.work)
    command = [sys.executable, "-m", "uvicorn", "asgi_app:app", "--port", "{port}", "--workers", "2"]
    play(kit, real(kit, command), processes=3)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_in_the_foreground(kit: Kit) -> None:
    port = free_port()
    config = kit.work / "nginx.conf"
    config.write_text((REAL / "nginx.conf").read_text().replace("PORT", str(port)))
    # The workers belong to another user, who has to get through to their folder.
    command = ["nginx", "-p", str(kit.work), "-c", str(config), "-g", "daemon off;"]
    play(kit, real(kit, command, port=port, stop_signal="SIGQUIT"), processes=3)


def test_the_process_shape_of_a_one_file_build(kit: Kit) -> None:
    temporary = kit.work / "tmp"
    temporary.mkdir()
    app = real(kit, [sys.executable, str(REAL / "onefile.py"), "{port}"])
    app["env"]["TMPDIR"] = str(temporary)
    play(kit, app, processes=2)
    # Each orderly stop removed its folder, the death of the bridge included; the killed boot loader could not.
    assert len(list(temporary.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.timeout(600, method="signal")
@pytest.mark.skipif(importlib.util.find_spec("PyInstaller") is None, reason="PyInstaller is not installed")
def test_a_real_one_file_build(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> None:
    build = tmp_path_factory.mktemp("pyinstaller")
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--onefile", "--log-level", "WARN", str(REAL / "onefile_server.py")],
        cwd=build,
        check=True,
        timeout=500,
    )
    play(kit, real(kit, [str(build / "dist" / "onefile_server"), "{port}"]), processes=2)
