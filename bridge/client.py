"""A command that speaks the protocol on its standard streams -> blocking calls: what `call` and the demo stand on.

One reader thread turns lines into messages, everything else happens in the caller's thread: notifications are handed
to `on_notification` one by one, in order, while the caller waits for something (`call`, `wait_for`, `pump`). It starts
the command and ends it again; which methods there are it does not know (see `bridge.contract`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, TypeVar

import msgspec

Json = dict[str, Any]
T = TypeVar("T")

CALL_TIMEOUT_S = 60.0
"""Twice the default `startup_timeout`, which bounds the slowest of the ordinary methods."""
CLOSE_TIMEOUT_S = 20.0
"""A bridge needs its sidecars' `shutdown_timeout` (5 s by default) to end, and a bit for the proof."""
MESSAGES_MAX = 1024
"""Messages read ahead of the caller. Beyond that the reader waits, and the bridge treats it as a slow reader."""
READ_BYTES = 65536
LINE_BYTES_MAX = 64 * 1024 * 1024
"""Far above any `max_message_bytes`: a command that writes longer lines is no bridge, and counts as ended."""


def bridge_command() -> list[str]:
    """The command line that runs this very bridge, without arguments."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "bridge"]


class CallError(Exception):
    """An error answer: `code` and `message` as in JSON-RPC, `kind`, `sidecar` and `detail` from its data."""

    def __init__(self, error: Json) -> None:
        data = error.get("data")
        data = data if isinstance(data, dict) else {}
        self.code: int = error.get("code", 0)
        self.message: str = str(error.get("message", ""))
        self.kind: str | None = data.get("kind")
        self.sidecar: str | None = data.get("sidecar")
        self.detail: Any = data.get("detail")
        super().__init__(self.message)


class BridgeEnded(Exception):
    """The command ended, or closed its output, before what was waited for. `exit_code` is negative for a signal."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__("it ended" + ("" if exit_code is None else f" with exit code {exit_code}"))


class NotInTime(Exception):
    """What was waited for did not come within its bound."""


