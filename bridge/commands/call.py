"""`sidecar-bridge call`: start a bridge, make one call, print its result as JSON, end the bridge."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from bridge.client import BridgeEnded, CallError, Client, NotInTime, bridge_command

_EPILOG = """\
examples:
  sidecar-bridge call list_sidecars --config sidecars.toml
  sidecar-bridge call start_sidecar '{"sidecar": "web"}' --config sidecars.toml
  sidecar-bridge call get_sidecar_logs '["stderr", 20]' --config sidecars.toml
  sidecar-bridge call ping --attach ssh host sidecar-bridge serve --config sidecars.toml

The bridge that is started is a bridge like any other: it starts the sidecars with autostart and stops them at its end.

exit codes: 0 the result was printed; 1 the call failed, the reason stands on fd 2; 2 wrong arguments or configuration;
3 another bridge owns the log folder
"""
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
    try:
        with Client(command) as client:
            result = client.call(options.method, params, timeout_s=options.timeout)
            ended = None if options.method == "shutdown" else client.close()
    except CallError as error:
        kind = f"{error.kind}, {error.code}" if error.kind else str(error.code)
        return _fail(f"{options.method}: {error.message} ({kind})", error.detail)
    except OSError as error:
        return _fail(f"{command[0]}: {error.strerror or error}")
    except BridgeEnded as error:
        _fail(f"no answer from `{command[0]}`: {error}")
        return error.exit_code if error.exit_code in _PASSED_ON and options.attach is None else 1
    except NotInTime as error:
        return _fail(f"{options.method}: no answer, or no end of the bridge: {error}")
    except KeyboardInterrupt:
        return 130
    print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    if ended:
        return _fail(f"the bridge answered, but ended with exit code {ended}")
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
        "--timeout", metavar="SECONDS", type=float, default=60.0, help="wait at most so long for the answer (60)"
    )
    parser.add_argument(
        "--attach",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="run this command, which speaks the protocol on its standard streams, instead of starting a bridge; "
        "comes last, everything behind it belongs to the command",
    )
    return parser


def _params(parser: argparse.ArgumentParser, text: str | None) -> Any:
    if text is None:
        return None
    raw = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    try:
        params = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        parser.error(f"JSON: {error}")
    if not isinstance(params, dict | list):
        parser.error("JSON: expected an object or an array")
    return params


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
