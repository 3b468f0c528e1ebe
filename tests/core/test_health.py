"""Check results become healthy and unhealthy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.health import Fold, HealthPolicy, failed, passed, proven

RUNNING = Fold("healthy", 0, 1)


def fold_all(results: str, policy: HealthPolicy, start: Fold = RUNNING) -> Fold:
    """`+` is a passed check, `-` a failed one."""
    fold = start
    for result in results:
        fold = passed(fold, policy) if result == "+" else failed(fold, policy)
    return fold


@pytest.mark.parametrize(
    ("results", "health", "failures", "successes"),
    [
        ("", "healthy", 0, 1),
        ("-", "healthy", 1, 0),
        ("--", "healthy", 2, 0),
        ("---", "unhealthy", 3, 0),
        ("----", "unhealthy", 4, 0),
        ("--+", "healthy", 0, 1),
        ("--+--", "healthy", 2, 0),
        ("---+", "unhealthy", 0, 1),
        ("---++", "healthy", 0, 2),
        ("---+-+", "unhealthy", 0, 1),
        ("---++---", "unhealthy", 3, 0),
    ],
)
def test_three_failures_in_a_row_are_unhealthy_and_two_successes_healthy_again(
    results: str, health: str, failures: int, successes: int
) -> None:
    assert fold_all(results, HealthPolicy()) == (health, failures, successes)


def test_a_threshold_of_one_turns_at_once() -> None:
    policy = HealthPolicy(failure_threshold=1, success_threshold=1)
    assert fold_all("-", policy).health == "unhealthy"
    assert fold_all("-+", policy).health == "healthy"


def test_enough_successes_in_a_row_prove_a_stable_period() -> None:
    policy = HealthPolicy(success_threshold=2)
    assert not proven(RUNNING, policy)
    assert proven(fold_all("+", policy), policy)
    assert not proven(fold_all("++-+", policy), policy)


def test_where_nothing_is_checked_nothing_has_to_be_proven() -> None:
    assert proven(Fold(), HealthPolicy(checked=False))


@given(st.text("+-"), st.integers(1, 5), st.integers(1, 5))
def test_health_is_decided_by_the_last_run_that_was_long_enough(results: str, most: int, least: int) -> None:
    policy = HealthPolicy(failure_threshold=most, success_threshold=least)
    fold = fold_all(results, policy)
    health = "healthy"
    for end in range(1, len(results) + 1):
        if results[:end].endswith("-" * most):
            health = "unhealthy"
        elif health == "unhealthy" and results[:end].endswith("+" * least):
            health = "healthy"
    assert fold.health == health
    assert fold.failures == len(results) - len(results.rstrip("-"))
