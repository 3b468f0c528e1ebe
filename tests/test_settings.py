"""What a configuration becomes, and how each way to get it wrong is refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bridge.errors import ConfigInvalid
from bridge.settings import (
    DependencySettings,
    HealthSettings,
    LogSettings,
    Settings,
    SidecarSettings,
    check_depends_on,
    default_log_dir,
    fill,
    from_mapping,
    load,
    ready_pattern,
    sidecar_from_mapping,
    unused,
    url_values,
)

ENVIRON = {"HOME": "/home/me", "APP_DATA": "/data/app", "ODD": "a{b}c", "EMPTY": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(folder: Path, text: str, *overrides: str, name: str = "sidecars.toml", **options: Any) -> Settings:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return load(str(file), overrides=overrides, environ=ENVIRON, **options)


def refused(folder: Path, text: str, *overrides: str, name: str = "sidecars.toml") -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        read(folder, text, *overrides, name=name)
    assert msgspec.json.encode(caught.value.detail)
    assert caught.value.message.isprintable() or "\n" in caught.value.message
    return caught.value


def one(data: Mapping[str, Any], **environ: str) -> SidecarSettings:
    return sidecar_from_mapping("web", {"command": ["x"], **data}, folder="/app", environ={**ENVIRON, **environ})


def wrong(data: Mapping[str, Any]) -> ConfigInvalid:
    with pytest.raises(ConfigInvalid) as caught:
        one(data)
    assert caught.value.sidecar == "web"
    return caught.value


# --- what it becomes -------------------------------------------------------------------------------------------------


def test_a_file_without_sidecars_is_valid(folder: Path) -> None:
    settings = read(folder, "")
    assert settings.path == str(folder / "sidecars.toml")
    assert settings.folder == str(folder)
    assert settings.sidecars == {}
    assert (settings.allow_dynamic, settings.watch_config, settings.metrics_interval) == (False, False, 2.0)
    assert (settings.max_message_bytes, settings.max_outbound_bytes) == (4 * 1024 * 1024, 8 * 1024 * 1024)
    assert settings.memory_lines == 10_000


def test_a_command_is_all_that_a_sidecar_needs(folder: Path) -> None:
    web = read(folder, '[sidecars.web]\ncommand = ["npm", "start"]').sidecars["web"]
    assert web == SidecarSettings(name="web", command=("npm", "start"), cwd=str(folder))
    assert (web.port, web.host, web.stdin, web.autostart, web.restart) == (
        None,
        "127.0.0.1",
        "null",
        True,
        "on_failure",
    )
    assert (web.stop_signal, web.startup_timeout, web.shutdown_timeout, web.max_restarts) == ("SIGTERM", 30, 5, 5)
    assert (web.backoff_initial, web.backoff_factor, web.backoff_max, web.backoff_jitter) == (1, 2, 16, 0)
    assert (web.stable_after, web.flapping_restarts, web.flapping_window) == (60, 10, 3600)
    assert web.health == HealthSettings(kind="none")
    assert web.logs == LogSettings(max_bytes=10_485_760, max_files=5)
    assert web.dependencies is None


EVERYTHING: dict[str, Any] = {
    "log_dir": "${APP_DATA}/logs",
    "allow_dynamic": True,
    "metrics_interval": 5,
    "watch_config": True,
    "max_message_bytes": 65_536,
    "max_outbound_bytes": 131_072,
    "memory_lines": 50,
    "sidecars": {
        "web": {
            "command": ["node", "server.js", "--port={port}"],
            "cwd": "server",
            "env": {"PORT": "{port}", "DATA": "${APP_DATA}"},
            "host": "::1",
            "port": 0,
            "stdin": "pipe",
            "autostart": False,
            "depends_on": ["db"],
            "restart": "always",
            "stop_signal": "SIGINT",
            "stop_http": "POST http://{host}:{port}/shutdown",
            "startup_timeout": 1,
            "shutdown_timeout": 0,
            "max_restarts": 0,
            "backoff_initial": 0,
            "backoff_factor": 1.5,
            "backoff_max": 3,
            "backoff_jitter": 0.5,
            "stable_after": 9,
            "flapping_restarts": 3,
            "flapping_window": 60,
            "permanent_exit_codes": [78, 3221225477],
            "watch": ["src/**/*.js"],
            "max_memory": 1_000_000,
            "max_cpu_percent": 150,
            "secrets": ["API_KEY"],
            "dependencies": {"check": {"path": "node_modules"}, "install": ["npm", "ci"], "timeout": 10},
            "health": {
                "http": "http://{host}:{port}/health",
                "interval": 1,
                "timeout": 2,
                "retry_interval": 0.5,
                "failure_threshold": 1,
                "success_threshold": 4,
                "expect_status": [200, 204],
                "verify_owner": False,
                "ready_after": 3,
            },
            "logs": {"max_bytes": 4096, "max_files": 0},
        },
        "db": {"command": ["db"], "dependencies": {"check": {"command": ["db", "--version"]}}},
    },
}


def test_every_key_is_kept(folder: Path) -> None:
    settings = read(folder, json.dumps(EVERYTHING), name="sidecars.json")
    assert settings.log_dir == "/data/app/logs"
    assert settings.sidecars["web"] == SidecarSettings(
        name="web",
        command=("node", "server.js", "--port={port}"),
        cwd=str(folder / "server"),
        env={"PORT": "{port}", "DATA": "/data/app"},
        host="::1",
        port=0,
        stdin="pipe",
        autostart=False,
        depends_on=("db",),
        restart="always",
        stop_signal="SIGINT",
        stop_http="POST http://{host}:{port}/shutdown",
        startup_timeout=1.0,
        shutdown_timeout=0.0,
        max_restarts=0,
        backoff_initial=0.0,
        backoff_factor=1.5,
        backoff_max=3.0,
        backoff_jitter=0.5,
        stable_after=9.0,
        flapping_restarts=3,
        flapping_window=60.0,
        permanent_exit_codes=(78, 3221225477),
        watch=("src/**/*.js",),
        max_memory=1_000_000,
        max_cpu_percent=150.0,
        secrets=("API_KEY",),
        dependencies=DependencySettings(
            check_path=str(folder / "node_modules"),
            check_path_in_cwd=str(folder / "server" / "node_modules"),
            install=("npm", "ci"),
            timeout=10.0,
            check_command=None,
        ),
        health=HealthSettings(
            kind="http",
            http="http://{host}:{port}/health",
            interval=1.0,
            timeout=2.0,
            retry_interval=0.5,
            failure_threshold=1,
            success_threshold=4,
            expect_status=(200, 204),
            verify_owner=False,
            ready_after=3.0,
        ),
        logs=LogSettings(max_bytes=4096, max_files=0),
    )
    assert list(settings.sidecars) == ["web", "db"]
    assert settings.sidecars["db"].dependencies == DependencySettings(check_command=("db", "--version"))


def test_the_table_above_names_every_key() -> None:
    web = EVERYTHING["sidecars"]["web"]
    assert {*web, "name"} == set(SidecarSettings.__struct_fields__)
    assert {*EVERYTHING, "path", "folder"} == set(Settings.__struct_fields__)
    assert {*web["health"], "kind", "tcp", "command", "log"} == set(HealthSettings.__struct_fields__)
    assert set(web["logs"]) == set(LogSettings.__struct_fields__)


def test_what_does_nothing_yet_is_named_by_its_path(folder: Path) -> None:
    assert unused(read(folder, "")) == []
    assert unused(read(folder, '[sidecars.a]\ncommand = ["x"]\nwatch = []\nmax_memory = 0\n')) == []
    assert unused(read(folder, json.dumps(EVERYTHING), name="sidecars.json")) == [
        "allow_dynamic",
        "watch_config",
        "sidecars.web.watch",
        "sidecars.web.max_memory",
        "sidecars.web.max_cpu_percent",
    ]
    assert unused(read(folder, '[sidecars."a.b"]\ncommand = ["x"]\nmax_memory = 1')) == ['sidecars."a.b".max_memory']


def test_toml_and_json_mean_the_same(folder: Path) -> None:
    toml = 'log_dir = "l"\n[sidecars.a]\ncommand = ["x"]\nport = 0\n[sidecars.a.health]\ntcp = "{host}:{port}"\n'
    data = {"log_dir": "l", "sidecars": {"a": {"command": ["x"], "port": 0, "health": {"tcp": "{host}:{port}"}}}}
    left = read(folder, toml)
    right = read(folder, json.dumps(data), name="sidecars.JSON")
    assert msgspec.structs.replace(left, path=None) == msgspec.structs.replace(right, path=None)


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Path) -> None:
    file = folder / "c.toml"
    file.write_bytes(b'\xef\xbb\xbf[sidecars.a]\r\ncommand = ["x"]\r\n')
    assert list(load(str(file), environ={"HOME": "/"}).sidecars) == ["a"]


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"http": "https://[::1]:8443/a?b=c"}, HealthSettings(kind="http", http="https://[::1]:8443/a?b=c")),
        ({"http": "http://localhost"}, HealthSettings(kind="http", http="http://localhost")),
        ({"tcp": "localhost:{port}"}, HealthSettings(kind="tcp", tcp="localhost:{port}")),
        ({"command": ["ok", "{name}"]}, HealthSettings(kind="command", command=("ok", "{name}"))),
        ({"log": "listening on .*:{port}$"}, HealthSettings(kind="log", log="listening on .*:{port}$")),
        ({"log": r"in \d{{1,3}} ms"}, HealthSettings(kind="log", log=r"in \d{{1,3}} ms")),
        ({"none": True, "ready_after": 0}, HealthSettings(kind="none", ready_after=0.0)),
        ({"none": True}, HealthSettings(kind="none")),
    ],
)
def test_each_kind_of_health_check(health: dict[str, Any], expected: HealthSettings) -> None:
    assert one({"port": 0, "health": health}).health == expected


def test_null_counts_as_left_out() -> None:
    assert one({"port": None, "health": None, "dependencies": None, "logs": {"max_files": None}}) == one({})


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGBREAK"]
)
def test_common_signals_are_accepted_on_every_system(name: str) -> None:
    assert one({"stop_signal": name}).stop_signal == name


# --- paths -----------------------------------------------------------------------------------------------------------


def test_relative_paths_begin_at_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = """
    log_dir = "logs"
    [sidecars.a]
    command = ["./bin/../server", "./argument"]
    cwd = "../elsewhere"
    dependencies = { check = { path = "modules" }, install = ["tools/install", "x"] }
    """
    settings = read(folder, text)
    sidecar = settings.sidecars["a"]
    assert settings.log_dir == str(folder / "logs")
    assert sidecar.command == (str(folder / "server"), "./argument")
    assert sidecar.cwd == str(folder.parent / "elsewhere")
    assert sidecar.dependencies is not None
    assert sidecar.dependencies.check_path == str(folder / "modules")
    assert sidecar.dependencies.check_path_in_cwd == str(folder.parent / "elsewhere" / "modules")
    assert sidecar.dependencies.install == (str(folder / "tools/install"), "x")


def test_a_program_without_a_folder_is_looked_for_in_the_path() -> None:
    assert one({"command": ["npm"]}).command == ("npm",)
    assert one({"command": ["/usr/bin/npm"]}).command == ("/usr/bin/npm",)
    assert one({"command": ["{log_dir}/program"]}).command == ("{log_dir}/program",)


def test_a_folder_with_braces_in_its_name_survives_the_filling(folder: Path) -> None:
    odd = folder / "app {port}"
    odd.mkdir()
    command = read(odd, '[sidecars.a]\ncommand = ["./server"]').sidecars["a"].command
    assert fill(command[0], {}) == str(odd / "server")


def test_a_log_dir_given_apart_goes_before_that_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert read(folder, 'log_dir = "/elsewhere"', log_dir="mine").log_dir == str(folder / "mine")
    assert read(folder, "", log_dir="${HOME}").log_dir == str(folder / "${HOME}")


@pytest.mark.parametrize(
    ("log_dir", "message"), [("", "got an empty text"), ("a\0b", "NUL byte"), ("/\udcff", "no valid Unicode text")]
)
def test_a_log_dir_given_apart_that_is_no_path_is_refused(folder: Path, log_dir: str, message: str) -> None:
    with pytest.raises(ConfigInvalid, match=message) as caught:
        read(folder, "", log_dir=log_dir)
    assert caught.value.path == "log_dir"
    assert "(given by --log-dir)" in caught.value.message


def test_no_log_dir_of_the_file_is_the_current_folder_by_mistake(folder: Path) -> None:
    for text, *overrides in (["", "log_dir="], ['log_dir = "${EMPTY}"'], ['log_dir = ""']):
        assert "log_dir: expected a path, got an empty text" in refused(folder, text, *overrides).message


@pytest.mark.parametrize(
    ("platform", "environ", "parent"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.local/state/sidecar-bridge/logs"),
        ("linux", {"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, "/state/sidecar-bridge/logs"),
        ("linux", {"HOME": "/home/me", "XDG_STATE_HOME": "relative"}, "/home/me/.local/state/sidecar-bridge/logs"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Logs/sidecar-bridge"),
        ("win32", {"LOCALAPPDATA": "/C/Local"}, "/C/Local/sidecar-bridge/logs"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the paths are written as POSIX writes them")
def test_the_default_log_folder_is_the_platforms(platform: str, environ: dict[str, str], parent: str) -> None:
    assert os.path.dirname(default_log_dir("/opt/my app/sidecars.toml", environ, platform)) == parent


def test_two_apps_never_share_the_default_log_folder(folder: Path) -> None:
    files = [folder / app / "sidecars.toml" for app in ("one", "two")] + [folder / "one" / "other.toml"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    folders = [load(str(file), environ=ENVIRON).log_dir for file in files]
    assert len(set(folders)) == 3
    assert os.path.basename(folders[0]).startswith("one-")
    assert folders[0] == load(str(files[0]), environ=ENVIRON).log_dir


# --- what stands in texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${APP_DATA}/x", "/data/app/x"),
        ("$${{APP_DATA}}", "${{APP_DATA}}"),
        ("a$$b", "a$b"),
        ("$HOME $", "$HOME $"),
        ("${EMPTY}", ""),
        ("${ODD}", "a{{b}}c"),
        ("{{${ODD}}}", "{{a{{b}}c}}"),
    ],
)
def test_environment_variables_are_put_in(written: str, value: str) -> None:
    assert one({"env": {"X": written}}).env["X"] == value


def test_a_variable_with_braces_stands_for_itself_everywhere() -> None:
    assert fill(one({"env": {"X": "${ODD}"}}).env["X"], {}) == "a{b}c"
    assert one({"dependencies": {"install": ["x", "${ODD}"]}}).dependencies == DependencySettings(
        install=("x", "a{b}c")
    )
    assert one({"cwd": "/${ODD}"}).cwd == "/a{b}c"


def test_nothing_is_filled_in_where_dependencies_are_concerned() -> None:
    dependencies = one({"dependencies": {"install": ["sh", "-c", "echo {port} }"]}}).dependencies
    assert dependencies is not None
    assert dependencies.install == ("sh", "-c", "echo {port} }")


def test_placeholders_are_filled_in() -> None:
    values = {"port": "80", "host": "::1", "log_dir": "/l", "name": "web"}
    assert fill("{host}:{port} {log_dir} {name}", values) == "::1:80 /l web"
    assert fill("{{port}} {{{port}}} }}{{", values) == "{port} {80} }{"
    assert fill("http://{host}:{port}/", url_values(values)) == "http://[::1]:80/"
    assert url_values({"host": "localhost"}) == {"host": "localhost"}
    assert ready_pattern("at {host}", {"host": "1.2.3.4"}).search("at 1x2.3.4") is None
    for template in ("{", "}", "{other}", "{}"):
        with pytest.raises(ValueError, match=r"brace|placeholder"):
            fill(template, values)


# --- each field wrong in turn ----------------------------------------------------------------------------------------

NUL = "a\0b"
NOT_BOOLEANS: list[Any] = ["true", 1, 0, [], {}]
NOT_NUMBERS: list[Any] = [True, "1", [], {}, float("nan"), float("inf"), float("-inf"), 10**400, -1, 1e12]
NOT_INTEGERS: list[Any] = [True, "1", 1.0, 1.5, [], {}, -1, 10**400]
NOT_COMMANDS: list[Any] = ["npm start", 5, {}, [], [""], [" "], [5], ["x", None], ["x", NUL], ["x", "\ud800"]]
NOT_TEXT_LISTS: list[Any] = ["x", 5, {}, [5], [""], [["x"]], [NUL]]

WRONG_TOP: dict[str, list[Any]] = {
    "log_dir": ["", 5, [], NUL, "${NOT_SET}/x", "${", "~/logs"],
    "allow_dynamic": NOT_BOOLEANS,
    "watch_config": NOT_BOOLEANS,
    "metrics_interval": [*NOT_NUMBERS, 0.01],
    "max_message_bytes": [*NOT_INTEGERS, 0, 65_535],
    "max_outbound_bytes": [*NOT_INTEGERS, 0, 65_535],
    "memory_lines": [*NOT_INTEGERS, 0],
    "sidecars": [[], "x", 5, True],
}
WRONG: dict[str, list[Any]] = {
    "command": [*NOT_COMMANDS, ["{unknown}"], ["{"], ["x}"], ["{port}"], ["${NOT_SET}"]],
    "cwd": ["", 5, [], NUL, "${NOT_SET}"],
    "env": [[], "A=1", {"A": 1}, {"A": True}, {"": "x"}, {"A=B": "x"}, {NUL: "x"}, {"A": NUL}, {"A": "{port}"}],
    "host": ["", 5, "a b", "http://x", "x/y", "[::1]", "-", "a" * 300, "example.org"],
    "port": [*NOT_INTEGERS, 65_536, 70_000, "8080", "{port}"],
    "stdin": ["inherit", "", True, 5, ["pipe"]],
    "autostart": NOT_BOOLEANS,
    "depends_on": [*NOT_TEXT_LISTS, ["a", "a"]],
    "restart": ["sometimes", "on-failure", True, 0, ["always"]],
    "stop_signal": ["", "TERM", "sigterm", "SIGSTOP", "SIGCONT", "SIGNONSENSE", "SIG_IGN", "SIG", 15, ["SIGTERM"]],
    "stop_http": ["POST", "http://x/", "post http://x/", "POST  http://x/", "POST ftp://x/", "POST http://x:0/", 5],
    "startup_timeout": [*NOT_NUMBERS, 0],
    "shutdown_timeout": NOT_NUMBERS,
    "max_restarts": NOT_INTEGERS,
    "backoff_initial": [*NOT_NUMBERS, 17],
    "backoff_factor": [*NOT_NUMBERS, 0, 0.99],
    "backoff_max": [*NOT_NUMBERS, 0.5],
    "backoff_jitter": NOT_NUMBERS,
    "stable_after": NOT_NUMBERS,
    "flapping_restarts": [*NOT_INTEGERS, 0],
    "flapping_window": [*NOT_NUMBERS, 0],
    "permanent_exit_codes": [5, "5", ["5"], [True], [-1], [2**32], [1.0]],
    "watch": NOT_TEXT_LISTS,
    "max_memory": [*NOT_INTEGERS, "512MB"],
    "max_cpu_percent": NOT_NUMBERS[:-1],
    "secrets": NOT_TEXT_LISTS,
    "dependencies": [[], "x", True],
    "dependencies.check": [[], "x", {}, {"path": "a", "command": ["b"]}, {"other": 1}],
    "dependencies.check.path": ["", 5, [], NUL],
    "dependencies.check.command": NOT_COMMANDS,
    "dependencies.install": NOT_COMMANDS,
    "dependencies.timeout": [*NOT_NUMBERS, 0],
    "health": [
        *([], "http://x", True, {}, {"http": None}, {"interval": 5}),
        *({"http": "http://x/", "tcp": "x:1"}, {"none": True, "log": "x"}),
    ],
    "health.http": ["", "x", "ftp://x/", "http://", "http:///x", "http://x y/", "http://x:70000/", "http://[::1", 5],
    "health.tcp": ["", "x", "x:", ":80", "x:0", "x:70000", "x:port", "::1:80", "http://x:80", 80],
    "health.command": [*NOT_COMMANDS, ["{port}"]],
    "health.log": ["", "(", "[", "a{99999999999}", "{unknown}", "a{1}", 5, []],
    "health.none": [False, 1, "true"],
    "logs": [[], "x", True],
    "logs.max_bytes": [*NOT_INTEGERS, 0, 1023],
    "logs.max_files": NOT_INTEGERS,
}
IN_HEALTH: dict[str, list[Any]] = {
    "interval": [*NOT_NUMBERS, 0],
    "timeout": [*NOT_NUMBERS, 0],
    "retry_interval": [*NOT_NUMBERS, 0],
    "failure_threshold": [*NOT_INTEGERS, 0],
    "success_threshold": [*NOT_INTEGERS, 0],
    "expect_status": [200, "200", ["200"], [True], [99], [600]],
    "verify_owner": NOT_BOOLEANS,
    "ready_after": NOT_NUMBERS,
}


def rows(table: Mapping[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(field, value, id=f"{field}-{index}")
        for field, values in table.items()
        for index, value in enumerate(values)
    ]


def nested(field: str, value: Any) -> dict[str, Any]:
    result = value
    for key in reversed(field.split(".")):
        result = {key: result}
    assert isinstance(result, dict)
    return result


def test_the_tables_name_every_key() -> None:
    def keys(tree: Mapping[str, Any], path: str = "") -> set[str]:
        found = set()
        for key, value in tree.items():
            found.add(path + key)
            if key in ("health", "logs", "dependencies"):
                found |= keys(value, f"{path}{key}.")
        return found

    web = EVERYTHING["sidecars"]["web"]
    assert keys(web) - {f"health.{key}" for key in IN_HEALTH} <= set(WRONG)
    assert set(EVERYTHING) == set(WRONG_TOP)
    assert set(web["health"]) == {"http", *IN_HEALTH}


@pytest.mark.parametrize(("field", "value"), rows(WRONG_TOP))
def test_a_wrong_value_at_the_top_is_refused_with_its_path(field: str, value: Any) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        from_mapping({field: value}, folder="/app", environ=ENVIRON)
    assert caught.value.path == field
    assert caught.value.message.startswith(f"{field}: ")
    assert caught.value.detail == {"path": field, "problems": []}


@pytest.mark.parametrize(("field", "value"), rows(WRONG))
def test_a_wrong_value_is_refused_with_its_path(field: str, value: Any) -> None:
    error = wrong(nested(field, value))
    wanted = f"sidecars.web.{'backoff_max' if value == 17 and field == 'backoff_initial' else field}"
    assert error.path == wanted or error.path.startswith((f"{wanted}[", f"{wanted}."))
    assert error.message.startswith(f"{error.path}: ")
    assert len(error.message) < 350
    assert error.message.isprintable()
    assert msgspec.json.encode(error.detail)


@pytest.mark.parametrize(("field", "value"), rows(IN_HEALTH))
def test_a_wrong_value_beside_a_health_check_is_refused_with_its_path(field: str, value: Any) -> None:
    error = wrong({"health": {"http": "http://x/", field: value}})
    assert error.path == f"sidecars.web.health.{field}" or error.path.startswith(f"sidecars.web.health.{field}[")


@pytest.mark.parametrize(
    "name", ["", " ", ".hidden", "-x", "_x", "a b", "a/b", "../x", "ä", "a\0", "x\n", "x" * 101, 'quo"te', "\ud800"]
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        sidecar_from_mapping(name, {"command": ["x"]}, folder="/", environ={})
    assert caught.value.path.startswith('sidecars."') or caught.value.path in (f"sidecars.{name}", "sidecars.-x")
    assert caught.value.message.isprintable()
    assert msgspec.json.encode(caught.value.detail)


@pytest.mark.parametrize("name", ["a", "9", "my.app", "a_b-c.d", "A" * 100])
def test_a_good_name_is_kept(name: str) -> None:
    assert sidecar_from_mapping(name, {"command": ["x"]}, folder="/", environ={}).name == name


def test_a_sidecar_without_a_command_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match=r"^sidecars.web.command: is missing"):
        sidecar_from_mapping("web", {"port": 0}, folder="/", environ={})


@pytest.mark.parametrize("data", [5, [], "npm start", True, None])
def test_a_sidecar_that_is_no_table_is_refused(data: Any) -> None:
    with pytest.raises(ConfigInvalid, match=r"^sidecars.web: expected a table"):
        sidecar_from_mapping("web", data, folder="/", environ={})


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"port": 70000}, "sidecars.web.port: expected a port from 0 to 65535, got 70000"),
        ({"port": True}, "sidecars.web.port: expected a port from 0 to 65535, got true"),
        ({"prot": 5}, "sidecars.web.prot: unknown key; did you mean `port`?"),
        ({"zzz": 5}, "sidecars.web.zzz: unknown key"),
        ({"health": {"htp": "x"}}, "sidecars.web.health.htp: unknown key; did you mean `http`?"),
        (
            {"restart": "on-failure"},
            'sidecars.web.restart: expected "on_failure" or "always" or "never", got "on-failure"',
        ),
        ({"startup_timeout": "30"}, 'a number of seconds from 0.01 to 31536000, got "30"'),
        ({"command": "npm start"}, 'got a text: write ["program", "argument"], there is no shell'),
        ({"command": ["x", "{prot}"]}, "sidecars.web.command[1]: unknown placeholder {prot}: known are {host}"),
        ({"command": ["x", "{port}"]}, "sidecars.web.command[1]: uses {port}, but the sidecar has no `port`"),
        ({"env": {"my.key": "${NOT_SET}"}}, 'sidecars.web.env."my.key": the environment variable NOT_SET is not set'),
        ({"backoff_initial": 20}, "sidecars.web.backoff_max: 16 s, the default, is less than backoff_initial, 20 s"),
        ({"backoff_initial": 2, "backoff_max": 1}, "sidecars.web.backoff_max: 1 s is less than backoff_initial, 2 s"),
        (
            {"health": {"http": "http://x/", "log": "x"}},
            "sidecars.web.health: expected exactly one of http, tcp, command, log and none, got `http` and `log`",
        ),
        ({"health": {"interval": 1}}, "and none, got none of them"),
        ({"health": {}}, "sidecars.web.health: expected exactly one of http, tcp, command, log and none, got none of"),
        ({"health": {"log": "a{2}"}}, "sidecars.web.health.log: unknown placeholder {2}"),
        ({"health": {"log": "("}}, "is no valid regular expression"),
        ({"depends_on": ["a", "a"]}, 'sidecars.web.depends_on[1]: "a" stands in the list twice'),
    ],
)
def test_a_refusal_says_what_was_expected_and_what_was_found(data: dict[str, Any], message: str) -> None:
    assert message in wrong(data).message


@pytest.mark.parametrize("data", [[], "x", True])
def test_a_health_that_is_no_table_is_one_problem(data: Any) -> None:
    error = wrong({"health": data})
    assert "sidecars.web.health: expected a table" in error.message
    assert error.detail["problems"] == []


def test_every_problem_is_told_at_once(folder: Path) -> None:
    error = refused(folder, "colour = 1\n[sidecars.a]\nport = -1\n[sidecars.b]\ncommand = []\n[sidecars.b.logs]\nx = 1")
    assert error.path == "colour"
    assert [problem["path"] for problem in error.detail["problems"]] == [
        "sidecars.a.port",
        "sidecars.a.command",
        "sidecars.b.command",
        "sidecars.b.logs.x",
    ]


def test_no_more_problems_are_told_than_help(folder: Path) -> None:
    error = refused(folder, "\n".join(f"key{index} = 1" for index in range(100)))
    assert len(error.detail["problems"]) == 20


def test_values_of_the_environment_stand_in_no_message() -> None:
    for data in (
        {"env": {"TOKEN": "${TOKEN}\0"}},
        {"env": {"TOKEN": 123456}},
        {"stdin": "${TOKEN}"},
        {"health": {"http": "${TOKEN}"}},
        {"port": "${TOKEN}"},
    ):
        with pytest.raises(ConfigInvalid) as caught:
            one(data, TOKEN="hunter22")
        assert "hunter22" not in caught.value.message
        assert "123456" not in caught.value.message


# --- several sidecars ------------------------------------------------------------------------------------------------


def sidecars(**depends_on: list[str]) -> str:
    return "\n".join(
        f'[sidecars.{name}]\ncommand = ["x"]\ndepends_on = {json.dumps(others)}' for name, others in depends_on.items()
    )


def test_a_dependency_must_exist(folder: Path) -> None:
    error = refused(folder, sidecars(web=["database"], databse=[]))
    assert error.message == "sidecars.web.depends_on[0]: there is no sidecar `database`; did you mean `databse`?"
    assert error.sidecar == "web"


def test_a_sidecar_cannot_depend_on_itself(folder: Path) -> None:
    assert refused(folder, sidecars(a=["a"])).message == "sidecars.a.depends_on[0]: a sidecar cannot depend on itself"


def test_a_circle_is_named(folder: Path) -> None:
    error = refused(folder, sidecars(z=["c"], a=["b"], b=["c"], c=["a"]))
    assert error.message == "sidecars.a.depends_on: goes in a circle: a -> b -> c -> a"


def test_sharing_and_chains_are_no_circles(folder: Path) -> None:
    assert len(read(folder, sidecars(a=["b", "c"], b=["d"], c=["d"], d=[])).sidecars) == 4
    chain = {f"n{index}": [f"n{index + 1}"] for index in range(3000)}
    assert len(read(folder, sidecars(**chain, n3000=[])).sidecars) == 3001


def test_dependencies_of_an_added_sidecar_can_be_checked_later() -> None:
    added = one({"depends_on": ["db"]})
    with pytest.raises(ConfigInvalid, match="there is no sidecar `db`"):
        check_depends_on({"web": added})
    check_depends_on({"web": added, "db": one({})})


def test_names_that_differ_only_in_case_would_share_a_folder(folder: Path) -> None:
    assert refused(folder, sidecars(web=[], Web=[])).path == "sidecars.Web"


# --- files that cannot be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.toml", b"a = ", "c.toml is no valid TOML: Invalid value (at end of document)"),
        ("c.toml", b"a = 1\nb = =\n", "(at line 2, column 5)"),
        ("c.toml", b"a = 1\na = 2\n", "c.toml is no valid TOML: Cannot overwrite a value (at line 2"),
        ("c.toml", b"a = 1\n\n\xff", "c.toml is no TOML: not UTF-8 in line 3"),
        ("c.toml", b"a = " + b"[" * 100_000, "nested too deeply"),
        ("c.toml", b"a = " + b"9" * 5000, "c.toml is no valid TOML: "),
        ("c.toml", b"#" * 1_100_000, "c.toml has more than 1048576 bytes"),
        ("c.json", b"", "c.json is no valid JSON: Expecting value: line 1 column 1"),
        ("c.json", b'{"a": 1\n"b"}', "line 2 column 1"),
        ("c.json", b'{"a": {"b": 1, "b": 2}}', 'the key "b" stands in one table twice'),
        ("c.json", b'{"metrics_interval": NaN}', "NaN is no number"),
        ("c.json", b'{"metrics_interval": -Infinity}', "-Infinity is no number"),
        ("c.json", b"[1]", "c.json: expected a table at the top, got a list"),
        ("c.json", b'"x"', 'expected a table at the top, got "x"'),
        ("c.json", b"[" * 100_000, "nested too deeply"),
        ("c.json", b'{"log_dir": "\\ud800"}', "log_dir: is no valid Unicode text"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigInvalid) as caught:
        load(str(folder / name), environ=ENVIRON)
    assert message in caught.value.message
    assert len(caught.value.message) < 300


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"missing\.toml cannot be read: No such file"):
        load(str(folder / "missing.toml"), environ={})
    with pytest.raises(ConfigInvalid, match=r"cannot be read: Is a directory|cannot be read: Permission denied"):
        load(str(folder), environ={})
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load("a\0b", environ={})


# --- --set -----------------------------------------------------------------------------------------------------------

WEB = '[sidecars.web]\ncommand = ["x"]\n[sidecars."my.app"]\ncommand = ["y"]\n'


@pytest.mark.parametrize(
    ("override", "name", "field", "value"),
    [
        ("sidecars.web.port=5", "web", "port", 5),
        ('sidecars."my.app".port=5', "my.app", "port", 5),
        ("sidecars.'my.app'.port = 5", "my.app", "port", 5),
        (" sidecars . web . restart = never", "web", "restart", None),
        ("sidecars.web.restart=never", "web", "restart", "never"),
        ('sidecars.web.restart="never"', "web", "restart", "never"),
        ("sidecars.web.autostart=false", "web", "autostart", False),
        ('sidecars.web.command=["a", "b=c"]', "web", "command", ("a", "b=c")),
        ("sidecars.web.env.KEY=a=b", "web", "env", {"KEY": "a=b"}),
        ('sidecars.web.env.KEY="8080"', "web", "env", {"KEY": "8080"}),
        ("sidecars.web.env.KEY=", "web", "env", {"KEY": ""}),
        ("sidecars.web.env.KEY=1\nx = 2", "web", "env", {"KEY": "1\nx = 2"}),
        ("sidecars.web.env={A = 'b'}", "web", "env", {"A": "b"}),
        ("sidecars.web.cwd=/some where", "web", "cwd", "/some where"),
        ("sidecars.new.command=['z']", "new", "command", ("z",)),
    ],
)
def test_a_value_can_be_set(folder: Path, override: str, name: str, field: str, value: Any) -> None:
    if value is None:
        assert 'got " never"' in refused(folder, WEB, override).message
    else:
        assert getattr(read(folder, WEB, override).sidecars[name], field) == value


def test_the_last_value_that_was_set_counts(folder: Path) -> None:
    assert read(folder, WEB, "sidecars.web.port=5", "sidecars.web.port=6").sidecars["web"].port == 6


@pytest.mark.parametrize(
    "override", ["", "=", "x", "=5", ".a=1", "a.=1", "a..b=1", "a b=1", '"a=1', "a.'b=1", 'a"b"=1']
)
def test_a_set_that_is_no_assignment_is_refused(folder: Path, override: str) -> None:
    assert refused(folder, WEB, override).message.startswith("--set ")


def test_a_set_below_a_value_is_refused(folder: Path) -> None:
    error = refused(folder, "memory_lines = 5", "memory_lines.x=1")
    assert error.message == "--set memory_lines.x: memory_lines is no table"


def test_a_wrong_value_that_was_set_is_told_apart_from_the_file(folder: Path) -> None:
    error = refused(folder, WEB, "sidecars.web.port=70000")
    assert error.message == "sidecars.web.port: expected a port from 0 to 65535, got 70000 (given by --set)"
    error = refused(folder, WEB, "sidecars.web.env={A = 1}")
    assert error.message.endswith("(given by --set)")
    error = refused(folder, f"{WEB}port = 70000", "sidecars.web.port=5")
    assert "--set" not in error.message


def test_a_secret_that_was_set_wrongly_is_not_shown(folder: Path) -> None:
    assert "hunter22" not in refused(folder, WEB, "sidecars.web.env KEY=hunter22").message


# --- anything at all -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *EVERYTHING,
        *EVERYTHING["sidecars"]["web"],
        *EVERYTHING["sidecars"]["web"]["health"],
        "tcp",
        "log",
        "check",
        "path",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["{port}", "${HOME}", "${", "http://x/", "x:1", "{", "on_failure", "["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FUZZ = examples(max_examples=300, deadline=None, derandomize=True)


def can_be_sent(error: ConfigInvalid) -> None:
    """A lone half of a surrogate pair, for one, cannot."""
    assert error.message
    assert msgspec.json.encode([error.message, error.detail])


def loads_or_refuses(file: Path) -> None:
    try:
        load(str(file), environ=ENVIRON)
    except ConfigInvalid as error:
        can_be_sent(error)


@FUZZ
@given(VALUES)
def test_any_json_value_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(value))
    loads_or_refuses(file)


@FUZZ
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_table_for_a_sidecar_is_read_or_refused(table: dict[str, Any]) -> None:
    try:
        sidecar = sidecar_from_mapping("web", {"command": ["x"], **table}, folder="/app", environ=ENVIRON)
    except ConfigInvalid as error:
        can_be_sent(error)
    else:
        assert msgspec.json.encode(sidecar)


@FUZZ
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b'a = """\\U0000D800"""')
@example(b"a = 1979-05-27")
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for name in ("any.toml", "any.json"):
        file = tmp_path_factory.getbasetemp() / name
        file.write_bytes(content)
        loads_or_refuses(file)


@FUZZ
@given(st.integers(0, 400), st.binary(max_size=8), st.integers(0, 8))
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, inserted: bytes, removed: int
) -> None:
    whole = b"""[sidecars.web]
