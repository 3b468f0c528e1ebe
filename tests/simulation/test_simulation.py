"""Ten thousand seeds find nothing, each broken rule is found, and every seed that once found something is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import anyio
import pytest

from . import virtual
from .__main__ import main
from .mutations import MUTATIONS
from .play import Outcome, play

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "10000"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
CHUNK = 250
WORKERS = min(os.cpu_count() or 1, 4)
HUNT = 4000
"""Seeds within which every broken rule must be found; most are within a hundred."""

FOUND: dict[int, str] = {
    2: "a tree was used after it had been forgotten",
    3: "a stop left the restart counter as it was",
    8: "stopped was told with the status of the start behind it",
    16: "a check that was called off told progress of a start that had ended",
    20: "a late check asked a forgotten tree for its port",
    26: "the command of a check outlived its sidecar",
    37: "a check that passed just before the process ended made a dead process run",
    105: "what waited for its turn in a shutdown was spawned anew",
    163: "an exit was told as failed checks",
    240: "an automatic start passed over the backoff of what it depends on",
    392: "who gave up waiting for a stop undid it",
    788: "a dependent was started beside a stop of what it needs",
    2313: "a stop in order looked at direct dependents only",
    2439: "a stability timer that fired a hair early never reset the counter",
    2719: "a start that was stopped still started what it depends on",
}
"""What each of these seeds found when it was first played."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    # Fresh interpreters: a fork of a process with threads, which pytest-timeout has, is not safe.
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as workers:
        yield workers


def play_many(first: int, count: int, mutation: str | None = None) -> Outcome | None:
    """The first of these seeds that finds something."""
    if mutation is not None:
        with MUTATIONS[mutation]():
            return play_many(first, count)
    for seed in range(first, first + count):
        outcome = play(seed)
        if outcome.blames:
            return outcome
    return None


def story(outcome: Outcome) -> str:
    """What to read when a seed finds something."""
    return "\n".join(
        (
            f"seed {outcome.seed} (replay: python -m tests.simulation {outcome.seed})",
            *outcome.blames,
            "trace:",
            *outcome.trace,
        )
    )


def hunt(pool: ProcessPoolExecutor, first: int, count: int, mutation: str | None = None) -> Outcome | None:
    """The first thing that any of the seeds finds; the rest is called off then."""
    chunks = [(at, min(CHUNK, first + count - at)) for at in range(first, first + count, CHUNK)]
    futures = [pool.submit(play_many, *chunk, mutation) for chunk in chunks]
    try:
        for future in as_completed(futures):
            outcome = future.result()
            if outcome is not None:
                return outcome
        return None
    finally:
        for future in futures:
            future.cancel()


@pytest.mark.timeout(600)
def test_ten_thousand_random_schedules_keep_the_protocol(pool: ProcessPoolExecutor) -> None:
    outcome = hunt(pool, FIRST, SEEDS)
    assert outcome is None, story(outcome)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_rule_is_found(pool: ProcessPoolExecutor, mutation: str) -> None:
    outcome = hunt(pool, 0, HUNT, mutation)
    assert outcome is not None, f"{mutation} goes unnoticed in {HUNT} schedules"


@pytest.mark.timeout(300)
def test_without_generations_the_ghost_restart_is_found(pool: ProcessPoolExecutor) -> None:
    outcome = hunt(pool, 0, HUNT, "generations_forgotten")
    assert outcome is not None
    # A late check of a dead process makes its successor unhealthy, which is then restarted for nothing.
    assert any("unhealthy without as many failed checks of its process" in blame for blame in outcome.blames), story(
        outcome
    )
    assert any("is ended for no reason" in blame for blame in outcome.blames), story(outcome)
    assert play(outcome.seed).blames == []


@pytest.mark.parametrize("seed", FOUND)
def test_what_a_seed_once_found_is_mended(seed: int) -> None:
    outcome = play(seed)
    assert not outcome.blames, f"{FOUND[seed]}:\n{story(outcome)}"


def test_a_seed_always_plays_the_same(pool: ProcessPoolExecutor) -> None:
    for seed in (2, 11, 47):
        here, again, elsewhere = play(seed), play(seed), pool.submit(play, seed).result(30)
        assert here.trace == again.trace == elsewhere.trace
        assert len(here.trace) > 5


def test_a_seed_that_finds_something_tells_its_number_and_its_trace() -> None:
    with MUTATIONS["no_proof_of_extinction"]():
        outcome = play_many(0, 50)
    assert outcome is not None
    told = story(outcome)
    assert f"python -m tests.simulation {outcome.seed}" in told
    assert outcome.trace[0] in told
    assert any(" ! " in line for line in outcome.trace)


def test_a_replay_prints_the_trace_and_says_whether_something_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["2"]) == 0
    assert capsys.readouterr().out.endswith("\n".join(play(2).trace) + "\n")
    with MUTATIONS["no_proof_of_extinction"]():
        assert main(["0", "20"]) == 1
    assert "seed 2: " in capsys.readouterr().out


def test_hours_of_virtual_time_pass_at_once() -> None:
    async def sleep() -> float:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 3600)
            with anyio.move_on_after(86400):
                await anyio.sleep_forever()
        return anyio.current_time()

    began = time.monotonic()
    assert virtual.run(sleep) == pytest.approx(86400)
    assert time.monotonic() - began < 5


def test_a_program_that_waits_for_nothing_is_told_so() -> None:
    with pytest.raises(virtual.Standstill):
        virtual.run(anyio.sleep_forever)


def test_a_program_that_runs_in_a_circle_is_told_so() -> None:
    async def circle() -> None:
        while True:
            await anyio.sleep(0)

    with pytest.raises(virtual.Standstill):
        virtual.run(circle)
