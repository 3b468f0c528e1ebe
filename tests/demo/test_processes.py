"""The look at the process table: it finds what lives, or its proof of the end would be worth nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.demo import processes

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell environments")


@contextmanager
def living(*args: str, env: dict[str, str] | None = None) -> Iterator[int]:
    """A process that says when it lives and ends with its input."""
    text = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", text, *args],
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up" + os.linesep.encode()
        yield process.pid


def pids(rows: list[processes.Row]) -> set[int]:
    return {row.pid for row in rows}


def test_a_token_in_the_command_line_is_found_and_gone_once_it_ended() -> None:
    token = uuid.uuid4().hex
    with living(token) as pid:
        rows = processes.belonging(token)
        assert pids(rows) == {pid}
        assert token in rows[0].command
        assert pids(processes.wait_none(token, rows, 0.05)) == {pid}
    assert processes.wait_none(token, rows, 5) == []


@linux_only
def test_a_token_in_the_environment_is_found() -> None:
    token = uuid.uuid4().hex
    with living(env={"DEMO_TEST": token}) as pid:
        assert pids(processes.belonging(token)) == {pid}


def test_descendants_belong_whatever_they_carry() -> None:
    token = uuid.uuid4().hex
    parent = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'],"
        " env={}); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, token], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert pids(processes.belonging(token)) == {process.pid, child}


@linux_only
def test_a_zombie_is_dead() -> None:
    token = uuid.uuid4().hex
    with subprocess.Popen([sys.executable, "-c", "", token]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert processes.belonging(token) == []


def test_what_was_known_is_found_though_it_lost_its_token() -> None:
    with living("unmarked") as pid:
        known = processes.belonging("unmarked")
        assert pids(known) == {pid}
        assert pids(processes.wait_none(uuid.uuid4().hex, known, 0.05)) == {pid}


def test_lines_of_ps_and_powershell_become_rows() -> None:
    ps = ["  12     1 Tue Nov 24 20:40:11 2026 /usr/bin/node server.js --token abc", "  junk"]
    assert processes._from_lines(ps, "abc", 5) == [
        processes.Row(12, 1, "Tue Nov 24 20:40:11 2026", "/usr/bin/node server.js --token abc", True)
    ]
    shell = ["4 0 638 ", "12 4 639 C:\\node.exe abc"]
    assert [(row.pid, row.parent, row.carries_token) for row in processes._from_lines(shell, "abc", 1)] == [
        (4, 0, False),
        (12, 4, True),
    ]
