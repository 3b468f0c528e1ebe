"""Each way a start can fail has its reason and its sentence, and leaves neither process nor descriptor."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.process.base import SpawnError, SpawnSpec

from .conftest import WAYS, Starter

if sys.platform == "win32":
    pytest.skip("POSIX files", allow_module_level=True)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("start", WAYS[:1], indirect=True),
]


def file(path: Path, content: bytes, mode: int = 0o755) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def failure(start: Starter, *argv: str, **fields: Any) -> SpawnError:
    spec = SpawnSpec(argv, os.getcwd(), dict(os.environ), stdin="pipe")._replace(**fields)
    before = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    with pytest.raises(SpawnError) as caught:
        start.system.spawn(spec)
    if sys.platform == "linux":
        assert os.listdir("/proc/self/fd") == before
    assert caught.value.message == str(caught.value)
    return caught.value


async def test_a_program_that_is_nowhere(start: Starter) -> None:
    error = failure(start, "no-such-program")
    assert (error.reason, error.message) == (
        "missing_program",
        "The program 'no-such-program' was not found (searched PATH)",
    )


async def test_a_path_that_leads_nowhere(start: Starter, tmp_path: Path) -> None:
    error = failure(start, "./tool", cwd=str(tmp_path))
    assert (error.reason, error.message) == ("missing_program", "The program './tool' was not found")


async def test_the_path_of_the_given_environment_is_searched(start: Starter, tmp_path: Path) -> None:
    file(tmp_path / "only-here", b"#!/bin/sh\nexit 4\n")
    assert failure(start, "only-here").reason == "missing_program"
    env = {"PATH": f"/nowhere:{tmp_path}"}
    process = start.spawn(SpawnSpec(("only-here",), "/", env))
    assert (await process.wait()).code == 4
    assert await process.wait_extinct(5)
    process.close()


async def test_a_path_is_relative_to_the_working_directory(start: Starter, tmp_path: Path) -> None:
    file(tmp_path / "tool", b"#!/bin/sh\nexit 6\n")
    process = start.spawn(SpawnSpec(("./tool",), str(tmp_path), dict(os.environ)))
    assert (await process.wait()).code == 6
    assert await process.wait_extinct(5)
    process.close()


async def test_a_directory(start: Starter, tmp_path: Path) -> None:
    error = failure(start, str(tmp_path))
    assert (error.reason, error.message) == ("not_executable", f"The program '{tmp_path}' is a directory")


async def test_a_file_without_the_right_to_run_it(start: Starter, tmp_path: Path) -> None:
    path = file(tmp_path / "plain", b"#!/bin/sh\n", 0o644)
    error = failure(start, path)
    assert (error.reason, error.message) == ("not_executable", f"The program '{path}' ({path}) is not executable")


async def test_a_file_on_the_path_without_the_right_to_run_it(start: Starter, tmp_path: Path) -> None:
    path = file(tmp_path / "plain", b"#!/bin/sh\n", 0o644)
    error = failure(start, "plain", env={"PATH": str(tmp_path)})
    assert (error.reason, error.message) == ("not_executable", f"The program 'plain' ({path}) is not executable")


async def test_a_script_without_its_first_line(start: Starter, tmp_path: Path) -> None:
    path = file(tmp_path / "script", b"echo hello\n")
    error = failure(start, path)
    assert error.reason == "not_executable"
    assert error.message == f"The program '{path}' is no executable format; a script needs a first line with '#!'"


async def test_a_program_for_another_machine(start: Starter, tmp_path: Path) -> None:
    path = file(tmp_path / "alien", b"\x7fELF\x01\x01\x01" + bytes(200))
    error = failure(start, path)
    assert (error.reason, error.message) == (
        "not_executable",
        f"The program '{path}' was built for another system",
    )


async def test_an_interpreter_that_is_missing(start: Starter, tmp_path: Path) -> None:
    path = file(tmp_path / "script", b"#!/no/such/interpreter -x\n")
    error = failure(start, path)
    assert error.reason == "missing_program"
    assert "needs the interpreter '/no/such/interpreter', which was not found" in error.message


async def test_an_interpreter_line_from_windows(start: Starter, tmp_path: Path) -> None:
    error = failure(start, file(tmp_path / "script", b"#!/bin/sh\r\necho\r\n"))
    assert error.message.endswith("which was not found; its lines end with CR LF")


async def test_a_working_directory_that_does_not_exist(start: Starter, tmp_path: Path) -> None:
    cwd = str(tmp_path / "none")
    error = failure(start, "sleep", "1", cwd=cwd)
    assert (error.reason, error.message) == ("bad_cwd", f"The working directory '{cwd}' does not exist")


async def test_a_working_directory_that_is_a_file(start: Starter, tmp_path: Path) -> None:
    cwd = file(tmp_path / "file", b"")
    error = failure(start, "sleep", "1", cwd=cwd)
    assert (error.reason, error.message) == ("bad_cwd", f"The working directory '{cwd}' is not a directory")


async def test_arguments_that_no_program_can_get(start: Starter) -> None:
    error = failure(start, "sleep", "1\0")
    assert (error.reason, error.message) == ("other", "The program 'sleep' cannot be started: embedded null byte")


async def test_arguments_that_are_too_long(start: Starter) -> None:
    error = failure(start, "sleep", "1" * (1 << 18))
    assert (error.reason, "too long" in error.message) == ("other", True)


async def test_an_empty_command(start: Starter) -> None:
    assert failure(start).message == "The command is empty"
    assert failure(start, "").message == "The command is empty"


async def test_a_stop_signal_that_does_not_exist(start: Starter) -> None:
    error = failure(start, "sleep", "1", stop_signal="SIGNONE")
    assert error.message == "The stop signal cannot be used: 'SIGNONE' is no signal of this system"


async def test_no_descriptors_left(start: Starter) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = os.dup(0)
    os.close(top)
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 3, hard))
    try:
        with pytest.raises(SpawnError) as caught:
            start.system.spawn(SpawnSpec(("sleep", "1"), "/", dict(os.environ)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.reason == "no_resources"
    assert caught.value.message == "The system has no room to start 'sleep': Too many open files"


async def test_a_failed_start_leaves_nothing_to_wait_for(start: Starter) -> None:
    failure(start, "no-such-program")
    process = start.spawn(start.spec("pass"))
    assert (await process.wait()).code == 0
    assert await process.wait_extinct(5)
    process.close()
