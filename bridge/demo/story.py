"""The acts of the demo. Each does something to a real bridge, waits for what must follow, and checks it.

An act that does not see what it has to see raises ActFailed; nothing is shown as achieved that was not observed.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

from bridge.client import BridgeEnded, CallError, Json
from bridge.settings import SidecarSettings

from . import processes
from .screen import Screen
from .stage import SLACK_S, ActFailed, Stage, expect

REQUEST_TIMEOUT_S = 10.0
GONE_TIMEOUT_S = 2.0
"""What the protocol promises after the bridge's own death."""
GUARDIAN_TIMEOUT_S = 5.0
"""What follows the bridge's death after that: 3 s for the guardian, and some for a busy machine."""
METRICS_S = 3.0
CLOCK_SLACK_S = 0.1
"""The bridge waits by the monotonic clock, its times are the wall clock's, in milliseconds."""
_STAGES = ["checking_dependencies", "installing_dependencies", "spawning_process", "waiting_for_health", "ready"]


class Cast(NamedTuple):
    """Who plays."""

    sidecar: SidecarSettings
    serve: Sequence[str]
    """The bridge's command line."""
    env: Mapping[str, str]
    token: str
    """Stands in the environment of the bridge, and so in that of everything that it starts."""
    own: bool
    """The sidecar is the user's own and has no /hang and /work."""
    config_text: str
    log_dir: str
    reading: float
    """Seconds in which a person reads a paragraph."""