class Client:
    """A running bridge. Use it in a `with` block, from one thread.

    `command` is the whole command line. `on_notification(method, params)` is called in the thread that waits. `stderr`
    is where the command's diagnostics go, by default where this process's go. A command that outlives the end of its
    input by `close_timeout_s` is killed when the block ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        on_notification: Callable[[str, Json], None] | None = None,
        env: Mapping[str, str] | None = None,
        stderr: IO[bytes] | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self.command = list(command)
        self._on_notification = on_notification
        self._env = env
        self._stderr = stderr
        self._close_timeout_s = close_timeout_s
        self._messages: queue.Queue[Json | None] = queue.Queue(MESSAGES_MAX)
        self._answers: dict[int, Json] = {}
        self._expected: set[int] = set()
        self._next_id = 0
        self._output_ended = False
        self._input_ended_at: float | None = None
        self._discard = threading.Event()

    def __enter__(self) -> Client:
        """Start the command. Raises OSError when there is no such program."""
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=self._env, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        # A descriptor of the reader's own, which closes it: it outlives this block where a descendant keeps the pipe.
        self._output_fd = os.dup(self._process.stdout.fileno())
        self._process.stdout.close()
        self._reader = threading.Thread(target=self._read, name="bridge reader", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            since = 0.0 if self._input_ended_at is None else time.monotonic() - self._input_ended_at
            self.close(max(self._close_timeout_s - since, 0.0))
        except NotInTime:
            self._process.kill()
            self._process.wait()
        finally:
            self._discard.set()
            self._reader.join(1.0)

    @property
    def pid(self) -> int:
        return self._process.pid

    # --- asking -------------------------------------------------------------------------------------------------------

    def send(self, method: str, params: Json | list[Any] | None = None) -> int:
        """Send a request without waiting; its id for `answer`. Raises BridgeEnded."""
        self._next_id += 1
        request: Json = {"jsonrpc": "2.0", "id": self._next_id, "method": method}
        if params is not None:
            request["params"] = params
        data = memoryview(msgspec.json.encode(request) + b"\n")
        try:
            while data:
                data = data[self._stdin.write(data) :]
        except OSError:
            raise BridgeEnded(self._exit_code()) from None
        self._expected.add(self._next_id)
        return self._next_id

    def answer(self, request: int, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """The result of a request that was sent. Raises CallError, BridgeEnded, NotInTime."""
        message = self.wait_for(lambda: self._answers.pop(request, None), timeout_s)
        if "error" in message:
            raise CallError(message["error"])
        return message.get("result")

    def call(self, method: str, params: Json | list[Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """The result of a method. Raises CallError, BridgeEnded, NotInTime."""
        return self.answer(self.send(method, params), timeout_s)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_for(self, look: Callable[[], T | None], timeout_s: float) -> T:
        """What `look` returns once it is not None; asked anew after each message. Raises BridgeEnded, NotInTime."""
        deadline = time.monotonic() + timeout_s
        while (found := look()) is None:
            if self._output_ended:
                raise BridgeEnded(self._exit_code())
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotInTime(f"not within {timeout_s:g} s")
            self._take(left)
        return found

    def pump(self, seconds: float) -> None:
        """Handle notifications for so long. Returns earlier when the command closes its output."""
        deadline = time.monotonic() + seconds
        while not self._output_ended and (left := deadline - time.monotonic()) > 0:
            self._take(left)

    def _take(self, timeout_s: float) -> None:
        """Handle one message, if one comes in time."""
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return
        if message is None:
            self._output_ended = True
        elif "method" in message:
            if self._on_notification is not None:
                self._on_notification(message["method"], message.get("params") or {})
        elif (id_ := message.get("id")) in self._expected:
            self._expected.discard(id_)
            self._answers[id_] = message

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, timeout_s: float | None = None) -> int:
        """End its input, handle what it still says, and wait for its end; the exit code, negative for a signal.

        Raises NotInTime when it lives on. Closing twice is harmless.
        """
        timeout_s = self._close_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        if self._input_ended_at is None:
            self._input_ended_at = time.monotonic()
        with contextlib.suppress(OSError):  # a broken pipe: it ended already
            self._stdin.close()
        while not self._output_ended and self._process.poll() is None and time.monotonic() < deadline:
            self._take(min(0.1, max(deadline - time.monotonic(), 0.0)))
        try:
            code = self._process.wait(max(deadline - time.monotonic(), 0.05))
        except subprocess.TimeoutExpired:
            raise NotInTime(f"it did not end within {timeout_s:g} s") from None
        # Its last words are in the pipe or in the queue; a descendant that keeps the pipe open may not hold this up.
        last_words = time.monotonic() + 1.0
        while not self._output_ended and time.monotonic() < last_words:
            self._take(0.1)
        return code

    def _exit_code(self) -> int | None:
        """The exit code of a command that is about to end, None when it lives on with its output closed."""
        try:
            return self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            return None

    # --- the reader's thread ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        pending = bytearray()
        decoder = msgspec.json.Decoder()
        while True:
            try:
                data = os.read(self._output_fd, READ_BYTES)
            except OSError:
                data = b""
            if not data:
                break
            start = len(pending)
            pending += data
            if pending.find(b"\n", start) < 0:
                if len(pending) > LINE_BYTES_MAX:
                    break
                continue
            *lines, rest = pending.split(b"\n")
            pending = bytearray(rest)
            for line in lines:
                try:
                    message = decoder.decode(line)
                except msgspec.DecodeError:
                    # A command run by --attach may greet on its standard output before the bridge speaks.
                    continue
                if isinstance(message, dict):
                    self._put(message)
        os.close(self._output_fd)
        self._put(None)

    def _put(self, message: Json | None) -> None:
        while not self._discard.is_set():
            try:
                self._messages.put(message, timeout=0.2)
            except queue.Full:
                continue
            break
