"""What stands on fd 2, whatever is logged and however it is read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.diagnostics import LINE_BYTES_MAX

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 20
SETUP = """
import logging, os, sys
from bridge.diagnostics import configure
configure({form!r}, "info")
log = logging.getLogger("bridge.test")
"""


def says(form: str, code: str) -> bytes:
    """What a process that logs says on fd 2, read as it comes."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP.format(form=form) + code], cwd=ROOT, capture_output=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def entries(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n")
    lines = data.splitlines(keepends=True)
    assert all(len(line) <= LINE_BYTES_MAX for line in lines)
    return [json.loads(line) for line in lines]


def test_a_record_is_one_line_of_text_or_json() -> None:
    assert says("text", "log.warning('hello %s', 1)").endswith(b" WARNING bridge.test: hello 1\n")
    (entry,) = entries(says("json", "log.warning('hello %s', 1)"))
    assert {**entry, "at": ""} == {"at": "", "level": "warning", "logger": "bridge.test", "message": "hello 1"}


@pytest.mark.parametrize("text", ["x", "ü", "\\x00", '"', "\\udc80", "\\n"])
@pytest.mark.parametrize("count", [LINE_BYTES_MAX - 150, LINE_BYTES_MAX, 100_000])
def test_a_json_line_stays_json_however_long_its_message_is(text: str, count: int) -> None:
    code = f"log.warning('begin' + '{text}' * {count}); log.warning('next')"
    first, second = entries(says("json", code))
    assert first["message"].startswith("begin")
    whole = len(first["message"]) == len("begin") + count
    assert whole is not first["message"].endswith("…")
    assert not whole or count < LINE_BYTES_MAX
    assert second["message"] == "next"


def test_a_cut_json_line_uses_the_room_that_there_is() -> None:
    data = says("json", "log.warning('\\x00' * 4000)")
    assert LINE_BYTES_MAX - 12 < len(data) <= LINE_BYTES_MAX


def test_of_a_long_traceback_json_keeps_the_end() -> None:
    code = """
for depth in range(200):
    exec(f"def f{depth}(): return f{depth + 1}()", globals())
def f200(): raise KeyError("the reason")
try:
    f0()
except KeyError:
    log.exception("failed")
"""
    (entry,) = entries(says("json", code))
    assert entry["message"] == "failed"
    assert entry["traceback"].startswith("…")
    assert entry["traceback"].endswith("KeyError: 'the reason'")


def test_text_keeps_a_long_traceback_and_cuts_a_long_line() -> None:
    code = """
for depth in range(100):
    exec(f"def f{depth}(): return f{depth + 1}()", globals())
def f100(): raise KeyError("ü" * 5000)
try:
    f0()
except KeyError:
    log.exception("failed")
log.warning("next")
"""
    lines = says("text", code).splitlines(keepends=True)
    assert len(lines) > 100
    assert all(len(line) <= LINE_BYTES_MAX for line in lines)
    assert lines[-2].startswith(b"KeyError: ")
    assert lines[-2].decode().endswith("ü…\n")
    assert lines[-1].endswith(b" next\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_that_cannot_be_formatted_is_told_in_the_same_form(form: str) -> None:
    data = says(form, "log.warning('%d', 'x')")
    assert b"cannot be formatted" in data
    assert form == "text" or entries(data)[0]["logger"] == "bridge.test"


FLOOD = """
for n in range(3000):
    log.warning("%d %s", n, "x" * (n % 100 * 80))
print("flooded", flush=True)
sys.stdin.readline()
log.warning("after")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="select there is for sockets")
@pytest.mark.parametrize("kind", ["pipe", "socket", "non-blocking socket"])
def test_nobody_reads_then_nothing_waits_lines_stay_whole_and_what_is_missing_is_counted(kind: str) -> None:
    if kind == "pipe":
        read, write = os.pipe()
    else:
        ours, theirs = socket.socketpair()
        theirs.setblocking(kind == "socket")
        read, write = ours.detach(), theirs.detach()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", SETUP.format(form="json") + FLOOD],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=write,
        )
        os.close(write)
        write = -1
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"flooded\n"
        os.set_blocking(read, False)
        data = b""
        try:
            while part := os.read(read, 65536):
                data += part
        except BlockingIOError:
            pass
        os.set_blocking(read, True)
        process.communicate(b"\n", timeout=LIMIT_S)
        while part := os.read(read, 65536):
            data += part
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    said = entries(data)
    lost = said[-2]["message"].split()
    assert said[-1]["message"] == "after"
    assert lost[1:4] == ["diagnostics", "were", "dropped,"]
    told = sum(int(e["message"].split()[0]) for e in said if "were dropped" in e["message"])
    written = [e for e in said if e["logger"] == "bridge.test"]
    assert len(written) - 1 + told == 3000