class Story:
    """Plays the acts in order. `act` is the title of the one that is on."""

    def __init__(self, screen: Screen, cast: Cast, stderr: IO[bytes]) -> None:
        self._screen = screen
        self._cast = cast
        self._stderr = stderr
        self._name = cast.sidecar.name
        self._status: Json = {}
        self.act = ""

    def play(self) -> None:
        """Play it all. Raises ActFailed, CallError or BridgeEnded, with `act` telling where."""
        acts = [
            ("A sidecar starts", self._start),
            ("Somebody kills it", self._kill),
            ("It hangs", self._hang),
            ("The app asks for a restart", self._restart),
            ("What does it cost?", self._measure),
            ("A clean end", self._end),
        ]
        nothing_checks = self._cast.sidecar.health.kind in ("none", "log")
        if nothing_checks or (self._cast.own and not hasattr(signal, "SIGSTOP")):
            del acts[2]
        self._total = len(acts) + 2
        self._begin(1, "The app starts a bridge")
        with Stage(self._screen, self._cast.serve, self._cast.env, self._stderr) as stage:
            self._meet(stage)
            for number, (title, act) in enumerate(acts, 2):
                stage.begin_act()
                self._begin(number, title)
                act(stage)
        self._begin(self._total, "And if the bridge itself is killed?")
        with Stage(self._screen, self._cast.serve, self._cast.env, self._stderr) as stage:
            self._worst_case(stage)

    def _begin(self, number: int, title: str) -> None:
        self.act = title
        self._screen.heading(number, self._total, title)

    # --- the acts -----------------------------------------------------------------------------------------------------

    def _meet(self, stage: Stage) -> None:
        began = time.monotonic()
        if not self._cast.own:
            self._screen.say("This is all that the bridge is told:")
            self._screen.line()
            for line in self._cast.config_text.splitlines():
                self._screen.line(self._screen.style(f"    {self._screen.cut(line, self._screen.width - 4)}", "cyan"))
            self._screen.line()
        ready = stage.wait("bridge_ready", "bridge_ready")
        took = time.monotonic() - began
        expect(ready["sidecars"].count(self._name) == 1, f"bridge_ready names {ready['sidecars']}")
        self._screen.proved(
            f"bridge {ready['bridge_version']}, pid {ready['pid']}, serves protocol {ready['protocol_version']} "
            f"on its standard streams after {took * 1000:.0f} ms"
        )
        stage.call("subscribe_sidecar_logs", {"sidecar": self._name})
        stage.pause(self._cast.reading)

    def _start(self, stage: Stage) -> None:
        self._screen.say("Its output appears as it is written; the bar shows how far the start has come.")
        self._screen.line()
        self._status = stage.call("start_sidecar", {"sidecar": self._name}, timeout_s=self._start_bound())
        expect(self._status["state"] == "running", f"the state is {self._status['state']}")
        progress = [params["progress"] for params in stage.seen("sidecar_start_progress")]
        fractions = [each["fraction"] for each in progress]
        expect(progress and progress[-1]["stage"] == "ready", "no progress notification told that it is ready")
        expect(fractions == sorted(fractions), f"the fraction fell: {fractions}")
        if not self._cast.own:
            stages = list(dict.fromkeys(each["stage"] for each in progress))
            expect(stages == _STAGES, f"the stages were {stages}")
            stage.wait_for("a line of its output", lambda: {} if stage.log_lines else None)
        self._screen.proved(f"{self._place()}, {len(progress)} steps of progress, {stage.log_lines} lines of output")
        stage.pause(self._cast.reading)

    def _kill(self, stage: Stage) -> None:
        before = self._status
        tree = self._tree(before["pid"])
        self._screen.say(
            f"SIGKILL to pid {before['pid']}: it cannot clean up after itself."
            + (" Its helper, in a session of its own, would live on." if not self._cast.own else "")
        )
        self._screen.line()
        began = time.monotonic()
        os.kill(before["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
        backoff = stage.wait_state("backoff")
        noticed = time.monotonic() - began
        exit_ = backoff["status"]["last_exit"]
        expect(exit_ is not None and exit_["cause"] == "crash", f"the last exit is {exit_}")
        self._recover(stage, backoff)
        still = processes.wait_gone(tree, 0)
        expect(not still, f"the killed one left behind: {_listed(still)}")
        self._screen.proved(
            f"noticed after {noticed * 1000:.0f} ms, back after {_s(time.monotonic() - began)}, now {self._place()}"
        )
        self._screen.proved(f"all {len(tree)} processes of the killed one are gone, says the process table")
        stage.pause(self._cast.reading)

    def _hang(self, stage: Stage) -> None:
        health = self._cast.sidecar.health
        self._screen.say(
            "The process lives, but it answers nothing any more and ignores SIGTERM. Only a health check can tell: "
            f"{health.failure_threshold} that fail in a row, {_s(health.interval)} apart here."
        )
        self._screen.line()
        self._hang_it()
        began = time.monotonic()
        bound = health.interval + health.failure_threshold * (health.timeout + health.retry_interval)
        unhealthy = stage.wait(
            "health turning unhealthy",
            "sidecar_health_changed",
            lambda params: params["health"] == "unhealthy",
            bound + SLACK_S,
        )
        detected = time.monotonic() - began
        backoff = stage.wait_state("backoff", self._cast.sidecar.shutdown_timeout + SLACK_S)
        exit_ = backoff["status"]["last_exit"]
        expect(exit_ is not None and exit_["cause"] == "health", f"the last exit is {exit_}")
        self._recover(stage, backoff)
        why = (unhealthy["check"] or {}).get("error") or "a failed check"
        self._screen.proved(f"the hang was detected after {_s(detected)} ({why.rstrip('.')})")
        self._screen.proved(f"restarted, now {self._place()}; restarts so far: {self._status['restart_count']}")
        stage.pause(self._cast.reading)

    def _recover(self, stage: Stage, backoff: Json) -> None:
        """From `backoff` through the counted-down pause to `running`."""
        before, status = self._status, backoff["status"]
        expect(status["retry_at"] is not None, "backoff without retry_at")
        attempt = f"restart {status['restart_count'] + 1} of at most {status['max_restarts']}"
        starting = stage.count_down(
            status["retry_at"],
            attempt,
            lambda: next(iter(stage.seen("sidecar_state_changed", lambda p: p["state"] == "starting")), None),
            self._cast.sidecar.backoff_max + self._cast.sidecar.backoff_jitter + SLACK_S,
        )
        waited = _instant(starting["at"]) - _instant(backoff["at"])
        due = self._pause_before(status["restart_count"] + 1)
        expect(waited > due - CLOCK_SLACK_S, f"it waited {waited:.2f} s where {due:g} s were due")
        self._screen.line(self._screen.style(f"  {attempt} after a pause of {waited:.1f} s", "yellow"))
        self._status = stage.wait_state("running", self._start_bound())["status"]
        expect(self._status["generation"] > before["generation"], "the generation did not change")
        expect(self._status["restart_count"] > before["restart_count"], "the restart was not counted")

    def _restart(self, stage: Stage) -> None:
        self._screen.say("What an operator asks for is no crash: no pause, and the count of restarts begins anew.")
        self._screen.line()
        before = self._status
        bound = self._start_bound() + self._cast.sidecar.shutdown_timeout
        self._status = stage.call("restart_sidecar", {"sidecar": self._name}, timeout_s=bound)
        expect(stage.states() == ["stopping", "starting", "running"], f"the states were {stage.states()}")
        expect(self._status["generation"] > before["generation"], "the generation did not change")
        expect(self._status["restart_count"] == 0, f"restart_count is {self._status['restart_count']}")
        self._screen.proved(f"{self._place()}; restarts so far: 0")
        stage.pause(self._cast.reading)

    def _measure(self, stage: Stage) -> None:
        if self._cast.own:
            self._screen.say("Summed over its whole process tree:")
        else:
            self._screen.say("We give it some work, and look at its whole process tree, helper included:")
            self._request("/work")
        self._screen.line()
        deadline = time.monotonic() + METRICS_S
        while (left := deadline - time.monotonic()) > 0:
            stage.pause(min(left, 0.2))
            cpu = [params["sample"]["cpu_percent"] for params in stage.seen("sidecar_metrics")]
            if cpu:
                self._screen.live(f"cpu {cpu[-1]:5.1f} %  {self._screen.spark(cpu)}", "magenta")
        stage.wait("a metrics sample", "sidecar_metrics")
        metrics = stage.call("get_sidecar_metrics", {"sidecar": self._name, "limit": 20})
        current, samples = metrics["current"], metrics["samples"]
        expect(current is not None and samples, "there are no samples")
        expect(current["processes"] >= (1 if self._cast.own else 2), f"processes: {current['processes']}")
        expect(current["rss"] > 0, f"rss: {current['rss']}")
        for label, key, unit, scale in (
            ("processor", "cpu_percent", "% of a core", 1.0),
            ("memory", "rss", "MiB", 1024.0 * 1024.0),
            ("processes", "processes", "", 1.0),
            ("threads", "threads", "", 1.0),
            ("open files", "open_files", "", 1.0),
        ):
            if current[key] is None:
                continue
            row = [(sample[key] or 0) / scale for sample in samples]
            digits = 1 if unit else 0
            now, most = f"{row[-1]:.{digits}f}", f"{max(row):.{digits}f}"
            spark = self._screen.style(self._screen.spark(row), "magenta")
            self._screen.line(f"    {label:<11}{now:>7} {unit:<12} at most {most:>6}  {spark}")
        self._screen.line()
        if not self._cast.own:
            expect(max(sample["cpu_percent"] for sample in samples) > 5, "its work cost no processor time")
        self._screen.proved(f"{len(samples)} samples, one each {_s(0.5)} here")
        stage.pause(self._cast.reading)

    def _end(self, stage: Stage) -> None:
        tree = self._show_processes()
        self._screen.line()
        self._call_shutdown(stage)
        closing = stage.wait("bridge_closing", "bridge_closing")
        expect(closing["reason"] == "shutdown", f"bridge_closing says {closing['reason']}")
        code = stage.close()
        expect(code == 0, f"the bridge's exit code is {code}")
        # Not even a moment's grace: `shutdown` promises that all is gone. The guardian alone may follow the bridge.
        left = processes.wait_none(self._cast.token, tree, GONE_TIMEOUT_S)
        expect(not left, f"still alive: {_listed(left)}")
        self._screen.proved("the bridge ended with exit code 0")
        self._screen.proved(f"the process table, asked without the bridge: 0 of {len(tree)} processes left")
        logs = sorted(path.name for path in Path(self._cast.log_dir).rglob("sidecar-*.log"))
        expect(logs, f"there are no logs in {self._cast.log_dir}")
        self._screen.proved(f"what it wrote is in {', '.join(dict.fromkeys(logs))}")
        time.sleep(self._cast.reading)

    def _call_shutdown(self, stage: Stage) -> None:
        stage.call("shutdown", timeout_s=self._cast.sidecar.shutdown_timeout + SLACK_S)

    def _worst_case(self, stage: Stage) -> None:
        self._screen.say(
            "Desktop shells do that to their children on every ordinary exit. Here is a new bridge, with a new sidecar:"
        )
        self._screen.line()
        self._status = stage.call("start_sidecar", {"sidecar": self._name}, timeout_s=self._start_bound())
        tree = self._show_processes()
        sidecar = self._tree(self._status["pid"])
        self._screen.line()
        self._screen.line(
            f"  {self._screen.style(self._screen.glyph('to'), 'red')} SIGKILL to the bridge, pid {stage.pid}"
        )
        began = time.monotonic()
        os.kill(stage.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        left = processes.wait_gone(sidecar, GONE_TIMEOUT_S)
        took = time.monotonic() - began
        expect(not left, f"{GONE_TIMEOUT_S:g} s later there are still: {_listed(left)}")
        self._screen.proved(f"{took * 1000:.0f} ms later the sidecar is gone, with all that it started")
        left = processes.wait_none(self._cast.token, tree, GUARDIAN_TIMEOUT_S)
        took = time.monotonic() - began
        stage.close()
        expect(not left, f"still alive: {_listed(left)}")
        self._screen.proved(
            f"{took * 1000:.0f} ms later the bridge's guardian is, too: 0 of {len(tree)} processes left"
        )

    def _pause_before(self, restart: int) -> float:
        """The shortest pause that the policy allows before the restart of this number, in seconds."""
        policy = self._cast.sidecar
        return min(policy.backoff_initial * policy.backoff_factor ** (restart - 1), policy.backoff_max)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _start_bound(self) -> float:
        needs = self._cast.sidecar.dependencies
        return self._cast.sidecar.startup_timeout + (needs.timeout if needs is not None else 0.0) + SLACK_S

    def _place(self) -> str:
        where = f" at {self._status['url']}" if self._status["url"] else ""
        return f"running{where}, pid {self._status['pid']}"

    def _tree(self, pid: int) -> list[processes.Row]:
        """The sidecar's processes as the process table shows them, without the bridge and its guardian."""
        rows = processes.belonging(self._cast.token)
        found = {pid}
        while more := {row.pid for row in rows if row.parent in found} - found:
            found |= more
        tree = [row for row in rows if row.pid in found]
        expect(tree, "the process table does not show the sidecar")
        return tree

    def _show_processes(self) -> list[processes.Row]:
        rows = processes.belonging(self._cast.token)
        self._screen.say(f"The process table shows {len(rows)} processes of ours:")
        for row in rows:
            command = self._screen.cut(row.command.replace(self._cast.token, "TOKEN"), self._screen.width - 14)
            self._screen.line(f"    {row.pid:>7}  {self._screen.style(command, 'dim')}")
        expect(len(rows) >= 2, "the process table does not show bridge and sidecar")
        return rows

    def _hang_it(self) -> None:
        if self._cast.own:
            # Stopped processes are what a hung one looks like from outside.
            for row in self._tree(self._status["pid"]):
                os.kill(row.pid, getattr(signal, "SIGSTOP"))  # noqa: B009 - Windows has none, and never comes here
        else:
            self._request("/hang")

    def _request(self, path: str) -> None:
        url = f"{self._status['url']}{path}"
        self._screen.line(f"  {self._screen.style(self._screen.glyph('to'), 'blue')} GET {url}")
        # A proxy of the environment has no business between two programs of one machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=REQUEST_TIMEOUT_S) as answer:
                answer.read()
        except OSError as error:
            raise ActFailed(f"GET {path} failed: {error}") from None


def _listed(rows: Sequence[processes.Row]) -> str:
    return ", ".join(f"{row.pid} ({row.command[:60]})" for row in rows)


def _instant(at: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


FAILURES: tuple[type[Exception], ...] = (ActFailed, CallError, BridgeEnded)
"""What `Story.play` raises when it cannot go on."""
