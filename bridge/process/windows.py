"""Processes on Windows: a job object for each tree, a waiting thread for each leader, CTRL_BREAK as the stop signal.

This file has not been run on Windows; it is type-checked only.

A leader is created suspended, put into its job and resumed, so no descendant escapes. The job ends with its last
handle, so a killed bridge leaves nothing and no guardian is needed. The output's read ends are plain descriptors that
cannot be made non-blocking: whoever takes them reads them in a thread.
"""

# ruff: noqa: E402
from __future__ import annotations

import asyncio
import contextvars
import ctypes
import os
import signal
import subprocess
import sys
import threading
from ctypes import wintypes

import anyio

assert sys.platform == "win32"  # Above the imports below, which other systems do not have: hence E402.

import _winapi

from .base import Ended, Holder, Process, SpawnError, SpawnSpec
from .jobs import Job, console_window, ensure_console, resume
from .ports import PortPicker, is_free
from .spawn_errors import diagnose

_VARIABLE = "SIDECAR_BRIDGE_MARK"
_CREATE_SUSPENDED = 0x4
_SW_HIDE = 0

_NO_SUCH_FILE = (2, 3)
_ACCESS_DENIED = 5
_BAD_FORMAT = 193
_BAD_DIRECTORY = 267
_NO_MEMORY = (8, 14, 1450, 1455)
"""Error numbers of Windows itself."""

_LOOK_FIRST_S = 0.005
_LOOK_MAX_S = 0.25
"""A job does not tell when it is empty without a completion port; while somebody waits it is looked at this often."""

_CLOSE_TIMEOUT_S = 1.0
"""For each tree that still lives when the system closes, against its contract."""


class WindowsProcess:
    """A tree on Windows."""

    def __init__(
        self, system: WindowsSystem, child: subprocess.Popen[bytes], job: Job, pipes: tuple[int | None, int, int | None]
    ) -> None:
        self._system = system
        self._child = child
        self._job = job
        self._stdin, self._stdout, self._stderr = pipes
        self._ended: Ended | None = None
        self._end = anyio.Event()
        self._loop = asyncio.get_running_loop()
        # The loop's callbacks need the context of anyio's backend, which a thread does not have.
        self._context = contextvars.copy_context()
        threading.Thread(target=self._watch, name=f"exit of {child.pid}", daemon=True).start()

    def _watch(self) -> None:
        code = self._child.wait()
        try:
            self._loop.call_soon_threadsafe(self._leader_ended, code, context=self._context)
        except RuntimeError:  # The loop is closed: nobody is left to tell.
            return

    def _leader_ended(self, code: int) -> None:
        self._ended = Ended(code, None)
        self._end.set()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def stdout(self) -> int:
        return self._stdout

    @property
    def stderr(self) -> int | None:
        return self._stderr

    @property
    def ended(self) -> Ended | None:
        return self._ended

    async def wait(self) -> Ended:
        await self._end.wait()
        assert self._ended is not None
        return self._ended

    def close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def signal(self, name: str) -> None:
        if self._ended is None:
            try:
                os.kill(self._child.pid, signal.CTRL_BREAK_EVENT)
            except OSError:  # It ended, or its console is another one: then the job does the rest.
                return

    def signal_tree(self, name: str) -> None:
        self.signal(name)

    def members(self) -> list[int]:
        found = self._job.members()
        if self.pid in found:
            found.remove(self.pid)
            found.insert(0, self.pid)
        return found

    def _is_extinct(self) -> bool:
        return self._ended is not None and not self._job.members()

    async def wait_extinct(self, timeout_s: float) -> bool:
        pause = _LOOK_FIRST_S
        with anyio.move_on_after(timeout_s):
            await self._end.wait()
            while not self._is_extinct():
                await anyio.sleep(pause)
                pause = min(2 * pause, _LOOK_MAX_S)
        return self._is_extinct()

    async def extinguish(self, timeout_s: float) -> bool:
        deadline = anyio.current_time() + timeout_s
        pause = _LOOK_FIRST_S
        while True:
            self._job.terminate()
            if self._is_extinct() or anyio.current_time() >= deadline:
                await anyio.lowlevel.checkpoint()
                return self._is_extinct()
            with anyio.move_on_after(pause):
                await self._end.wait()
                await anyio.sleep(pause)
            pause = min(2 * pause, _LOOK_MAX_S)

    def close(self) -> None:
        self.close_stdin()
        self._job.close()
        self._system.forget(self)


