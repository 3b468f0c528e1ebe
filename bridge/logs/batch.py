"""A place in a sidecar's log -> the entries behind it, in bounded portions, with the lines counted that are gone."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..model import Level, LogEntry
from .query import LogReader, Maker, position_of, size_of
from .runs import Run, StreamReader, head_of, lines_of, merge_forward

BATCH_ENTRIES: Final = 2000
"""Entries of a batch at most: 40 000 lines a second, more than anybody can see."""
BATCH_BYTES: Final = 512 * 1024
"""Encoded size of a batch at most: sent in a few ms. Less where the message limit asks for it."""
LAG_LINES: Final = 20_000
"""Lines that live subscriptions may be behind before the oldest are dropped."""
LAG_BYTES: Final = 8 * 1024 * 1024
"""The same in bytes."""
KEEP_LINES: Final = 4000
"""Lines that are left when some are dropped."""
SCAN_BYTES: Final = 2 * 1024 * 1024
"""Log read for one batch: a level that is rare must not keep the others waiting."""


class Place:
    """How far a reader has come: positions, and lines before them, of each stream."""

    __slots__ = ("lines", "positions")

    def __init__(self, positions: list[int], lines: list[int]) -> None:
        self.positions = positions
        self.lines = lines

    def copy(self) -> Place:
        return Place(list(self.positions), list(self.lines))

    def behind(self, other: Place) -> bool:
        """Whether it is behind another place in either stream."""
        return any(here < there for here, there in zip(self.positions, other.positions, strict=True))


class Batch(NamedTuple):
    """What one read brought."""

    items: list[tuple[int, LogEntry | int]]
    """Stream and entry in order; a number stands for lines that are gone."""
    complete: bool
    """Whether the end was reached."""


def read_batch(
    reader: LogReader,
    place: Place,
    ends: list[int],
    chosen: list[StreamReader],
    level: Level | None,
    batch_bytes: int,
) -> Batch:
    """Read on from `place` towards `ends` within the bounds of a batch, and move `place`."""
    maker = Maker(reader, level, batch_bytes)
    items: list[tuple[int, LogEntry | int]] = []
    entries, size, scanned = 0, 0, 0
    for run in merge_forward(chosen, place.positions, ends):
        stream = run.stream
        if run.position > place.positions[stream]:
            _note_gap(place, stream, reader.streams[stream].lines_before(run.position), items)
        if entries >= BATCH_ENTRIES or scanned >= SCAN_BYTES:
            return Batch(items, False)
        run = head_of(run, BATCH_ENTRIES - entries)
        for entry in maker.entries(run):
            size += size_of(entry)
            if size > batch_bytes and entries:
                _move(place, run, position_of(entry))
                return Batch(items, False)
            items.append((stream, entry))
            entries += 1
        scanned += len(run.data)
        _move(place, run, run.position + run.span)
        if run.position + run.span < ends[stream] and entries >= BATCH_ENTRIES:
            return Batch(items, False)
    for source in chosen:
        number = source.stream
        if place.positions[number] < ends[number]:
            place.positions[number] = ends[number]
            _note_gap(place, number, source.lines_before(ends[number]), items)
    return Batch(items, True)


def _move(place: Place, run: Run, position: int) -> None:
    """Move `place` to a position at the end of a run, or at a line of it."""
    place.positions[run.stream] = position
    place.lines[run.stream] += sum(1 for start, _ in lines_of(run) if start < position)


def _note_gap(place: Place, stream: int, lines: int, items: list[tuple[int, LogEntry | int]]) -> None:
    """Count lines that went with their file before they were read."""
    if lines > place.lines[stream]:
        items.append((stream, lines - place.lines[stream]))
        place.lines[stream] = lines


def skip(reader: LogReader, place: Place) -> list[tuple[int, LogEntry | int]]:
    """Move `place` on where it is too far behind, and count what that leaves out."""
    lag_lines = sum(stream.lines - place.lines[stream.stream] for stream in reader.streams)
    lag_bytes = sum(stream.end - place.positions[stream.stream] for stream in reader.streams)
    if lag_lines <= LAG_LINES and lag_bytes <= LAG_BYTES:
        return []
    positions, lines = reader.ends(), [stream.lines for stream in reader.streams]
    walks = [stream.records_backward(stream.end, place.positions[stream.stream]) for stream in reader.streams]
    heads = [next(walk, None) for walk in walks]
    kept = 0
    while any(heads):
        number = max((head[0].seq, n) for n, head in enumerate(heads) if head is not None)[1]
        head = heads[number]
        assert head is not None
        record, before = head
        kept += record.lines - before.lines
        if positions[number] - before.end > LAG_BYTES or (kept > KEEP_LINES and positions != reader.ends()):
            break
        positions[number], lines[number] = before.end, before.lines
        heads[number] = next(walks[number], None)
    dropped: list[tuple[int, LogEntry | int]] = []
    for stream in reader.streams:
        number = stream.stream
        if positions[number] > place.positions[number]:
            if lines[number] > place.lines[number]:
                dropped.append((number, lines[number] - place.lines[number]))
            place.positions[number], place.lines[number] = positions[number], lines[number]
    return dropped
