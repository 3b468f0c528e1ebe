"""Both ends of a crash: `leftovers_script.py start FOLDER EPOCH WAY TOKEN PROGRAM...` and `... sweep FOLDER [PID]`.

`start` is a bridge without a guardian that starts the programs, says so, and waits to be killed. `sweep` waits until
the process PID is gone, does what the next bridge does, and prints `[sidecar, fate, [pid...]]` for each finding and
the epochs that are remembered.
"""

# ruff: noqa: E402
from __future__ import annotations

import json
import os
import sys

import anyio

assert sys.platform == "linux"  # Above the imports below, which other systems do not have: hence E402.

from bridge.process.base import SpawnSpec
from bridge.process.leftovers import sweep
from bridge.process.linux import LinuxSystem
from bridge.process.parent import wait_gone
from bridge.process.trees import RecordedSystem, TreeFile
from tests.process import programs
from tests.process.conftest import read_line

PROGRAMS = {
    "STARTS_ITS_APP_ANEW": f"""
import os, resource, sys, time
bridge, folder = os.getppid(), os.getcwd()
print("ready", flush=True)
if os.fork() == 0:
    os.setsid()
    resource.setrlimit(10, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.dup2(os.open("told", os.O_WRONLY | os.O_CREAT), 1)
    os.chdir({os.getcwd()!r})
    command = [{sys.executable!r}, "-m", "tests.process.leftovers_script", "sweep", folder, str(bridge)]
    os.execve(command[0], command, {{}})
os.wait()
os.rename("told", "told to the end")
time.sleep(1000)
""",
    "FORKS_ON_WITH_A_LOCK": """
import fcntl, os
lock = os.open("lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
"""
    + programs.FORK_CHAIN,
}
"""A sidecar in whose folder stands what the next bridge found, which it starts itself and without marks; and a chain of
processes too brief to be listed, which hold a lock as long as one of them lives."""


async def start(folder: str, epoch: str, way: str, token: str, names: list[str]) -> None:
    trees = TreeFile(folder, epoch)
    trees.begin()
    system = RecordedSystem(LinuxSystem(epoch, guardian=False, kernel_marks=way == "marks"), trees)
    await system.start()
    for name in names:
        argv = programs.program(PROGRAMS.get(name) or getattr(programs, name), token)
        spec = SpawnSpec(argv, folder, {**os.environ, "SIDECAR_NAME": name.lower()}, shutdown_timeout_s=0.2)
        assert await read_line(system.spawn(spec).stdout) == b"ready\n"
    print("ready", flush=True)
    await anyio.sleep_forever()


def sweep_folder(folder: str, gone: list[str]) -> None:
    for pid in gone:
        anyio.run(wait_gone, int(pid))
    found, kept = sweep(TreeFile(folder, "0" * 16).read_past())
    findings = [[each.sidecar, each.fate, list(each.pids)] for each in found]
    print(json.dumps([findings, [each.epoch for each in kept]]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "start":
        folder, epoch, way, token, *names = sys.argv[2:]
        anyio.run(start, folder, epoch, way, token, names)
    else:
        sweep_folder(sys.argv[2], sys.argv[3:])
