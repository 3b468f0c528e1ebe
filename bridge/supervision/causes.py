"""Reads from an exit and the last lines of output what probably broke, and what a person can do about it.

A table of patterns, first match wins; a guess, and named so on the wire (`cause_class`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from bridge.model import CauseClass, HealthCheck


class Cause(NamedTuple):
    """A class and a sentence to act on, None where nothing useful can be said."""

    cause_class: CauseClass
    hint: str | None


_PATTERNS: tuple[tuple[CauseClass, str, str], ...] = (
    (
        "port_in_use",
        "Another program uses the port. End it, or choose another port.",
        r"EADDRINUSE|address already in use|port \S+ is (already )?(in use|allocated)"
        r"|Only one usage of each socket",
    ),
    (
        "missing_library",
        "A system library is missing. Install it, or install the program again.",
        r"error while loading shared libraries|cannot open shared object file|Library not loaded|DLL load failed"
        r"|The specified module could not be found|version `GLIBC\S*' not found",
    ),
    (
        "missing_module",
        "A module that the program needs is not installed. Install its dependencies again.",
        r"ModuleNotFoundError|ImportError: No module named|Cannot find (module|package)|ERR_MODULE_NOT_FOUND"
        r"|ClassNotFoundException|NoClassDefFoundError|cannot load such file",
    ),
    (
        "out_of_memory",
        "The computer ran out of memory. Close other programs, or give this one less to do.",
        r"out of memory|MemoryError|std::bad_alloc|Cannot allocate memory|Allocation failed|OutOfMemoryError"
        r"|heap limit",
    ),
    (
        "permission",
        "It may not use a file, folder or port that it needs. Check the permissions.",
        r"Permission denied|PermissionError|EACCES|EPERM|Operation not permitted|Access is denied",
    ),
    (
        "bad_configuration",
        "Its configuration or its arguments are wrong. The last lines of its output say which.",
        r"unrecognized arguments?|unknown (option|flag|argument)|invalid (option|argument|configuration|config)"
        r"|usage: \S+|configuration (file )?(error|is invalid)|failed to (parse|load) config|missing required",
    ),
    (
        "timeout",
        "Something that it waited for did not answer in time.",
        r"timed? ?out|ETIMEDOUT|deadline exceeded",
    ),
)
_TABLE = tuple((cause, hint, re.compile(pattern, re.IGNORECASE)) for cause, hint, pattern in _PATTERNS)

KILLED_HINT = "The system ended it, which mostly means that memory ran out."


def classify(code: int | None, signal: str | None, tail: Sequence[str], *, asked: bool) -> Cause:
    """What an exit points to. `tail` are the last lines of output; `asked` is true when the bridge ended it."""
    if asked:
        return Cause("unknown", None)
    text = "\n".join(tail)
    for cause, hint, pattern in _TABLE:
        if pattern.search(text):
            return Cause(cause, hint)
    if code == 127:
        return Cause("missing_library", "A program or library that it needs was not found.")
    if code == 126:
        return Cause("permission", "A program that it needs may not be executed.")
    if signal == "SIGKILL" or code == 137:
        return Cause("out_of_memory", KILLED_HINT)
    return Cause("unknown", None)


def of_silence(last_check: HealthCheck | None) -> Cause:
    """What it points to that health checks failed: a process that answers says by itself what it lacks."""
    if last_check is not None and last_check.status_code is not None:
        return Cause("unknown", f"It answers, but with status {last_check.status_code}. Its log may say what it lacks.")
    return Cause("timeout", "It did not answer in time. Its log may say what it waits for.")
