"""What an idle bridge costs with 1, 10 and 100 sidecars: processor, memory, and how long starting and stopping take.

Default settings: metrics every 2 s. Memory is that of the bridge and its helper process together.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from .kit import BareBridge, cpu_ns, helpers_of, rss_bytes, timed, until_all_running

WATCH_S = 10.0
SETTLE_S = 1.0
MIB = 1024.0 * 1024.0


def measure(count: int) -> tuple[float, float]:
    """Print one line; returns percent of a core and resident bytes."""
    names = [f"s{number}" for number in range(count)]
    sidecars = {
        name: {"command": ["sleep", "100000"], "health": {"none": True, "ready_after": 0}, "autostart": False}
        for name in names
    }
    with tempfile.TemporaryDirectory() as folder, BareBridge({"sidecars": sidecars}, Path(folder)) as bridge:
        bridge.call("ping")
        began = time.perf_counter()
        for name in names:
            bridge.send("start_sidecar", {"sidecar": name, "wait": False})
        until_all_running(bridge, names)
        started_s = time.perf_counter() - began
        time.sleep(SETTLE_S)
        pids = [bridge.process.pid, *helpers_of(bridge.process.pid)]
        before = sum(map(cpu_ns, pids))
        time.sleep(WATCH_S)
        percent = (sum(map(cpu_ns, pids)) - before) / WATCH_S / 1e7
        memory = [rss_bytes(pid) for pid in pids]
        stopped_s = timed(lambda: bridge.call("shutdown"))
    parts = " + ".join(f"{part / MIB:.1f}" for part in memory)
    print(
        f"{count:4d} sidecars: idle {percent:6.3f} % of a core, memory {parts} MiB,"
        f" started in {started_s * 1000:7.1f} ms, stopped in {stopped_s * 1000:7.1f} ms",
        flush=True,
    )
    return percent, sum(memory)


def main() -> None:
    """Print the figures and what a further sidecar costs."""
    measure(1)
    _, ten = measure(10)
    _, hundred = measure(100)
    print(f"  a further sidecar costs {(hundred - ten) / 90 / 1024:.0f} KiB")
    print("  goals: 10 sidecars under 0.2 %, 40 MiB in all, under 150 KiB per further sidecar")


if __name__ == "__main__":
    main()
