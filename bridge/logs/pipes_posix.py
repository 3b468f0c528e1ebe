"""Waiting for and reading from many pipes at once, on Linux and macOS. The promises stand in `capture.Pipes`."""

from __future__ import annotations

import array
import fcntl
import os
import select
import selectors
import sys
import termios
import threading
from typing import Any

assert sys.platform != "win32"

_PIPE_BYTES = 1024 * 1024
"""Asked for each pipe: 30 % less processor on floods, and a bridge that is held up for a moment holds up no sidecar."""


class Pipes:
    """Read ends of pipes, each with an owner that `wait` returns."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._closed = False
        self._poll = select.poll()
        self._poll.register(self._wake_r, select.POLLIN)

    def add(self, fd: int, owner: Any) -> None:
        """Take a read end. Only the capture thread calls this, and all below but `wake`."""
        os.set_blocking(fd, False)
        enlarge = getattr(fcntl, "F_SETPIPE_SZ", None)
        if enlarge is not None:
            try:
                fcntl.fcntl(fd, enlarge, _PIPE_BYTES)
            except OSError:
                pass  # beyond what this user may have, or not a pipe: it works as it is
        self._selector.register(fd, selectors.EVENT_READ, owner)

    def remove(self, fd: int) -> None:
        """Close a read end."""
        self._selector.unregister(fd)
        os.close(fd)

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Owners of pipes with something to read (their end counts), after at most `timeout_s` or a `wake`."""
        ready = [key.data for key, _ in self._selector.select(timeout_s) if key.data is not None]
        self._drain_wakes()
        return ready

    def pause(self, timeout_s: float) -> None:
        """Wait for a `wake` alone."""
        self._poll.poll(timeout_s * 1000)

    def _drain_wakes(self) -> None:
        try:
            while os.read(self._wake_r, 4096):
                pass
        except BlockingIOError:
            pass

    def wake(self) -> None:
        """End a `wait` or `pause`, or the next one. Any thread may call this."""
        with self._lock:
            if not self._closed:
                try:
                    os.write(self._wake_w, b"\0")
                except BlockingIOError:
                    pass  # it is full of wakes

    def read(self, fd: int, buf: bytearray) -> int | None:
        """Fill the buffer's beginning; 0 at the end of the stream, None when there is nothing to read now."""
        try:
            return os.readv(fd, (buf,))
        except BlockingIOError:
            return None
        except OSError:
            return 0  # EIO of a terminal whose other side is gone

    def pending(self, fd: int) -> int:
        """Bytes that can be read now."""
        count = array.array("i", (0,))
        try:
            fcntl.ioctl(fd, termios.FIONREAD, count)
        except OSError:
            return 0
        return count[0]

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
