"""Configurations and arguments that are wrong: refused with the field's path, before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge import __version__
from tests.support.bridge import Json, run_bridge
from tests.support.kit import Kit

pytestmark = pytest.mark.timeout(60, method="signal")

GOOD: Json = {
    "log_dir": "logs",
    "sidecars": {
        "web": {
            "command": ["true", "{port}"],
            "port": 0,
            "autostart": False,
            "health": {"http": "http://127.0.0.1:{port}/"},
            "dependencies": {"check": {"path": "x"}},
            "logs": {"max_bytes": 2000},
        },
        "other": {"command": ["true"], "autostart": False},
    },
}

WEB = "sidecars.web"
WRONG: list[tuple[str, Any, str]] = [
    ("colour", "red", "colour"),
    ("log_dir", 5, "log_dir"),
    ("log_dir", "${NO_SUCH_NAME_ANYWHERE}/logs", "log_dir"),
    ("allow_dynamic", "yes", "allow_dynamic"),
    ("metrics_interval", -1, "metrics_interval"),
    ("metrics_interval", "2", "metrics_interval"),
    ("max_message_bytes", -1, "max_message_bytes"),
    ("max_outbound_bytes", "8M", "max_outbound_bytes"),
    ("memory_lines", 1.5, "memory_lines"),
    ("watch_config", 1, "watch_config"),
    ("sidecars", [], "sidecars"),
    ("sidecars.we b", {"command": ["true"]}, "sidecars"),
    ("sidecars.-web", {"command": ["true"]}, "sidecars"),
    (WEB, "true", WEB),
    (f"{WEB}.comand", ["true"], f"{WEB}.comand"),
    (f"{WEB}.command", None, f"{WEB}"),
    (f"{WEB}.command", [], f"{WEB}.command"),
    (f"{WEB}.command", "npm start", f"{WEB}.command"),
    (f"{WEB}.command", ["npm", 5], f"{WEB}.command"),
    (f"{WEB}.command", ["npm", "{prot}"], f"{WEB}.command"),
    (f"{WEB}.command", ["npm", "{"], f"{WEB}.command"),
    (f"{WEB}.cwd", 5, f"{WEB}.cwd"),
    (f"{WEB}.env", ["A=1"], f"{WEB}.env"),
    (f"{WEB}.env", {"A": 1}, f"{WEB}.env"),
    (f"{WEB}.env", {"A": "{nothing}"}, f"{WEB}.env"),
    (f"{WEB}.env", {"A": "${NO_SUCH_NAME_ANYWHERE}"}, f"{WEB}.env"),
    (f"{WEB}.port", 70000, f"{WEB}.port"),
    (f"{WEB}.port", -1, f"{WEB}.port"),
    (f"{WEB}.port", "8080", f"{WEB}.port"),
    (f"{WEB}.port", None, f"{WEB}"),
    (f"{WEB}.host", 127, f"{WEB}.host"),
    (f"{WEB}.stdin", "inherit", f"{WEB}.stdin"),
    (f"{WEB}.autostart", "true", f"{WEB}.autostart"),
    (f"{WEB}.depends_on", ["nobody"], f"{WEB}.depends_on"),
    (f"{WEB}.depends_on", ["web"], f"{WEB}.depends_on"),
    (f"{WEB}.depends_on", "other", f"{WEB}.depends_on"),
    (f"{WEB}.restart", "sometimes", f"{WEB}.restart"),
    (f"{WEB}.stop_signal", "SIGNOTHING", f"{WEB}.stop_signal"),
    (f"{WEB}.stop_http", "http://127.0.0.1:{port}/x y z", f"{WEB}.stop_http"),
    (f"{WEB}.startup_timeout", -5, f"{WEB}.startup_timeout"),
    (f"{WEB}.startup_timeout", True, f"{WEB}.startup_timeout"),
    (f"{WEB}.shutdown_timeout", "5s", f"{WEB}.shutdown_timeout"),
    (f"{WEB}.max_restarts", -1, f"{WEB}.max_restarts"),
    (f"{WEB}.max_restarts", 1.5, f"{WEB}.max_restarts"),
    (f"{WEB}.backoff_initial", -0.1, f"{WEB}.backoff_initial"),
    (f"{WEB}.backoff_initial", 17, f"{WEB}.backoff"),
    (f"{WEB}.backoff_factor", 0.5, f"{WEB}.backoff_factor"),
    (f"{WEB}.backoff_jitter", -1, f"{WEB}.backoff_jitter"),
    (f"{WEB}.flapping_restarts", -1, f"{WEB}.flapping_restarts"),
    (f"{WEB}.flapping_window", -1, f"{WEB}.flapping_window"),
    (f"{WEB}.stable_after", -1, f"{WEB}.stable_after"),
    (f"{WEB}.permanent_exit_codes", ["1"], f"{WEB}.permanent_exit_codes"),
    (f"{WEB}.watch", "src", f"{WEB}.watch"),
    (f"{WEB}.max_memory", -1, f"{WEB}.max_memory"),
    (f"{WEB}.max_cpu_percent", -1, f"{WEB}.max_cpu_percent"),
    (f"{WEB}.secrets", "API_KEY", f"{WEB}.secrets"),
    (f"{WEB}.dependencies", {}, f"{WEB}.dependencies"),
    (f"{WEB}.dependencies.check", {"path": "x", "command": ["x"]}, f"{WEB}.dependencies.check"),
    (f"{WEB}.dependencies.check", {}, f"{WEB}.dependencies.check"),
    (f"{WEB}.dependencies.install", [], f"{WEB}.dependencies.install"),
    (f"{WEB}.dependencies.timeout", -1, f"{WEB}.dependencies.timeout"),
    (f"{WEB}.health", {"interval": 1}, f"{WEB}.health"),
    (f"{WEB}.health", {"http": "http://x/", "tcp": "x:1"}, f"{WEB}.health"),
    (f"{WEB}.health.http", "ftp://127.0.0.1/", f"{WEB}.health.http"),
    (f"{WEB}.health.http", "http://127.0.0.1:{prot}/", f"{WEB}.health.http"),
    (f"{WEB}.health", {"tcp": "no-port"}, f"{WEB}.health.tcp"),
    (f"{WEB}.health", {"command": []}, f"{WEB}.health.command"),
    (f"{WEB}.health", {"log": "("}, f"{WEB}.health.log"),
    (f"{WEB}.health", {"none": False}, f"{WEB}.health"),
    (f"{WEB}.health.interval", -1, f"{WEB}.health.interval"),
    (f"{WEB}.health.interval", 0, f"{WEB}.health.interval"),
    (f"{WEB}.health.timeout", "x", f"{WEB}.health.timeout"),
    (f"{WEB}.health.retry_interval", -1, f"{WEB}.health.retry_interval"),
    (f"{WEB}.health.failure_threshold", 0, f"{WEB}.health.failure_threshold"),
    (f"{WEB}.health.success_threshold", 0, f"{WEB}.health.success_threshold"),
    (f"{WEB}.health.expect_status", [42], f"{WEB}.health.expect_status"),
    (f"{WEB}.health.expect_status", 200, f"{WEB}.health.expect_status"),
    (f"{WEB}.health.verify_owner", "no", f"{WEB}.health.verify_owner"),
    (f"{WEB}.health.ready_after", -1, f"{WEB}.health.ready_after"),
    (f"{WEB}.health.colour", "red", f"{WEB}.health.colour"),
    (f"{WEB}.logs.max_bytes", -1, f"{WEB}.logs.max_bytes"),
    (f"{WEB}.logs.max_files", "many", f"{WEB}.logs.max_files"),
    (f"{WEB}.logs.level", "info", f"{WEB}.logs.level"),
]


def changed(path: str, value: Any) -> Json:
    config: Json = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    place = config
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return config


def check(folder: Path, config: Json) -> tuple[int, str]:
    path = folder / "sidecars.json"
    path.write_text(json.dumps(config))
    done = run_bridge("check", str(path))
    return done.returncode, done.stderr.decode()


def test_the_configuration_that_the_wrong_ones_start_from_is_right(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD) == (0, "")


@pytest.mark.parametrize(
    ("path", "value", "said"), WRONG, ids=[f"{path}={json.dumps(value)}"[:60] for path, value, _ in WRONG]
)
def test_a_wrong_field_is_refused_by_its_path(tmp_path: Path, path: str, value: Any, said: str) -> None:
    code, text = check(tmp_path, changed(path, value))
    assert code == 2
    assert said in text
    assert "Traceback" not in text
    # One sentence, not a page.
    assert len(text.strip().splitlines()) <= 3


def test_a_circle_of_dependencies_is_refused(tmp_path: Path) -> None:
    config = changed(f"{WEB}.depends_on", ["other"])
    config["sidecars"]["other"]["depends_on"] = ["web"]
    code, text = check(tmp_path, config)
    assert code == 2
    assert "depends_on" in text


def test_serve_refuses_as_check_does_and_writes_nothing_to_stdout(kit: Kit) -> None:
    with kit.bridge(changed(f"{WEB}.health.interval", -1), check_wire=False) as bridge:
        assert bridge.wait_exit() == 2
        assert "sidecars.web.health.interval" in bridge.stderr
        assert bridge.lines == []


@pytest.mark.parametrize("name", ["max_message_bytes", "max_outbound_bytes", "memory_lines"])
@pytest.mark.parametrize("value", [0, 1, 1024, 4096, 2**62])
def test_a_bound_is_refused_or_works(kit: Kit, name: str, value: int) -> None:
    config = {name: value, **kit.config(nap=kit.sidecar("--lines", "20"))}
    with kit.bridge(config, check_wire=False) as bridge:
        if check(kit.folder, config)[0] == 2:
            assert bridge.wait_exit() == 2
            assert name in bridge.stderr
        else:
            assert bridge.start()["state"] == "running"
            bridge.assert_wire_is_clean()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.toml", b"[sidecars\n"),
        ("broken.json", b'{"sidecars": '),
        ("latin.toml", b'log_dir = "\xff"\n'),
        ("deep.json", b"[" * 100_000),
        ("list.json", b"[]"),
        ("double.toml", b'log_dir = "a"\nlog_dir = "b"\n'),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = run_bridge("serve", "--config", str(path))
    assert done.returncode == 2
    assert name in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        done = run_bridge("serve", "--config", str(path))
        assert done.returncode == 2
        assert str(path) in done.stderr.decode()
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["serve"],
        ["serve", "--config"],
        ["serve", "--config", "x.toml", "--nonsense"],
        ["serve", "--config", "x.toml", "--parent-pid", "abc"],
        ["serve", "--config", "x.toml", "--set", "no-equals-sign"],
        ["check"],
        ["call"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_2(args: list[str]) -> None:
    done = run_bridge(*args)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr
    assert b"Traceback" not in done.stderr


def test_toml_and_json_are_the_same(kit: Kit) -> None:
    fault = json.dumps(kit.fault())
    toml = f"metrics_interval = 0\n[sidecars.nap]\ncommand = {fault}\nautostart = false\n"
    for name, config in (("toml", toml), ("json", kit.config(nap={"command": kit.fault(), "autostart": False}))):
        with kit.bridge(config, name=name) as bridge:
            assert bridge.start()["state"] == "running"


def test_set_changes_single_fields(kit: Kit) -> None:
    config = kit.config(web=kit.server(max_restarts=3))
    args = ["--set", "sidecars.web.max_restarts=7", "--set", "sidecars.web.autostart=true"]
    args += ["--set", 'sidecars.web.env={ GREETING = "a=b" }', "--set", "sidecars.web.stop_signal=SIGHUP"]
    with kit.bridge(config, args=args) as bridge:
        status = bridge.wait_state("web", "running")["status"]
        assert status["max_restarts"] == 7
        environ = Path(f"/proc/{status['pid']}/environ").read_bytes()
        assert b"GREETING=a=b" in environ
        assert bridge.call("stop_sidecar")["last_exit"]["signal"] == "SIGHUP"


def test_a_wrong_set_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "sidecars.json"
    path.write_text(json.dumps(GOOD))
    done = run_bridge("serve", "--config", str(path), "--set", "sidecars.web.max_restarts=many")
    assert done.returncode == 2
    assert "sidecars.web.max_restarts" in done.stderr.decode()


def test_the_log_dir_argument_wins(kit: Kit) -> None:
    with kit.bridge(kit.config(nap=kit.sidecar()), args=["--log-dir", str(kit.work / "elsewhere")]) as bridge:
        assert bridge.call("get_bridge_info")["log_dir"] == str(kit.work / "elsewhere")
        bridge.start()
        assert (kit.work / "elsewhere").is_dir()


def test_a_file_without_sidecars_is_valid(kit: Kit) -> None:
    for name, config in (("toml", "metrics_interval = 0\n"), ("json", {"sidecars": {}})):
        with kit.bridge(config, name=name) as bridge:
            assert bridge.call("list_sidecars") == []


def test_the_version_is_told(tmp_path: Path) -> None:
    done = run_bridge("--version")
    assert done.returncode == 0
    assert __version__ in done.stdout.decode()


@pytest.mark.parametrize("command", ["serve", "check", "schema", "demo", "call"])
def test_every_command_has_help(command: str) -> None:
    done = run_bridge(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout.decode()
