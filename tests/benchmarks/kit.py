"""What the benchmarks share: a bare client of the bridge, medians, and a look at what a process costs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

STOP_WAIT_S = 30.0


class BareBridge:
    """A bridge and nothing but the pipes to it. Blocking; one reader."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({"log_dir": str(folder / "logs"), **config}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "serve", "--config", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
        )
        self.notifications: list[dict[str, Any]] = []
        self._id = 0

    def __enter__(self) -> BareBridge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait(STOP_WAIT_S)
        self.process.stdout.close()

    def read(self) -> dict[str, Any]:
        """The next message."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError("the bridge ended")
        message: dict[str, Any] = json.loads(line)
        return message

    def send(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send a request and return its id."""
        assert self.process.stdin is not None
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params or {}}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return self._id

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Send a request and return its result; notifications on the way are kept."""
        wanted = self.send(method, params)
        while True:
            message = self.read()
            if message.get("id") == wanted:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]
            self.notifications.append(message)

    def until(self, accept: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is accepted."""
        while True:
            message = self.read()
            if accept(message):
                return message


def until_all_running(bridge: BareBridge, names: Sequence[str]) -> None:
    """Return once every sidecar runs."""
    waiting = set(names)
    while waiting:
        params = bridge.until(lambda message: message.get("method") == "sidecar_state_changed")["params"]
        if params["state"] == "running":
            waiting.discard(params["sidecar"])


def cpu_ns(pid: int) -> int:
    """Nanoseconds that all threads of a process have run."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def helpers_of(pid: int) -> list[int]:
    """The bridge's own helper processes: its children that are Python programs of its package."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"guardian" in command:
            found.append(int(child))
    return found


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def show(what: str, own: Sequence[float], peer: Sequence[float], peer_name: str, unit: str = "ms") -> None:
    """Print medians and their ratio."""
    scale = 1000.0 if unit == "ms" else 1.0
    mine, theirs = statistics.median(own), statistics.median(peer)
    print(
        f"{what:<42} {mine * scale:9.2f} {unit}   {peer_name} {theirs * scale:9.2f} {unit}   ratio {mine / theirs:6.3f}"
        f"   (n={len(own)}, min {min(own) * scale:.2f}, max {max(own) * scale:.2f})",
        flush=True,
    )
