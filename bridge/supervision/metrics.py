"""What each sidecar's whole tree costs: processor, memory, processes, threads, open files.

One look at all trees every `metrics_interval` becomes one sample per running sidecar, kept in a bounded history.
Reading a process is `procread`'s business.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import anyio

from bridge.model import MetricsSample

from .clock import rfc3339

SAMPLES_KEPT = 900
"""Half an hour at the default interval, 75 KiB a sidecar when full."""
_PACKED = struct.Struct("<ddqqqq")
_UNKNOWN = -1


class Usage(NamedTuple):
    """What one process costs. `cpu_s` is its processor time so far in seconds, `rss` is in bytes."""

    started: float
    cpu_s: float
    rss: int
    threads: int
    open_files: int | None


class Reader(Protocol):
    """Reads processes of one system."""

    def __call__(self, pid: int, /) -> Usage | None:
        """What a process costs now; None when it is gone or hidden."""


class Tree:
    """The history of one sidecar's tree. Start times tell a reused pid from the process that had it before."""

    def __init__(self) -> None:
        self._samples: deque[bytes] = deque(maxlen=SAMPLES_KEPT)
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._at: float | None = None

    def reset(self) -> None:
        """The tree is gone; a new one starts to count anew."""
        self._cpu_s = {}
        self._at = None

    @property
    def taken_at(self) -> float | None:
        """When the last sample of the tree that lives now was taken, monotonic seconds."""
        return self._at

    def add(self, pids: Sequence[int], read: Reader, wall: float, now: float) -> MetricsSample | None:
        """Take a sample of these processes at the monotonic time `now`; None when none of them is left."""
        usages = {(pid, usage.started): usage for pid in pids if (usage := read(pid)) is not None}
        if not usages:
            return None
        spent_s = sum(usage.cpu_s - self._cpu_s.get(key, 0.0) for key, usage in usages.items())
        elapsed_s = now - self._at if self._at is not None else 0.0
        files = [usage.open_files for usage in usages.values()]
        sample = MetricsSample(
            at=rfc3339(wall),
            cpu_percent=round(100.0 * max(spent_s, 0.0) / elapsed_s, 2) if elapsed_s > 0 else 0.0,
            rss=sum(usage.rss for usage in usages.values()),
            processes=len(usages),
            threads=sum(usage.threads for usage in usages.values()),
            open_files=None if None in files else sum(count for count in files if count is not None),
        )
        self._cpu_s = {key: usage.cpu_s for key, usage in usages.items()}
        self._at = now
        known_files = sample.open_files if sample.open_files is not None else _UNKNOWN
        self._samples.append(
            _PACKED.pack(wall, sample.cpu_percent, sample.rss, sample.processes, sample.threads, known_files)
        )
        return sample

    def samples(self) -> list[MetricsSample]:
        """The history, oldest first."""
        found = []
        for packed in self._samples:
            wall, cpu_percent, rss, processes, threads, files = _PACKED.unpack(packed)
            open_files = files if files != _UNKNOWN else None
            found.append(MetricsSample(rfc3339(wall), cpu_percent, rss, processes, threads, open_files))
        return found


class Metrics:
    """Samples every running tree on a beat."""

    def __init__(
        self,
        interval_s: float,
        *,
        census: Callable[[], Mapping[str, Sequence[int]]],
        read: Reader,
        wall: Callable[[], float],
        deliver: Callable[[str, MetricsSample], None],
    ) -> None:
        """`census` gives the live pids of each running sidecar's tree; `deliver` gets every sample."""
        self._interval_s = interval_s
        self._census = census
        self._read = read
        self._wall = wall
        self._deliver = deliver
        self._trees: dict[str, Tree] = {}

    async def run(self) -> None:
        """Sample until cancelled; returns at once where the interval is 0."""
        while self._interval_s > 0:
            await anyio.sleep(self._interval_s)
            self.sample()

    def sample(self) -> None:
        """One look at everything."""
        alive = self._census()
        for name, tree in self._trees.items():
            if not alive.get(name):
                tree.reset()
        for name, pids in alive.items():
            tree = self._trees.setdefault(name, Tree())
            sample = tree.add(pids, self._read, self._wall(), anyio.current_time())
            if sample is not None:
                self._deliver(name, sample)

    def look_at(self, sidecar: str, since: float) -> None:
        """See that there is a sample of a sidecar's tree that is younger than the monotonic time `since`.

        For who asks before the first beat of a new process, or where there is no beat; it is not delivered.
        """
        tree = self._trees.setdefault(sidecar, Tree())
        if tree.taken_at is None or tree.taken_at < since or self._interval_s == 0:
            tree.add(self._census().get(sidecar, ()), self._read, self._wall(), anyio.current_time())

    def samples(self, sidecar: str) -> list[MetricsSample]:
        """The history of a sidecar, oldest first."""
        tree = self._trees.get(sidecar)
        return tree.samples() if tree is not None else []
