"""Programs that misbehave, as source for `python -c`; each carries the test's token and says `ready` when it is."""

from __future__ import annotations

import sys

QUIET = "print('ready', flush=True); import time; time.sleep(1000)"

IGNORES_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + QUIET

EXITS_AND_LEAVES_CHILD = """
import os, time
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.write(write_end, b"x")
    time.sleep(1000)
os.read(read_end, 1)
print("ready", flush=True)
os._exit(3)
"""
"""The child keeps the parent's pipes open."""

CHILDREN_IN_OWN_SESSIONS = """
import os, signal, sys, time
read_end, write_end = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(write_end, b"x")
        time.sleep(1000)
for _ in range(3):
    os.read(read_end, 1)
print("ready", flush=True)
time.sleep(1000)
"""

DAEMON_WITHOUT_ENVIRONMENT = """
import os, sys, time
read_end, write_end = os.pipe()
os.set_inheritable(write_end, True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        source = "import os, sys, time; os.write(int(sys.argv[2]), b'x'); time.sleep(1000)"
        os.execve(sys.executable, [sys.executable, "-S", "-c", source, sys.argv[1], str(write_end)], {})
    os._exit(0)
os.wait()
os.read(read_end, 1)
print("ready", flush=True)
time.sleep(1000)
"""
"""Forked twice, own session, adopted by whoever adopts, with an empty environment."""

THIRTY_CHILDREN = """
import os, time
read_end, write_end = os.pipe()
for n in range(30):
    if os.fork() == 0:
        if n % 3 == 0:
            os.setsid()
        os.write(write_end, b"x")
        time.sleep(1000)
for _ in range(30):
    os.read(read_end, 1)
print("ready", flush=True)
time.sleep(1000)
"""

STOPPED = """
import os, signal
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""

FORK_CHAIN = """
import os
print("ready", flush=True)
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
"""Never twice the same process: each forks the next in a session of its own and ends."""

FORKS_WITHOUT_END = """
import os, time
print("ready", flush=True)
for _ in range(400):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    os.wait()
time.sleep(1000)
"""
"""Makes orphans as fast as it can, several hundred of them."""

FORGETS_ITS_MARKS = """
import os, resource, sys, time
read_end, write_end = os.pipe()
os.set_inheritable(write_end, True)
if os.fork() == 0:
    os.setsid()
    resource.setrlimit(10, (12345, resource.RLIM_INFINITY))
    if os.fork() == 0:
        source = "import os, sys, time; os.write(int(sys.argv[2]), b'x'); time.sleep(1000)"
        os.execve(sys.executable, [sys.executable, "-S", "-c", source, sys.argv[1], str(write_end)], {})
    os._exit(0)
os.wait()
os.read(read_end, 1)
print("ready", flush=True)
time.sleep(1000)
"""
"""As the daemon, and it set its limit of locks, which is the mark, to something else."""


def program(source: str, token: str) -> tuple[str, ...]:
    """The command line of one of them."""
    return (sys.executable, "-S", "-c", source, token)
