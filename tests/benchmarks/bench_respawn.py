"""Respawn: from SIGKILL of a sidecar to the first act of its successor, against runsv and supervisord.

The same shell script under each: it writes its pid into a named pipe and becomes `sleep`. Each process lives for more
than a second before it is killed, because runsv and supervisord hold back what dies sooner.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from .kit import BareBridge, show

ROUNDS = 20
LIFE_S = 1.3
SUPERVISORD = Path(sys.executable).with_name("supervisord")


class Announcements:
    """A named pipe into which every new process writes its pid."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "run"
        pipe = folder / "announce"
        os.mkfifo(pipe)
        self.script.write_text(f"#!/bin/sh\necho $$ > {pipe}\nexec sleep 100000\n")
        self.script.chmod(0o755)
        self._fd = os.open(pipe, os.O_RDWR)

    def next_pid(self) -> int:
        """Wait for the next process."""
        text = b""
        while not text.endswith(b"\n"):
            text += os.read(self._fd, 1)
        return int(text)

    def close(self) -> None:
        os.close(self._fd)


class Peer:
    """A supervisor with one sleeper, which can be killed."""

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.took: list[float] = []
        self._announcements = Announcements(folder)
        stack.callback(self._announcements.close)
        self.script = str(self._announcements.script)
        self._pid = 0

    def wait_first(self) -> None:
        """Wait for the first process."""
        self._pid = self._announcements.next_pid()

    def kill(self) -> None:
        """Kill the process and take the time until the next one acts."""
        began = time.perf_counter()
        os.kill(self._pid, signal.SIGKILL)
        self._pid = self._announcements.next_pid()
        self.took.append(time.perf_counter() - began)


def start_bridge(folder: Path, stack: ExitStack) -> Peer:
    """Our own."""
    peer = Peer("bridge", folder, stack)
    sidecar = {
        "command": [peer.script],
        "backoff_initial": 0,
        "max_restarts": 1000,
        "flapping_restarts": 1000,
        "health": {"none": True, "ready_after": 0},
    }
    stack.enter_context(BareBridge({"sidecars": {"sleeper": sidecar}}, folder))
    return peer


def start_runsv(folder: Path, stack: ExitStack) -> Peer:
    """runit's supervisor of one service."""
    peer = Peer("runsv", folder, stack)
    stack.callback(end, subprocess.Popen(["runsv", str(folder)]))
    return peer


def start_supervisord(folder: Path, stack: ExitStack) -> Peer:
    """supervisord, from the environment that runs this."""
    peer = Peer("supervisord", folder, stack)
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\n"
        f"[program:sleeper]\ncommand={peer.script}\nautorestart=true\n"
    )
    command = [str(SUPERVISORD), "-c", str(config)]
    stack.callback(end, subprocess.Popen(command, stdout=subprocess.DEVNULL))
    return peer


def end(process: subprocess.Popen[bytes]) -> None:
    """End a peer with what it supervises."""
    process.terminate()
    process.wait()


def main() -> None:
    """Print the figures against the peers that are installed; they are killed in turn, so that load hits all alike."""
    starters = {"bridge": start_bridge}
    if shutil.which("runsv"):
        starters["runsv"] = start_runsv
    if SUPERVISORD.exists():
        starters["supervisord"] = start_supervisord
    with tempfile.TemporaryDirectory() as top, ExitStack() as stack:
        peers = []
        for name, start in starters.items():
            folder = Path(top, name)
            folder.mkdir()
            peers.append(start(folder, stack))
        for peer in peers:
            peer.wait_first()
        for _ in range(ROUNDS):
            time.sleep(LIFE_S)
            for peer in peers:
                peer.kill()
    own, *others = peers
    for other in others:
        show("respawn after SIGKILL", own.took, other.took, other.name)
    for name in {"runsv", "supervisord"} - starters.keys():
        print(f"respawn: {name} is not installed")


if __name__ == "__main__":
    main()
