"""A seed -> a configuration of one to four sidecars, and what operators and fate will do to them.

How each single process behaves is drawn when it is spawned (`draw_script`), from the same chain of chance. Most times
lie on a grid, so that things that should never happen at the same moment often do.
"""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

import msgspec

from bridge.settings import DependencySettings, HealthSettings, SidecarSettings

GRID_S = 0.25
FIXED_PORT = 8000
"""Of the first sidecar; the others have the numbers behind it."""

STORMS = 0.2
"""How many plans have processes that crash all the time and are restarted at once, with checks that come late."""
STORMY = {
    "restart": "on_failure",
    "max_restarts": 5,
    "backoff_initial": 0.25,
    "backoff_factor": 1.0,
    "flapping_restarts": 10,
    "health": HealthSettings(kind="http", http="http://{host}:{port}/", interval=0.5, timeout=1.0, failure_threshold=1),
}

Op = Literal["start", "stop", "force_stop", "restart", "check"]


class Request(NamedTuple):
    """What an operator asks for."""

    at: float
    yields: int
    """Turns of the event loop that pass before it is made."""
    op: Op
    sidecar: str
    wait: bool
    cancel_after: float | None


class Mood(NamedTuple):
    """How likely one sidecar's processes misbehave, each 0 to 1."""

    crash: float
    early_exit: float
    never_ready: float
    sick: float
    stubborn: float
    leaves_children: float
    spawn_error: float
    tool_failure: float
    stranger: float
    slow_death: float


class Script(NamedTuple):
    """What one process will do; times are seconds since it was spawned, unless said otherwise."""

    ready_after: float | None
    """From then on it answers checks well and its line stands in its output; None for never."""
    dies_at: float | None
    code: int | None
    signal: str | None
    sick: tuple[float, float, Literal["error", "hang"]] | None
    """From, to, how."""
    term: float | None
    """Seconds from the stop signal to its death; None ignores it."""
    term_code: int | None
    """Exit code after the stop signal; None when the signal itself ends it."""
    eof: float | None
    """Seconds from the end of its stdin to its death."""
    kill: float
    """Seconds from SIGKILL to the death of everything."""
    children: int
    children_in_group: bool
    children_term: float | None
    """Seconds from the stop signal to the death of a child."""
    children_life: float | None
    """Seconds that they outlive the leader by themselves; None for ever."""
    latency: float
    clean_up: float
    """Seconds that a check goes on, shielded, once it has its answer."""
    drain: float
    """Seconds that its pipes take to be read."""


class Sleep(NamedTuple):
    """The wall clock jumps ahead of the monotonic one."""

    at: float
    by: float


class Stranger(NamedTuple):
    """Somebody else listens on a sidecar's port."""

    sidecar: str
    since: float
    until: float


class Plan(NamedTuple):
    seed: int
    sidecars: tuple[SidecarSettings, ...]
    moods: dict[str, Mood]
    requests: tuple[Request, ...]
    sleeps: tuple[Sleep, ...]
    strangers: tuple[Stranger, ...]
    horizon: float
    """When the shutdown comes; sooner than some requests."""
    rest: bool
    """Whether everything may come to rest before the shutdown."""
    kill_after: float | None
    """Seconds from the shutdown to its second signal."""
    shutdown_cancelled_after: float | None
    """Seconds after which the first who asked for the shutdown gives up waiting."""


def draw_plan(seed: int) -> tuple[Plan, Random]:
    """The plan of a seed, and the chain of chance that goes on from there."""
    chance = Random(seed)
    names = ["web", "api", "db", "gpu"][: chance.choice((1, 1, 1, 2, 2, 3, 4))]
    sidecars = [_draw_sidecar(chance, name, names[:index], index) for index, name in enumerate(names)]
    moods = {name: _draw_mood(chance) for name in names}
    if chance.random() < STORMS:
        sidecars = [msgspec.structs.replace(sidecar, **STORMY) for sidecar in sidecars]
        moods = {name: mood._replace(crash=0.9, stubborn=0.5, early_exit=0.0) for name, mood in moods.items()}
    horizon = chance.choice((4.0, 8.0, 16.0, 30.0))
    rest = chance.random() < 0.5
    busy = chance.choice((0, 1, 3, 6, 12))
    latest = horizon if rest else horizon + 1.0
    requests = sorted((_draw_request(chance, names, latest) for _ in range(busy)), key=lambda request: request.at)
    sleeps = [
        Sleep(_at(chance, horizon), chance.choice((3.0, 600.0, -30.0))) for _ in range(chance.choice((0, 0, 0, 1, 2)))
    ]
    strangers = []
    for name in names:
        if chance.random() < moods[name].stranger:
            since = _at(chance, horizon)
            strangers.append(Stranger(name, since, since + chance.choice((0.5, 2.0, 100.0))))
    chance.shuffle(sidecars)
    plan = Plan(
        seed=seed,
        sidecars=tuple(sidecars),
        moods=moods,
        requests=tuple(requests),
        sleeps=tuple(sorted(sleeps)),
        strangers=tuple(strangers),
        horizon=horizon,
        rest=rest,
        kill_after=chance.choice((None, None, None, 0.0, 0.5)),
        shutdown_cancelled_after=chance.choice((None, None, None, 0.25)),
    )
    return plan, chance


def _at(chance: Random, horizon: float) -> float:
    if chance.random() < 0.8:
        return GRID_S * chance.randrange(int(horizon / GRID_S))
    return chance.random() * horizon


