"""A plain client of a real bridge over real pipes: threads and blocking calls, as a shell without an event loop has it.

It turns a configuration and a folder into a running `python -m bridge serve`, keeps every line that comes back, and
checks at the end what holds for every bridge: each line is JSON, `seq` rises by one, `epoch` never changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Json = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
CALL_TIMEOUT_S = 20.0
"""Above every bound in the tests' configurations, also on a busy machine."""
EXIT_TIMEOUT_S = 20.0
SHOWN_ON_FAILURE = 30
"""Notifications printed when a test fails."""


class RpcError(Exception):
    """An error answer."""

    def __init__(self, error: Json) -> None:
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")
        self.kind: str | None = self.data.get("kind") if isinstance(self.data, dict) else None
        self.detail: Any = self.data.get("detail") if isinstance(self.data, dict) else None
        super().__init__(f"{self.code} {self.kind}: {self.message} {self.data!r}")


NO_NEWLINE = b" <no newline>"
"""Marks the end of output that is no whole line."""


class Bridge:
    """One bridge process.

    `config` is TOML text or the same as a dict; `args` come behind `serve --config FILE`; `env` is added to this
    process's environment. With `reading=False` nothing is read until `resume_reading()`.
    """

    def __init__(
        self,
        config: str | Json,
        folder: Path,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        command: Sequence[str] | None = None,
        reading: bool = True,
        check_wire: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_dir = folder / "logs"
        self.config_path, extra = write_config(config, folder, self.log_dir)
        self.command = [*(command or [sys.executable, "-m", "bridge"]), "serve", "--config", str(self.config_path)]
        self.command += [*extra, *args]
        self.env = environment(env)
        self.lines: list[bytes] = []
        self.messages: list[Any] = []
        self.notifications: list[Json] = []
        self.check_wire = check_wire
        self.stderr_bytes = b""
        self._answers: dict[Any, Json] = {}
        self._news = threading.Condition()
        self._reading = threading.Event()
        if reading:
            self._reading.set()
        self._next_id = 0
        self._ended = False
        self._killed = False
        self._stdout_wanted = True
        self._wake_read, self._wake_write = os.pipe()
        self._threads: list[threading.Thread] = []
        self.process: subprocess.Popen[bytes] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Bridge:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            cwd=REPOSITORY,
            bufsize=0,
        )
        self._threads = [
            threading.Thread(target=self._read_stdout, name="bridge stdout"),
            threading.Thread(target=self._read_stderr, name="bridge stderr"),
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._ended and self.running:
                self.close()
        except BaseException as closing:
            error = closing
            raise
        finally:
            if self.running:
                self._abandon()
            self._release()
            if error is not None:
                print(self.report())
        if error is None and self.check_wire:
            try:
                self.assert_wire_is_clean()
            except AssertionError:
                print(self.report())
                raise

    @property
    def _popen(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "used outside its with block"
        return self.process

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def close(self, timeout: float = EXIT_TIMEOUT_S) -> None:
        """End of input, as when the shell goes away: the bridge must exit with 0."""
        self.close_stdin()
        code = self.wait_exit(timeout)
        assert code == 0, f"exit code {code} after the end of input"

    def close_stdin(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self._popen.stdin is not None
            self._popen.stdin.close()

    def wait_exit(self, timeout: float = EXIT_TIMEOUT_S) -> int:
        """Wait for the bridge's own exit and for all that it wrote; the exit code, negative for a signal."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the bridge did not end within {timeout} s") from None
        self._ended = True
        if self._reading.is_set():
            for thread in self._threads:
                thread.join(5)
        return code

    def kill(self) -> None:
        """SIGKILL to the bridge itself, nothing else. What its sidecars become is the guardian's work."""
        self._killed = True
        self._popen.kill()
        self._popen.wait(10)
        self._ended = True

    def send_signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def close_stdout(self) -> None:
        """Read no more and close the read end: the next write of the bridge fails."""
        self._stdout_wanted = False
        self._reading.set()
        self._wake()
        self._threads[0].join(5)
        assert self._popen.stdout is not None
        self._popen.stdout.close()

    def pause_reading(self) -> None:
        """Stop taking what the bridge writes."""
        self._reading.clear()
        self._wake()

    def resume_reading(self) -> None:
        self._reading.set()

    def _wake(self) -> None:
        os.write(self._wake_write, b"!")

    def _abandon(self) -> None:
        """After a failure: ask once more by SIGTERM so that sidecars end too, then kill."""
        process = self._popen
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def _release(self) -> None:
        self._reading.set()
        for thread in self._threads:
            thread.join(5)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read_stdout(self) -> None:
        pipe = self._popen.stdout
        assert pipe is not None
        pending = bytearray()
        while True:
            self._reading.wait()
            if not self._stdout_wanted:
                break
            ready, _, _ = select.select([pipe.fileno(), self._wake_read], [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, 64)
                continue
            data = os.read(pipe.fileno(), 65536)
            if not data:
                break
            pending += data
            if b"\n" in data:
                *lines, rest = bytes(pending).split(b"\n")
                pending = bytearray(rest)
                self._take(lines)
        with self._news:
            if pending:
                self.lines.append(bytes(pending) + NO_NEWLINE)
            self._ended = True
            self._news.notify_all()

    def _take(self, lines: list[bytes]) -> None:
        with self._news:
            for line in lines:
                self.lines.append(line)
                try:
                    message = json.loads(line)
                except ValueError:
                    # Kept in `lines`, where the check at the end finds it.
                    continue
                self.messages.append(message)
                for one in message if isinstance(message, list) else [message]:
                    if "method" in one:
                        self.notifications.append(one)
                    elif "id" in one:
                        key = one["id"]
                        self._answers[key if not isinstance(key, list | dict) else json.dumps(key)] = one
            self._news.notify_all()

    def _read_stderr(self) -> None:
        pipe = self._popen.stderr
        assert pipe is not None
        while True:
            data = os.read(pipe.fileno(), 65536)
            if not data:
                return
            self.stderr_bytes += data

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode("utf-8", "replace")

    # --- asking -------------------------------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        stdin = self._popen.stdin
        assert stdin is not None
        view = memoryview(data)
        while view:
            view = view[stdin.write(view) :]

    def send(self, method: str, params: Any = None, *, id: Any = None) -> Any:
        """Send a request and do not wait; its id."""
        if id is None:
            self._next_id += 1
            id = self._next_id
        message: Json = {"jsonrpc": "2.0", "id": id, "method": method}
        if params is not None:
            message["params"] = params
        self.send_raw(json.dumps(message).encode() + b"\n")
        return id

    def notify(self, method: str, params: Any = None) -> None:
        message: Json = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        self.send_raw(json.dumps(message).encode() + b"\n")

    def answer(self, id: Any, timeout: float = CALL_TIMEOUT_S) -> Json:
        """The whole answer to a request that was sent, once it is there."""
        self._wait(lambda: id in self._answers, timeout, f"an answer to {id!r}")
        return self._answers.pop(id)

    def answered(self, id: Any) -> bool:
        with self._news:
            return id in self._answers

    def result(self, id: Any, timeout: float = CALL_TIMEOUT_S) -> Any:
        """The result of a request that was sent; an error answer is raised."""
        message = self.answer(id, timeout)
        if "error" in message:
            raise RpcError(message["error"])
        return message["result"]

    def call(self, method: str, params: Any = None, *, timeout: float = CALL_TIMEOUT_S) -> Any:
        return self.result(self.send(method, params), timeout)

    def start(self, sidecar: str | None = None, *, timeout: float = CALL_TIMEOUT_S) -> Json:
        status: Json = self.call("start_sidecar", {"sidecar": sidecar} if sidecar else {}, timeout=timeout)
        return status

    def status(self, sidecar: str | None = None) -> Json:
        status: Json = self.call("get_sidecar_status", {"sidecar": sidecar} if sidecar else {})
        return status

    def refusal(self, method: str, params: Any = None, *, timeout: float = CALL_TIMEOUT_S) -> RpcError:
        """Call what must fail; its error."""
        try:
            result = self.call(method, params, timeout=timeout)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} did not fail but gave {result!r}")

    # --- watching -----------------------------------------------------------------------------------------------------

    def _wait(self, ready: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        with self._news:
            while not ready():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {timeout} s: {what}")
                if self._ended:
                    raise AssertionError(f"the bridge ended before: {what}")
                self._news.wait(left)

    def message_at(self, position: int, timeout: float = CALL_TIMEOUT_S) -> Any:
        """The message at this place among all that came, once it is there."""
        self._wait(lambda: len(self.messages) > position, timeout, "another message")
        return self.messages[position]

    def mark(self) -> int:
        """A place in the stream of notifications, to wait only for later ones."""
        with self._news:
            return len(self.notifications)

    def wait_for(
        self,
        name: str,
        predicate: Callable[[Json], object] | None = None,
        timeout: float = CALL_TIMEOUT_S,
        *,
        since: int = 0,
    ) -> Json:
        """The params of the first notification of this name, after `since`, that the predicate likes."""
        position = since
        found: list[Json] = []

        def look() -> bool:
            nonlocal position
            while position < len(self.notifications):
                message = self.notifications[position]
                position += 1
                if message["method"] == name and (predicate is None or predicate(message["params"])):
                    found.append(message["params"])
                    return True
            return False

        self._wait(look, timeout, f"a {name} notification")
        return found[0]

    def wait_state(
        self, sidecar: str, state: str, timeout: float = CALL_TIMEOUT_S, *, since: int = 0, **status: Any
    ) -> Json:
        """The first change of this sidecar to this state, after `since`, whose status has these values."""
        return self.wait_for(
            "sidecar_state_changed",
            lambda p: (
                p["sidecar"] == sidecar
                and p["state"] == state
                and all(p["status"][key] == value for key, value in status.items())
            ),
            timeout,
            since=since,
        )

    def wait_alert(self, kind: str, *, cleared: bool = False, timeout: float = CALL_TIMEOUT_S, since: int = 0) -> Json:
        return self.wait_for(
            "sidecar_alert", lambda p: p["kind"] == kind and p["cleared"] is cleared, timeout, since=since
        )

    def wait_log(self, text: str, sidecar: str | None = None, timeout: float = CALL_TIMEOUT_S) -> str:
        """The first line of a sidecar's log that holds the text; needs no subscription."""
        params: Json = {"lines": 1000} | ({"sidecar": sidecar} if sidecar else {})
        deadline = time.monotonic() + timeout
        while True:
            for entry in self.call("get_sidecar_logs", params)["entries"]:
                if text in entry["text"]:
                    line: str = entry["text"]
                    return line
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s in the log: {text}")
            time.sleep(0.02)

    def of(self, name: str, sidecar: str | None = None, since: int = 0) -> list[Json]:
        """The params of all notifications of this name so far."""
        with self._news:
            return [
                message["params"]
                for message in self.notifications[since:]
                if message["method"] == name and (sidecar is None or message["params"].get("sidecar") == sidecar)
            ]

    def states(self, sidecar: str, since: int = 0) -> list[str]:
        """The states that this sidecar went through, as notified."""
        return [params["state"] for params in self.of("sidecar_state_changed", sidecar, since)]

    # --- checks -------------------------------------------------------------------------------------------------------

    def assert_wire_is_clean(self) -> None:
        """Every line is JSON, notifications count up by one under one epoch."""
        expected: int | None = None
        epochs = set()
        for line in self.lines:
            if self._killed and line.endswith(NO_NEWLINE):
                continue  # the line that it was writing
            try:
                message = json.loads(line)
            except ValueError:
                raise AssertionError(f"no JSON on the wire: {line[:300]!r}") from None
            if isinstance(message, dict) and "method" in message:
                params = message["params"]
                epochs.add(params["epoch"])
                if expected is not None:
                    assert params["seq"] == expected, f"seq {params['seq']} where {expected} was due"
                expected = params["seq"] + 1
        assert len(epochs) <= 1, f"several epochs: {epochs}"

    def report(self) -> str:
        """What helps to understand a failure."""
        with self._news:
            shown = [json.dumps(message)[:600] for message in self.notifications[-SHOWN_ON_FAILURE:]]
        code = self._popen.poll()
        return "\n".join(
            [
                f"--- bridge {' '.join(self.command)}, exit code {code}",
                "--- its last notifications",
                *shown,
                "--- its stderr",
                self.stderr[-8000:],
                "---",
            ]
        )


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This environment with changes; None takes a name away."""
    env: dict[str, str] = dict(os.environ)
    # What pytest says of itself is nothing that a sidecar should see.
    env.pop("PYTEST_CURRENT_TEST", None)
    for name, value in (changes or {}).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def write_config(config: str | Json, folder: Path, log_dir: Path) -> tuple[Path, list[str]]:
    """Write a configuration file; where it names no log folder, one in `folder` is given by an argument."""
    text = isinstance(config, str)
    path = folder / ("sidecars.toml" if text else "sidecars.json")
    path.write_text(config if isinstance(config, str) else json.dumps(config, indent=1), encoding="utf-8")
    return path, [] if "log_dir" in config else ["--log-dir", str(log_dir)]


def run_bridge(
    *args: str, timeout: float = 20.0, env: Mapping[str, str | None] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m bridge ARGS` to its end, with this input."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *args],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
        env=environment(env),
        cwd=REPOSITORY,
    )
