"""Pipes -> stores: the one thread that reads what all sidecars write.

It takes whole chunks and does no work per line, so it keeps up with the pipe, and the event loop stays free. Each pass
reads each pipe once, so a flood of one takes only its share. Everything that changes a store runs here, as a job.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from .keeper import Keeper
from .source import Pattern, Source

if TYPE_CHECKING:

    class Pipes(Protocol):
        """Read ends of pipes, each with an owner that `wait` returns. Only `wake` may be called from other threads."""

        def add(self, fd: int, owner: Any) -> None:
            """Take a read end."""

        def remove(self, fd: int) -> None:
            """Close a read end."""

        def wait(self, timeout_s: float | None) -> list[Any]:
            """Owners of pipes with something to read (their end counts), after at most `timeout_s` or a `wake`."""

        def pause(self, timeout_s: float) -> None:
            """Let writers go on for a moment; a `wake` may end it early."""

        def wake(self) -> None:
            """End a `wait`."""

        def read(self, fd: int, buf: bytearray) -> int | None:
            """Fill the buffer's beginning; 0 at the end of the stream, None when there is nothing to read now."""

        def pending(self, fd: int) -> int:
            """Bytes that can be read now."""

        def close(self) -> None: ...


READ_BYTES: Final = 256 * 1024
"""Read from a pipe in one pass: enough for the speed of `cat`, little enough for the others' turn within 0.2 ms."""
SMALL_BYTES: Final = 32 * 1024
"""A pass that read less pauses, so that a writer of single lines is read in batches."""
PAUSE_S: Final = 0.005
"""Costs a quarter of the processor that reading each line costs; the pipe is not full within it."""
RETRY_S: Final = 5.0
"""How often files are tried after a fault."""
FORGET_S: Final = 1.0
"""How long what is in the pipes of a sidecar is read when its log is no longer kept."""
_POLL_S: Final = 0.001
"""Between two looks for bytes that are promised but not yet there; only where a thread per pipe reads."""

logger = logging.getLogger("bridge.logs")


