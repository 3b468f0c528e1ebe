"""The log of one sidecar: both streams, what they share, and their common fault."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .cursor import STREAMS
from .inlet import Inlet
from .recovery import recover
from .store import LogLimits, Numbering, Remover, StreamMoment, StreamStore


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
        recover(self.stores, self._numbering)
        self.ready.set()

    def close(self) -> None:
        for store in self.stores:
            store.close()

    @property
    def fault(self) -> str | None:
        """Why one of the streams is kept in memory; None while files can be written."""
        return self.stores[0].fault or self.stores[1].fault

    @property
    def lines(self) -> int:
        """Complete lines of both streams."""
        return self.stores[0].lines + self.stores[1].lines

    def moment(self) -> tuple[StreamMoment, StreamMoment]:
        """Views of both streams at one moment."""
        with self._lock:
            return self.stores[0].moment(), self.stores[1].moment()

    def set_limits(self, limits: LogLimits) -> None:
        """New bounds, from the next rotation on."""
        for store in self.stores:
            store.limits = limits

    def paths(self) -> list[tuple[str, int, bool]]:
        """Path, stream and whether it is being written, of each log file, oldest first per stream."""
        with self._lock:
            return [
                (segment.path, stream, segment.archive is None)
                for stream, store in enumerate(self.stores)
                for segment in store.segments
            ]