class WindowsSystem:
    """The operating system on Windows."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._last_tree = 0
        self._trees: set[WindowsProcess] = set()
        self._ports = PortPicker()

    async def start(self) -> None:
        try:
            made = ensure_console()
        except OSError:  # Then CTRL_BREAK reaches nobody, and stops go by stdin, stop_http or the job.
            return
        if made and (window := console_window()) is not None:
            show = ctypes.WinDLL("user32").ShowWindow
            show.argtypes = [wintypes.HWND, ctypes.c_int]
            show.restype = wintypes.BOOL
            show(window, _SW_HIDE)

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):  # Bounded, and half an end leaves processes behind.
            for process in list(self._trees):
                await process.extinguish(_CLOSE_TIMEOUT_S)
                process.close()

    def spawn(self, spec: SpawnSpec) -> Process:
        self._last_tree += 1
        env = dict(spec.env)
        own = f"{self._epoch}:{self._last_tree}"
        outer = env.get(_VARIABLE)
        env[_VARIABLE] = f"{own},{outer}" if outer else own
        fds: list[int] = []
        job: Job | None = None
        try:
            job = Job()
            out_read, out_write = _pipe(fds)
            err_read, err_write = (None, None) if spec.merge_output else _pipe(fds)
            in_read, in_write = _pipe(fds) if spec.stdin == "pipe" else (subprocess.DEVNULL, None)
            if not spec.argv or not spec.argv[0]:
                raise ValueError("the command is empty")
            child = subprocess.Popen(
                spec.argv,
                cwd=spec.cwd,
                env=env,
                stdin=in_read,
                stdout=out_write,
                stderr=subprocess.STDOUT if err_write is None else err_write,
                close_fds=True,
                # Without a window of its own; a process group of its own is what CTRL_BREAK is sent to.
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | self._console_flag() | _CREATE_SUSPENDED,
            )
        except (OSError, ValueError) as error:
            _close(fds)
            if job is not None:
                job.close()
            raise _diagnose(spec, error) from error
        _close([fd for fd in fds if fd not in (in_write, out_read, err_read)])
        try:
            _release(child, job)
        except OSError as error:
            child.kill()
            child.wait()
            _close([fd for fd in (in_write, out_read, err_read) if fd is not None])
            job.close()
            raise SpawnError("other", f"The program '{spec.argv[0]}' cannot be kept in a job: {error}") from error
        process = WindowsProcess(self, child, job, (in_write, out_read, err_read))
        self._trees.add(process)
        return process

    @staticmethod
    def _console_flag() -> int:
        """In the bridge's hidden console CTRL_BREAK arrives; a new one without a window is the second best."""
        return 0 if console_window() else subprocess.CREATE_NO_WINDOW

    def forget(self, process: WindowsProcess) -> None:
        """A tree was closed."""
        self._trees.discard(process)

    def free_port(self, host: str) -> int:
        return self._ports.free(host)

    def port_is_free(self, host: str, port: int) -> bool:
        try:
            return is_free(host, port)
        except PermissionError:  # Held exclusively, or reserved by the system: either way none can listen.
            return False

    def port_holder(self, port: int) -> Holder | None:
        import psutil

        for pid in self._listeners(port):
            try:
                return Holder(pid, psutil.Process(pid).name())
            except psutil.Error:
                return Holder(pid, "")
        return None

    def owns_port(self, process: Process, port: int) -> bool | None:
        listeners = self._listeners(port)
        return bool(listeners & set(process.members())) if listeners else None

    @staticmethod
    def _listeners(port: int) -> set[int]:
        import psutil

        return {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid is not None
        }


def _release(child: subprocess.Popen[bytes], job: Job) -> None:
    handle = _winapi.OpenProcess(_winapi.PROCESS_ALL_ACCESS, False, child.pid)
    try:
        job.adopt(handle)
        resume(handle)
    finally:
        _winapi.CloseHandle(handle)


def _diagnose(spec: SpawnSpec, error: OSError | ValueError) -> SpawnError:
    if isinstance(error, ValueError) or not spec.argv or not spec.argv[0]:
        return diagnose(spec, error)
    program, number = spec.argv[0], error.winerror
    if not os.path.isdir(spec.cwd) or number == _BAD_DIRECTORY:
        return SpawnError("bad_cwd", f"The working directory '{spec.cwd}' does not exist")
    if number in _NO_SUCH_FILE:
        return SpawnError("missing_program", f"The program '{program}' was not found (searched PATH)")
    if number == _BAD_FORMAT:
        return SpawnError("not_executable", f"The program '{program}' is no program of this system")
    if number == _ACCESS_DENIED:
        return SpawnError("not_executable", f"The program '{program}' may not be started by this user")
    if number in _NO_MEMORY:
        return SpawnError("no_resources", f"The system has no room to start '{program}'")
    return SpawnError("other", f"The program '{program}' cannot be started: {error.strerror}")


def _pipe(fds: list[int]) -> tuple[int, int]:
    read_end, write_end = os.pipe()  # Not inheritable; subprocess duplicates what the child needs.
    fds += (read_end, write_end)
    return read_end, write_end


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
