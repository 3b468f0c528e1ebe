"""The command line as a person uses it: what each command prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import bridge
from bridge.commands.call import CLOSE_SLACK_S, close_timeout_s
from tests.support.bridge import REPOSITORY, environment
from tests.support.kit import Kit

RUN_TIMEOUT_S = 40.0
ECHO = [sys.executable, "-m", "tests.support.echo_bridge"]


class Done:
    """A command that ran to its end."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def run(*args: str, stdin: str = "", env: Mapping[str, str | None] | None = None) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *args],
        input=stdin.encode(),
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        env=environment(env),
        cwd=REPOSITORY,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def write(folder: Path, text: str, name: str = "sidecars.toml") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


# --- the command itself ----------------------------------------------------------------------------------------------


def test_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, f"sidecar-bridge {bridge.__version__}\n")


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.code == 0
    for command in ("serve", "check", "schema", "demo", "call", "--version"):
        assert command in done.out


@pytest.mark.parametrize(
    ("command", "mentions"),
    [
        ("serve", ["--config", "--log-dir", "--parent-pid", "--takeover", "--set", "--log-format", "--log-level"]),
        ("check", ["FILE", "--set", "--log-dir", "exit codes"]),
        ("schema", ["--check", "--write", "--folder", "exit codes"]),
        ("demo", ["--fast", "--keep", "--config", "--sidecar", "exit codes"]),
        ("call", ["METHOD", "JSON", "--config", "--attach", "--timeout", "exit codes"]),
    ],
)
def test_help_of_each_command_tells_its_options_and_exit_codes(command: str, mentions: list[str]) -> None:
    done = run(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: sidecar-bridge {command} ")
    assert [each for each in mentions if each not in done.out] == []


@pytest.mark.parametrize("args", [(), ("nonsense",), ("check",), ("call", "ping"), ("schema", "--nonsense")])
def test_wrong_arguments_are_exit_code_2_and_said_on_fd_2(args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.code == 2
    if args:
        assert done.err
        assert done.out == ""


@pytest.mark.parametrize("command", [["serve", "--config"], ["check"], ["call", "ping", "--config"]])
def test_an_empty_log_dir_is_refused_everywhere(tmp_path: Path, command: list[str]) -> None:
    done = run(*command, write(tmp_path, ""), "--log-dir", "")
    assert (done.code, done.out) == (2, "")
    assert "log_dir: expected a path, got an empty text (given by --log-dir)" in done.err


# --- check -----------------------------------------------------------------------------------------------------------

GOOD = """
log_dir = "logs"
[sidecars.db]
command = ["{python}", "db.py"]
restart = "never"
[sidecars.web]
command = ["no-such-program", "--key", "${CLI_TEST_KEY}", "{port}"]
env = { CLI_TEST_KEY = "${CLI_TEST_KEY}", MODE = "quiet" }
secrets = ["CLI_TEST_KEY"]
port = 0
depends_on = ["db"]
max_restarts = 3
[sidecars.web.health]
http = "http://127.0.0.1:{port}/health"
""".replace("{python}", Path(sys.executable).as_posix())


def test_check_sums_a_right_configuration_up_and_shows_no_secret(tmp_path: Path) -> None:
    done = run("check", write(tmp_path, GOOD), env={"CLI_TEST_KEY": "hunter2"})
    assert (done.code, done.err) == (0, "")
    assert "is right: 2 sidecars" in done.out
    assert str(tmp_path / "logs") in done.out
    assert "a free port at each start" in done.out
    assert "with the bridge after db, 30 s at most" in done.out
    assert "3 times at most, 1, 2, 4 s later" in done.out
    assert "answers 200-399" in done.out
    assert "CLI_TEST_KEY (secret), MODE" in done.out
    assert "hunter2" not in done.out
    assert "note: web: there is no program `no-such-program` here" in done.out
    assert not (tmp_path / "logs").exists()


SECRET = "hunter{zq9x}"
EVERYWHERE = """
log_dir = "logs-${CLI_TEST_KEY}"
[sidecars.web]
command = ["${CLI_TEST_KEY}/program", "--key=${CLI_TEST_KEY}", "literal-7771"]
cwd = "${CLI_TEST_KEY}"
env = { OTHER_KEY = "literal-7771" }
secrets = ["CLI_TEST_KEY", "OTHER_KEY"]
port = 0
stop_http = "POST http://127.0.0.1:{port}/stop?key=${CLI_TEST_KEY}"
[sidecars.web.dependencies]
check = { command = ["look", "${CLI_TEST_KEY}"] }
install = ["fetch", "--token", "${CLI_TEST_KEY}", "literal-7771"]
[sidecars.web.health]
{health}
[sidecars.db]
command = ["${CLI_TEST_KEY}-program"]
dependencies = { check = { path = "${CLI_TEST_KEY}/there" } }
"""


@pytest.mark.parametrize(
    ("health", "shown"),
    [
        ('http = "http://127.0.0.1:{port}/?key=${CLI_TEST_KEY}"', "http://127.0.0.1:{port}/?key=***"),
        ('tcp = "${CLI_TEST_HOST}:80"', "***:80"),
        ('command = ["ask", "${CLI_TEST_KEY}", "literal-7771"]', "`ask *** ***`"),
        ('log = "ready a{{2}} ${CLI_TEST_KEY}"', "ready a{2} ***"),
    ],
)
def test_check_shows_no_secret_wherever_it_stands(tmp_path: Path, health: str, shown: str) -> None:
    text = EVERYWHERE.replace("{health}", health).replace('"OTHER_KEY"]', '"OTHER_KEY", "CLI_TEST_HOST"]')
    done = run("check", write(tmp_path, text), env={"CLI_TEST_KEY": SECRET, "CLI_TEST_HOST": "host-5551"})
    assert (done.code, done.err) == (0, "")
    assert [word for word in ("hunter", "zq9x", "literal-7771", "host-5551") if word in done.out] == []
    assert shown in done.out
    assert "note: db: there is no program `***-program` here" in done.out
    assert str(tmp_path / "logs-***") in done.out


def test_check_shows_what_a_sidecar_needs_at_each_place_where_it_is_looked_for(tmp_path: Path) -> None:
    text = """
[sidecars.web]
command = ["x"]
cwd = "server"
dependencies = { check = { path = "node_modules" }, install = ["npm", "ci"] }
[sidecars.db]
command = ["x"]
dependencies = { check = { path = "data" } }
"""
    lines = [line.split(maxsplit=1) for line in run("check", write(tmp_path, text)).out.splitlines()]
    here, there = tmp_path / "node_modules", tmp_path / "server" / "node_modules"
    assert [line[1] for line in lines if line[:1] == ["needs"]] == [
        f"{here} or {there}, else `npm ci` (600 s at most)",
        str(tmp_path / "data"),
    ]


def test_check_promises_nothing_that_this_version_does_not_do(tmp_path: Path) -> None:
    text = """
watch_config = true
allow_dynamic = true
[sidecars."my.app"]
command = ["x"]
watch = ["src/*.js"]
max_memory = 1000000
max_cpu_percent = 50
[sidecars.db]
command = ["x"]
watch = []
max_memory = 0
"""
    done = run("check", write(tmp_path, text))
    assert (done.code, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if "not yet" in line] == [
        "not yet in this version: allow_dynamic",
        "not yet in this version: watch_config",
        'not yet in this version: sidecars."my.app".watch',
        'not yet in this version: sidecars."my.app".max_memory',
        'not yet in this version: sidecars."my.app".max_cpu_percent',
    ]
    promises = ("at once", "add and remove", "reloads on", "limits", "src/*.js", "KiB of memory", "50 %")
    assert [each for each in promises if each in done.out] == []
    assert "not yet" not in run("check", write(tmp_path, GOOD), env={"CLI_TEST_KEY": "hunter2"}).out


def test_check_accepts_a_file_without_sidecars(tmp_path: Path) -> None:
    done = run("check", write(tmp_path, "{}", "sidecars.json"))
    assert done.code == 0
    assert "no sidecars" in done.out


def test_check_refuses_with_each_wrong_fields_path_in_front(tmp_path: Path) -> None:
    text = '[sidecars.web]\ncommand = ["x"]\nport = 70000\ncolour = 1\n[sidecars.web.health]\nhttp = "nonsense"\n'
    done = run("check", write(tmp_path, text))
    assert (done.code, done.out) == (2, "")
    paths = {line.split(": ")[0] for line in done.err.splitlines()}
    assert paths == {"sidecars.web.port", "sidecars.web.colour", "sidecars.web.health.http"}


def test_check_obeys_set(tmp_path: Path) -> None:
    file = write(tmp_path, '[sidecars.web]\ncommand = ["x"]\n')
    assert "127.0.0.1:8080" in run("check", file, "--set", "sidecars.web.port=8080").out
    done = run("check", file, "--set", "sidecars.web.port=-1")
    assert done.code == 2
    assert done.err.startswith("sidecars.web.port: ")


def test_check_of_a_file_that_is_not_there_names_it(tmp_path: Path) -> None:
    done = run("check", str(tmp_path / "absent.toml"))
    assert done.code == 2
    assert "absent.toml" in done.err


# --- schema ----------------------------------------------------------------------------------------------------------


def test_schema_prints_the_openrpc_document() -> None:
    done = run("schema")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["openrpc"]
    assert "start_sidecar" in {method["name"] for method in document["methods"]}


def test_the_committed_schemas_are_what_the_code_says() -> None:
    done = run("schema", "--check")
    assert (done.code, done.err) == (0, "")


def test_schema_check_names_what_was_changed_removed_or_added(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    assert run("schema", "--write", "--folder", str(folder)).code == 0
    assert run("schema", "--check", "--folder", str(folder)).code == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (REPOSITORY / "schemas").iterdir())

    (folder / "openrpc.json").write_text("{}")
    removed = next(name for name in names if name != "openrpc.json")
    (folder / removed).unlink()
    done = run("schema", "--check", "--folder", str(folder))
    assert done.code == 1
    assert f"{folder / 'openrpc.json'}: differs" in done.err
    assert f"{folder / removed}: missing" in done.err

    assert run("schema", "--write", "--folder", str(folder)).code == 0
    assert run("schema", "--check", "--folder", str(folder)).code == 0


# --- call ------------------------------------------------------------------------------------------------------------


def test_call_prints_the_result_of_a_bridge_that_it_starts_and_ends(kit: Kit) -> None:
    config = write(kit.work, json.dumps(kit.config(app=kit.sidecar())), "sidecars.json")
    done = run("call", "start_sidecar", "--config", config, "--log-dir", str(kit.work / "logs"))
    assert (done.code, done.err) == (0, "")
    status = json.loads(done.out)
    assert (status["sidecar"], status["state"]) == ("app", "running")


def test_call_takes_params_by_name_by_position_and_from_fd_0() -> None:
    for args, stdin in ((['{"a": 1}'], ""), (["-"], '{"a": 1}')):
        done = run("call", "echo", *args, "--attach", *ECHO, stdin=stdin)
        assert (done.code, json.loads(done.out)) == (0, {"a": 1})
    assert json.loads(run("call", "echo", "[1, null]", "--attach", *ECHO).out) == [1, None]


def test_call_shows_an_error_answer_on_fd_2(kit: Kit) -> None:
    config = write(kit.work, json.dumps(kit.config(app=kit.sidecar())), "sidecars.json")
    done = run("call", "get_sidecar_status", '["nobody"]', "--config", config, "--log-dir", str(kit.work / "logs"))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("get_sidecar_status: ")
    assert "sidecar_not_found, 1001" in done.err.splitlines()[0]


def test_call_passes_on_that_the_configuration_is_wrong(tmp_path: Path) -> None:
    file = write(tmp_path, '[sidecars.web]\ncommand = ["x"]\nport = 70000\n')
    done = run("call", "ping", "--config", file)
    assert (done.code, done.out) == (2, "")
    assert "sidecars.web.port: " in done.err


def test_call_of_a_command_that_ends_without_an_answer_says_so() -> None:
    done = run("call", "exit", "[7]", "--attach", *ECHO)
    assert (done.code, done.out) == (1, "")
    assert "ended with exit code 7" in done.err


def test_call_of_a_program_that_is_not_there_names_it() -> None:
    done = run("call", "ping", "--attach", "no-such-program-anywhere")
    assert done.code == 1
    assert done.err.startswith("no-such-program-anywhere: ")


@pytest.mark.parametrize("params", ["{", "1", '"text"', "[" * 100_000])
def test_call_refuses_params_that_are_no_object_or_array(params: str) -> None:
    done = run("call", "echo", "-", "--attach", *ECHO, stdin=params)
    assert (done.code, done.out) == (2, "")
    assert "JSON" in done.err


def test_call_refuses_a_configuration_for_a_bridge_that_it_does_not_start(tmp_path: Path) -> None:
    done = run("call", "ping", "--config", os.devnull, "--attach", *ECHO)
    assert done.code == 2
    assert "--attach" in done.err


SLOW_END = """
import json, pathlib, sys, time
request = json.loads(sys.stdin.readline())
print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"answer": 42}}), flush=True)
sys.stdin.read()
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize(("exit_code", "code"), [(0, 0), (5, 1)])
def test_call_prints_the_result_before_it_waits_for_the_end(tmp_path: Path, exit_code: int, code: int) -> None:
    end = tmp_path / "end"
    command = [sys.executable, "-c", SLOW_END, str(end), str(exit_code)]
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "call", "ask", "--attach", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as call:
        try:
            assert call.stdout is not None
            assert json.loads(b"".join(call.stdout.readline() for _ in range(3))) == {"answer": 42}
            assert call.poll() is None
        finally:
            end.touch()
        out, err = call.communicate(timeout=RUN_TIMEOUT_S)
    assert (call.returncode, out) == (code, b"")
    assert err.decode() == (f"the bridge answered, but ended with exit code {exit_code}\n" if exit_code else "")


def test_call_gives_a_bridge_the_time_that_its_sidecars_may_take(tmp_path: Path) -> None:
    table = '[sidecars.{}]\ncommand = ["x"]\nshutdown_timeout = 60\n'
    file = write(tmp_path, table.format("a") + table.format("b"))
    assert close_timeout_s(file, []) == 120 + CLOSE_SLACK_S
    assert close_timeout_s(file, ["sidecars.a.shutdown_timeout=1"]) == 61 + CLOSE_SLACK_S
    assert close_timeout_s(str(tmp_path / "absent.toml"), []) > 0


@pytest.mark.slow
def test_call_outlasts_a_sidecar_that_is_slow_to_stop(kit: Kit) -> None:
    # Longer than CLOSE_TIMEOUT_S, which is all that a command of unknown needs is given.
    sidecar = kit.sidecar("--ignore-term", shutdown_timeout=22)
    config = write(kit.work, json.dumps(kit.config(app=sidecar)), "sidecars.json")
    done = run("call", "start_sidecar", "--config", config, "--log-dir", str(kit.work / "logs"))
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["state"] == "running"


@pytest.mark.parametrize("seconds", ["nan", "-1", "0", "inf", "-inf", "1e300", "soon", ""])
def test_call_refuses_a_timeout_that_is_no_time(seconds: str) -> None:
    done = run("call", "ping", f"--timeout={seconds}", "--attach", *ECHO)
    assert (done.code, done.out) == (2, "")
    assert "argument --timeout: expected a number of seconds" in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="redirections are the shell's")
@pytest.mark.parametrize(
    ("args", "redirection", "code", "out", "err"),
    [
        (["echo", "-"], "<&-", 2, "", "fd 0, which is closed"),
        (["echo", "-"], "0>/dev/null", 2, "", "fd 0 cannot be read"),
        (["echo", "[1]"], "<&-", 0, "[\n  1\n]\n", ""),
        (["echo", "[1]"], ">&-", 1, "", "the result cannot be printed: fd 1 is closed"),
        (["echo", "[1]"], ">/dev/full", 1, "", "the result cannot be printed: No space left"),
    ],
)
def test_call_says_what_is_wrong_with_its_own_descriptors(
    args: list[str], redirection: str, code: int, out: str, err: str
) -> None:
    command = [sys.executable, "-m", "bridge", "call", *args, "--attach", *ECHO]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        cwd=REPOSITORY,
        env=environment(),
    )
    assert (done.returncode, done.stdout.decode()) == (code, out)
    assert err in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_call_shutdown_is_answered_like_any_other(kit: Kit) -> None:
    config = write(kit.work, json.dumps(kit.config(app=kit.sidecar(autostart=True))), "sidecars.json")
    done = run("call", "shutdown", "--config", config, "--log-dir", str(kit.work / "logs"))
    assert (done.code, done.out, done.err) == (0, "null\n", "")
