"""The README is run, not only read: its configuration, its programs, its table."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.contract import METHODS, NOTIFICATIONS
from tests.support.bridge import REPOSITORY, environment

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
RUN_TIMEOUT_S = 30.0
COMPILE_TIMEOUT_S = 50.0
RUNNING_AT = re.compile(r"running at http://127\.0\.0\.1:\d+")


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{len(found)} blocks of {language}"
    text: str = found[0]
    return text


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A folder with the README's configuration; on PATH, `sidecar-bridge` and `python3` are those under test."""
    (tmp_path / "sidecars.toml").write_text(block("toml"), encoding="utf-8")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, line in (
        ("sidecar-bridge", f'exec "{sys.executable}" -m bridge "$@"'),
        ("python3", f'exec "{sys.executable}" "$@"'),
    ):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        program.chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return environment({"PATH": path, "PYTHONPATH": str(REPOSITORY)})


def run(command: list[str], folder: Path, env: dict[str, str], timeout: float = RUN_TIMEOUT_S) -> str:
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs on PATH are shell scripts")


def test_the_configuration_is_right(tmp_path: Path, env: dict[str, str]) -> None:
    assert "is right: 1 sidecar" in run(["sidecar-bridge", "check", "sidecars.toml"], tmp_path, env)


def test_the_node_program_runs(tmp_path: Path, env: dict[str, str]) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    (tmp_path / "app.mjs").write_text(block("js"), encoding="utf-8")
    assert RUNNING_AT.search(run(["node", "app.mjs"], tmp_path, env))


def test_the_rust_program_runs(tmp_path: Path, env: dict[str, str]) -> None:
    if shutil.which("rustc") is None:
        pytest.skip("rustc is not installed")
    (tmp_path / "app.rs").write_text(block("rust"), encoding="utf-8")
    run(["rustc", "--edition", "2021", "-D", "warnings", "app.rs"], tmp_path, env, COMPILE_TIMEOUT_S)
    assert '"state":"running"' in run(["./app"], tmp_path, env)


def test_the_python_program_runs(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "app.py").write_text(block("python"), encoding="utf-8")
    assert RUNNING_AT.search(run([sys.executable, "app.py"], tmp_path, env))


def test_the_table_of_methods_is_the_contract() -> None:
    rows = []
    for method in METHODS.values():
        params = ", ".join(f"`{name}`" for name in method.params.__struct_fields__)
        rows.append(f"| `{method.name}` | {params} | {method.summary} |")
    table = README.split("| method | params, in order | what it does |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    assert table.splitlines() == rows


def test_every_notification_of_a_sidecar_is_named() -> None:
    assert [name for name in NOTIFICATIONS if name != "$/progress" and f"`{name}`" not in README] == []


def test_every_file_that_is_linked_exists() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text)
        assert [link for link in links if link and not (REPOSITORY / link).exists()] == []
