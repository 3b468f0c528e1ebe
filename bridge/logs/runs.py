"""Views of a stream -> runs of its lines, forward or backward, and both streams merged in the order they were read.

A run is some whole lines of one chunk, so they share time and order. Files are read in bounded blocks; of a line that
is longer than a block only the head is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .index import Record, bisect
from .segment import View
from .store import StreamMoment

TEXT_BYTES: Final = 16 * 1024
"""An entry's text is cut at this length."""
_HEAD_BYTES: Final = TEXT_BYTES + 8
"""Read of a line that is longer than a block: enough to see that it must be cut, and not within a character."""
BLOCK_BYTES: Final = 32 * 1024
_SEEK_BYTES: Final = 256 * 1024
"""Block in which the end of a very long line is sought."""


class Run(NamedTuple):
    """Whole lines of one chunk, or the head of one very long line."""

    stream: int
    seq: int
    time_ms: int
    position: int
    data: bytes
    span: int
    """Bytes from `position` on that this run stands for."""
    cut: bool = False
    """Whether the data is just the head of a line."""


class StreamReader:
    """Lines of one stream as they were at one moment. Not to be shared between threads."""

    def __init__(self, stream: int, moment: StreamMoment) -> None:
        self.stream = stream
        self.epoch = moment.epoch
        self.end = moment.end
        self.lines = moment.lines
        self._views = moment.views

    def close(self) -> None:
        for view in self._views:
            view.close()

    def holds(self, position: int) -> bool:
        """Whether the byte at a position is still there."""
        view = self._find(position)
        return view is not None and view.present

    def _find(self, position: int) -> View | None:
        for view in reversed(self._views):
            if view.base <= position:
                return view if position < view.end else None
        return None

    def line_at(self, position: int) -> int:
        """The position itself where a line begins there, else where the next one begins."""
        view = self._find(position)
        if view is None:
            return position
        number = bisect(view.count, view.record, lambda record: record.end <= position)
        begin = view.record(number - 1).end
        if position == begin or view.read(position - 1, position, backward=False) == b"\n":
            return position
        return _seek_end(view, position, view.record(number).end)

    def line_behind(self, position: int) -> int:
        """Where the line behind the one that a position lies in begins."""
        view = self._find(position)
        if view is None:
            return position
        number = bisect(view.count, view.record, lambda record: record.end <= position)
        return _seek_end(view, position, view.record(number).end)

    def behind(self, keep: int, value: float, *, inclusive: bool) -> int:
        """Where the records end whose field `keep` (1 time, 2 order) is below `value`, or equal when `inclusive`."""

        def before(record: Record) -> bool:
            return record[keep] < value or (inclusive and record[keep] == value)

        for view in reversed(self._views):
            if not view.count or not before(view.record(0)):
                continue
            return view.record(bisect(view.count, view.record, before) - 1).end
        return self._views[0].base if self._views else self.end

    def lines_before(self, position: int) -> int:
        """Lines that the stream has had before a position, at which a line begins; those that are gone count too."""
        for view in reversed(self._views):
            if view.base <= position:
                number = bisect(view.count, view.record, lambda record: record.end <= position)
                before = view.record(number - 1)
                return before.lines + view.read(before.end, position, backward=False).count(b"\n")
        return self._views[0].base_lines if self._views else self.lines

    def records_backward(self, end: int, begin: int) -> Iterator[tuple[Record, Record]]:
        """Each record that ends within (begin, end], newest first, with the one before it."""
        for view in reversed(self._views):
            if view.base >= end:
                continue
            number = _last_before(view, end)
            while number >= 0:
                before = view.record(number - 1)
                if view.record(number).end <= begin:
                    return
                yield view.record(number), before
                number -= 1

    def backward(self, end: int, begin: int = 0, block: int = BLOCK_BYTES) -> Iterator[Run]:
        """Runs of the lines that begin within [begin, end), newest first. Both are line ends, or outside."""
        for view in reversed(self._views):
            if view.base >= end or not view.present:
                continue
            number = _last_before(view, end)
            while number >= 0:
                record, low = view.record(number), max(view.record(number - 1).end, begin)
                if record.end <= begin:
                    return
                yield from self._back(view, record, low, min(record.end, end), block)
                number -= 1

    def _back(self, view: View, record: Record, begin: int, end: int, block: int) -> Iterator[Run]:
        while end > begin:
            low = max(begin, end - block)
            data = view.read(low, end, backward=True)
            cut = False
            if low > begin:
                newline = data.find(b"\n", 0, len(data) - 1)
                if newline < 0:
                    low = _seek_start(view, begin, low)
                    data = view.read(low, min(low + _HEAD_BYTES, end), backward=False)
                    cut = True
                else:
                    low += newline + 1
                    data = data[newline + 1 :]
            if data:
                yield Run(self.stream, record.seq, record.time_ms, low, data, end - low, cut)
            end = low

    def forward(self, begin: int, end: int) -> Iterator[Run]:
        """Runs of the lines that begin within [begin, end), oldest first. Both are line ends, or outside."""
        for view in self._views:
            if view.end <= begin or view.base >= end or not view.present:
                continue
            number = bisect(view.count, view.record, lambda record: record.end <= begin)
            while number < view.count:
                record, low = view.record(number), max(view.record(number - 1).end, begin)
                if low >= end:
                    return
                yield from self._on(view, record, low, min(record.end, end))
                number += 1

    def _on(self, view: View, record: Record, begin: int, end: int) -> Iterator[Run]:
        while begin < end:
            high = min(begin + BLOCK_BYTES, end)
            data = view.read(begin, high, backward=False)
            if not data:
                return
            span = len(data)
            cut = False
            if high < end:
                span = data.rfind(b"\n") + 1
                if not span:
                    span = _seek_end(view, high, end) - begin
                    data = data[:_HEAD_BYTES]
                    cut = True
                else:
                    data = data[:span]
            yield Run(self.stream, record.seq, record.time_ms, begin, data, span, cut)
            begin += span


