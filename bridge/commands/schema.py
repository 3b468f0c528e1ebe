"""`sidecar-bridge schema`: print the OpenRPC document; write the generated files, or say which are stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bridge import schema

_EPILOG = """\
exit codes: 0 printed, written, or nothing stale; 1 --check found stale files, their names stand on fd 2;
2 wrong arguments
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sidecar-bridge schema",
        description="Print the OpenRPC document of the protocol, the same that rpc.discover answers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare the files in the folder with what they should be")
    action.add_argument("--write", action="store_true", help="write the files")
    parser.add_argument(
        "--folder", metavar="DIR", type=Path, default=Path("schemas"), help="the folder of the files (schemas)"
    )
    options = parser.parse_args(argv)
    folder: Path = options.folder
    if options.check:
        return _check(folder)
    if options.write:
        schema.write(folder)
        print(f"{folder} is up to date")
        return 0
    print(schema.files()[schema.DOCUMENT], end="")
    return 0


def _check(folder: Path) -> int:
    stale = schema.stale(folder)
    for finding in stale:
        print(folder / finding, file=sys.stderr)
    if stale:
        print(f"`sidecar-bridge schema --write --folder {folder}` writes what is due", file=sys.stderr)
        return 1
    print(f"{folder} is up to date")
    return 0
