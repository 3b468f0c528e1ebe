"""When checks are made, and which of them count: the start-up ramp, the steady beat, sleep and clock jumps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from bridge.model import HealthCheck
from bridge.settings import HealthSettings
from bridge.supervision.absence import Absence
from bridge.supervision.monitor import RESUME_GRACE_S, Monitor
from tests.simulation import virtual


class Watched:
    """A sidecar that answers as a test says, and notes all it hears."""

    def __init__(self, answers: str = "+") -> None:
        """`+` passes, `-` fails; the last one again and again."""
        self.answers = answers
        self.took_s = 0.0
        """How long each check takes."""
        self.asked: list[float] = []
        self.heard: list[tuple[str, float]] = []
        self.line = anyio.Event()

    async def wait_for_line(self) -> None:
        await self.line.wait()

    async def make_check(self) -> HealthCheck:
        self.asked.append(anyio.current_time())
        await anyio.sleep(self.took_s)
        answer, self.answers = self.answers[0], self.answers[1:] or self.answers
        return HealthCheck(at="", ok=answer == "+", latency=None, status_code=None, error=None)

    def _hear(self, what: str) -> None:
        self.heard.append((what, anyio.current_time()))

    def became_ready(self) -> None:
        self._hear("ready")

    def check_passed(self, check: HealthCheck) -> None:
        self._hear("passed")

    def check_failed(self, check: HealthCheck) -> None:
        self._hear("failed")

    def start_check_failed(self, check: HealthCheck) -> None:
        self._hear("not yet")

    def woke_up(self, slept_s: float) -> None:
        self._hear(f"slept {slept_s:g}")

    def words(self) -> list[str]:
        return [what for what, _ in self.heard]


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def wall(self) -> float:
        return 0.0

    def absent(self) -> float:
        return self.ahead_s


Scene = Callable[[Watched, Clock], Awaitable[None]]


def watch(scene: Scene, *, answers: str = "+", took_s: float = 0.0, **fields: Any) -> Watched:
    """Run a monitor for as long as the scene lasts; what it was asked and told."""
    settings = HealthSettings(**{"kind": "http", "interval": 30.0, "retry_interval": 5.0, "timeout": 5.0, **fields})
    watched, clock = Watched(answers), Clock()
    watched.took_s = took_s

    async def perform() -> None:
        async with anyio.create_task_group() as tasks:
            absence = Absence(clock, watched.woke_up)
            tasks.start_soon(Monitor(settings, absence, watched).run)
            await scene(watched, clock)
            tasks.cancel_scope.cancel()

    virtual.run(perform)
    return watched


async def for_seconds(seconds: float) -> None:
    # A hair longer: what is due at the end still happens.
    await anyio.sleep(seconds + 1e-3)


def lasting(seconds: float) -> Scene:
    async def scene(watched: Watched, clock: Clock) -> None:
        await for_seconds(seconds)

    return scene


# --- readiness -------------------------------------------------------------------------------------------------------


def test_while_starting_checks_come_every_tenth_of_a_second_growing_to_half_a_second() -> None:
    watched = watch(lasting(6.0), answers="-")
    pauses = [later - sooner for sooner, later in zip(watched.asked, watched.asked[1:], strict=False)]
    assert watched.asked[0] == 0
    assert pauses[0] == pytest.approx(0.1)
    assert pauses == pytest.approx(sorted(pauses))
    assert pauses[-3:] == pytest.approx([0.5, 0.5, 0.5])
    assert set(watched.words()) == {"not yet"}


def test_the_first_success_is_told_and_the_beat_begins() -> None:
    watched = watch(lasting(90.0), answers="--+")
    assert watched.words()[:3] == ["not yet", "not yet", "passed"]
    ready = watched.heard[2][1]
    assert watched.asked[3:] == pytest.approx([ready + 30.0, ready + 60.0])


def test_none_is_ready_when_it_was_alive_for_ready_after_and_is_never_checked() -> None:
    watched = watch(lasting(100.0), kind="none", ready_after=1.5)
    assert watched.heard == [("ready", 1.5)]
    assert watched.asked == []


def test_log_is_ready_with_its_line_and_is_never_checked() -> None:
    async def scene(watched: Watched, clock: Clock) -> None:
        await for_seconds(7.0)
        assert watched.heard == []
        watched.line.set()
        await for_seconds(60.0)

    watched = watch(scene, kind="log")
    assert watched.words() == ["ready"]
    assert watched.asked == []


# --- the beat --------------------------------------------------------------------------------------------------------


def test_after_a_failure_the_next_check_comes_after_retry_interval() -> None:
    watched = watch(lasting(75.0), answers="+-+")
    assert watched.asked == pytest.approx([0, 30, 35, 65])
    assert watched.words() == ["passed", "failed", "passed", "passed"]


def test_a_slow_check_is_followed_by_the_whole_interval() -> None:
    watched = watch(lasting(70.0), took_s=2.0)
    assert watched.asked == pytest.approx([0, 32, 64])


def test_a_monitor_that_is_cancelled_tells_nothing_more() -> None:
    watched = watch(lasting(31.0), took_s=2.0)
    assert watched.words() == ["passed"]


# --- sleep and clock jumps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 3.0])
def test_after_a_sleep_or_jump_the_first_failures_do_not_count(jump_s: float) -> None:
    async def scene(watched: Watched, clock: Clock) -> None:
        await for_seconds(10.0)
        clock.ahead_s += jump_s
        await for_seconds(50.0 + RESUME_GRACE_S)

    watched = watch(scene, answers="+-", interval=30.0)
    told = [what for what in watched.heard if what[0].startswith("slept")]
    assert told == ([(f"slept {jump_s:g}", 30.0)] if jump_s > 0 else [])
    failures = [at for what, at in watched.heard if what == "failed"]
    assert failures[0] == pytest.approx(30.0 + RESUME_GRACE_S)
    assert len([at for at in watched.asked if 30.0 <= at < failures[0]]) == 6


def test_a_success_after_a_sleep_ends_the_grace() -> None:
    async def scene(watched: Watched, clock: Clock) -> None:
        clock.ahead_s += 600.0
        await for_seconds(72.0)

    watched = watch(scene, answers="+-+-")
    assert watched.words() == ["passed", "slept 600", "passed", "failed", "failed"]
    assert watched.heard[3][1] == pytest.approx(65.0)


def test_a_check_that_a_sleep_fell_into_is_void() -> None:
    async def scene(watched: Watched, clock: Clock) -> None:
        await anyio.sleep(33.0)
        clock.ahead_s += 600.0
        await for_seconds(2.0)

    watched = watch(scene, answers="+-", took_s=2.0)
    assert watched.words() == ["passed", "slept 600"]


def test_a_sleep_is_told_once() -> None:
    async def scene(watched: Watched, clock: Clock) -> None:
        clock.ahead_s += 600.0
        await for_seconds(300.0)

    assert [word for word in watch(scene).words() if word != "passed"] == ["slept 600"]


def test_a_small_correction_of_the_clock_is_no_sleep() -> None:
    async def scene(watched: Watched, clock: Clock) -> None:
        for _ in range(5):
            clock.ahead_s += 1.5
            await for_seconds(30.0)

    assert set(watch(scene, answers="+-+").words()) == {"passed", "failed"}


def test_a_check_that_took_far_longer_than_its_timeout_says_nothing() -> None:
    watched = watch(lasting(120.0), answers="+-", took_s=12.0, timeout=5.0)
    assert watched.words() == ["passed"]
