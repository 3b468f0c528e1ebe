"""The command `serve`: descriptors, arguments, settings, log folder, lock, `bridge_ready`, app, exit code.

Everything that can refuse to serve happens here, before there is an event loop, and is said on fd 2.
"""

from __future__ import annotations

from bridge.rpc.fds import take_stdio  # isort: skip

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.model import Severity
    from bridge.process.lock import FolderLock
    from bridge.settings import Settings

EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_OWNED = 3
TAKEOVER_S = 30.0
"""How long a bridge that was asked to hand over may take: its sidecars' own stop bounds, with some slack."""
TAKEOVER_POLL_S = 0.05
PID_MAX = 2**31 - 1
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")


class Refusal(Exception):
    """The bridge does not serve. `code` is its exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def serve(argv: list[str]) -> int:
    """Serve until asked to end. Does not return when it served: the process ends here with its exit code."""
    arguments = _plain(argv) or _parse(argv)
    in_fd, out_fd = take_stdio()
    began = time.monotonic()
    early_signals = _catch_early_signals()
    _import_msgspec()
    try:
        settings = _settings(arguments)
        lock, alerts = _own_log_dir(settings, early_signals, takeover=arguments.takeover)
    except Refusal as refusal:
        if refusal.message:
            print(f"sidecar-bridge: {refusal.message}", file=sys.stderr)
        return refusal.code
    epoch = os.urandom(8).hex()
    unsent = _say_ready(settings, epoch, out_fd)
    _configure_logging(arguments.log_format, arguments.log_level)
    from bridge.app import Options, run

    code = 0
    try:
        owned = lock is not None
        run(
            settings,
            Options(in_fd, out_fd, epoch, 2, unsent, began, arguments.parent_pid, alerts, early_signals, owned),
        )
    except BaseException:
        # Whatever it is, the exit code says that the bridge is broken.
        import logging

        logging.getLogger("bridge").critical("the bridge broke", exc_info=True)
        code = EXIT_DEFECT
    if lock is not None:
        lock.release()
    sys.stderr.flush()
    # Taking the interpreter down would take tens of milliseconds and do nothing that the system does not do.
    os._exit(code)


class Arguments:
    """What `serve` was told; the defaults are those of its options."""

    def __init__(self) -> None:
        self.config = ""
        self.log_dir: str | None = None
        self.parent_pid: int | None = None
        self.takeover = False
        self.overrides: list[str] = []
        self.log_format = "text"
        self.log_level = "warning"


def _plain(argv: list[str]) -> Arguments | None:
    """Read arguments of the plain form `--name value`; None for any other, which argparse reads or refuses.

    A shell spells them out, and argparse takes a tenth of the time that a window waits for the bridge.
    """
    told = Arguments()
    rest = iter(argv)
    for name in rest:
        if name == "--takeover":
            told.takeover = True
            continue
        value = next(rest, "-")
        if value.startswith("-"):
            return None
        if name == "--config":
            told.config = value
        elif name == "--log-dir":
            told.log_dir = value
        elif name == "--parent-pid" and value.isdecimal():
            told.parent_pid = int(value)
        elif name == "--set":
            told.overrides.append(value)
        elif name == "--log-format" and value in FORMATS:
            told.log_format = value
        elif name == "--log-level" and value in LEVELS:
            told.log_level = value
        else:
            return None
    return told if told.config else None


def _parse(argv: list[str]) -> Arguments:
    """Read any arguments; ends the process with 2 and a sentence on fd 2 where they are wrong."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="sidecar-bridge serve",
        allow_abbrev=False,
        description="Supervise the sidecars of a configuration; JSON-RPC 2.0, one message a line, on stdin and stdout.",
        epilog="exit codes: 0 asked to end, 1 a defect of the bridge, 2 wrong arguments or configuration, "
        "3 another bridge owns the log folder",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="configuration, TOML or JSON")
    parser.add_argument("--log-dir", metavar="DIR", help="folder for the sidecars' logs instead of the configured one")
    parser.add_argument(
        "--parent-pid", type=int, metavar="PID", help="end when this process is gone (where the shell is a launcher)"
    )
    parser.add_argument(
        "--takeover", action="store_true", help="ask a bridge that owns the log folder to end, and take its place"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="set a configuration value by its dotted path, as sidecars.web.port=8080; repeatable",
    )
    parser.add_argument("--log-format", choices=FORMATS, default="text", help="form of diagnostics on stderr")
    parser.add_argument("--log-level", choices=LEVELS, default="warning", help="least level of diagnostics on stderr")
    return parser.parse_args(argv, namespace=Arguments())


def _import_msgspec() -> None:
    """Import msgspec without typing_extensions, which it takes where it finds it and which costs half as much again.

    All it takes from there, the Pythons that this package supports have in `typing`.
    """
    name = "typing_extensions"
    if name in sys.modules or "msgspec" in sys.modules:
        return
    absent: Any = None
    sys.modules[name] = absent
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[name]


