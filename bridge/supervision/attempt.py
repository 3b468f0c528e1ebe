"""One start of a sidecar and the process that came of it: what must be kept while it lives, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol

import anyio

from bridge.model import Exit, HealthCheck, Stream
from bridge.process.base import Process

from .ender import Ender
from .jobs import Job
from .progress import ProgressReport

CHECKS_IN_EXIT = 5


class Output(Protocol):
    """The log floor's hold on the output of one process."""

    async def flush(self, timeout_s: float) -> bool:
        """Store what was in the pipes when called; whether that succeeded in time."""

    async def close(self, timeout_s: float) -> None:
        """Store what is in the pipes and let go of them."""

    def tail(self, stream: Stream, lines: int) -> list[str]:
        """The last lines of this process on `stdout` or `stderr`, oldest first."""

    async def wait_for(self, pattern: str) -> None:
        """Return once a line of either stream matches, one from before the call included."""


class Attempt:
    """State of one start. `number` is the lifecycle's attempt."""

    def __init__(self, number: int, progress: ProgressReport) -> None:
        self.number = number
        self.progress = progress
        self.values: Mapping[str, str] = {}
        """What placeholders are filled with."""
        self.env: Mapping[str, str] = {}
        self.port: int | None = None
        self.process: Process | None = None
        self.spawned = 0.0
        """When the process was spawned, monotonic seconds."""
        self.output: Output | None = None
        self.preparing: Job | None = None
        self.monitoring: Job | None = None
        self.checks: deque[HealthCheck] = deque(maxlen=CHECKS_IN_EXIT)
        self.tools: set[Job] = set()
        """Commands of checks that run now, those that an operator asked for too."""
        self.over = False
        """Its end has begun: what a check still brings says nothing about the sidecar."""
        self.ender: Ender | None = None
        self.exited = anyio.Event()
        """Set when the leader's exit has been told to the lifecycle."""
        self.exit: Exit | None = None
        self.foreign: str | None = None
        """Who answered the last check, where it was somebody else."""

    @property
    def last_check(self) -> HealthCheck | None:
        """The newest check of this attempt."""
        return self.checks[-1] if self.checks else None

    @property
    def leaving(self) -> bool:
        """Whether the leader has ended and the lifecycle is about to be told, which explains all that is seen now."""
        return self.process is not None and self.process.ended is not None and not self.exited.is_set()