def _draw_sidecar(chance: Random, name: str, earlier: list[str], index: int) -> SidecarSettings:
    initial = chance.choice((0.0, 0.25, 0.5, 1.0))
    return SidecarSettings(
        name=name,
        command=("program", name),
        cwd="/",
        env={"PORT": "{port}"},
        port=chance.choice((None, 0, 0, FIXED_PORT + index)),
        stdin=chance.choice(("null", "null", "pipe")),
        stop_http=chance.choice(("", "", f"POST http://127.0.0.1/stop#{name}")),
        autostart=chance.random() < 0.7,
        depends_on=tuple(other for other in earlier if chance.random() < 0.5),
        restart=chance.choice(("on_failure", "on_failure", "on_failure", "always", "never")),
        startup_timeout=chance.choice((0.5, 1.0, 2.0, 5.0)),
        shutdown_timeout=chance.choice((0.0, 0.25, 1.0, 3.0)),
        max_restarts=chance.choice((0, 1, 2, 3, 5)),
        backoff_initial=initial,
        backoff_factor=chance.choice((1.0, 2.0, 3.0)),
        backoff_max=initial + chance.choice((0.0, 0.5, 3.0)),
        backoff_jitter=chance.choice((0.0, 0.0, 0.5)),
        stable_after=chance.choice((0.0, 0.5, 1.0, 5.0, 20.0)),
        flapping_restarts=chance.choice((1, 2, 3, 10)),
        flapping_window=chance.choice((2.0, 10.0, 3600.0)),
        permanent_exit_codes=chance.choice(((), (), (3,))),
        health=_draw_health(chance, name),
        dependencies=_draw_dependencies(chance, name),
    )


def _draw_health(chance: Random, name: str) -> HealthSettings:
    kinds: tuple[Literal["http", "tcp", "command", "log", "none"], ...] = ("http", "tcp", "command", "log", "none")
    kind = chance.choice(("http", *kinds))
    return HealthSettings(
        kind=kind,
        http="http://{host}:{port}/" if kind == "http" else "",
        tcp="{host}:{port}" if kind == "tcp" else "",
        command=("check", name) if kind == "command" else (),
        log="ready" if kind == "log" else "",
        interval=chance.choice((0.5, 1.0, 5.0)),
        timeout=chance.choice((0.25, 1.0, 2.0)),
        retry_interval=chance.choice((0.25, 0.5)),
        failure_threshold=chance.choice((1, 2, 3)),
        success_threshold=chance.choice((1, 2, 3)),
        verify_owner=chance.random() < 0.8,
        ready_after=chance.choice((0.0, 0.25, 1.0)),
    )


def _draw_dependencies(chance: Random, name: str) -> DependencySettings | None:
    if chance.random() < 0.7:
        return None
    find, install = ("find", name), ("install", name)
    check_command, installer = chance.choice(((find, None), (None, install), (find, install)))
    return DependencySettings(check_command=check_command, install=installer, timeout=chance.choice((0.5, 2.0)))


def _draw_mood(chance: Random) -> Mood:
    def some(most: float) -> float:
        return chance.choice((0.0, 0.0, most / 3, most))

    return Mood(
        crash=some(0.9),
        early_exit=some(0.6),
        never_ready=some(0.5),
        sick=some(0.9),
        stubborn=chance.choice((0.0, 0.9)),
        leaves_children=some(0.9),
        spawn_error=some(0.3),
        tool_failure=some(0.5),
        stranger=some(0.5),
        slow_death=some(0.3),
    )


def _draw_request(chance: Random, names: list[str], horizon: float) -> Request:
    return Request(
        at=_at(chance, horizon),
        yields=chance.choice((0, 0, 1, 2, 3, 5)),
        op=chance.choice(("start", "start", "stop", "stop", "force_stop", "restart", "restart", "check")),
        sidecar=chance.choice(names),
        wait=chance.random() < 0.7,
        cancel_after=chance.choice((None, None, None, None, 0.0, 0.25, 1.0)),
    )


def draw_script(chance: Random, mood: Mood) -> Script:
    """What the next process of a sidecar with this mood will do."""
    ready = chance.choice((0.0, 0.0, 0.25, 0.5, 1.0)) if chance.random() >= mood.never_ready else None
    dies_at: float | None = None
    if chance.random() < mood.early_exit:
        dies_at = chance.choice((0.0, 0.0, 0.25, 0.5))
    elif chance.random() < mood.crash:
        dies_at = GRID_S * chance.randrange(1, 40)
    code, signal = chance.choice(((0, None), (1, None), (3, None), (1, None), (None, "SIGSEGV")))
    sick: tuple[float, float, Literal["error", "hang"]] | None = None
    if chance.random() < mood.sick:
        since = GRID_S * chance.randrange(2, 40)
        sick = (since, since + chance.choice((0.5, 2.0, 100.0)), chance.choice(("error", "hang")))
    leaves = chance.random() < mood.leaves_children
    return Script(
        ready_after=ready,
        dies_at=dies_at,
        code=code,
        signal=signal,
        sick=sick,
        term=chance.choice((0.0, 0.0, 0.01, 0.5, 2.0, None)),
        term_code=chance.choice((None, 0, 0, 1)),
        eof=chance.choice((None, 0.25)),
        kill=chance.choice((6.0, 0.5)) if chance.random() < mood.slow_death else chance.choice((0.0, 0.0, 0.01)),
        children=chance.choice((1, 2)) if leaves else 0,
        children_in_group=chance.random() < 0.5,
        children_term=chance.choice((0.0, 0.25, None)),
        children_life=chance.choice((None, 0.0, 0.25, 1.0)),
        latency=chance.choice((0.0, 0.0, 0.001, 0.25)),
        clean_up=chance.choice((0.25, 1.0, 4.0)) if chance.random() < mood.stubborn else 0.0,
        drain=chance.choice((0.0, 0.0, 0.0, 0.25, 5.0)),
    )
