"""What the parts of one sidecar share: its settings, its surroundings, and the ways to tell.

`Surroundings` is what all sidecars of a bridge have in common, `Cell` what `starting`, `checking` and `ending` know of
the one sidecar that they work for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from bridge import model as m
from bridge.core import lifecycle as lc
from bridge.process.base import System
from bridge.settings import SidecarSettings, fill

from .absence import Absence
from .alerts import Alerts
from .attempt import Attempt, Output
from .clock import Clock, rfc3339
from .journal import Journal
from .ports import Ports
from .probes import Prober
from .redact import Redactor
from .tools import ToolRunner

TAIL_LINES = 20
"""Enough to see a traceback's end."""
TAIL_BYTES_MAX = 4096
"""Of a tail as JSON: it stands twice in each status, and a list has the statuses of a hundred sidecars."""


class Surroundings:
    """What every sidecar of a bridge shares."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        system: System,
        prober: Prober,
        run_tool: ToolRunner,
        clock: Clock,
        absence: Absence,
        ports: Ports,
        alerts: Alerts,
        journal: Journal,
        publish: Callable[[m.Notification], None],
        environ: Mapping[str, str],
        log_dir: str,
        ensure_up: Callable[[str, lc.Origin], Awaitable[lc.Failure | None]],
    ) -> None:
        self.tasks = tasks
        self.system = system
        self.prober = prober
        self.run_tool = run_tool
        self.clock = clock
        self.absence = absence
        self.ports = ports
        self.alerts = alerts
        self.journal = journal
        self.publish = publish
        self.environ = environ
        self.log_dir = log_dir
        self.ensure_up = ensure_up
        self.sweep: anyio.Event | None = None
        """While leftovers of an earlier bridge are being ended: set when that is over. Starts wait for it."""

    def now(self) -> str:
        """Wall-clock time for the wire."""
        return rfc3339(self.clock.wall())


class Report(Protocol):
    """Tells how far a start is."""

    def __call__(self, attempt: Attempt, stage: m.Stage, message: str, within: float) -> None:
        """`within` is the part of the stage that is done, 0 to 1."""


class Cell:
    """One sidecar as its parts see it. `feed` gives the lifecycle an event."""

    def __init__(
        self,
        settings: SidecarSettings,
        around: Surroundings,
        redactor: Redactor,
        feed: Callable[[lc.Event], None],
        report: Report,
    ) -> None:
        self.settings = settings
        self.around = around
        self.redactor = redactor
        self.feed = feed
        self.report = report

    @property
    def name(self) -> str:
        return self.settings.name

    def values(self, port: int | None) -> dict[str, str]:
        """What placeholders are filled with."""
        return {
            "port": str(port or 0),
            "host": self.settings.host,
            "log_dir": self.around.log_dir,
            "name": self.name,
        }

    def environment(self, values: Mapping[str, str]) -> dict[str, str]:
        """The complete environment of a process."""
        env = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **self.around.environ}
        env.update({key: fill(value, values) for key, value in self.settings.env.items()})
        env["SIDECAR_NAME"] = self.name
        return env

    def raise_alert(
        self, kind: str, severity: m.Severity, message: str, data: Any = None, *, again: bool = False
    ) -> None:
        """Tell of a condition; `again` where each occurrence is one of its own and ends the one before."""
        if again:
            self.around.alerts.clear(self.name, kind)
        if self.around.alerts.raise_(self.name, kind, severity, message, data):
            self.around.journal.record(self.name, "alert", message, {"kind": kind, "severity": severity})

    def tail(self, output: Output, stream: m.Stream) -> list[str]:
        """The last lines of a process without secrets, bounded as JSON."""
        kept: list[str] = []
        room = TAIL_BYTES_MAX
        for line in reversed(output.tail(stream, TAIL_LINES)):
            shown = self.redactor.text(line)
            room -= len(msgspec.json.encode(shown.encode("utf-8", "replace").decode()))
            if room < 0 and kept:
                break
            kept.append(shown[: TAIL_BYTES_MAX // 6] if room < 0 else shown)
        return kept[::-1]
