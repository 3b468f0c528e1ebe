"""A bridge of the barest kind, to be killed: `bridge_script.py WAY TOKEN PROGRAM...` starts the programs and waits.

It prints `GUARDIAN_PID` once everything is ready, and a line for each event of the guardian's.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import sys
import uuid

import anyio

assert sys.platform == "linux"  # Above the imports below, which other systems do not have: hence E402.

from bridge.process.base import SpawnSpec
from bridge.process.linux import LinuxSystem
from tests.process import programs
from tests.process.conftest import read_line


async def main(way: str, token: str, names: list[str]) -> None:
    system = LinuxSystem(
        uuid.uuid4().hex,
        kernel_marks=way == "marks",
        on_guardian_lost=lambda: print("lost", flush=True),
        on_guardian_given_up=lambda: print("given up", flush=True),
    )
    await system.start()
    for name in names:
        argv = programs.program(getattr(programs, name), token)
        process = system.spawn(SpawnSpec(argv, "/", dict(os.environ)))
        assert await read_line(process.stdout) == b"ready\n"
    assert system.guardian_pid is not None
    await anyio.sleep(0.05)  # Lines to the guardian wait 20 ms for company, and nothing tells of their arrival.
    print(system.guardian_pid, flush=True)
    os.set_blocking(0, False)
    while True:
        await anyio.wait_readable(0)
        if not (command := os.read(0, 100)):
            break
        if command == b"guardian\n":
            print(system.guardian_pid, flush=True)
    await system.close()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
