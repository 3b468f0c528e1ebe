"""One bridge per log folder: an advisory lock on a file that names its owner.

The system lets go of the lock when its owner dies, however it dies, so that a stale file never keeps anyone out.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

LOCK_NAME = ".bridge.lock"
"""No sidecar's folder is called like that: names begin with a letter or digit."""
CLAIM_NAME = ".bridge.claim"
OWNER_BYTES = 64
"""The file holds one pid."""


class Owned(Exception):
    """Another bridge owns the folder. `pid` is None where the file does not tell."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"owned by pid {pid}")
        self.pid = pid


class FolderLock:
    """Held until `release` or the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let the next bridge have the folder."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def acquire(folder: str) -> FolderLock:
    """Take the lock of a folder. Raises Owned, or OSError where the folder cannot be written."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(os.path.join(folder, LOCK_NAME), flags, 0o600)
    try:
        if not _try_lock(fd):
            raise Owned(_owner(fd))
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
    except BaseException:
        os.close(fd)
        raise
    return FolderLock(fd)


class Claim:
    """The wish of one bridge among several that wait for a folder: the newest one gets it. Raises OSError."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, CLAIM_NAME)
        self._mark = f"{os.getpid()} {os.urandom(4).hex()}".encode()
        # Written aside and moved into place, so that nobody reads half of it.
        aside = f"{self._path}.{os.getpid()}"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            try:
                os.write(fd, self._mark)
            finally:
                os.close(fd)
            os.replace(aside, self._path)
        except OSError:
            with suppress(OSError):
                os.unlink(aside)
            raise

    def stands(self) -> bool:
        """Whether no newer bridge is known to have claimed the folder since."""
        # One that withdrew may have taken this one's file with it, and no descriptor left says nothing about others.
        return self._read() in (None, self._mark)

    def withdraw(self) -> None:
        """Take it back, where it still stands."""
        if self._read() == self._mark:
            with suppress(OSError):
                os.unlink(self._path)

    def _read(self) -> bytes | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                return os.read(fd, OWNER_BYTES)
            finally:
                os.close(fd)
        except OSError:
            return None


def _owner(fd: int) -> int | None:
    try:
        text = os.read(fd, OWNER_BYTES)
    except OSError:
        return None
    return int(text) if text.isdigit() else None


if sys.platform == "win32":
    import msvcrt

    # Beyond the pid, because Windows refuses others to read what is locked.
    _LOCKED_AT = 1 << 20

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, _LOCKED_AT, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
