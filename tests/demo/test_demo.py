"""The demo end to end: a real bridge, a real sidecar, and an exit code that tells the truth."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.bridge import REPOSITORY, environment
from tests.support.kit import Kit

RUN_TIMEOUT_S = 55.0
"""A run takes about 12 s on a free machine."""


def demo(*args: str, folder: Path, env: Mapping[str, str | None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the demo with its temporary folders below `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", "demo", "--fast", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        encoding="utf-8",
        env=environment({"TMPDIR": str(folder), "TEMP": str(folder), "PYTHONUTF8": "1", **(env or {})}),
        cwd=REPOSITORY,
    )


def test_every_act_is_played_shown_and_checked(tmp_path: Path) -> None:
    done = demo(folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    out = done.stdout
    assert "\x1b" not in out
    assert re.findall(r"^(\d)/8 ", out, re.MULTILINE) == list("12345678")
    for stage in (
        "checking dependencies",
        "installing dependencies",
        "spawning process",
        "waiting for health",
        "ready",
    ):
        assert stage in out
    assert "WARNING no cache from last time" in out
    assert re.search(r"running → (stopping|backoff)", out)
    assert re.search(r"noticed after \d+ ms", out)
    assert "restart 1 of at most 5" in out
    assert "restart 2 of at most 5" in out
    assert "health is unhealthy" in out
    assert "the hang was detected after" in out
    assert "restarts so far: 0" in out
    assert re.search(r"^    memory +\d+\.\d MiB", out, re.MULTILINE)
    assert "the bridge ended with exit code 0" in out
    assert re.search(r"asked without the bridge: 0 of \d+ processes left", out)
    assert re.search(r"\d+ ms later the sidecar is gone, with all that it started", out)
    assert re.search(r"\d+ ms later the bridge's guardian is, too: 0 of \d+ processes left", out)
    assert "Every act was observed and checked" in out
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_of_ones_own_plays_its_part(kit: Kit) -> None:
    config = kit.work / "own.toml"
    command = [Path(part).as_posix() for part in kit.fault("--port")] + ["{port}", "--children", "1"]
    config.write_text(
        f'[sidecars.other]\ncommand = ["other"]\nautostart = false\n'
        f"[sidecars.mine]\ncommand = {command}\nport = 0\nbackoff_initial = 0.3\n"
        '[sidecars.mine.health]\nhttp = "http://127.0.0.1:{port}/health"\ntimeout = 0.5\nfailure_threshold = 2\n'
    )
    done = demo("--config", str(config), "--sidecar", "mine", folder=kit.work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the hang was detected after" in done.stdout
    assert "Every act was observed and checked" in done.stdout


def test_an_act_that_fails_is_named_with_the_reason_and_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text('[sidecars.broken]\ncommand = ["no-such-program-anywhere"]\n')
    done = demo("--config", str(config), folder=tmp_path)
    assert done.returncode == 1
    assert "A sidecar starts: " in done.stdout
    assert "no-such-program-anywhere" in done.stdout
    assert "diagnostics" in done.stdout
    assert "Every act was observed" not in done.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no sidecar"),
        ('[sidecars.a]\ncommand = ["a"]\nport = -1\n', "sidecars.a.port: "),
        ('[sidecars.a]\ncommand = ["a"]\nrestart = "never"\n', "sidecars.a.restart: "),
    ],
)
def test_a_configuration_that_the_story_cannot_use_is_refused(tmp_path: Path, text: str, says: str) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text(text)
    done = demo("--config", str(config), folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_keep_leaves_configuration_logs_and_diagnostics(tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text('[sidecars.broken]\ncommand = ["no-such-program-anywhere"]\n')
    done = demo("--config", str(config), "--keep", folder=tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert str(folder) in done.stdout
    assert {path.name for path in folder.iterdir()} == {"logs", "bridge.stderr"}


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_ctrl_c_ends_it_with_all_that_it_started(kit: Kit) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", "--fast"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment({"TMPDIR": str(kit.work), "E2E_TOKEN": kit.token, "PYTHONUTF8": "1"}),
        cwd=REPOSITORY,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any(b"listening on port" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read().decode()
    assert process.returncode == 130
    assert "Ended by Ctrl-C" in rest
    assert list(kit.work.iterdir()) == []


def test_the_pipe_of_a_pager_that_was_left_is_no_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "bridge", "demo", "--fast"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=RUN_TIMEOUT_S,
            check=False,
            env=environment({"TMPDIR": str(tmp_path)}),
            cwd=REPOSITORY,
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