def _settings(arguments: Arguments) -> Settings:
    from bridge.errors import ConfigInvalid
    from bridge.settings import load, unused

    if arguments.parent_pid is not None and not 0 < arguments.parent_pid <= PID_MAX:
        raise Refusal(EXIT_USAGE, f"--parent-pid: expected a process id, got {arguments.parent_pid}")
    try:
        settings = load(arguments.config, overrides=arguments.overrides, log_dir=arguments.log_dir, environ=os.environ)
    except ConfigInvalid as error:
        raise Refusal(EXIT_USAGE, "\n".join(error.lines())) from None
    for path in unused(settings):
        print(f"sidecar-bridge: {path} has no effect in this version", file=sys.stderr)
    return settings


def _own_log_dir(
    settings: Settings, early_signals: list[int], *, takeover: bool
) -> tuple[FolderLock | None, list[tuple[str, Severity, str]]]:
    """Make the folder and take its lock. A folder that cannot be written has no lock, and an alert instead."""
    from bridge.process.lock import Owned, acquire

    folder = settings.log_dir
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refusal(EXIT_USAGE, f"log_dir: {folder} cannot be created: {error.strerror}") from None
    try:
        return acquire(folder), []
    except Owned as owned:
        if not takeover:
            raise Refusal(EXIT_OWNED, _owned_by(folder, owned.pid)) from None
        return _take_over(settings, early_signals), []
    except OSError as error:
        message = f"The log folder {folder} cannot be written: {error.strerror}. Logs are kept in memory."
        return None, [("log_write_failed", "warning", message)]


def _take_over(settings: Settings, early_signals: list[int]) -> FolderLock:
    """Ask the owner to end and wait for the lock. Of several bridges that wait, the newest gets it."""
    from bridge.process.lock import Claim, Owned, acquire
    from bridge.process.own import ENDING_SIGNALS

    folder = settings.log_dir
    bound_s = TAKEOVER_S + sum(sidecar.shutdown_timeout for sidecar in settings.sidecars.values())
    deadline = time.monotonic() + bound_s
    try:
        claim: Claim | None = Claim(folder)
    except OSError:
        claim = None  # There is an owner all the same, who can be asked and waited for.
    seen: int | None = None
    asked: int | None = None
    try:
        while True:
            try:
                return acquire(folder)
            except Owned as owned:
                pid = owned.pid
            if any(number in ENDING_SIGNALS for number in early_signals):
                raise Refusal(0, "")
            if claim is not None and not claim.stands():
                raise Refusal(EXIT_OWNED, f"a newer bridge takes over the log folder {folder}")
            if time.monotonic() > deadline:
                raise Refusal(EXIT_OWNED, f"{_owned_by(folder, pid)} and did not end within {bound_s:g} s")
            # A pid that is read twice was written by the owner: a new owner replaces its dead predecessor's at once.
            if pid is not None and pid == seen and pid != asked:
                asked = pid
                _ask_to_end(pid)
            seen = pid
            time.sleep(TAKEOVER_POLL_S)
    finally:
        if claim is not None:
            claim.withdraw()


def _owned_by(folder: str, pid: int | None) -> str:
    who = f"pid {pid}" if pid is not None else "whose pid is not known"
    return f"another bridge ({who}) owns the log folder {folder}"


def _ask_to_end(pid: int) -> None:
    from contextlib import suppress

    from bridge.process.own import TAKEOVER_SIGNAL

    # Whoever holds the lock wrote this pid, so it is a bridge, and a bridge knows this signal.
    with suppress(OSError):
        os.kill(pid, TAKEOVER_SIGNAL)


def _catch_early_signals() -> list[int]:
    """Keep a signal that comes before the event loop obeys signals from ending the bridge in its own way."""
    import signal

    from bridge.process.own import ENDING_SIGNALS, OTHER_SIGNALS

    caught: list[int] = []
    for number in (*ENDING_SIGNALS, *OTHER_SIGNALS):
        signal.signal(number, lambda number, frame: caught.append(number))
    return caught


def _say_ready(settings: Settings, epoch: str, out_fd: int) -> bytes:
    """Write the first line as far as it goes without waiting; returns what is left of it."""
    from bridge import __version__
    from bridge.contract import PROTOCOL_VERSION
    from bridge.model import BridgeReady
    from bridge.process.base import platform_name
    from bridge.rpc.messages import encode_ready
    from bridge.supervision.clock import rfc3339

    line = encode_ready(
        BridgeReady(
            protocol_version=PROTOCOL_VERSION,
            bridge_version=__version__,
            pid=os.getpid(),
            platform=platform_name(),
            sidecars=list(settings.sidecars),
            log_dir=settings.log_dir,
            started_at=rfc3339(time.time()),
        ),
        epoch=epoch,
        seq=1,
    )
    try:
        return line[_write_now(out_fd, line) :]
    except OSError:
        return line


def _write_now(fd: int, line: bytes) -> int:
    """Bytes written without waiting. A shell that is gone takes none, and the server finds that out by itself."""
    import stat

    if sys.platform == "win32":
        return os.write(fd, line)  # A pipe that nobody has written to takes a line at once.
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return os.write(fd, line)
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        return os.write(fd, line)
    except OSError:
        return 0
    finally:
        os.set_blocking(fd, blocking)


def _configure_logging(form: str, level: str) -> None:
    from bridge.diagnostics import configure

    configure(form, level)
