"""File operations of the log floor on Windows. The promises stand in `files`.

Files are opened so that they can be renamed and deleted while they are open (FILE_SHARE_DELETE), which Python's own
open does not do. Who may read them follows from the folder, which lies in the user's profile.
"""

from __future__ import annotations

import ctypes
import msvcrt
import os
import sys
from ctypes import wintypes

assert sys.platform == "win32"

_GENERIC_READ = 0x80000000
_GENERIC_WRITE = 0x40000000
_SHARE_ALL = 0x7
_OPEN_ALWAYS = 4
_OPEN_EXISTING = 3
_OPEN_REPARSE_POINT = 0x00200000
_ATTRIBUTE_NORMAL = 0x80
_INVALID = ctypes.c_void_p(-1).value

_create_file = ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW
_create_file.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.LPVOID,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_create_file.restype = wintypes.HANDLE


def _open(path: str, access: int, disposition: int, flags: int) -> int:
    attributes = _ATTRIBUTE_NORMAL | _OPEN_REPARSE_POINT
    handle = _create_file(path, access, _SHARE_ALL, None, disposition, attributes, None)
    if handle is None or handle == _INVALID:
        raise ctypes.WinError(ctypes.get_last_error())
    return msvcrt.open_osfhandle(handle, flags | os.O_BINARY | os.O_NOINHERIT)


def open_write(path: str, *, append: bool) -> int:
    """Open for reading and writing, created where missing. Raises OSError."""
    flags = os.O_RDWR | (os.O_APPEND if append else 0)
    return _open(path, _GENERIC_READ | _GENERIC_WRITE, _OPEN_ALWAYS, flags)


def open_read(path: str) -> int:
    """Open for reading. Raises OSError."""
    return _open(path, _GENERIC_READ, _OPEN_EXISTING, os.O_RDONLY)


def pread(fd: int, length: int, offset: int) -> bytes:
    """Read at a position. Every reader has a descriptor of its own, so moving its position disturbs nobody."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, length)


def pwrite(fd: int, data: bytes, offset: int) -> int:
    """Write at a position; only the capture thread writes."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)
