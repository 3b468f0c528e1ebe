"""Plain-text transcripts of the protocol: parse a `.rpc` file, play it against a bridge, compare what comes back.

The format is told in `tests/rpc_scripts/FORMAT.md`, so that clients in other languages can play the same files. This
module knows JSON and the format; that it plays a real bridge is decided by who gives it one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from .bridge import Bridge
from .kit import FAULT_SIDECAR, Kit, fetch, free_port, stranger

LINE_TIMEOUT_S = 20.0
"""How long an expected message may take: above every timeout in the transcripts' configurations."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_PLACEHOLDER = re.compile(r"<(any|int|float|string|time|bool|list|object|name:(\w+)|re:(.*))>", re.DOTALL)
OPEN = "..."


class Line(NamedTuple):
    number: int
    sign: str
    """`>`, `>x`, `<`, `<?`, `~` or `!`."""
    text: str


class Transcript(NamedTuple):
    path: Path
    config: str
    args: list[str]
    lines: list[Line]

    def sent_methods(self) -> set[str]:
        """Methods that this transcript asks for and sees answered with a result."""
        results = {
            json.dumps(message.get("id"))
            for message in self._messages("<", "<?")
            if isinstance(message, dict) and "result" in message
        }
        return {
            message["method"]
            for message in self._messages(">")
            if isinstance(message, dict) and json.dumps(message.get("id")) in results
        }

    def error_codes(self) -> set[int]:
        """Codes of the error answers and kinds of `error` in the statuses that this transcript expects."""
        found: set[int] = set()
        for message in self._messages("<", "<?"):
            for one in message if isinstance(message, list) else [message]:
                if isinstance(one, dict) and isinstance(one.get("error"), dict):
                    found.add(one["error"]["code"])
        return found

    def _messages(self, *signs: str) -> list[Any]:
        found = []
        for line in self.lines:
            if line.sign in signs:
                try:
                    found.append(json.loads(re.sub(r'(?<!")\{\{\w+\}\}(?!")', "0", line.text)))
                except ValueError:
                    # Sent on purpose: what is no JSON asks for no method.
                    continue
        return found


class Mismatch(AssertionError):
    """What came is not what the transcript expects."""


def parse(path: Path) -> Transcript:
    config: list[str] = []
    args: list[str] = []
    lines: list[Line] = []
    in_config = False
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if in_config:
            if raw.strip() == "---":
                in_config = False
            else:
                config.append(raw)
            continue
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        if text == "config:":
            in_config = True
        elif text.startswith("args:"):
            args = shlex.split(text.removeprefix("args:"))
        elif match := re.match(r"(>x|>|<\?|<|~|!)(?: (.*))?$", raw):
            lines.append(Line(number, match[1], match[2] or ""))
        else:
            raise ValueError(f"{path.name}:{number}: no line of a transcript: {raw!r}")
    if in_config:
        raise ValueError(f"{path.name}: the configuration has no end (a line of ---)")
    return Transcript(path, "\n".join(config), args, lines)


def match(expected: Any, got: Any, names: dict[str, Any], where: str = "$") -> str | None:
    """Why `got` is not as expected, or None; binds `<name:x>` on the way (use a copy of names for a trial)."""
    if isinstance(expected, str) and (found := _PLACEHOLDER.fullmatch(expected)):
        return _match_placeholder(found, got, names, where)
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return f"{where}: expected an object, got {got!r}"
        for key, value in expected.items():
            if key == OPEN:
                continue
            if key not in got:
                return f"{where}.{key} is missing"
            if (difference := match(value, got[key], names, f"{where}.{key}")) is not None:
                return difference
        if OPEN not in expected and (further := sorted(got.keys() - expected.keys())):
            return f"{where}: unexpected members {further}"
        return None
    if isinstance(expected, list):
        if not isinstance(got, list):
            return f"{where}: expected an array, got {got!r}"
        is_open = expected[-1:] == [OPEN]
        wanted = expected[:-1] if is_open else expected
        if len(got) < len(wanted) or (len(got) > len(wanted) and not is_open):
            return f"{where}: expected {len(wanted)} items, got {len(got)}: {got!r}"
        for index, value in enumerate(wanted):
            if (difference := match(value, got[index], names, f"{where}[{index}]")) is not None:
                return difference
        return None
    # True is 1 to Python and not to JSON.
    if isinstance(expected, bool) is not isinstance(got, bool) or expected != got:
        return f"{where}: expected {expected!r}, got {got!r}"
    return None


