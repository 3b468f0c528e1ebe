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
    _import_msgspec()
    try:
        settings = _settings(arguments)
        lock, alerts = _own_log_dir(settings.log_dir, takeover=arguments.takeover)
    except Refusal as refusal:
        print(f"sidecar-bridge: {refusal.message}", file=sys.stderr)
        return refusal.code
    early_signals = _catch_early_signals()
    epoch = os.urandom(8).hex()
    _say_ready(settings, epoch, out_fd)
    _configure_logging(arguments.log_format, arguments.log_level)
    from bridge.app import Options, run

    code = 0
    try:
        run(settings, Options(in_fd, out_fd, epoch, 2, began, arguments.parent_pid, alerts, early_signals))
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
    from bridge.settings import load

    if arguments.parent_pid is not None and arguments.parent_pid <= 0:
        raise Refusal(EXIT_USAGE, f"--parent-pid: expected a process id, got {arguments.parent_pid}")
    try:
        return load(arguments.config, overrides=arguments.overrides, log_dir=arguments.log_dir, environ=os.environ)
    except ConfigInvalid as error:
        raise Refusal(EXIT_USAGE, "\n".join(error.lines())) from None


def _own_log_dir(folder: str, *, takeover: bool) -> tuple[FolderLock | None, list[tuple[str, Severity, str]]]:
    """Make the folder and take its lock. A folder that cannot be written has no lock, and an alert instead."""
    from bridge.process.lock import Owned, acquire

    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Refusal(EXIT_USAGE, f"log_dir: {folder} cannot be created: {error.strerror}") from None
    deadline = time.monotonic() + TAKEOVER_S
    asked: int | None = None
    while True:
        try:
            return acquire(folder), []
        except OSError as error:
            message = f"The log folder {folder} cannot be written: {error.strerror}. Logs are kept in memory."
            return None, [("log_write_failed", "warning", message)]
        except Owned as owned:
            if not takeover or time.monotonic() > deadline:
                raise Refusal(EXIT_OWNED, _owned_by(folder, owned.pid, gave_up=takeover)) from None
            if owned.pid is not None and owned.pid != asked:
                asked = owned.pid
                _ask_to_end(owned.pid)
            time.sleep(TAKEOVER_POLL_S)


def _owned_by(folder: str, pid: int | None, *, gave_up: bool) -> str:
    who = f"pid {pid}" if pid is not None else "whose pid is not known"
    late = f" and did not end within {TAKEOVER_S:g} s" if gave_up else ""
    return f"another bridge ({who}) owns the log folder {folder}{late}"


def _ask_to_end(pid: int) -> None:
    import signal
    from contextlib import suppress

    # Whoever holds the lock wrote this pid, so it is a bridge, and a bridge knows this signal.
    with suppress(OSError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)
        else:
            os.kill(pid, signal.SIGUSR1)


def _catch_early_signals() -> list[int]:
    """Keep a signal that comes before the event loop obeys signals from ending the bridge in its own way."""
    import signal

    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: caught.append(number))
    return caught


def _say_ready(settings: Settings, epoch: str, out_fd: int) -> None:
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
        while line:
            line = line[os.write(out_fd, line) :]
    except OSError:
        # Nobody reads: the server finds that out as well, and ends as for every shell that is gone.
        return


def _configure_logging(form: str, level: str) -> None:
    from bridge.diagnostics import configure

    configure(form, level)
