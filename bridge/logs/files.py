"""The few file operations of the log floor, alike on every system.

Opens never follow a symbolic link in the last component, never inherit, and make files that only their owner can read.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from .files_windows import open_read, open_write, pread, pwrite
else:
    from .files_posix import open_read, open_write, pread, pwrite

__all__ = ["open_read", "open_write", "pread", "pwrite", "write_all"]


def write_all(fd: int, data: memoryview | bytes) -> int:
    """Append bytes; returns how many were written before the first failure, which is raised unless it came at once.

    Raises OSError when nothing at all could be written.
    """
    import os

    view = memoryview(data)
    done = 0
    while done < len(view):
        try:
            count = os.write(fd, view[done:] if done else view)
        except OSError:
            if done:
                return done
            raise
        done += count
    return done
