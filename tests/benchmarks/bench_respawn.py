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
from pathlib import Path

from .kit import BareBridge, show

ROUNDS = 12
LIFE_S = 1.3


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


def measure(announcements: Announcements) -> list[float]:
    """Kill and wait, again and again."""
    took = []
    pid = announcements.next_pid()
    for _ in range(ROUNDS):
        time.sleep(LIFE_S)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        pid = announcements.next_pid()
        took.append(time.perf_counter() - began)
    return took


def under_bridge(folder: Path) -> list[float]:
    announcements = Announcements(folder)
    sidecar = {
        "command": [str(announcements.script)],
        "backoff_initial": 0,
        "max_restarts": 1000,
        "flapping_restarts": 1000,
        "health": {"none": True, "ready_after": 0},
    }
    with BareBridge({"sidecars": {"sleeper": sidecar}}, folder):
        took = measure(announcements)
    announcements.close()
    return took


def under_runsv(folder: Path) -> list[float]:
    announcements = Announcements(folder)
    process = subprocess.Popen(["runsv", str(folder)])
    took = measure(announcements)
    process.terminate()
    process.wait()
    announcements.close()
    return took


def under_supervisord(folder: Path, program: str) -> list[float]:
    announcements = Announcements(folder)
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\n"
        f"[program:sleeper]\ncommand={announcements.script}\nautorestart=true\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL)
    took = measure(announcements)
    process.terminate()
    process.wait()
    announcements.close()
    return took


def main() -> None:
    """Print the figures against the peers that are installed."""
    with tempfile.TemporaryDirectory() as top:
        own = Path(top, "bridge")
        own.mkdir()
        mine = under_bridge(own)
        if shutil.which("runsv"):
            peer = Path(top, "runsv")
            peer.mkdir()
            show("respawn after SIGKILL", mine, under_runsv(peer), "runsv")
        else:
            print("respawn: runsv is not installed")
        supervisord = Path(sys.executable).with_name("supervisord")
        if supervisord.exists():
            peer = Path(top, "supervisord")
            peer.mkdir()
            show("respawn after SIGKILL", mine, under_supervisord(peer, str(supervisord)), "supervisord")
        else:
            print("respawn: supervisord is not installed")


if __name__ == "__main__":
    main()