def _last_before(view: View, end: int) -> int:
    """Number of the last record that begins before a position; mostly the position is the end."""
    if view.record(view.count - 2).end < end:
        return view.count - 1
    return bisect(view.count - 1, view.record, lambda record: record.end < end)


def _seek_start(view: View, begin: int, position: int) -> int:
    """Where the line begins that a position lies in, not before `begin`."""
    while position > begin:
        low = max(begin, position - _SEEK_BYTES)
        newline = view.read(low, position, backward=True).rfind(b"\n")
        if newline >= 0:
            return low + newline + 1
        position = low
    return begin


def _seek_end(view: View, position: int, end: int) -> int:
    """Where the line ends that a position lies in, its newline included, not behind `end`."""
    block = 1024
    while position < end:
        high = min(position + block, end)
        newline = view.read(position, high, backward=False).find(b"\n")
        if newline >= 0:
            return position + newline + 1
        position = high
        block = _SEEK_BYTES
    return end


def lines_of(run: Run) -> list[tuple[int, bytes]]:
    """Position and bytes of each line of a run, without its newline."""
    if run.cut:
        return [(run.position, run.data)]
    parts = run.data.split(b"\n")
    if not parts[-1]:
        parts.pop()
    lines = []
    position = run.position
    for part in parts:
        lines.append((position, part))
        position += len(part) + 1
    return lines


def head_of(run: Run, count: int) -> Run:
    """The run's first `count` lines."""
    end = 0
    for _ in range(count):
        end = run.data.find(b"\n", end) + 1
        if not end:
            return run
    return run._replace(data=run.data[:end], span=end) if end < len(run.data) else run


def tail_of(run: Run, head: Run) -> Run:
    """What follows the head of a run."""
    return run._replace(position=run.position + head.span, data=run.data[head.span :], span=run.span - head.span)


def merge_backward(readers: list[StreamReader], ends: list[int], begins: list[int]) -> Iterator[Run]:
    """Runs of several streams, newest first."""
    return _merge([r.backward(ends[r.stream], begins[r.stream]) for r in readers], newest=True)


def merge_forward(readers: list[StreamReader], begins: list[int], ends: list[int]) -> Iterator[Run]:
    """Runs of several streams, oldest first."""
    return _merge([r.forward(begins[r.stream], ends[r.stream]) for r in readers], newest=False)


def _merge(sources: list[Iterator[Run]], *, newest: bool) -> Iterator[Run]:
    heads = [(run, source) for source in sources if (run := next(source, None)) is not None]
    while len(heads) > 1:
        (a, source_a), (b, source_b) = heads
        first = ((a.seq, a.stream) < (b.seq, b.stream)) != newest
        yield a if first else b
        run = next(source_a if first else source_b, None)
        if run is None:
            heads = [heads[1 if first else 0]]
        else:
            heads = [(run, source_a), heads[1]] if first else [heads[0], (run, source_b)]
    for run, source in heads:
        yield run
        yield from source
