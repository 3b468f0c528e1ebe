"""What the bridge asks of an operating system: start a process, see it end, end its whole tree, prove that it is gone.

Each promise is written once, here, with what it means on each system. `linux`, `darwin` and `windows` keep them; the
simulation keeps them too, with invented processes. Nothing above this package knows a pid's meaning, a signal number or
a job object.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol


class SpawnSpec(NamedTuple):
    """A program to start. Never through a shell."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    """The complete environment; nothing is added but the mark of the tree (`SIDECAR_BRIDGE_MARK`)."""
    stdin: Literal["null", "pipe"] = "null"
    merge_output: bool = False
    """stderr goes where stdout goes; `Process.stderr` is then None."""
    stop_signal: str = "SIGTERM"
    """What the guardian sends first when the bridge itself was killed."""
    shutdown_timeout_s: float = 5.0
    """How long the guardian then waits (it keeps its own, shorter bound too)."""


class Ended(NamedTuple):
    """How a leader ended: `code` when it exited, `signal` (name with SIG) when a signal ended it."""

    code: int | None
    signal: str | None


class Holder(NamedTuple):
    """A process that listens on a port."""

    pid: int
    name: str


class SpawnError(Exception):
    """The program could not be started. `message` is a sentence naming the cause, `reason` a word for programs."""

    def __init__(
        self,
        reason: Literal["missing_program", "not_executable", "bad_cwd", "no_resources", "other"],
        message: str,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Process(Protocol):
    """A started program (the leader) and everything that descends from it (the tree).

    The tree is the leader and all its descendants, whatever group or session they moved to, whatever they did to their
    environment, also after the leader ended.
    """

    @property
    def pid(self) -> int: ...

    @property
    def stdout(self) -> int:
        """Read end of its output, non-blocking; whoever takes it closes it."""

    @property
    def stderr(self) -> int | None:
        """Read end of its error output, as stdout; None with `merge_output`."""

    @property
    def ended(self) -> Ended | None:
        """How the leader ended; None while it lives."""

    async def wait(self) -> Ended:
        """Return within 100 ms of the leader's exit, even if descendants hold its pipes. Many may wait."""

    def close_stdin(self) -> None:
        """Close the write end of its stdin, where it has one. Never fails."""

    def signal(self, name: str) -> None:
        """Send a signal (name with SIG) to the leader's process group, SIGCONT behind it.

        Nothing happens when the group is gone. Windows: CTRL_BREAK, whatever the name.
        """

    def signal_tree(self, name: str) -> None:
        """Send a signal, SIGCONT behind it, to every live process of the tree. Windows: as `signal`."""

    def members(self) -> list[int]:
        """Pids of the tree that are alive, the leader first; a zombie is dead."""

    async def wait_extinct(self, timeout_s: float) -> bool:
        """Wait until nothing of the tree is alive; True when that is proven, False after the timeout."""

    async def extinguish(self, timeout_s: float) -> bool:
        """Kill every process of the tree until none is alive; True when that is proven, False after the timeout."""

    def close(self) -> None:
        """Forget the tree once it is extinct: frees what the bridge holds for it except stdout and stderr."""


class System(Protocol):
    """The operating system, as far as the bridge uses it. Created inside the running event loop."""

    async def start(self) -> None:
        """Prepare: become subreaper, watch for exits, start the guardian. Called once, before any spawn."""

    def spawn(self, spec: SpawnSpec) -> Process:
        """Start a program in its own session with default signal actions and no descriptors but 0, 1, 2.

        Raises SpawnError. Does not block the loop for more than a few milliseconds.
        """

    def free_port(self, host: str) -> int:
        """A port that nobody listens on now."""

    def port_is_free(self, host: str, port: int) -> bool:
        """Whether a listener could be opened on it now."""

    def port_holder(self, port: int) -> Holder | None:
        """Who listens on a local TCP port; None when nobody does or the system does not tell."""

    def owns_port(self, process: Process, port: int) -> bool | None:
        """Whether a process of this tree is among those that listen on the port; None when it cannot be told."""

    async def close(self) -> None:
        """End the guardian and stop watching. Every tree is extinct by then."""


def platform_name() -> str:
    """`linux`, `macos` or `windows`."""
    return {"darwin": "macos", "win32": "windows"}.get(sys.platform, "linux")