def _match_placeholder(found: re.Match[str], got: Any, names: dict[str, Any], where: str) -> str | None:
    word = found[1]
    number = isinstance(got, int | float) and not isinstance(got, bool)
    if word.startswith("name:"):
        name = found[2]
        if name not in names:
            names[name] = got
            return None
        return None if names[name] == got else f"{where}: expected {name} = {names[name]!r} again, got {got!r}"
    text = isinstance(got, str)
    fits: dict[str, bool] = {
        "any": True,
        "int": number and not isinstance(got, float),
        "float": number,
        "string": text,
        "bool": isinstance(got, bool),
        "list": isinstance(got, list),
        "object": isinstance(got, dict),
        "time": text and _TIME.fullmatch(got) is not None,
    }
    ok = text and re.search(found[3], got) is not None if word.startswith("re:") else fits[word]
    return None if ok else f"{where}: expected <{word}>, got {got!r}"


def _without_the_usual(message: Any, expected: Any) -> Any:
    """The message without what every message has and a line need not name: `jsonrpc`, `seq`, `epoch`."""
    if isinstance(message, list) and isinstance(expected, list):
        return [_without_the_usual(one, wanted) for one, wanted in zip_longest(message, expected)][: len(message)]
    if not isinstance(message, dict) or not isinstance(expected, dict):
        return message
    message = {key: value for key, value in message.items() if key != "jsonrpc" or "jsonrpc" in expected}
    wanted = expected.get("params")
    if "method" in message and isinstance(wanted, dict):
        message["params"] = {
            key: value for key, value in message["params"].items() if key not in ("seq", "epoch") or key in wanted
        }
    return message


def _answers_the_same(expected: Any, message: Any) -> bool:
    """Whether this is the answer to the same request, so that no other can come."""
    return (
        isinstance(expected, dict)
        and isinstance(message, dict)
        and "method" not in message
        and expected.get("id") is not None
        and expected["id"] == message.get("id")
    )


