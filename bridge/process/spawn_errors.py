"""Turns the error of a failed start into a sentence that names the cause.

The system says only "no such file" or "permission denied", for the program, its folder, its interpreter and its
working directory alike; here each is looked at in turn, after the fact. Nothing here is on the path of a good start.
"""

from __future__ import annotations

import errno
import os

from .base import SpawnError, SpawnSpec

_NO_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})
_HEAD_BYTES = 256
"""As much of a file as the Linux kernel itself reads to find the interpreter line."""


def diagnose(spec: SpawnSpec, error: OSError | ValueError) -> SpawnError:
    """The sentence for an error that the start of `spec` raised."""
    if not spec.argv or not spec.argv[0]:
        return SpawnError("other", "The command is empty")
    program = spec.argv[0]
    if isinstance(error, ValueError):
        return SpawnError("other", f"The program '{program}' cannot be started: {error}")
    if error.errno in _NO_RESOURCES:
        why = os.strerror(error.errno or 0)
        return SpawnError("no_resources", f"The system has no room to start '{program}': {why}")
    if error.errno == errno.E2BIG:
        return SpawnError("other", f"The arguments and environment of '{program}' are too long for the system")
    return _about_cwd(spec.cwd) or _about_program(spec, error)


def _about_cwd(cwd: str) -> SpawnError | None:
    if not os.path.exists(cwd):
        return SpawnError("bad_cwd", f"The working directory '{cwd}' does not exist")
    if not os.path.isdir(cwd):
        return SpawnError("bad_cwd", f"The working directory '{cwd}' is not a directory")
    if not os.access(cwd, os.X_OK):
        return SpawnError("bad_cwd", f"The working directory '{cwd}' may not be entered by this user")
    return None


def _about_program(spec: SpawnSpec, error: OSError) -> SpawnError:
    program = spec.argv[0]
    found = find_program(program, spec.cwd, spec.env.get("PATH"))
    if found is None:
        where = "" if os.path.dirname(program) else " (searched PATH)"
        return SpawnError("missing_program", f"The program '{program}' was not found{where}")
    if os.path.isdir(found):
        return SpawnError("not_executable", f"The program '{program}' is a directory")
    if not os.access(found, os.X_OK):
        return SpawnError("not_executable", f"The program '{program}' ({found}) is not executable")
    return _about_file(program, found, error)


def _about_file(program: str, path: str, error: OSError) -> SpawnError:
    head = _head(path)
    if error.errno == errno.ENOENT and head.startswith(b"#!"):
        line = head[2:].split(b"\n")[0]
        words = line.split()
        name = words[0].decode("utf-8", "replace") if words else ""
        hint = "; its lines end with CR LF" if line.endswith(b"\r") else ""
        return SpawnError(
            "missing_program", f"The program '{program}' needs the interpreter '{name}', which was not found{hint}"
        )
    if error.errno == errno.ENOENT:
        return SpawnError("missing_program", f"The program '{program}' needs a loader that was not found")
    if error.errno == errno.ENOEXEC:
        if head.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")):
            return SpawnError("not_executable", f"The program '{program}' was built for another system")
        return SpawnError(
            "not_executable", f"The program '{program}' is no executable format; a script needs a first line with '#!'"
        )
    if error.errno == errno.EACCES:
        return SpawnError(
            "not_executable", f"The program '{program}' ({path}) is not executable: its folder or mount does not let it"
        )
    return SpawnError("other", f"The program '{program}' cannot be started: {os.strerror(error.errno or 0)}")


def find_program(program: str, cwd: str, path: str | None) -> str | None:
    """The file that a start would take, or else the nearest reason why not; None when there is none at all."""
    if os.path.dirname(program):
        candidate = os.path.join(cwd, program)
        return candidate if os.path.lexists(candidate) else None
    candidates = [os.path.join(cwd, folder, program) for folder in (path or os.defpath).split(os.pathsep)]
    present = [candidate for candidate in candidates if os.path.lexists(candidate)]
    runnable = [candidate for candidate in present if os.access(candidate, os.X_OK) and not os.path.isdir(candidate)]
    return next(iter(runnable or present), None)


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:  # Executable but not readable: then nothing more can be said.
        return b""
