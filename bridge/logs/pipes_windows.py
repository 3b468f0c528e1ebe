"""Waiting for and reading from many pipes at once, on Windows. The promises stand in `capture.Pipes`.

Anonymous pipes cannot be waited for there, so a thread per pipe reads and hands one chunk at a time to the capture
thread; it does not read on before that chunk was taken, so a slow disk still holds the sidecar back.
"""

from __future__ import annotations

import ctypes
import msvcrt
import os
import sys
import threading
import time
from ctypes import wintypes
from typing import Any

assert sys.platform == "win32"

_CHUNK_BYTES = 64 * 1024
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_peek = _kernel32.PeekNamedPipe
_peek.argtypes = (
    wintypes.HANDLE,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.LPVOID,
    ctypes.POINTER(wintypes.DWORD),
    wintypes.LPVOID,
)
_peek.restype = wintypes.BOOL
_cancel = _kernel32.CancelSynchronousIo
_cancel.argtypes = (wintypes.HANDLE,)
_cancel.restype = wintypes.BOOL
_open_thread = _kernel32.OpenThread
_open_thread.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
_open_thread.restype = wintypes.HANDLE
_close_handle = _kernel32.CloseHandle
_close_handle.argtypes = (wintypes.HANDLE,)
_close_handle.restype = wintypes.BOOL
_THREAD_TERMINATE = 0x0001


class _Reader(threading.Thread):
    """Reads one pipe, one chunk ahead."""

    def __init__(self, fd: int, owner: Any, filled: threading.Event) -> None:
        super().__init__(name="log-pipe", daemon=True)
        self.fd = fd
        self.owner = owner
        self.chunk: bytes | None = None
        self.ended = False
        self.taken = threading.Event()
        self._filled = filled
        self._stopped = False

    def run(self) -> None:
        while not self._stopped:
            try:
                data = os.read(self.fd, _CHUNK_BYTES)
            except OSError:
                data = b""
            self.taken.clear()
            self.chunk = data
            self.ended = not data
            self._filled.set()
            if not data or self._stopped:
                return
            self.taken.wait()

    def stop(self) -> None:
        self._stopped = True
        self.taken.set()
        handle = _open_thread(_THREAD_TERMINATE, False, self.native_id or 0)
        if handle:
            _cancel(handle)
            _close_handle(handle)


class Pipes:
    """Read ends of pipes, each with an owner that `wait` returns."""

    def __init__(self) -> None:
        self._readers: dict[int, _Reader] = {}
        self._filled = threading.Event()

    def add(self, fd: int, owner: Any) -> None:
        reader = self._readers[fd] = _Reader(fd, owner, self._filled)
        reader.start()

    def remove(self, fd: int) -> None:
        reader = self._readers.pop(fd)
        reader.stop()
        reader.join(1.0)  # a cancelled read returns at once; if one does not, its descriptor stays open
        if not reader.is_alive():
            os.close(fd)

    def wait(self, timeout_s: float | None) -> list[Any]:
        self._filled.wait(timeout_s)
        self._filled.clear()
        return [reader.owner for reader in self._readers.values() if reader.chunk is not None]

    def pause(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def wake(self) -> None:
        self._filled.set()

    def read(self, fd: int, buf: bytearray) -> int | None:
        reader = self._readers[fd]
        data = reader.chunk
        if data is None:
            return None
        buf[: len(data)] = data
        if not reader.ended:
            reader.chunk = None
            reader.taken.set()
        return len(data)

    def pending(self, fd: int) -> int:
        reader = self._readers[fd]
        available = wintypes.DWORD(0)
        _peek(msvcrt.get_osfhandle(fd), None, 0, None, ctypes.byref(available), None)
        return available.value + len(reader.chunk or b"")

    def close(self) -> None:
        for fd in list(self._readers):
            self.remove(fd)
