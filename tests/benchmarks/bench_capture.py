"""Capture of a flood against `cat > file`, in the same run on the same work.

Prints MB/s and processor seconds per GB of both, and their ratios; then the same for a writer of single lines;
then how long the last 200 lines of a 100 MB log take inside the bridge (goal: 0.2 ms).

    python tests/benchmarks/bench_capture.py [--megabytes 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from bridge.logs import LogLimits, Logs
from bridge.logs.page import Page
from bridge.logs.query import PAGE_BYTES
from bridge.model import GetLogsParams

LINE = b"2026-01-31 12:00:00,123 - worker.pool - INFO - request 1234567 served from the cache in 12 ms, 200 OK__\n"

FLOOD = """
import os, sys
block = {line!r} * 10000
left = int(sys.argv[1])
while left > 0:
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]
    left -= len(block)
"""

SINGLE = """
import os, sys
line = {line!r}
for _ in range(int(sys.argv[1]) // len(line)):
    os.write(1, line)
"""


def processor_s() -> float:
    """Processor seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def bridge_once(code: str, size: int, folder: str) -> tuple[float, float]:
    """Wall and processor seconds of capturing a writer."""
    logs = Logs(folder, nested=False)
    log = logs.open("bench")
    await log.page(GetLogsParams(lines=1))
    child = subprocess.Popen([sys.executable, "-S", "-c", code, str(size)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    fd = os.dup(child.stdout.fileno())
    child.stdout.close()
    wall, spent = time.perf_counter(), processor_s()
    attachment = log.attach(fd)
    while child.poll() is None:
        await anyio.sleep(0.005)
    await attachment.close(30)
    result = time.perf_counter() - wall, processor_s() - spent
    assert logs.bytes_captured >= size * 0.99, logs.bytes_captured
    await logs.aclose()
    return result


def cat_once(code: str, size: int, folder: str) -> tuple[float, float]:
    """Wall and processor seconds of `cat > file` behind the same writer."""
    with Path(folder, "cat.log").open("wb") as out:
        child = subprocess.Popen([sys.executable, "-S", "-c", code, str(size)], stdout=subprocess.PIPE)
        wall = time.perf_counter()
        cat = subprocess.Popen(["cat"], stdin=child.stdout, stdout=out)
        assert child.stdout is not None
        child.stdout.close()
        _, _, usage = os.wait4(cat.pid, 0)
        cat.returncode = 0
        child.wait()
    return time.perf_counter() - wall, usage.ru_utime + usage.ru_stime


def compare(name: str, code: str, size: int, rounds: int) -> None:
    """Print the medians of both on one writer."""
    ours, cats = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cats.append(cat_once(code, size, folder))
        with tempfile.TemporaryDirectory() as folder:
            ours.append(anyio.run(functools.partial(bridge_once, code, size, folder)))
    our_wall, our_spent = (statistics.median(values) for values in zip(*ours, strict=True))
    cat_wall, cat_spent = (statistics.median(values) for values in zip(*cats, strict=True))
    megabytes, gigabytes = size / 1e6, size / 1e9
    print(
        f"{name:>12}: bridge {megabytes / our_wall:7.0f} MB/s {our_spent / gigabytes:6.2f} CPU s/GB"
        f" | cat {megabytes / cat_wall:7.0f} MB/s {cat_spent / gigabytes:6.2f} CPU s/GB"
        f" | speed {cat_wall / our_wall:4.2f}x, processor {our_spent / cat_spent:4.2f}x"
    )


async def last_page(folder: str) -> tuple[float, float]:
    """Median and least milliseconds of reading the last 200 lines of 100 MB."""
    Path(folder, "sidecar-stdout.log").write_bytes(LINE * (100_000_000 // len(LINE)))
    logs = Logs(folder, nested=False)
    log = logs.open("bench", LogLimits(max_bytes=200_000_000))
    await log.page(GetLogsParams(lines=1))
    spent = []
    for _ in range(500):
        begin = time.perf_counter()
        page = Page(log.keeper, GetLogsParams(lines=200), PAGE_BYTES).read()
        spent.append((time.perf_counter() - begin) * 1000)
        assert len(page.entries) == 200
    await logs.aclose()
    return statistics.median(spent), min(spent)


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = options.megabytes * 1_000_000
    compare("flood", FLOOD.format(line=LINE), size, options.rounds)
    compare("single lines", SINGLE.format(line=LINE), size // 10, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        median, least = anyio.run(last_page, folder)
    print(f"{'last page':>12}: median {median:.3f} ms, least {least:.3f} ms")


if __name__ == "__main__":
    main()
