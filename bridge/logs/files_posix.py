"""File operations of the log floor on Linux and macOS. The promises stand in `files`."""

from __future__ import annotations

import errno
import os
import stat
import sys

assert sys.platform != "win32"

_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO put in a log's place must not hang the open."""

pread = os.pread
pwrite = os.pwrite


def _regular(fd: int, path: str) -> int:
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_write(path: str, *, append: bool) -> int:
    """Open for reading and writing, created with mode 0600 where missing. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | _SAFE | (os.O_APPEND if append else 0)
    return _regular(os.open(path, flags, 0o600), path)


def open_read(path: str) -> int:
    """Open for reading. Raises OSError."""
    return os.open(path, os.O_RDONLY | _SAFE)
