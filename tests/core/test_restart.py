"""When and how often a sidecar is started again by itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.restart import GiveUp, RestartAfter, RestartPolicy, decide, delay, wants_restart, within_window

FLOATS = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("restart", "abnormal", "wanted"),
    [
        ("on_failure", True, True),
        ("on_failure", False, False),
        ("always", True, True),
        ("always", False, True),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_the_policy_says_which_ends_are_mended(restart: str, abnormal: bool, wanted: bool) -> None:
    assert wants_restart(RestartPolicy(restart=restart), abnormal=abnormal) is wanted  # type: ignore[arg-type]


def test_the_defaults_wait_1_2_4_8_16_seconds() -> None:
    assert [delay(RestartPolicy(), number, 0.0) for number in range(1, 8)] == [1, 2, 4, 8, 16, 16, 16]


@given(
    initial=FLOATS,
    factor=st.floats(1, 1000),
    more=FLOATS,
    jitter=st.floats(0, 1000),
    number=st.integers(1, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
)
@example(initial=0.0, factor=1000.0, more=5.0, jitter=0.0, number=10_000, chance=0.0)
@example(initial=1.0, factor=1000.0, more=5.0, jitter=0.0, number=10_000, chance=0.0)
@example(initial=1e-9, factor=2.0, more=5.0, jitter=0.0, number=1024, chance=0.0)
def test_every_delay_lies_between_the_plain_backoff_and_that_plus_jitter(
    initial: float, factor: float, more: float, jitter: float, number: int, chance: float
) -> None:
    policy = RestartPolicy(
        backoff_initial_s=initial, backoff_factor=factor, backoff_max_s=initial + more, backoff_jitter_s=jitter
    )
    plain = delay(policy, number, 0.0)
    if initial == 0:
        expected = 0.0
    else:
        exponent = math.log(initial) + (number - 1) * math.log(factor)
        expected = (
            policy.backoff_max_s if exponent > 50 else min(initial * factor ** (number - 1), policy.backoff_max_s)
        )
    assert plain == pytest.approx(expected)
    assert plain <= delay(policy, number, chance) <= plain + jitter


@pytest.mark.parametrize("number", [103, 1025, 10**6])
def test_a_backoff_of_0_stays_0_however_often_it_grows(number: int) -> None:
    assert delay(RestartPolicy(backoff_initial_s=0.0, backoff_factor=1000.0), number, 0.0) == 0.0


def test_a_factor_of_1_does_not_grow() -> None:
    policy = RestartPolicy(backoff_initial_s=3.0, backoff_factor=1.0)
    assert {delay(policy, number, 0.0) for number in range(1, 100)} == {3.0}


def test_so_many_restarts_happen_and_the_next_failure_gives_up() -> None:
    policy = RestartPolicy(max_restarts=2)
    assert decide(policy, 0, (), 0.0, 0.0) == RestartAfter(1.0, 1)
    assert decide(policy, 1, (0.0,), 1.0, 0.0) == RestartAfter(2.0, 2)
    assert decide(policy, 2, (0.0, 1.0), 2.0, 0.0) == GiveUp("restart_limit")


def test_without_restarts_the_first_failure_gives_up() -> None:
    assert decide(RestartPolicy(max_restarts=0), 0, (), 0.0, 0.0) == GiveUp("restart_limit")


def test_so_many_restarts_within_the_window_give_up_although_the_counter_was_reset() -> None:
    policy = RestartPolicy(flapping_restarts=3, flapping_window_s=100.0)
    assert decide(policy, 0, (10.0, 20.0), 30.0, 0.0) == RestartAfter(1.0, 1)
    assert decide(policy, 0, (10.0, 20.0, 30.0), 40.0, 0.0) == GiveUp("flapping")
    assert decide(policy, 0, (10.0, 20.0, 30.0), 110.0, 0.0) == GiveUp("flapping")
    assert decide(policy, 0, (10.0, 20.0, 30.0), 110.1, 0.0) == RestartAfter(1.0, 1)


def test_where_both_limits_are_reached_the_counter_is_named() -> None:
    assert decide(RestartPolicy(max_restarts=1, flapping_restarts=1), 1, (0.0,), 0.0, 0.0) == GiveUp("restart_limit")


@given(st.lists(st.floats(0, 1000)).map(sorted), st.floats(0, 2000), st.integers(1, 10), st.floats(0.01, 500))
def test_the_window_keeps_the_newest_and_no_more_than_count(
    times: list[float], later: float, most: int, window: float
) -> None:
    now = (times[-1] if times else 0.0) + later
    policy = RestartPolicy(flapping_restarts=most, flapping_window_s=window)
    kept = within_window(policy, tuple(times), now)
    assert len(kept) <= most
    assert list(kept) == [at for at in times if now - at <= window][-len(kept) :] if kept else True
    full = len([at for at in times if now - at <= window]) >= most
    assert (len(kept) == most) == full
