"""Deleting files away from the capture thread, for which an unlink of a large file takes too long."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable

_Job = tuple[list[str], Callable[[], None] | None]


class Janitor:
    """Deletes files in a thread of its own, which begins with the first of them."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def remove(self, paths: list[str], done: Callable[[], None] | None = None) -> None:
        """Delete files, then call `done`. Only the capture thread calls this, and `close` after its end."""
        self._jobs.put((paths, done))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-janitor", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Wait until everything is deleted."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            paths, done = job
            for path in paths:
                # What cannot be deleted stays; the next start counts it again, and retention tries it again then.
                with contextlib.suppress(OSError):
                    os.unlink(path)
            if done is not None:
                done()
