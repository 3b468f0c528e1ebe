"""What the referee knows of one sidecar: who wanted what, what its processes did, what was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge import model as m
from bridge.settings import SidecarSettings

if TYPE_CHECKING:
    from .processes import FakeProcess


class Case:
    """What the referee knows of one sidecar."""

    def __init__(self, settings: SidecarSettings) -> None:
        self.settings = settings
        self.needs: list[Case] = []
        self.dependents: list[Case] = []
        self.state: m.State = "stopped"
        self.changes = 0
        self.since = 0.0
        self.wanted = False
        self.process: FakeProcess | None = None
        self.spawns = 0
        self.tools = 0
        self.counts: set[int] = {0}
        """What restart_count may be; several where two things happen at one moment."""
        self.restarts: list[float] = []
        self.operator = False
        """An operator asked for the start under way or the last one."""
        self.operator_until = -1
        """Serial up to which a start by an operator was under way."""
        self.ran = False
        self.running_since = 0.0
        self.ran_at = -1
        self.ran_until = -1
        """Serials of when it was last seen to begin and to end to run."""
        self.began = -1
        """Serial of the last `starting`."""
        self.up_asked = -1
        self.down_asked = -1
        self.restart_asked = -1
        self.began_under_stop = False
        """The last start was one by itself that a stop, which waits for dependents, is about to undo."""
        self.due: float | None = None
        self.fraction = 0.0
        self.stage = 0
        self.health: m.Health = "unknown"
        self.alerts: set[str] = set()
        self.facts: set[str] = set()
        """What went wrong with the start under way."""
        self.jumped = False
        """The clock jumped since the last passed check."""
        self.was_unhealthy = False
        """Since its last start."""
        self.timed_out = False
        self.ended_in: m.State = "stopped"
        """The state in which its last process ended."""
        self.stopping_since = -1.0
        self.spawns_before = 0
        """Processes before the start under way."""
        self.luck = 0.0
        """The chance that was drawn last, for the jitter."""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def fresh(self) -> FakeProcess | None:
        """The process of the start under way or the last one; None where it did not come to one."""
        return self.process if self.spawns > self.spawns_before else None

    @property
    def stop_asked(self) -> bool:
        """Whether somebody asked for a stop of what was started last."""
        return self.down_asked > self.began or self.began_under_stop

    def all_needs(self) -> list[Case]:
        found: list[Case] = []
        for need in self.needs:
            found += [need, *need.all_needs()]
        return found

    def all_dependents(self) -> list[Case]:
        found: list[Case] = []
        for dependent in self.dependents:
            found += [dependent, *dependent.all_dependents()]
        return found

    @property
    def sick(self) -> bool:
        """Whether enough checks of its process failed; the first one behind a jump of the clock does not count."""
        return self.fresh is not None and self.fresh.failures >= self.settings.health.failure_threshold + self.jumped
