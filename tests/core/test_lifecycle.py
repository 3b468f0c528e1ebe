"""The life of a sidecar, sentence by sentence of the protocol's sections 6 and 9."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core import lifecycle as lc
from bridge.core.health import Fold
from bridge.model import State

from . import redraw_lifecycle
from .driver import BAD, Driver, of, policy, settled, states

EVENTS: list[type[Any]] = list(get_args(lc.Event))
OPERATOR, AUTOSTART, RETRY = lc.Origin.OPERATOR, lc.Origin.AUTOSTART, lc.Origin.RETRY


def in_state(state: State, **fields: Any) -> Driver:
    """A life that came to a state in the ordinary way."""
    driver = Driver(**fields)
    if state == "starting":
        driver.spawn()
    elif state == "running":
        driver.run()
    elif state == "stopping":
        driver.run()
        driver.feed(lc.StopRequested())
    elif state == "backoff":
        driver.run()
        driver.crash()
    elif state == "failed":
        driver.spawn()
        driver.crash()
    assert driver.state == state
    return driver


def sample(kind: type[Any], attempt: int) -> lc.Event:
    """An event of this kind for this attempt."""
    samples: dict[type[Any], lc.Event] = {
        lc.StartRequested: lc.StartRequested(),
        lc.StopRequested: lc.StopRequested(),
        lc.RestartRequested: lc.RestartRequested(),
        lc.StartRefused: lc.StartRefused(attempt, BAD),
        lc.CheckFailed: lc.CheckFailed(attempt, "answered 500"),
        lc.StartupTimedOut: lc.StartupTimedOut(attempt, lc.Failure("startup_timeout", "Too late.")),
        lc.Exited: lc.Exited(attempt, 1, None, "It ended."),
    }
    return samples[kind] if kind in samples else kind(attempt)


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_event_has_a_rule_or_a_verdict_in_every_state() -> None:
    assert list(lc.TABLE) == EVENTS
    for kind, row in lc.TABLE.items():
        assert list(row) == list(lc.STATES), kind
        assert all(isinstance(rule, lc.Rule | lc.Verdict) for rule in row.values())


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", lc.STATES)
def test_every_event_does_in_every_state_what_the_table_declares(kind: type[Any], state: State) -> None:
    driver = in_state(state)
    rule = lc.TABLE[kind][state]
    before = driver.life
    event = sample(kind, before.attempt)
    if rule is lc.REFUSE:
        with pytest.raises(lc.Refused, match=kind.__name__):
            lc.step(before, event, driver.now)
        return
    after, effects = lc.step(before, event, driver.now)
    if isinstance(rule, lc.Rule):
        assert after.state in rule.to
    else:
        assert (after, effects) == (before, [])


@pytest.mark.parametrize("kind", [kind for kind in EVENTS if "attempt" in kind._fields], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", lc.STATES)
def test_what_an_older_attempt_still_says_changes_nothing(kind: type[Any], state: State) -> None:
    driver = in_state(state)
    assert lc.step(driver.life, sample(kind, driver.life.attempt - 1), driver.now) == (driver.life, [])


def test_only_a_start_of_what_runs_is_refused() -> None:
    refused = [(kind, state) for kind, row in lc.TABLE.items() for state in row if row[state] is lc.REFUSE]
    assert refused == [(lc.StartRequested, "running")]


def test_only_an_operator_leaves_failed() -> None:
    leaving = {kind for kind, row in lc.TABLE.items() if isinstance(row["failed"], lc.Rule)}
    assert leaving == {lc.StartRequested, lc.RestartRequested}


def test_the_states_are_connected_as_in_the_protocols_picture() -> None:
    pairs = {
        (state, to)
        for row in lc.TABLE.values()
        for state, rule in row.items()
        if isinstance(rule, lc.Rule)
        for to in rule.to
        if to != state
    }
    assert pairs >= {
        ("stopped", "starting"),
        ("starting", "running"),
        ("starting", "stopping"),
        ("running", "stopping"),
        ("running", "backoff"),
        ("stopping", "stopped"),
        ("stopping", "starting"),
        ("stopping", "backoff"),
        ("stopping", "failed"),
        ("backoff", "starting"),
        ("backoff", "stopped"),
        ("failed", "starting"),
    }
    assert not pairs & {("stopped", "running"), ("backoff", "running"), ("failed", "running"), ("stopped", "backoff")}


# --- random walks ----------------------------------------------------------------------------------------------------

POLICIES = st.builds(
    policy,
    restart=st.sampled_from(["on_failure", "always", "never"]),
    max_restarts=st.integers(0, 3),
    flapping_restarts=st.integers(1, 4),
    flapping_window_s=st.sampled_from([1.0, 100.0]),
    permanent_exit_codes=st.sampled_from([frozenset(), frozenset({3})]),
    checked=st.booleans(),
    failure_threshold=st.integers(1, 3),
    success_threshold=st.integers(1, 3),
    stable_after_s=st.sampled_from([0.0, 1.0, 10.0]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(EVENTS),
        st.sampled_from([0, 0, 0, 0, -1]),
        st.sampled_from([0.0, 0.5, 20.0]),
        st.sampled_from([0, 1, 3]),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(POLICIES, STEPS)
def test_any_walk_keeps_to_the_declared_states_and_publishes_every_change(
    rules: lc.Policy, steps: list[tuple[type[Any], int, float, int, bool]]
) -> None:
    life, now = lc.Life(rules), 0.0
    for kind, age, pause_s, code, flag in steps:
        now += pause_s
        event = sample(kind, life.attempt + age)
        if isinstance(event, lc.Exited):
            event = event._replace(code=code, extinct=flag)
        elif isinstance(event, lc.StopRequested):
            event = event._replace(force=flag)
        rule = lc.TABLE[kind][life.state]
        try:
            after, effects = lc.step(life, event, now, 0.5)
        except lc.Refused:
            assert rule is lc.REFUSE
            continue
        stale = "attempt" in kind._fields and age != 0
        assert after.state == life.state if stale or not isinstance(rule, lc.Rule) else after.state in rule.to
        told = of(lc.Publish, effects)
        assert [(each.previous, each.state) for each in told] == (
            [(life.state, after.state)] if told or after.state != life.state else []
        )
        for each in told:
            assert each.reason.endswith((".", "s", "0"))
        _check(after)
        life = after


def _check(life: lc.Life) -> None:
    """What holds for every life."""
    assert (life.retry_at is not None) == (life.state == "backoff")
    assert (life.ending is not None) == (life.state == "stopping")
    assert life.running_since is None or life.state in ("running", "stopping")
    assert (life.state == "running") <= (life.running_since is not None)
    assert 0 <= life.restart_count <= life.policy.restart.max_restarts
    assert len(life.restarts) <= max(life.policy.restart.flapping_restarts, 0)
    if life.state in ("stopped", "failed", "backoff"):
        assert life.fold == Fold()
    if life.state == "running":
        assert life.failure is None
    if life.state in ("failed", "backoff"):
        assert life.failure is not None
    if not life.policy.health.checked and life.state != "stopping":
        assert life.fold.health in ("unknown", "unhealthy")


# --- starts ----------------------------------------------------------------------------------------------------------


def test_a_start_prepares_then_spawns_then_watches_and_runs_with_the_first_check() -> None:
    driver = Driver()
    effects = driver.feed(lc.StartRequested())
    assert states(effects) == ["starting"]
    assert of(lc.PrepareStart, effects) == [lc.PrepareStart(1)]
    assert driver.event(lc.DependenciesMet) == [lc.Spawn(1)]
    assert driver.event(lc.Spawned) == [lc.ArmStartupDeadline(1, 30.0), lc.Watch(1)]
    effects = driver.event(lc.CheckPassed)
    assert states(effects) == ["running"]
    assert settled(effects) == [None]


def test_a_start_that_an_operator_asked_for_and_that_fails_ends_in_failed_with_its_error() -> None:
    driver = Driver()
    driver.spawn()
    effects = driver.crash()
    assert states(effects) == ["failed"]
    assert settled(effects) == ["exited_early"]
    assert driver.life.failure is not None
    assert driver.life.failure.kind == "exited_early"


@pytest.mark.parametrize("origin", [AUTOSTART, RETRY])
def test_a_start_by_itself_that_fails_counts_as_one_more_failure_and_goes_on_to_backoff(origin: lc.Origin) -> None:
    driver = Driver()
    driver.spawn(origin)
    effects = driver.crash()
    assert states(effects) == ["backoff"]
    assert settled(effects) == ["exited_early"]


def test_a_start_that_is_refused_follows_the_same_rule() -> None:
    by_hand, by_itself = Driver(), Driver()
    by_hand.feed(lc.StartRequested(OPERATOR))
    by_itself.feed(lc.StartRequested(AUTOSTART))
    assert states(by_hand.event(lc.StartRefused, BAD)) == ["failed"]
    assert states(by_itself.event(lc.StartRefused, BAD)) == ["backoff"]


@pytest.mark.parametrize("origin", [OPERATOR, AUTOSTART])
def test_what_no_retry_can_mend_is_failed_at_once(origin: lc.Origin) -> None:
    driver = Driver()
    driver.feed(lc.StartRequested(origin))
    effects = driver.event(lc.StartRefused, lc.Failure("port_in_use", "Taken.", permanent=True))
    assert states(effects) == ["failed"]
    assert not of(lc.ArmRetry, effects)


def test_a_permanent_exit_code_is_failed_at_once_also_when_it_had_been_running() -> None:
    driver = Driver(permanent_exit_codes=frozenset({3}))
    driver.run()
    assert states(driver.crash(3)) == ["failed"]
    assert driver.life.failure is not None
    assert driver.life.failure.kind == "crashed"


def test_a_start_while_starting_shares_the_start_under_way() -> None:
    driver = in_state("starting")
    assert driver.feed(lc.StartRequested()) == []
    assert settled(driver.event(lc.CheckPassed)) == [None]


def test_a_start_that_shares_a_start_by_itself_gets_its_error_and_leaves_the_backoff_alone() -> None:
    driver = Driver()
    driver.spawn(AUTOSTART)
    driver.feed(lc.StartRequested(OPERATOR))
    effects = driver.crash()
    assert (states(effects), settled(effects)) == (["backoff"], ["exited_early"])


def test_a_start_while_stopping_waits_for_the_end_and_starts() -> None:
    driver = in_state("stopping")
    assert driver.feed(lc.StartRequested()) == []
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["stopped", "starting"]
    assert of(lc.SettleStop, effects)


def test_a_start_in_backoff_starts_at_once_and_resets_the_counter() -> None:
    driver = in_state("backoff")
    driver.retry()
    driver.spawned()
    driver.crash()
    assert driver.life.restart_count == 1
    assert states(driver.feed(lc.StartRequested())) == ["starting"]
    assert driver.life.restart_count == 0
    assert driver.life.retry_at is None


def test_the_startup_timeout_stops_the_tree_and_then_tells_the_error() -> None:
    driver = in_state("starting")
    effects = driver.event(lc.StartupTimedOut, lc.Failure("startup_timeout", "Too late."))
    assert states(effects) == ["stopping"]
    assert of(lc.EndTree, effects) == [lc.EndTree(1, gentle=True, force=False)]
    assert settled(effects) == []
    effects = driver.event(lc.TreeEnded)
    assert (states(effects), settled(effects)) == (["failed"], ["startup_timeout"])


def test_an_exit_before_it_is_ready_is_exited_early_whatever_its_code() -> None:
    driver = Driver()
    driver.spawn()
    assert settled(driver.crash(0)) == ["exited_early"]


# --- exits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "code", "signal", "state", "kind"),
    [
        ("on_failure", 0, None, "stopped", None),
        ("on_failure", 1, None, "backoff", "crashed"),
        ("on_failure", None, "SIGKILL", "backoff", "crashed"),
        ("always", 0, None, "backoff", "crashed"),
        ("always", 1, None, "backoff", "crashed"),
        ("never", 0, None, "stopped", None),
        ("never", 1, None, "failed", "crashed"),
        ("never", None, "SIGSEGV", "failed", "crashed"),
    ],
)
def test_the_policy_decides_what_follows_an_exit(
    restart: str, code: int | None, signal: str | None, state: State, kind: str | None
) -> None:
    driver = Driver(restart=restart)
    driver.run()
    assert states(driver.crash(code, signal)) == [state]
    assert (driver.life.failure and driver.life.failure.kind) == kind


def test_each_unrequested_exit_raises_crashed() -> None:
    for driver in (in_state("running"), in_state("starting")):
        assert [alert.kind for alert in of(lc.RaiseAlert, driver.crash())] == ["crashed"]


def test_an_exit_that_was_asked_for_is_no_crash() -> None:
    driver = in_state("stopping")
    assert driver.crash(None, "SIGTERM") == []
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["stopped"]
    assert not of(lc.RaiseAlert, effects)
    assert driver.life.failure is None


def test_what_a_process_leaves_behind_is_ended_before_the_exit_counts_as_handled() -> None:
    driver = in_state("running")
    effects = driver.crash(extinct=False)
    assert states(effects) == ["stopping"]
    assert of(lc.EndTree, effects) == [lc.EndTree(1, gentle=False, force=False)]
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["backoff"]
    assert driver.life.failure is not None
    assert driver.life.failure.kind == "crashed"


# --- backoff and limits ----------------------------------------------------------------------------------------------


def test_the_backoff_grows_1_2_4_8_16_seconds_and_the_sixth_failure_is_failed_with_an_alert() -> None:
    driver = Driver()
    driver.run()
    delays = []
    for count in range(5):
        effects = driver.crash()
        assert driver.life.restart_count == count
        delays += [effect.delay_s for effect in of(lc.ArmRetry, effects)]
        driver.recover()
    assert delays == [1, 2, 4, 8, 16]
    assert driver.life.restart_count == 5
    effects = driver.crash()
    assert states(effects) == ["failed"]
    assert "restart_limit" in [alert.kind for alert in of(lc.RaiseAlert, effects)]
    failure = driver.life.failure
    assert failure is not None
    assert failure.kind == "restart_limit_exceeded"
    assert failure.detail["kind"] == "crashed"


def test_the_limit_is_entered_straight_from_the_failure_and_the_start_learns_what_broke_it() -> None:
    driver = Driver(max_restarts=1)
    driver.spawn(AUTOSTART)
    driver.crash()
    driver.retry()
    driver.spawned()
    effects = driver.crash()
    assert (states(effects), settled(effects)) == (["failed"], ["exited_early"])


def test_jitter_is_added_to_the_delay() -> None:
    driver = Driver(backoff_jitter_s=0.5)
    driver.chance = 0.5
    driver.run()
    assert of(lc.ArmRetry, driver.crash())[0].delay_s == 1.25


def test_so_many_restarts_within_the_window_happen_and_the_next_failure_is_flapping() -> None:
    driver = Driver(flapping_restarts=3, flapping_window_s=100.0, stable_after_s=1.0, success_threshold=1)
    driver.run()
    for _ in range(3):
        assert states(driver.crash()) == ["backoff"]
        driver.recover()
        driver.event(lc.StableReached, after_s=1.0)
        assert driver.life.restart_count == 0
    effects = driver.crash()
    assert states(effects) == ["failed"]
    assert "flapping" in [alert.kind for alert in of(lc.RaiseAlert, effects)]
    assert driver.life.failure is not None
    assert driver.life.failure.detail["limit"] == "flapping"


def test_restarts_that_left_the_window_do_not_count_for_flapping() -> None:
    driver = Driver(flapping_restarts=2, flapping_window_s=10.0, max_restarts=99)
    driver.run()
    for _ in range(5):
        assert states(driver.crash()) == ["backoff"]
        driver.recover()
        driver.now += 11.0


@pytest.mark.parametrize("request_", [lc.StartRequested(), lc.RestartRequested()])
def test_an_operator_leaves_failed_with_all_counters_new(request_: lc.Event) -> None:
    driver = Driver(max_restarts=9, flapping_restarts=1)
    driver.run()
    driver.crash()
    driver.recover()
    driver.crash()
    assert driver.state == "failed"
    assert states(driver.feed(request_)) == ["starting"]
    assert (driver.life.restart_count, driver.life.restarts) == (0, ())


# --- stability -------------------------------------------------------------------------------------------------------


def test_the_counter_returns_to_0_after_enough_checks_and_enough_time() -> None:
    driver = in_state("backoff", success_threshold=2, stable_after_s=60.0)
    effects = driver.recover()
    assert of(lc.ArmStability, effects) == [lc.ArmStability(2, 60.0)]
    driver.event(lc.CheckPassed, after_s=30.0)
    assert driver.life.restart_count == 1
    driver.event(lc.StableReached, after_s=30.0)
    assert driver.life.restart_count == 0


def test_enough_time_without_enough_checks_is_not_stable_yet() -> None:
    driver = in_state("backoff", success_threshold=2, stable_after_s=60.0)
    driver.recover()
    driver.event(lc.StableReached, after_s=60.0)
    assert driver.life.restart_count == 1
    driver.event(lc.CheckPassed, after_s=1.0)
    assert driver.life.restart_count == 0


def test_a_success_while_starting_counts_towards_success_threshold() -> None:
    driver = in_state("backoff", success_threshold=1, stable_after_s=60.0)
    driver.recover()
    driver.event(lc.StableReached, after_s=60.0)
    assert driver.life.restart_count == 0


def test_a_failed_check_begins_the_successes_anew() -> None:
    driver = in_state("backoff", success_threshold=2, stable_after_s=10.0)
    driver.recover()
    driver.event(lc.CheckFailed, "no answer")
    driver.event(lc.StableReached, after_s=10.0)
    driver.event(lc.CheckPassed)
    assert driver.life.restart_count == 1
    driver.event(lc.CheckPassed)
    assert driver.life.restart_count == 0


def test_where_nothing_is_checked_time_alone_is_stable() -> None:
    driver = Driver(checked=False, stable_after_s=10.0)
    driver.spawn()
    driver.event(lc.BecameReady)
    driver.crash()
    driver.retry()
    driver.spawned()
    driver.event(lc.BecameReady)
    driver.event(lc.StableReached, after_s=10.0)
    assert driver.life.restart_count == 0


def test_a_timer_that_fires_a_hair_early_is_stable_too() -> None:
    driver = in_state("backoff", success_threshold=1, stable_after_s=10.0)
    driver.recover()
    driver.event(lc.StableReached, after_s=10.0 - 1e-9)
    assert driver.life.restart_count == 0


def test_stability_does_not_empty_the_flapping_window() -> None:
    driver = in_state("backoff", success_threshold=1, stable_after_s=1.0)
    driver.recover()
    driver.event(lc.StableReached, after_s=1.0)
    assert len(driver.life.restarts) == 1


# --- stops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_stop_ends_the_tree_and_proves_it_between_stopping_and_stopped(state: State) -> None:
    driver = in_state(state)
    effects = driver.feed(lc.StopRequested())
    assert states(effects) == ["stopping"]
    assert of(lc.EndTree, effects) == [lc.EndTree(1, gentle=True, force=False)]
    assert not of(lc.SettleStop, effects)
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["stopped"]
    assert of(lc.SettleStop, effects)


def test_a_stop_with_force_kills_at_once() -> None:
    driver = in_state("running")
    assert of(lc.EndTree, driver.feed(lc.StopRequested(force=True))) == [lc.EndTree(1, gentle=False, force=True)]


def test_a_forced_stop_while_one_runs_hastens_it() -> None:
    driver = in_state("stopping")
    assert driver.feed(lc.StopRequested()) == [] or settled(driver.feed(lc.StopRequested())) == []
    assert of(lc.Hasten, driver.feed(lc.StopRequested(force=True))) == [lc.Hasten(1)]
    assert states(driver.event(lc.TreeEnded)) == ["stopped"]


def test_a_stop_overtakes_a_start() -> None:
    driver = in_state("starting")
    assert settled(driver.feed(lc.StopRequested())) == ["stopped_while_starting"]


def test_a_stop_in_backoff_is_stopped_at_once_and_nothing_retries() -> None:
    driver = in_state("backoff")
    effects = driver.feed(lc.StopRequested())
    assert states(effects) == ["stopped"]
    assert of(lc.SettleStop, effects)
    assert driver.event(lc.RetryDue) == []
    assert driver.state == "stopped"


def test_a_stop_resets_the_restart_counter() -> None:
    for states_before in ("backoff", "running"):
        driver = in_state("backoff")
        driver.recover()
        if states_before == "backoff":
            driver.crash()
        assert driver.life.restart_count == 1
        driver.feed(lc.StopRequested())
        driver.event(lc.TreeEnded)
        assert driver.state == "stopped"
        assert (driver.life.restart_count, driver.life.restarts) == (0, ())


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_stop_of_what_is_down_changes_nothing(state: State) -> None:
    driver = in_state(state)
    before = driver.life
    assert driver.feed(lc.StopRequested()) == []
    assert driver.life == before


def test_a_stop_clears_the_alerts() -> None:
    driver = in_state("backoff")
    assert of(lc.ClearAlerts, driver.feed(lc.StopRequested()))


def test_a_stop_while_an_unhealthy_process_is_ended_leaves_it_stopped() -> None:
    driver = Driver(failure_threshold=1)
    driver.run()
    driver.event(lc.CheckFailed, "no answer")
    assert driver.state == "stopping"
    driver.feed(lc.StopRequested())
    assert states(driver.event(lc.TreeEnded)) == ["stopped"]


def test_a_stop_undoes_a_restart_that_waits_for_the_end() -> None:
    driver = in_state("running")
    driver.feed(lc.RestartRequested())
    assert settled(driver.feed(lc.StopRequested())) == ["stopped_while_starting"]
    assert states(driver.event(lc.TreeEnded)) == ["stopped"]


def test_the_last_wish_counts_however_often_it_changes() -> None:
    driver = in_state("running")
    both: list[lc.Event] = [lc.StopRequested(), lc.StartRequested()]
    wishes = itertools.cycle(both)
    for wish in itertools.islice(wishes, 5):
        driver.feed(wish)
    assert states(driver.event(lc.TreeEnded)) == ["stopped"]
    driver = in_state("running")
    for wish in itertools.islice(wishes, 4):
        driver.feed(lc.StopRequested())
        driver.feed(wish)
    driver.feed(lc.StartRequested())
    assert states(driver.event(lc.TreeEnded)) == ["stopped", "starting"]


def test_a_process_that_is_spawned_into_a_stop_is_counted_and_not_watched() -> None:
    driver = Driver()
    driver.feed(lc.StartRequested())
    driver.event(lc.DependenciesMet)
    driver.feed(lc.StopRequested())
    assert driver.event(lc.Spawned) == []
    assert driver.life.generation == 1


# --- restarts --------------------------------------------------------------------------------------------------------


def test_a_restart_shows_stopping_starting_running() -> None:
    driver = in_state("running")
    effects = driver.feed(lc.RestartRequested())
    effects += driver.event(lc.TreeEnded)
    effects += driver.spawned() + driver.event(lc.CheckPassed)
    assert states(effects) == ["stopping", "starting", "running"]
    assert settled(effects) == [None]


@pytest.mark.parametrize("state", ["stopped", "backoff", "failed"])
def test_a_restart_of_what_is_down_starts_it_at_once(state: State) -> None:
    driver = in_state(state)
    assert states(driver.feed(lc.RestartRequested())) == ["starting"]
    assert driver.life.restart_count == 0


def test_a_restart_waits_no_backoff_and_counts_nothing() -> None:
    driver = in_state("backoff")
    driver.recover()
    assert driver.life.restart_count == 1
    driver.feed(lc.RestartRequested())
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["starting"]
    assert (driver.life.restart_count, driver.life.restarts) == (0, ())


def test_callers_that_come_while_one_restart_runs_share_it() -> None:
    driver = in_state("running")
    driver.feed(lc.RestartRequested())
    assert driver.feed(lc.RestartRequested()) == []
    driver.event(lc.TreeEnded)
    assert driver.feed(lc.RestartRequested()) == []
    driver.spawned()
    assert driver.feed(lc.RestartRequested()) == []
    assert settled(driver.event(lc.CheckPassed)) == [None]
    assert states(driver.feed(lc.RestartRequested())) == ["stopping"]


def test_a_restart_while_a_plain_start_runs_begins_it_anew() -> None:
    driver = in_state("starting")
    assert states(driver.feed(lc.RestartRequested())) == ["stopping"]
    assert states(driver.event(lc.TreeEnded)) == ["starting"]


def test_a_restart_that_fails_ends_in_failed() -> None:
    driver = in_state("running")
    driver.feed(lc.RestartRequested())
    driver.event(lc.TreeEnded)
    driver.spawned()
    effects = driver.crash()
    assert (states(effects), settled(effects)) == (["failed"], ["exited_early"])


def test_a_restart_behind_a_stop_shows_stopped_and_then_starts() -> None:
    driver = in_state("stopping")
    driver.feed(lc.RestartRequested())
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["stopped", "starting"]
    assert driver.life.restarting


def test_the_step_that_tells_stopped_is_a_step_of_its_own() -> None:
    driver = in_state("stopping")
    driver.feed(lc.StartRequested())
    after, effects = lc.step(driver.life, lc.TreeEnded(driver.life.attempt), driver.now)
    assert after.state == "stopped"
    assert states(effects) == ["stopped"]
    assert of(lc.Follow, effects) == [lc.Follow(lc.StartRequested())]


# --- health ----------------------------------------------------------------------------------------------------------


def test_health_is_healthy_from_running_on() -> None:
    driver = Driver()
    effects = driver.run()
    assert of(lc.TellHealth, effects) == [lc.TellHealth("healthy")]
    assert driver.life.fold.health == "healthy"


def test_health_is_unknown_where_nothing_is_checked() -> None:
    driver = Driver(checked=False)
    driver.spawn()
    effects = driver.event(lc.BecameReady)
    assert states(effects) == ["running"]
    assert of(lc.TellHealth, effects) == []
    assert driver.life.fold.health == "unknown"


def test_a_failed_health_restart_shows_stopping_then_backoff() -> None:
    driver = in_state("running")
    assert driver.event(lc.CheckFailed, "answered 500") == []
    assert driver.event(lc.CheckFailed, "answered 500") == []
    effects = driver.event(lc.CheckFailed, "answered 500")
    assert states(effects) == ["stopping"]
    assert [alert.kind for alert in of(lc.RaiseAlert, effects)] == ["unhealthy"]
    assert of(lc.TellHealth, effects) == [lc.TellHealth("unhealthy")]
    effects = driver.event(lc.TreeEnded)
    assert states(effects) == ["backoff"]
    assert driver.life.failure is not None
    assert driver.life.failure.kind == "unhealthy"


def test_one_success_begins_the_failures_anew() -> None:
    driver = in_state("running", failure_threshold=2)
    for _ in range(5):
        driver.event(lc.CheckFailed, "answered 500")
        driver.event(lc.CheckPassed)
    assert driver.state == "running"


def test_where_the_policy_never_restarts_the_unhealthy_runs_on_and_may_recover() -> None:
    driver = in_state("running", restart="never", failure_threshold=1, success_threshold=2)
    assert states(driver.event(lc.CheckFailed, "answered 500")) == []
    assert driver.life.fold.health == "unhealthy"
    driver.event(lc.CheckPassed)
    assert driver.life.fold.health == "unhealthy"
    effects = driver.event(lc.CheckPassed)
    assert of(lc.TellHealth, effects) == [lc.TellHealth("healthy")]
    assert of(lc.ClearAlerts, effects)


def test_health_counters_start_anew_with_each_process() -> None:
    driver = in_state("running", failure_threshold=2)
    driver.event(lc.CheckFailed, "answered 500")
    driver.crash()
    driver.recover()
    assert driver.life.fold == Fold("healthy", 0, 1)
    assert driver.event(lc.CheckFailed, "answered 500") == []


def test_checks_while_it_stops_change_nothing() -> None:
    driver = in_state("stopping", failure_threshold=1)
    assert driver.event(lc.CheckFailed, "refused") == []
    assert driver.event(lc.CheckPassed) == []
    assert driver.state == "stopping"


# --- generations -----------------------------------------------------------------------------------------------------


def test_each_process_has_a_generation_and_each_start_an_attempt() -> None:
    driver = Driver()
    driver.feed(lc.StartRequested(AUTOSTART))
    driver.event(lc.StartRefused, BAD)
    assert (driver.life.attempt, driver.life.generation) == (1, 0)
    driver.recover()
    assert (driver.life.attempt, driver.life.generation) == (2, 1)
    driver.crash()
    driver.recover()
    assert (driver.life.attempt, driver.life.generation) == (3, 2)


def test_no_ghost_of_an_older_process_ends_or_restarts_its_successor() -> None:
    driver = in_state("backoff", failure_threshold=1)
    old = driver.life.attempt
    driver.recover()
    now = driver.life
    ghosts: list[lc.Event] = [
        lc.Exited(old, 1, None, "It ended."),
        lc.CheckFailed(old, "refused"),
        lc.TreeEnded(old),
        lc.RetryDue(old),
        lc.StartupTimedOut(old, BAD),
        lc.StableReached(old),
    ]
    for ghost in ghosts:
        assert driver.feed(ghost) == []
    assert driver.life == now


# --- failures on show ------------------------------------------------------------------------------------------------


def test_the_last_failure_is_kept_until_a_start_succeeds() -> None:
    driver = in_state("backoff")
    failure = driver.life.failure
    driver.retry()
    assert driver.life.failure == failure
    driver.feed(lc.StopRequested())
    driver.event(lc.TreeEnded)
    assert driver.life.failure == failure
    driver.run()
    assert driver.life.failure is None


# --- the picture in the docs -----------------------------------------------------------------------------------------


def test_the_picture_in_the_docs_is_drawn_from_todays_table() -> None:
    page = redraw_lifecycle.PAGE.read_text(encoding="utf-8")
    assert page == redraw_lifecycle.redrawn(page), "run python -m tests.core.redraw_lifecycle"


def test_a_picture_of_another_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    page = redraw_lifecycle.PAGE.read_text(encoding="utf-8")
    monkeypatch.setitem(lc.TABLE[lc.RetryDue], "failed", lc.TABLE[lc.RetryDue]["backoff"])
    assert page != redraw_lifecycle.redrawn(page)


def test_the_picture_has_every_state_and_an_entrance() -> None:
    lines = lc.diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> stopped"]
    assert all(any(line.startswith(f"    {state} --> ") for line in lines) for state in lc.STATES)
    assert len(lines) == len(set(lines))
