"""The log of one sidecar: both streams, what they share, and their common fault."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from .cursor import STREAMS
from .inlet import Inlet
from .recovery import recover
from .store import ASIDE, LogLimits, Numbering, Remover, StreamMoment, StreamStore

_DEFECT: Final = "the log ran into a defect of the bridge, told on the error output"

logger = logging.getLogger("bridge.logs")


class Keeper:
    """Stores and inlets of a sidecar. The capture thread changes it; readers call `moment`."""

    def __init__(
        self,
        sidecar: str,
        directory: str,
        limits: LogLimits,
        *,
        memory_lines: int,
        remover: Remover,
        clock: Callable[[], float],
    ) -> None:
        self.sidecar = sidecar
        self._failed: set[int] = set()
        """Streams whose output is thrown away because of a defect."""
        self._directory = directory
        self._dropped = 0
        self.ready = threading.Event()
        """Set once its files have been opened, or have failed to be."""
        self.on_lines: Callable[[], None] | None = None
        """Called in the capture thread after new lines."""
        self._lock = threading.Lock()
        self._numbering = Numbering()
        out, err = (
            StreamStore(
                directory,
                stream,
                limits,
                memory_lines=memory_lines,
                lock=self._lock,
                numbering=self._numbering,
                remover=remover,
                clock=clock,
            )
            for stream in STREAMS
        )
        self.stores = (out, err)
        self.inlets = (Inlet(out), Inlet(err))

    def open(self) -> None:
        """Go on from what lies in the folder; after a defect of that, in memory. Never raises."""
        try:
            recover(self.stores, self._numbering)
        except Exception:  # what cannot be read must not keep a sidecar from being heard
            logger.exception("the log files of %s cannot be gone on with", self.sidecar)
            self._begin_anew(range(len(STREAMS)))
        self.ready.set()

    def fail(self, stream: int) -> None:
        """Note that a defect ended the keeping of a stream; called within its handler."""
        if stream not in self._failed:
            logger.exception("the %s of %s is read but no longer kept", STREAMS[stream], self.sidecar)
            self._failed.add(stream)

    def recover_from_defect(self) -> None:
        """Keep a failed stream again, in memory first, for a process that begins."""
        self._begin_anew(self._failed)
        self._failed.clear()

    def _begin_anew(self, streams: Iterable[int]) -> None:
        for stream in streams:
            self._numbering.newest = None
            self.stores[stream].begin_anew(
                f"{self._directory}: {_DEFECT}; output is kept in memory until a new file is begun"
            )

    def close(self) -> None:
        for store in self.stores:
            store.close()

    def clear(self) -> tuple[int, int, list[str]]:
        """Forget both streams but for unfinished lines; returns files, their bytes, and what is still to be deleted.

        Raises OSError, and then everything is as it was.
        """
        aside: list[StreamStore] = []
        try:
            for store in self.stores:
                store.set_aside()
                aside.append(store)
        except OSError:
            for store in aside:
                store.put_back()
            raise
        files, size = 0, 0
        paths: list[str] = []
        for store in self.stores:
            store_files, store_bytes, store_paths = store.clear()
            files += store_files
            size += store_bytes
            paths += store_paths
        return files, size, paths

    @property
    def fault(self) -> str | None:
        """Why what one of the streams brings does not reach its files; None while it does."""
        if self._failed:
            return f"{self._directory}: {_DEFECT}; output is thrown away until the sidecar is started again"
        return self.stores[0].fault or self.stores[1].fault

    @property
    def lines(self) -> int:
        """Complete lines of both streams."""
        return self.stores[0].lines + self.stores[1].lines

    def take_dropped(self) -> int:
        """Lines that memory has dropped since this was last asked."""
        dropped = sum(store.dropped_lines for store in self.stores)
        new = dropped - self._dropped
        self._dropped = dropped
        return new

    def moment(self) -> tuple[StreamMoment, StreamMoment]:
        """Views of both streams at one moment."""
        with self._lock:
            return self.stores[0].moment(), self.stores[1].moment()

    def set_limits(self, limits: LogLimits) -> None:
        """New bounds, from the next rotation on."""
        for store in self.stores:
            store.limits = limits

    def paths(self) -> list[tuple[str, int, bool]]:
        """Path, stream and whether it is being written, of each log file, oldest first per stream.

        What a clear has just set aside is as good as gone.
        """
        with self._lock:
            return [
                (segment.path, stream, segment.archive is None)
                for stream, store in enumerate(self.stores)
                for segment in store.segments
                if not segment.path.endswith(ASIDE)
            ]
