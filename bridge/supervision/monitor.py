"""Watches the health of one process: the start-up ramp, then the steady beat.

It turns the passage of time into check results and hands them to a `Watched`. What follows from them is decided by
`core.health` and `core.lifecycle`; how a check is made stands in `probes`.
"""

from __future__ import annotations

from typing import Protocol

import anyio

from bridge.model import HealthCheck
from bridge.settings import HealthSettings

from .absence import Absence

RAMP_FIRST_S = 0.1
RAMP_LAST_S = 0.5
RAMP_FACTOR = 1.5
RESUME_GRACE_S = 30.0
"""For how long after a sleep failures do not count: networks, disks and GPUs come back one by one."""
LATE_S = 5.0
"""A check that took this much longer than its own timeout says that the bridge itself did not run meanwhile."""


class Watched(Protocol):
    """The sidecar that is watched."""

    async def wait_for_line(self) -> None:
        """Return once the readiness pattern stands in the output."""

    async def make_check(self) -> HealthCheck:
        """One check, bounded by its timeout."""

    def became_ready(self) -> None: ...

    def check_passed(self, check: HealthCheck) -> None: ...

    def check_failed(self, check: HealthCheck) -> None: ...

    def start_check_failed(self, check: HealthCheck) -> None: ...


class Monitor:
    """Runs until it is cancelled; one per process."""

    def __init__(self, settings: HealthSettings, absence: Absence, watched: Watched) -> None:
        self._settings = settings
        self._absence = absence
        self._watched = watched
        self._absences = absence.notice()
        self._grace_until = 0.0

    async def run(self) -> None:
        """Watch: readiness first, then, where there is something to check, for as long as the process runs."""
        if self._settings.kind == "none":
            await anyio.sleep(self._settings.ready_after)
            self._watched.became_ready()
        elif self._settings.kind == "log":
            await self._watched.wait_for_line()
            self._watched.became_ready()
        else:
            await self._ramp()
            await self._beat()

    async def _ramp(self) -> None:
        pause_s = RAMP_FIRST_S
        while True:
            check = await self._watched.make_check()
            if check.ok:
                self._watched.check_passed(check)
                return
            self._watched.start_check_failed(check)
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * RAMP_FACTOR, RAMP_LAST_S)

    async def _beat(self) -> None:
        failing = False
        while True:
            await anyio.sleep(self._settings.retry_interval if failing else self._settings.interval)
            self._notice_absence()
            asked_at = anyio.current_time()
            check = await self._watched.make_check()
            answered_at = anyio.current_time()
            late = answered_at - asked_at > self._settings.timeout + LATE_S
            void = self._notice_absence() or late
            failing = not check.ok
            if check.ok:
                self._grace_until = 0.0
                self._watched.check_passed(check)
            elif not void and answered_at >= self._grace_until:
                self._watched.check_failed(check)

    def _notice_absence(self) -> bool:
        """Whether the computer slept or its clock jumped since the last look."""
        absences, self._absences = self._absences, self._absence.notice()
        if absences == self._absences:
            return False
        self._grace_until = anyio.current_time() + RESUME_GRACE_S
        return True
