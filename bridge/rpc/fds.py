"""fd 0 and fd 1 -> two private descriptors, before anything else can use them.

Afterwards fd 0 is the null device and fd 1 goes where fd 2 goes, so that no library, sidecar or stray `print` can read
or tear a frame. This module is imported before any other of the bridge and imports nothing but os and sys.
"""

from __future__ import annotations

import os
import sys

_STANDARD = (0, 1, 2)


def take_stdio() -> tuple[int, int]:
    """Make fd 0 and fd 1 private and return them as (input, output).

    Both are at least 3 and not inherited by children; on Windows they are in binary mode. A standard descriptor that
    was closed counts as the null device. `sys.stdin`, `sys.stdout` and `sys.stderr` are usable afterwards.
    """
    _fill_gaps()
    taken = os.dup(0), os.dup(1)  # 0 to 2 are open, so these are 3 or more; os.dup makes them non-inheritable
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    # On Windows the C runtime passes this on to the console's standard handles, which children get.
    os.dup2(2, 1)
    if sys.platform == "win32":
        import msvcrt

        for fd in taken:
            msvcrt.setmode(fd, os.O_BINARY)
    _mend_streams()
    return taken


def _fill_gaps() -> None:
    """Open the null device on each standard descriptor that is closed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) in _STANDARD:
        os.set_inheritable(fd, True)
    os.close(fd)


def _mend_streams() -> None:
    """Give sys streams that fit what the descriptors are now, and let prints appear line by line.

    The streams of the interpreter remember what fd 0 to 2 were when it began, whether they could seek for one, and
    fail on what they are now; where it found a closed descriptor there is none.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # These live as long as the interpreter and must not close the descriptors under it.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
