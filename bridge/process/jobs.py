"""Windows job objects: a set of processes that the system itself keeps, and ends when its last handle closes.

It turns the few calls of kernel32 that are needed into functions that raise OSError. `windows` uses them. This file has
not been run on Windows; it is type-checked only.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

assert sys.platform == "win32"

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")

_EXTENDED_LIMIT_INFORMATION = 9
_BASIC_PROCESS_ID_LIST = 3
_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
_ERROR_MORE_DATA = 234

_MEMBERS_FIRST = 64
_MEMBERS_MAX = 1 << 16
"""Room for the list of members, doubled until it fits; more processes than this no desktop runs."""


class _IoCounters(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in ("ReadOps", "WriteOps", "OtherOps", "ReadBytes", "WriteBytes", "OtherBytes")
    ]


class _BasicLimits(ctypes.Structure):
    _fields_ = [
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    ]


class _ExtendedLimits(ctypes.Structure):
    _fields_ = [
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", _IoCounters),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    ]


_kernel32.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD]
_kernel32.SetInformationJobObject.restype = wintypes.BOOL
_kernel32.QueryInformationJobObject.argtypes = [
    wintypes.HANDLE,
    ctypes.c_int,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.LPDWORD,
]
_kernel32.QueryInformationJobObject.restype = wintypes.BOOL
_kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
_kernel32.AssignProcessToJobObject.restype = wintypes.BOOL
_kernel32.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
_kernel32.TerminateJobObject.restype = wintypes.BOOL
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
_kernel32.CloseHandle.restype = wintypes.BOOL
_kernel32.GetConsoleWindow.argtypes = []
_kernel32.GetConsoleWindow.restype = wintypes.HWND
_kernel32.GetConsoleProcessList.argtypes = [wintypes.LPDWORD, wintypes.DWORD]
_kernel32.GetConsoleProcessList.restype = wintypes.DWORD
_kernel32.AllocConsole.argtypes = []
_kernel32.AllocConsole.restype = wintypes.BOOL
_ntdll.NtResumeProcess.argtypes = [wintypes.HANDLE]
_ntdll.NtResumeProcess.restype = wintypes.LONG


def _check(succeeded: int) -> None:
    if not succeeded:
        raise ctypes.WinError(ctypes.get_last_error())


class Job:
    """A job whose processes end with it, also when the bridge dies and its handle closes."""

    def __init__(self) -> None:
        handle = _kernel32.CreateJobObjectW(None, None)
        _check(handle)
        self._handle: int | None = handle
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _LIMIT_KILL_ON_JOB_CLOSE
        try:
            _check(
                _kernel32.SetInformationJobObject(
                    handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
                )
            )
        except OSError:
            self.close()
            raise

    def adopt(self, process: int) -> None:
        """Put a process, by its handle, into the job; its descendants follow by themselves."""
        _check(_kernel32.AssignProcessToJobObject(self._handle, process))

    def terminate(self) -> None:
        """End every process of the job."""
        if self._handle is not None:
            _check(_kernel32.TerminateJobObject(self._handle, 1))

    def members(self) -> list[int]:
        """Numbers of the living processes of the job."""
        if self._handle is None:
            return []
        room = _MEMBERS_FIRST
        while room <= _MEMBERS_MAX:
            buffer = (ctypes.c_size_t * (room + 1))()  # Two DWORD counts, then pointer-sized numbers.
            done = _kernel32.QueryInformationJobObject(
                self._handle, _BASIC_PROCESS_ID_LIST, ctypes.byref(buffer), ctypes.sizeof(buffer), None
            )
            if done:
                counts = ctypes.cast(buffer, ctypes.POINTER(wintypes.DWORD))
                first = 8 // ctypes.sizeof(ctypes.c_size_t)
                return [int(buffer[first + n]) for n in range(counts[1])]
            if ctypes.get_last_error() != _ERROR_MORE_DATA:
                _check(0)
            room *= 2
        raise OSError("The job has more processes than can be listed")

    def close(self) -> None:
        """Close the handle, which ends what is left of the job."""
        if self._handle is not None:
            _kernel32.CloseHandle(self._handle)
            self._handle = None


def resume(process: int) -> None:
    """Let a process that was created suspended run. Subprocess closes the thread's handle that ResumeThread needs."""
    status = _ntdll.NtResumeProcess(process)
    if status < 0:
        raise OSError(f"A suspended process could not be resumed (NTSTATUS {status & 0xFFFFFFFF:#x})")


def ensure_console() -> bool:
    """CTRL_BREAK reaches only processes of the same console, and a bridge started by a window has none: make one.

    True when it had to be made; hiding its window is the caller's matter.
    """
    pids = (wintypes.DWORD * 1)()
    if _kernel32.GetConsoleProcessList(pids, 1):
        return False
    _check(_kernel32.AllocConsole())
    return True


def console_window() -> int | None:
    """Handle of the console's window."""
    window: int | None = _kernel32.GetConsoleWindow()
    return window
