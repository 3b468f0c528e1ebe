"""argv -> a command; for `serve`: private descriptors, settings, lock, `bridge_ready`, then the app.

The order is the point. fd 0 and fd 1 are taken before anything else can use them, and `bridge_ready` is written before
anything heavy is imported, because a window waits for it.
"""

from __future__ import annotations

import sys

EXIT_OK = 0
EXIT_USAGE = 2

COMMANDS = ("check", "schema", "demo", "call")
USAGE = """\
usage: sidecar-bridge COMMAND ...

Starts, watches, restarts and stops a desktop app's helper processes. One process, JSON-RPC 2.0 on stdin and stdout.

commands:
  serve --config FILE   supervise the sidecars of a configuration
  check FILE            say whether a configuration is right, and where not
  schema                print the OpenRPC document of the protocol
  demo                  watch a sidecar being started, killed, hung and stopped, in a minute
  call METHOD [JSON]    make one call and print its result
  --version             print the version

`sidecar-bridge COMMAND --help` says more about each.
"""


def main() -> int:
    """Run the command that the arguments name; returns its exit code."""
    argv = sys.argv[1:]
    command = argv[0] if argv else "--help"
    if command == "serve":
        from bridge.serve import serve

        return serve(argv[1:])
    if command in COMMANDS:
        from importlib import import_module

        return int(import_module(f"bridge.commands.{command}").main(argv[1:]))
    if command in ("--version", "-V"):
        from bridge import __version__

        print(f"sidecar-bridge {__version__}")
        return EXIT_OK
    if command in ("--help", "-h"):
        print(USAGE, end="", file=sys.stdout if argv else sys.stderr)
        return EXIT_OK if argv else EXIT_USAGE
    print(f"sidecar-bridge: unknown command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
