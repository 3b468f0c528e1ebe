"""Names, order and the end: what the supervisor adds to its sidecars."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from bridge import errors
from bridge.settings import HealthSettings

from .stage import BROKEN, CALM, CRASH, STUBBORN, Stage, sidecar

Scene = Callable[[Stage], Awaitable[None]]


def play(stage: Stage) -> Callable[[Scene], None]:
    """Play the decorated scene at once."""
    return stage.play


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_only_sidecar_needs_no_name() -> None:
    @play(Stage(sidecar("web")))
    async def scene(stage: Stage) -> None:
        assert stage.supervisor.find(None).name == "web"


def test_one_of_several_must_be_named() -> None:
    @play(Stage(sidecar("web"), sidecar("db")))
    async def scene(stage: Stage) -> None:
        with pytest.raises(errors.InvalidParams, match=r"params\.sidecar") as caught:
            stage.supervisor.find(None)
        assert caught.value.detail == {"field": "sidecar", "sidecars": ["web", "db"]}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    @play(Stage(sidecar("web"), sidecar("db")))
    async def scene(stage: Stage) -> None:
        with pytest.raises(errors.SidecarNotFound, match="'api'") as caught:
            stage.supervisor.find("api")
        assert caught.value.detail == ["web", "db"]


def test_an_unknown_name_is_repeated_as_far_as_a_person_reads() -> None:
    @play(Stage(sidecar("web")))
    async def scene(stage: Stage) -> None:
        with pytest.raises(errors.SidecarNotFound) as caught:
            stage.supervisor.find("x" * 3_000_000)
        assert len(caught.value.message) < 200
        assert caught.value.sidecar == "x" * 80 + "…"


# --- starts ----------------------------------------------------------------------------------------------------------


def test_a_start_answers_once_it_runs() -> None:
    @play(Stage(sidecar("web"), web=CALM._replace(ready_after=2.0)))
    async def scene(stage: Stage) -> None:
        status = await stage.start("web")
        assert status.state == "running"
        assert stage.when("web", "running") >= 2.0


def test_a_start_without_wait_answers_at_once() -> None:
    @play(Stage(sidecar("web"), web=CALM._replace(ready_after=2.0)))
    async def scene(stage: Stage) -> None:
        assert (await stage.start("web", wait=False)).state == "starting"
        assert anyio.current_time() == 0
        await stage.until("web", "running")


def test_a_start_of_what_runs_is_refused_and_one_of_what_starts_is_shared() -> None:
    @play(Stage(sidecar("web"), web=CALM._replace(ready_after=2.0)))
    async def scene(stage: Stage) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.start, "web")
            tasks.start_soon(stage.start, "web")
        assert stage.history("web") == ["starting", "running"]
        with pytest.raises(errors.AlreadyRunning):
            await stage.start("web")


def test_a_start_first_starts_what_it_depends_on() -> None:
    @play(Stage(sidecar("web", depends_on=("api",)), sidecar("api", depends_on=("db",)), sidecar("db")))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        assert [name for _, name, state in stage.changes if state == "running"] == ["db", "api", "web"]


def test_a_start_fails_with_the_dependency_that_could_not_be_started() -> None:
    @play(Stage(sidecar("web", depends_on=("db",)), sidecar("db"), db=BROKEN))
    async def scene(stage: Stage) -> None:
        with pytest.raises(errors.DependencyNotRunning, match="needs db") as caught:
            await stage.start("web")
        assert caught.value.detail["kind"] == "exited_early"
        assert (stage.state("web"), stage.state("db")) == ("failed", "failed")


def test_a_start_brings_a_dependency_in_backoff_up_at_once() -> None:
    db = sidecar("db", backoff_initial=16.0)
    scripts = [CRASH, CALM]

    @play(Stage(sidecar("web", depends_on=("db",)), db, db=scripts))
    async def scene(stage: Stage) -> None:
        await stage.start("db")
        await stage.until("db", "backoff")
        await stage.start("web")
        assert anyio.current_time() < 5


def test_autostart_waits_through_the_backoff_of_what_it_depends_on() -> None:
    web = sidecar("web", depends_on=("db",), autostart=True)

    @play(Stage(web, sidecar("db", autostart=True), db=[BROKEN, BROKEN, CALM]))
    async def scene(stage: Stage) -> None:
        stage.supervisor.autostart()
        await stage.until("web", "running")
        assert stage.history("db") == ["starting", "backoff", "starting", "backoff", "starting", "running"]
        assert stage.history("web") == ["starting", "running"]


def test_autostart_leaves_the_others_alone() -> None:
    @play(Stage(sidecar("web", autostart=True), sidecar("db")))
    async def scene(stage: Stage) -> None:
        stage.supervisor.autostart()
        await stage.until("web", "running")
        assert stage.state("db") == "stopped"


def test_an_automatic_start_does_not_pass_over_the_limit_of_what_it_depends_on() -> None:
    web = sidecar("web", depends_on=("db",), autostart=True, max_restarts=1, backoff_initial=0.5)
    db = sidecar("db", autostart=True, max_restarts=1)

    @play(Stage(web, db, db=BROKEN))
    async def scene(stage: Stage) -> None:
        stage.supervisor.autostart()
        await stage.until("web", "failed")
        assert stage.state("db") == "failed"
        assert stage["db"].life.generation == 2


# --- isolation -------------------------------------------------------------------------------------------------------


def test_a_slow_stop_of_one_delays_no_other() -> None:
    @play(Stage(sidecar("web"), sidecar("db", shutdown_timeout=60.0), db=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("db")
        await stage.stop("db", wait=False)
        await stage.start("web")
        await stage.stop("web")
        assert anyio.current_time() < 5
        assert stage.state("db") == "stopping"


def test_a_hanging_check_of_one_delays_no_other() -> None:
    hanging = sidecar("db", health=HealthSettings(kind="http", http="http://x/", timeout=100.0, interval=1.0))

    @play(Stage(sidecar("web"), hanging, db=CALM._replace(sick=(1.0, 1000.0, "hang")), web=CRASH))
    async def scene(stage: Stage) -> None:
        await stage.start("db")
        await anyio.sleep(2.0)
        await stage.start("web")
        began = anyio.current_time()
        await stage.until("web", "backoff")
        assert anyio.current_time() == pytest.approx(began + 1.0)
        assert stage.state("db") == "running"


# --- stops -----------------------------------------------------------------------------------------------------------


def test_a_stop_first_stops_what_depends_on_it() -> None:
    @play(
        Stage(
            sidecar("web", depends_on=("api",)),
            sidecar("api", depends_on=("db",)),
            sidecar("db"),
            sidecar("other"),
            web=CALM._replace(term=1.0),
            api=CALM._replace(term=1.0),
        )
    )
    async def scene(stage: Stage) -> None:
        for name in ("web", "other"):
            await stage.start(name)
        await stage.stop("db")
        assert [name for _, name, state in stage.changes if state == "stopped"] == ["web", "api", "db"]
        assert stage.when("web", "stopped") <= stage.when("api", "stopping")
        assert stage.when("api", "stopped") <= stage.when("db", "stopping")
        assert stage.alive() == {"other"}


def test_a_stop_without_wait_answers_at_once_and_has_begun() -> None:
    @play(Stage(sidecar("web", depends_on=("db",)), sidecar("db"), web=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        at = anyio.current_time()
        status = await stage.stop("db", wait=False)
        assert anyio.current_time() == at
        assert status.state == "running"
        assert stage.state("web") == "stopping"
        await stage.until("db", "stopped")


def test_who_gives_up_waiting_for_a_stop_does_not_undo_it() -> None:
    @play(Stage(sidecar("web", depends_on=("db",)), sidecar("db"), web=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        with anyio.move_on_after(0.5):
            await stage.stop("db")
        assert stage.state("db") == "running"
        await stage.until("db", "stopped")
        assert stage.alive() == set()


def test_a_stop_that_waits_for_dependents_keeps_down_what_crashes_meanwhile() -> None:
    db = CALM._replace(dies_at=2.0)

    @play(Stage(sidecar("web", depends_on=("db",)), sidecar("db", backoff_initial=0.0), web=STUBBORN, db=db))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        await anyio.sleep(1.0)
        await stage.stop("db")
        assert stage.state("db") == "stopped"
        assert stage["db"].life.generation == 1


def test_a_start_is_refused_while_a_stop_waits_for_dependents() -> None:
    @play(Stage(sidecar("web", depends_on=("db",)), sidecar("db"), web=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        await stage.stop("db", wait=False)
        with pytest.raises(errors.StoppedWhileStarting):
            await stage.restart("db")
        stage.referee.asked("stop", "db")
        await stage.until("db", "stopped")
        await stage.start("db")


def test_a_start_of_a_dependent_while_what_it_needs_is_stopped_waits_and_starts_both() -> None:
    parts = (sidecar("web", depends_on=("db",)), sidecar("api", depends_on=("db",)), sidecar("db"))

    @play(Stage(*parts, api=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        await stage.start("api")
        await stage.stop("db", wait=False)
        await stage.until("web", "stopped")
        await stage.start("web")
        assert stage.history("db") == ["starting", "running", "stopping", "stopped", "starting", "running"]
        assert stage.state("api") == "stopped"


def test_a_forced_stop_hastens_one_that_is_under_way() -> None:
    @play(Stage(sidecar("web", shutdown_timeout=100.0), web=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        await stage.stop("web", wait=False)
        await anyio.sleep(1.0)
        await stage.stop("web", force=True)
        assert anyio.current_time() < 5


def test_a_restart_keeps_what_depends_on_it_running() -> None:
    @play(Stage(sidecar("web", depends_on=("db",)), sidecar("db")))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        await stage.restart("db")
        assert stage.history("web") == ["starting", "running"]
        assert stage["db"].life.generation == 2


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_shutdown_stops_everything_in_order_and_side_by_side() -> None:
    slow = CALM._replace(term=2.0)
    parts = (sidecar("web", depends_on=("db",)), sidecar("db"), sidecar("one"), sidecar("two"))

    @play(Stage(*parts, web=slow, db=slow, one=slow, two=slow))
    async def scene(stage: Stage) -> None:
        for name in ("web", "one", "two"):
            await stage.start(name)
        at = anyio.current_time()
        await stage.shutdown()
        assert stage.alive() == set()
        assert anyio.current_time() == pytest.approx(at + 4.0)
        assert stage.when("web", "stopped") <= stage.when("db", "stopping")


def test_nothing_starts_once_a_shutdown_has_begun() -> None:
    @play(Stage(sidecar("web"), sidecar("db"), web=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.shutdown)
            await anyio.sleep(0.5)
            for call in (stage.start, stage.restart):
                with pytest.raises(errors.ShuttingDown):
                    await call("db")
        assert stage.supervisor.closing


def test_many_may_wait_for_a_shutdown_and_who_gives_up_does_not_undo_it() -> None:
    @play(Stage(sidecar("web"), web=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        with anyio.move_on_after(0.5):
            await stage.shutdown()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.shutdown)
            tasks.start_soon(stage.shutdown)
        assert stage.alive() == set()


def test_a_second_signal_kills_at_once() -> None:
    parts = [sidecar(name, shutdown_timeout=100.0) for name in ("web", "db")]

    @play(Stage(*parts, web=STUBBORN, db=STUBBORN))
    async def scene(stage: Stage) -> None:
        await stage.start("web")
        await stage.start("db")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.shutdown)
            await anyio.sleep(1.0)
            stage.referee.transitions.killing = True
            stage.supervisor.kill()
        assert anyio.current_time() < 5


def test_a_shutdown_ends_starts_that_wait_for_others() -> None:
    web = sidecar("web", depends_on=("db",), autostart=True)

    @play(Stage(web, sidecar("db", autostart=True, backoff_initial=16.0), db=BROKEN))
    async def scene(stage: Stage) -> None:
        stage.supervisor.autostart()
        await stage.until("db", "backoff")
        await stage.shutdown()
        assert (stage.state("web"), stage.state("db")) == ("stopped", "stopped")
        assert anyio.current_time() < 2
