"""A bridge that is killed leaves nothing: the guardian ends every tree, then itself. Killed, it comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .sightings import sighted, status_field, until_blocking

if sys.platform != "linux":
    pytest.skip("Linux", allow_module_level=True)

GONE_S = 2.0
"""The protocol: nothing of any tree is alive 2 s after the bridge's death."""
GRACE_S = 1.2
"""What the guardian leaves of that to programs that ignore their stop signal."""
GUARDIAN_GONE_S = 3.0
"""And the guardian ends within 3 s of its work."""


class Bridge:
    """The script, and what it says."""

    def __init__(self, way: str, token: str, *names: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.bridge_script", way, token, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.guardian = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def ask_guardian(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(b"guardian\n")
        self.process.stdin.flush()
        return int(self.line())

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def bridges() -> Iterator[list[Bridge]]:
    """Bridges that a failed test left are ended."""
    started: list[Bridge] = []
    yield started
    for bridge in started:
        if bridge.process.poll() is None:
            bridge.kill()


def is_running(pid: int) -> bool:
    try:
        return not status_field(pid, "State").startswith(("Z", "X"))
    except AssertionError:
        return False


def is_gone(token: str) -> bool:
    """A single look misses a program that forks itself on while the list is read."""
    return all(sighted(token) == [] for _ in range(10))


KINDS = [
    ("marks", "QUIET"),
    ("marks", "IGNORES_TERM"),
    ("marks", "CHILDREN_IN_OWN_SESSIONS"),
    ("marks", "DAEMON_WITHOUT_ENVIRONMENT"),
    ("marks", "THIRTY_CHILDREN"),
    ("marks", "STOPPED"),
    ("marks", "FORK_CHAIN"),
    ("marks", "EXITS_AND_LEAVES_CHILD"),
    ("descent", "QUIET"),
    ("descent", "IGNORES_TERM"),
    ("descent", "CHILDREN_IN_OWN_SESSIONS"),
]


@pytest.mark.parametrize(("way", "kind"), KINDS)
def test_a_killed_bridge_leaves_nothing(bridges: list[Bridge], token: str, way: str, kind: str) -> None:
    bridge = Bridge(way, token, kind)
    bridges.append(bridge)
    bridge.kill()
    until_blocking(lambda: is_gone(token), GONE_S)
    until_blocking(lambda: not is_running(bridge.guardian), GUARDIAN_GONE_S)
    assert is_gone(token)


def test_the_stop_signal_comes_before_the_kill(bridges: list[Bridge], token: str) -> None:
    bridge = Bridge("marks", token, "IGNORES_TERM", "QUIET")
    bridges.append(bridge)
    assert len(sighted(token)) == 2 + 1  # The bridge's own command line carries the token as well.
    bridge.kill()
    until_blocking(lambda: len(sighted(token)) == 1, GRACE_S)
    until_blocking(lambda: sighted(token) == [], GONE_S)


def test_a_quiet_tree_is_gone_long_before_its_grace_ends(bridges: list[Bridge], token: str) -> None:
    bridge = Bridge("marks", token, "QUIET")
    bridges.append(bridge)
    bridge.kill()
    until_blocking(lambda: sighted(token) == [], 0.5)
    until_blocking(lambda: not is_running(bridge.guardian), 1.0)


def test_an_orderly_end_takes_the_guardian_along(bridges: list[Bridge], token: str) -> None:
    bridge = Bridge("marks", token, "QUIET")
    bridges.append(bridge)
    bridge.close()
    assert bridge.process.returncode == 0
    assert not is_running(bridge.guardian)
    assert sighted(token) == []


def test_a_killed_guardian_is_replaced_and_the_new_one_works(bridges: list[Bridge], token: str) -> None:
    bridge = Bridge("marks", token, "IGNORES_TERM")
    bridges.append(bridge)
    os.kill(bridge.guardian, signal.SIGKILL)
    assert bridge.line() == "lost"
    second = bridge.ask_guardian()
    assert second != bridge.guardian
    until_blocking(lambda: int(status_field(second, "SigIgn"), 16) & 1 << signal.SIGTERM - 1 != 0, 5)
    bridge.kill()
    # It was told of the trees: who is unknown to it has no grace.
    assert until_blocking(lambda: sighted(token) == [], GONE_S) > GRACE_S / 2
    until_blocking(lambda: not is_running(second), GUARDIAN_GONE_S)


def test_a_guardian_that_dies_too_often_is_given_up(bridges: list[Bridge], token: str) -> None:
    bridge = Bridge("marks", token, "QUIET")
    bridges.append(bridge)
    guardian = bridge.guardian
    for _ in range(5):
        os.kill(guardian, signal.SIGKILL)
        assert bridge.line() == "lost"
        guardian = bridge.ask_guardian()
    os.kill(guardian, signal.SIGKILL)
    assert [bridge.line(), bridge.line()] == ["lost", "given up"]
    bridge.close()
    assert bridge.process.returncode == 0


def test_the_guardian_survives_the_signals_of_a_terminal_and_is_small(bridges: list[Bridge], token: str) -> None:
    bridge = Bridge("marks", token, "QUIET")
    bridges.append(bridge)
    until_blocking(lambda: int(status_field(bridge.guardian, "SigIgn"), 16) & 1 << signal.SIGTERM - 1 != 0, 5)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(bridge.guardian, number)
    assert bridge.ask_guardian() == bridge.guardian
    assert os.getsid(bridge.guardian) == bridge.guardian
    assert sorted(os.listdir(f"/proc/{bridge.guardian}/fd")) == ["0", "1", "2"]
    kibibytes = int(status_field(bridge.guardian, "VmRSS").split()[0])
    # 10 MiB with its bytecode from the cache; compiling it anew, which a read-only cache would need, costs one more.
    assert kibibytes < 11 * 1024
    bridge.kill()
    until_blocking(lambda: sighted(token) == [], GONE_S)
    until_blocking(lambda: not is_running(bridge.guardian), GUARDIAN_GONE_S)
