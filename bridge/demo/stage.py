"""Notifications of a running bridge -> lines on the screen and a record that the acts check.

Everything that the demo shows of the bridge passes through here. Which notifications have to come is the story's
business; every wait is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import IO, Any

from bridge.client import BridgeEnded, Client, Json, NotInTime

from .screen import Screen

SLACK_S = 15.0
"""Added to every bound that follows from the configuration: a busy machine is no failure."""
LINES_PER_BATCH = 6
"""Of a flood that many lines of each notification are shown."""
_STATE_STYLES = {"running": "green", "failed": "red", "backoff": "yellow", "starting": "cyan", "stopping": "magenta"}
_LEVEL_STYLES = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim", "trace": "dim"}
_SEVERITY_STYLES = {"info": "blue", "warning": "yellow", "critical": "red"}


class ActFailed(Exception):
    """What an act had to show was not seen; the message says what."""


def expect(condition: object, what: str) -> None:
    """Fail the act unless the condition holds."""
    if not condition:
        raise ActFailed(what)


class Stage:
    """One bridge and what it has said since the act began. Use it in a `with` block."""

    def __init__(self, screen: Screen, command: Sequence[str], env: Mapping[str, str], stderr: IO[bytes]) -> None:
        self._screen = screen
        self._client = Client(command, on_notification=self._take, env=env, stderr=stderr)
        self._record: list[tuple[str, Json]] = []
        self._stage_shown = ""
        self.log_lines = 0
        """Lines that `sidecar_log` brought since the act began."""

    def __enter__(self) -> Stage:
        self._client.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._screen.settle()
        self._client.__exit__(*error)

    @property
    def pid(self) -> int:
        return self._client.pid

    # --- asking and waiting -------------------------------------------------------------------------------------------

    def begin_act(self) -> None:
        """Forget what was recorded."""
        self._record.clear()
        self.log_lines = 0

    def call(self, method: str, params: Json | None = None, *, timeout_s: float = SLACK_S) -> Any:
        """Call a method, showing what is asked."""
        shown = " ".join(f"{key}={value}" for key, value in (params or {}).items())
        self._screen.line(f"  {self._screen.style(self._screen.glyph('to'), 'blue')} {method} {shown}".rstrip())
        try:
            return self._client.call(method, params, timeout_s=timeout_s)
        except NotInTime as error:
            raise ActFailed(f"{method} gave no answer: {error}") from None
        finally:
            self._screen.settle()

    def wait(
        self, what: str, name: str, fits: Callable[[Json], object] = lambda params: True, timeout_s: float = SLACK_S
    ) -> Json:
        """The params of the first notification of this act that fits."""
        return self.wait_for(what, lambda: next(iter(self.seen(name, fits)), None), timeout_s)

    def wait_for(self, what: str, look: Callable[[], Json | None], timeout_s: float = SLACK_S) -> Json:
        """What `look` finds, asked after each notification."""
        try:
            return self._client.wait_for(look, timeout_s)
        except NotInTime as error:
            raise ActFailed(f"{what}: {error}") from None
        except BridgeEnded as error:
            raise ActFailed(f"{what}: the bridge is gone, {error}") from None

    def wait_state(self, state: str, timeout_s: float = SLACK_S) -> Json:
        """The first change to this state in this act."""
        return self.wait(
            f"a change to {state}", "sidecar_state_changed", lambda params: params["state"] == state, timeout_s
        )

    def pause(self, seconds: float) -> None:
        """Let a person read, while notifications go on."""
        if seconds > 0:
            self._client.pump(seconds)

    def count_down(self, at: str, text: str, until: Callable[[], Json | None], timeout_s: float) -> Json:
        """Show the seconds to a wall-clock time until `until` finds something."""
        due = datetime.fromisoformat(at).timestamp()
        deadline = time.monotonic() + timeout_s
        while (found := until()) is None:
            left = max(due - time.time(), 0.0)
            self._screen.live(f"{text} in {left:.1f} s", "yellow")
            try:
                return self._client.wait_for(until, 0.1)
            except NotInTime:
                if time.monotonic() > deadline:
                    raise ActFailed(f"{text}: not within {timeout_s:g} s") from None
            except BridgeEnded as error:
                raise ActFailed(f"{text}: the bridge is gone, {error}") from None
        return found

    def seen(self, name: str, fits: Callable[[Json], object] = lambda params: True) -> list[Json]:
        """The params of the notifications of this act that fit, in order."""
        return [params for each, params in self._record if each == name and fits(params)]

    def states(self) -> list[str]:
        """The states that the sidecar went through in this act."""
        return [params["state"] for params in self.seen("sidecar_state_changed")]

    def close(self) -> int:
        """End the bridge's input and wait for its end; its exit code."""
        try:
            return self._client.close()
        except NotInTime as error:
            raise ActFailed(f"the bridge: {error}") from None

    # --- showing ------------------------------------------------------------------------------------------------------

    def _take(self, name: str, params: Json) -> None:
        if name == "sidecar_log":
            self.log_lines += len(params["entries"])
        else:
            self._record.append((name, params))
        show = getattr(self, f"_show_{name}", None)
        if show is not None:
            show(params)

    def _show_sidecar_log(self, params: Json) -> None:
        style = self._screen.style
        entries = params["entries"]
        skipped = len(entries) - LINES_PER_BATCH
        if skipped > 0:
            self._screen.line(style(f"  {self._screen.glyph('log')} ({skipped} more lines)", "dim"))
        for entry in entries[-LINES_PER_BATCH:]:
            at = datetime.fromisoformat(entry["at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
            mark = style(self._screen.glyph("log"), "red" if entry["stream"] == "stderr" else "green")
            text = self._screen.cut(entry["text"], self._screen.width - 19)
            level = _LEVEL_STYLES.get(entry["level"] or "")
            self._screen.line(f"  {mark} {style(at, 'dim')}  {style(text, level) if level else text}")

    def _show_sidecar_state_changed(self, params: Json) -> None:
        style = self._screen.style
        state = params["state"]
        colour = _STATE_STYLES.get(state, "blue")
        change = f"{params['previous']} {self._screen.glyph('to')} {style(state, colour, 'bold')}"
        reason = self._screen.cut(
            params["reason"], max(self._screen.width - len(params["previous"]) - len(state) - 10, 20)
        )
        self._screen.line(f"  {style(self._screen.glyph('state'), colour)} {change}  {style(reason, 'dim')}")

    def _show_sidecar_alert(self, params: Json) -> None:
        colour = "green" if params["cleared"] else _SEVERITY_STYLES.get(params["severity"], "yellow")
        word = "over:" if params["cleared"] else params["severity"]
        text = self._screen.cut(params["message"], max(self._screen.width - len(params["kind"]) - len(word) - 9, 20))
        glyph = self._screen.glyph("ok" if params["cleared"] else "alert")
        mark = self._screen.style(f"{glyph} {word} {params['kind']}", colour)
        self._screen.line(f"  {mark}  {text}")

    def _show_sidecar_health_changed(self, params: Json) -> None:
        colour = {"healthy": "green", "unhealthy": "red"}.get(params["health"], "dim")
        why = (params["check"] or {}).get("error") or ""
        mark = self._screen.style(f"{self._screen.glyph('state')} health is {params['health']}", colour)
        self._screen.line(
            f"  {mark}  {self._screen.style(self._screen.cut(why, self._screen.width - 26), 'dim')}".rstrip()
        )

    def _show_sidecar_start_progress(self, params: Json) -> None:
        progress = params["progress"]
        label = progress["stage"].replace("_", " ")
        text = f"{progress['fraction']:4.0%}  {label}: {progress['message']}"
        self._screen.live(f"{self._screen.bar(progress['fraction'])} {text}", "cyan")
        if not self._screen.tty and progress["stage"] != self._stage_shown:
            step = f"{progress['step']}/{progress['total_steps']}"
            self._screen.line(f"  [{step}] {text.strip()}")
        self._stage_shown = progress["stage"]
        if progress["stage"] == "ready":
            self._screen.settle()