class Capture:
    """The capture thread. Methods not marked otherwise are for jobs, which run in it."""

    def __init__(self, pipes: Pipes, changed: Callable[[Keeper], None]) -> None:
        """`changed` is called in the thread when a sidecar's fault begins or ends."""
        self.bytes_captured = 0
        self.lines_captured = 0
        self.lines_dropped = 0
        """Lines that were read and could not be kept: memory was full while files failed, or a defect came up."""
        self._pipes = pipes
        self._changed = changed
        self._jobs: deque[Callable[[], None]] = deque()
        self._buf = bytearray(READ_BYTES)
        self._keepers: set[Keeper] = set()
        self._holding: set[Keeper] = set()
        self._faulty: dict[Keeper, str] = {}
        self._retry_at = 0.0
        self._stopping = False
        self._submitting = threading.Lock()
        self._ended = False
        """Set once no job is run in the thread any more."""
        self._thread = threading.Thread(target=self._run, name="log-capture", daemon=True)
        self._thread.start()

    # --- from any thread ---------------------------------------------------------------------------------------------

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job in the capture thread, soon; here, when that has ended. Jobs run in order and must not raise."""
        with self._submitting:
            if not self._ended:
                self._jobs.append(job)
                self._pipes.wake()
                return
        job()

    def stop(self) -> None:
        """Close every pipe and store once all jobs before are done; `join` waits for it."""
        self.submit(self._stop)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; False after the timeout."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def keep(self, keeper: Keeper) -> None:
        """Open a sidecar's files, or begin in memory."""
        self._keepers.add(keeper)
        keeper.open()
        self._note(keeper)

    def forget(self, keeper: Keeper) -> None:
        """Close a sidecar's pipes and files."""
        sources = [source for inlet in keeper.inlets for source in inlet.sources]
        self.drain(sources, time.monotonic() + FORGET_S)
        for source in sources:
            self.close(source)
        keeper.close()
        self._keepers.discard(keeper)
        self._holding.discard(keeper)
        self._faulty.pop(keeper, None)

    def add(self, source: Source) -> None:
        """Read a pipe."""
        if self._stopping:
            source.open = False
            os.close(source.fd)
            return
        keeper, stream = source.place
        if not any(inlet.sources for inlet in keeper.inlets):
            keeper.recover_from_defect()
            self._note(keeper)
        keeper.inlets[stream].add(source)
        if len(keeper.inlets[stream].sources) > 1:
            self._holding.add(keeper)
        self._pipes.add(source.fd, source)

    def watch(self, source: Source, pattern: Pattern) -> None:
        """Look for a pattern in a pipe's lines."""
        source.watch(pattern)

    def drain(self, sources: list[Source], deadline_s: float) -> bool:
        """Read what is in the pipes now, and no more than that; False when the deadline came first."""
        for source in sources:
            target = source.received + (self._pipes.pending(source.fd) if source.open else 0)
            while source.open and source.received < target:
                if time.monotonic() > deadline_s:
                    return False
                if not self._read_contained(source):
                    if not source.open or not self._pipes.pending(source.fd):
                        break
                    time.sleep(_POLL_S)
        return True

    def close(self, source: Source) -> None:
        """Stop reading a pipe and end its last line."""
        if source.open:
            source.open = False
            self._pipes.remove(source.fd)
            keeper, stream = source.place
            before = keeper.lines
            try:
                keeper.inlets[stream].remove(source, time.monotonic())
            except Exception:  # noqa: BLE001 - told by `fail`
                keeper.inlets[stream].drop(source)
                keeper.fail(stream)
            self._settle(keeper, before)

    def _stop(self) -> None:
        for keeper in list(self._keepers):
            self.forget(keeper)
        self._stopping = True

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pipes = self._pipes
        try:
            while not self._stopping:
                size = 0
                for source in pipes.wait(self._timeout()):
                    if source.open:
                        size += self._read_contained(source)
                self._run_jobs()
                if self._holding:
                    self._tick_held()
                if self._faulty and time.monotonic() >= self._retry_at:
                    self._retry()
                if 0 < size < SMALL_BYTES and not self._stopping:
                    pipes.pause(PAUSE_S)
        finally:
            with self._submitting:
                self._ended = True
            self._run_jobs()
            pipes.close()

    def _run_jobs(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                job()
            except Exception:  # one sidecar's job must not end the capture of all others
                logger.exception("a job of the capture thread failed")

    def _read_contained(self, source: Source) -> int:
        """As `_read`; a defect that a pipe runs into ends the keeping of that pipe's output and of no other's.

        The pipe is read all the same, for as long as the process writes: it must neither block nor die of SIGPIPE.
        """
        before = source.received
        try:
            return self._read(source)
        except Exception:  # noqa: BLE001 - told by `fail`
            count = source.received - before
            keeper, stream = source.place
            keeper.fail(stream)
            if count:
                source.lost = True
                self.lines_dropped += self._buf.count(b"\n", 0, count)
            else:  # it cannot even be read
                source.open = False
                self._pipes.remove(source.fd)
                keeper.inlets[stream].drop(source)
            self._note(keeper)
            return count

    def _timeout(self) -> float | None:
        """Seconds until something is due; None, and so no wake-up at all, when nothing is."""
        if self._jobs:
            return 0.0
        timeout = max(self._retry_at - time.monotonic(), 0.0) if self._faulty else None
        if self._holding:
            timeout = min(PAUSE_S, timeout) if timeout is not None else PAUSE_S
        return timeout

    def _read(self, source: Source) -> int:
        """One read from one pipe; returns its bytes."""
        buf = self._buf
        count = self._pipes.read(source.fd, buf)
        if count is None:
            return 0
        if count == 0:
            self.close(source)
            return 0
        source.note(buf, count)
        self.bytes_captured += count
        keeper, stream = source.place
        if source.lost:
            self.lines_dropped += buf.count(b"\n", 0, count)
            return count
        before = keeper.lines
        keeper.inlets[stream].take(source, buf, count, time.monotonic())
        self._settle(keeper, before)
        return count

    def _settle(self, keeper: Keeper, lines_before: int) -> None:
        """Tell whoever must know of new lines, and of a fault that came or went."""
        self.lines_dropped += keeper.take_dropped()
        new = keeper.lines - lines_before
        if new:
            self.lines_captured += new
            on_lines = keeper.on_lines  # the loop's thread may take it away
            if on_lines is not None:
                on_lines()
        if keeper.fault is not None or self._faulty:
            self._note(keeper)

    def _note(self, keeper: Keeper) -> None:
        fault = keeper.fault
        if (fault is not None) != (keeper in self._faulty):
            if fault is not None:
                if not self._faulty:
                    self._retry_at = time.monotonic() + RETRY_S
                self._faulty[keeper] = fault
            else:
                del self._faulty[keeper]
            self._changed(keeper)

    def _tick_held(self) -> None:
        now = time.monotonic()
        for keeper in list(self._holding):
            before = keeper.lines
            for stream, inlet in enumerate(keeper.inlets):
                try:
                    inlet.tick(now)
                except Exception:  # noqa: BLE001 - told by `fail`
                    keeper.fail(stream)
            if all(len(inlet.sources) < 2 for inlet in keeper.inlets):
                self._holding.discard(keeper)
            self._settle(keeper, before)

    def _retry(self) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        for keeper in list(self._faulty):
            for stream, store in enumerate(keeper.stores):
                try:
                    store.retry()
                except Exception:  # noqa: BLE001 - told by `fail`
                    keeper.fail(stream)
            self._note(keeper)