class Player:
    """Plays one transcript against one bridge."""

    def __init__(self, transcript: Transcript, kit: Kit) -> None:
        self.transcript = transcript
        self.kit = kit
        self.names: dict[str, Any] = {}
        self._ignored: set[str] = set()
        self._aside: list[Any] = []
        self._position = 0
        self._exited = False
        self._resources = ExitStack()
        self._words = {
            "PYTHON": sys.executable,
            "SUPPORT": str(FAULT_SIDECAR.parent),
            "TMP": str(kit.work),
            "TOKEN": kit.token,
            "FAULT": f'"{sys.executable}", "-S", "{FAULT_SIDECAR}", "--token", "{kit.token}"',
        }

    def play(self, command: list[str] | None = None) -> None:
        whole = self.transcript.config + "\n".join(line.text for line in self.transcript.lines)
        with self._resources:
            if "{{BUSY_PORT}}" in whole:
                self._words["BUSY_PORT"] = str(self._resources.enter_context(stranger()))
            if "{{FREE_PORT}}" in whole:
                self._words["FREE_PORT"] = str(free_port())
            config = self._fill(self.transcript.config)
            args = [self._fill(word) for word in self.transcript.args]
            with self.kit.bridge(config, args=args, command=command) as bridge:
                for line in self.transcript.lines:
                    try:
                        self._step(bridge, line)
                    except AssertionError as error:
                        name = self.transcript.path.name
                        raise Mismatch(f"{name}:{line.number}: {line.sign} {line.text}\n  {error}") from error
                if not self._exited:
                    bridge.close()

    def _step(self, bridge: Bridge, line: Line) -> None:
        if line.sign == ">":
            bridge.send_raw(self._fill(line.text).encode() + b"\n")
        elif line.sign == ">x":
            bridge.send_raw(bytes.fromhex(line.text))
        elif line.sign == "~":
            self._ignored |= set(line.text.split())
        elif line.sign == "<":
            message = self._next(bridge, time.monotonic() + LINE_TIMEOUT_S)
            difference = self._compare(line.text, message)
            if difference is not None:
                raise AssertionError(f"{difference}\n  in {json.dumps(message)}")
        elif line.sign == "<?":
            self._find(bridge, line.text)
        else:
            self._act(bridge, line.text)

    def _fill(self, text: str) -> str:
        """Put words and bound names in the place of {{NAME}}."""

        def put(found: re.Match[str]) -> str:
            name = found[1]
            if name in self._words:
                return self._words[name]
            if name in self.names:
                value = self.names[name]
                return value if isinstance(value, str) else json.dumps(value)
            return found[0]

        return re.sub(r"\{\{(\w+)\}\}", put, text)

    def _compare(self, text: str, message: Any) -> str | None:
        expected = json.loads(self._fill(text))
        message = _without_the_usual(message, expected)
        trial = dict(self.names)
        difference = match(expected, message, trial)
        if difference is None:
            self.names = trial
        return difference

    def _next(self, bridge: Bridge, deadline: float) -> Any:
        """The next message that is not ignored."""
        while True:
            message = bridge.message_at(self._position, deadline - time.monotonic())
            self._position += 1
            method = message.get("method") if isinstance(message, dict) else None
            if method is None or not self._ignored & {method, "*"}:
                return message

    def _find(self, bridge: Bridge, text: str) -> None:
        differences = []
        for index, message in enumerate(self._aside):
            difference = self._compare(text, message)
            if difference is None:
                del self._aside[index]
                return
            differences.append(f"{difference} in {json.dumps(message)[:300]}")
        deadline = time.monotonic() + LINE_TIMEOUT_S
        while True:
            try:
                message = self._next(bridge, deadline)
            except AssertionError as error:
                seen = "\n  ".join(differences[-12:])
                raise AssertionError(f"{error}; looked at:\n  {seen}") from None
            difference = self._compare(text, message)
            if difference is None:
                return
            if _answers_the_same(json.loads(self._fill(text)), message):
                raise AssertionError(f"{difference}\n  in {json.dumps(message)}")
            differences.append(f"{difference} in {json.dumps(message)[:300]}")
            self._aside.append(message)

    def _act(self, bridge: Bridge, text: str) -> None:
        word, *rest = shlex.split(self._fill(text))
        if word == "close" and rest == ["stdin"]:
            bridge.close_stdin()
        elif word == "wait" and rest[:1] == ["exit"]:
            code = bridge.wait_exit(LINE_TIMEOUT_S)
            assert code == int(rest[1]), f"exit code {code}"
            self._exited = True
        elif word == "signal":
            bridge.send_signal(signal.Signals[rest[0]])
        elif word == "kill":
            os.kill(int(rest[0]), signal.Signals[rest[1] if len(rest) > 1 else "SIGKILL"])
        elif word == "http":
            fetch(int(rest[0]), rest[1])
        elif word == "serve":
            self._resources.enter_context(stranger(int(rest[0])))
        elif word == "write":
            Path(rest[0]).write_text(rest[1], encoding="utf-8")
        elif word == "stderr":
            assert re.search(rest[0], bridge.stderr), f"not on stderr: {bridge.stderr!r}"
        else:
            raise ValueError(f"unknown action: {text}")
