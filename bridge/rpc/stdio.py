"""A pair of descriptors -> bytes in and bytes out, without ever stalling the event loop.

Pipes and sockets are made non-blocking and tried first, waited for second. A regular file never keeps one waiting.
Whatever else there is (terminals, Windows pipes) has a thread of its own, because O_NONBLOCK on an inherited terminal
changes the shell's own. Knows nothing of lines.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import anyio

READ_BYTES: Final = 64 * 1024
"""Of one read: what a pipe holds by default."""

THREAD_WRITE_BYTES: Final = 64 * 1024
"""Of one write in a thread: what is copied for it."""

T = TypeVar("T")


class Input(Protocol):
    """Where requests come from."""

    async def read(self) -> bytes:
        """Up to READ_BYTES; empty at the end. A reader that vanished is an end, too."""

    def close(self) -> None:
        """Leave the descriptor as it was found; it stays open."""


class Output(Protocol):
    """Where answers go."""

    def write_now(self, data: memoryview) -> int:
        """Write what goes without waiting and say how much that was; what is left has to be given again next time.

        Raises OSError when nobody reads any more.
        """

    async def ready(self) -> None:
        """Wait until `write_now`, which wrote less than it was given, may go on."""

    def close(self) -> None:
        """Leave the descriptor as it was found; it stays open."""


def open_input(fd: int) -> Input:
    """The right kind of Input for what the descriptor is."""
    mode = os.fstat(fd).st_mode
    if sys.platform != "win32" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return _PolledInput(fd)
    return _FileInput(fd) if stat.S_ISREG(mode) else _ThreadInput(fd)


def open_output(fd: int) -> Output:
    """The right kind of Output for what the descriptor is."""
    mode = os.fstat(fd).st_mode
    if sys.platform != "win32" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return _PolledOutput(fd)
    return _FileOutput(fd) if stat.S_ISREG(mode) else _ThreadOutput(fd)


if sys.platform != "win32":

    class _NonBlocking:
        """O_NONBLOCK for a while; given back, because other holders of the same open file see the flag too."""

        def __init__(self, fd: int) -> None:
            self._fd = fd
            self._was_blocking = os.get_blocking(fd)
            os.set_blocking(fd, False)

        def close(self) -> None:
            if self._was_blocking:
                self._was_blocking = False
                os.set_blocking(self._fd, True)

    class _PolledInput(_NonBlocking):
        async def read(self) -> bytes:
            while True:
                try:
                    return os.read(self._fd, READ_BYTES)
                except BlockingIOError:
                    await anyio.wait_readable(self._fd)
                except OSError:
                    return b""  # ECONNRESET of a socket whose other side died

    class _PolledOutput(_NonBlocking):
        def write_now(self, data: memoryview) -> int:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                return 0

        async def ready(self) -> None:
            await anyio.wait_writable(self._fd)


class _FileInput:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def read(self) -> bytes:
        try:
            return os.read(self._fd, READ_BYTES)
        except OSError:
            return b""  # what cannot be read any more has ended

    def close(self) -> None:
        pass


class _FileOutput:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write_now(self, data: memoryview) -> int:
        return os.write(self._fd, data)

    async def ready(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Helper:
    """A thread that makes one blocking call at a time.

    A daemon, and not one of anyio's workers: a call that never returns (nobody types) must not keep the interpreter
    from ending.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._name = name
        self._started = False

    def begin(self, function: Callable[[], T]) -> _Slot[T]:
        """Have a call made; the slot tells when it has ended."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        slot = _Slot[T](function)
        self._calls.put(slot.fill)
        return slot

    def close(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class _Slot(Generic[T]):
    """The way of a result from the thread to the event loop."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.filled = anyio.Event()
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # by which anyio finds its loop in the callback
        self._value: list[T] = []
        self._error: OSError | None = None

    def fill(self) -> None:
        """In the thread: make the call and tell the loop."""
        try:
            self._value.append(self._function())
        except OSError as error:
            self._error = error
        try:
            self._loop.call_soon_threadsafe(self.filled.set, context=self._context)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def result(self) -> T:
        """What the call returned or raised, once it is filled."""
        if self._error is not None:
            raise self._error
        return self._value[0]


class _ThreadInput:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._helper = _Helper("bridge-input")

    async def read(self) -> bytes:
        try:
            slot = self._helper.begin(lambda: os.read(self._fd, READ_BYTES))
            await slot.filled.wait()
            return slot.result()
        except OSError:
            return b""  # EIO: the terminal is gone

    def close(self) -> None:
        self._helper.close()


class _ThreadOutput:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._helper = _Helper("bridge-output")
        self._under_way: _Slot[int] | None = None

    def write_now(self, data: memoryview) -> int:
        """Write the beginning in the thread. How much of it was written is said by the call after that has ended."""
        if self._under_way is None:
            part = bytes(data[:THREAD_WRITE_BYTES])
            self._under_way = self._helper.begin(lambda: os.write(self._fd, part))
            return 0
        if not self._under_way.filled.is_set():
            return 0
        ended, self._under_way = self._under_way, None
        return ended.result()

    async def ready(self) -> None:
        if self._under_way is not None:
            await self._under_way.filled.wait()

    def close(self) -> None:
        self._helper.close()
