"""`sidecar-bridge call`: start a bridge, make one call, print its result as JSON, end the bridge."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import Any

import msgspec

from bridge.client import CLOSE_TIMEOUT_S, BridgeEnded, CallError, Client, NotInTime, bridge_command

_EPILOG = """\
examples:
  sidecar-bridge call list_sidecars --config sidecars.toml
  sidecar-bridge call start_sidecar '{"sidecar": "web"}' --config sidecars.toml
  sidecar-bridge call get_sidecar_logs '["stderr", 20]' --config sidecars.toml
  sidecar-bridge call ping --attach ssh host sidecar-bridge serve --config sidecars.toml

The bridge that is started is a bridge like any other: it starts the sidecars with autostart and stops them at its end.

The result is printed at once; the command ends when the bridge has ended.

exit codes: 0 the result was printed, and the bridge ended; 1 the call or that end failed, the reason stands on fd 2;
2 wrong arguments or configuration; 3 another bridge owns the log folder
"""
TIMEOUT_MAX_S = 31_536_000.0
"""A year: longer is a slip, and what waits for an answer cannot count without end."""
CLOSE_SLACK_S = 30.0
"""Beside the sidecars' `shutdown_timeout`s. More than the bridge grants itself, so that it is never killed in order."""
_PASSED_ON = (2, 3)
"""Exit codes of `serve` that say what was wrong with what this command was given."""


def main(argv: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.attach is not None and (options.config is not None or options.set or options.log_dir is not None):
        parser.error(
            "--config, --set and --log-dir are for the bridge that this command starts; --attach names another"
        )
    if options.attach is None and not options.config:
        parser.error("one of --config FILE and --attach COMMAND is needed")
    if options.attach is not None and not options.attach:
        parser.error("--attach: expected a command")
    params = _params(parser, options.params)
    command = options.attach or _serve(options)
    bound_s = close_timeout_s(options.config, options.set) if options.attach is None else CLOSE_TIMEOUT_S
    try:
        with Client(command, close_timeout_s=bound_s) as client:
            return _ask(client, options, params) or _end(client)
    except OSError as error:
        return _fail(f"{command[0]}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130


def close_timeout_s(config: str, overrides: list[str]) -> float:
    """Seconds in which a bridge with this configuration ends, however slowly its sidecars do."""
    from bridge.errors import ConfigInvalid
    from bridge.settings import load

    try:
        settings = load(config, overrides=overrides, environ=os.environ)
    except ConfigInvalid:  # the bridge says it, and does not serve
        return CLOSE_TIMEOUT_S
    return CLOSE_SLACK_S + sum(sidecar.shutdown_timeout for sidecar in settings.sidecars.values())


def _ask(client: Client, options: argparse.Namespace, params: Any) -> int:
    """Make the call and say what came of it; the exit code so far."""
    program = client.command[0]
    try:
        result = client.call(options.method, params, timeout_s=options.timeout)
    except CallError as error:
        kind = f"{error.kind}, {error.code}" if error.kind else str(error.code)
        return _fail(f"{options.method}: {error.message} ({kind})", error.detail)
    except BridgeEnded as error:
        _fail(f"no answer from `{program}`: {error}")
        return error.exit_code if error.exit_code in _PASSED_ON and options.attach is None else 1
    except NotInTime as error:
        return _fail(f"{options.method}: no answer: {error}")
    return _show(result)


def _end(client: Client) -> int:
    """Wait for the end of a bridge that answered."""
    try:
        code = client.close()
    except NotInTime as error:
        return _fail(f"the bridge answered, but {error}, and is killed")
    return _fail(f"the bridge answered, but ended with exit code {code}") if code else 0


def _show(result: Any) -> int:
    """Print the result before anything else can go wrong."""
    if sys.stdout is None:
        return _fail("the result cannot be printed: fd 1 is closed")
    left = memoryview(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    try:
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]
    except OSError as error:
        return _fail(f"the result cannot be printed: {error.strerror}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar-bridge call",
        description="Start a bridge, make one call, print its result as JSON, end the bridge.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("method", metavar="METHOD", help="a method of the protocol, like get_sidecar_status")
    parser.add_argument(
        "params",
        metavar="JSON",
        nargs="?",
        help='its params, an object by name or an array by position; "-" reads them from fd 0',
    )
    parser.add_argument("--config", metavar="FILE", help="configuration of the bridge that is started, TOML or JSON")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="set one field of it (repeatable)"
    )
    parser.add_argument("--log-dir", metavar="DIR", help="where its sidecars' logs go")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="wait at most so long for the answer (60)"
    )
    parser.add_argument(
        "--attach",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="run this command, which speaks the protocol on its standard streams, instead of starting a bridge; "
        "comes last, everything behind it belongs to the command",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, at most {TIMEOUT_MAX_S:.0f}: {text!r}")
    return seconds


def _params(parser: argparse.ArgumentParser, text: str | None) -> Any:
    if text is None:
        return None
    raw = _fd_0(parser) if text == "-" else text.encode("utf-8", "surrogateescape")
    try:
        params = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        parser.error(f"JSON: {error}")
    if not isinstance(params, dict | list):
        parser.error("JSON: expected an object or an array")
    return params


def _fd_0(parser: argparse.ArgumentParser) -> bytes:
    if sys.stdin is None:
        parser.error('JSON: "-" reads fd 0, which is closed')
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        parser.error(f"JSON: fd 0 cannot be read: {error.strerror}")


def _serve(options: argparse.Namespace) -> list[str]:
    command = [*bridge_command(), "serve", "--config", options.config, "--log-level", "error"]
    for each in options.set:
        command += ["--set", each]
    return command + ([] if options.log_dir is None else ["--log-dir", options.log_dir])


def _fail(message: str, detail: Any = None) -> int:
    print(message, file=sys.stderr)
    if detail is not None:
        print(msgspec.json.format(msgspec.json.encode(detail), indent=2).decode(), file=sys.stderr)
    return 1