command = ["npm", "start", "{port}"]
env = { PORT = "{port}", HOME = "${HOME}" }
port = 0
backoff_max = 16.5
[sidecars.web.health]
http = "http://127.0.0.1:{port}/health"
"""
    at = min(at, len(whole))
    file = tmp_path_factory.getbasetemp() / "damaged.toml"
    file.write_bytes(whole[:at] + inserted + whole[at + removed :])
    loads_or_refuses(file)


@FUZZ
@given(st.text(max_size=30))
def test_any_set_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, override: str) -> None:
    file = tmp_path_factory.getbasetemp() / "set.toml"
    file.write_text(WEB)
    for text in (override, f"sidecars.web.{override}", f"sidecars.web.env.A={override}"):
        try:
            load(str(file), overrides=[text], environ=ENVIRON)
        except ConfigInvalid as error:
            can_be_sent(error)


@FUZZ
@given(st.text())
def test_whatever_an_environment_variable_holds_comes_through_unchanged(value: str) -> None:
    if "\0" not in value and value.isprintable():
        sidecar = one({"env": {"X": "<${ANY}>"}}, ANY=value)
        assert fill(sidecar.env["X"], {}) == f"<{value}>"


def test_a_sidecar_that_could_never_be_ready_in_time_is_refused() -> None:
    with pytest.raises(
        ConfigInvalid, match=r"sidecars\.web\.health\.ready_after: 3 s is not less than startup_timeout, 2 s"
    ):
        one({"command": ["x"], "startup_timeout": 2, "health": {"none": True, "ready_after": 3}})
    assert one({"command": ["x"], "startup_timeout": 0.4}).health.ready_after == 0.2
