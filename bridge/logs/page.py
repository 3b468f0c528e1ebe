"""Params of get_sidecar_logs and a moment of the log -> a LogPage, read from the end that it lies at.

Runs in a worker thread. What cursors and times mean, and how lines become entries, stands in `query`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import LogIoFailed
from ..model import GetLogsParams, LogEntry, LogPage
from .breath import Breath
from .cursor import parse_cursor
from .keeper import Keeper
from .query import ENTRY_BYTES, ESCAPED_BYTES, LogReader, Maker, size_of
from .runs import Run, head_of, merge_backward, merge_forward, tail_of


class Page:
    """One request for a page. `read` runs in a worker thread; `cancel` ends it early."""

    def __init__(self, keeper: Keeper, params: GetLogsParams, max_bytes: int) -> None:
        self._keeper = keeper
        self._params = params
        self._max_bytes = max_bytes
        self._breath = Breath(keeper.sidecar)

    def cancel(self) -> None:
        self._breath.cancel()

    def read(self) -> LogPage:
        """Read the page. Raises CursorExpired, InvalidParams, LogIoFailed, RequestCancelled."""
        reader = LogReader(self._keeper, self._breath)
        try:
            if self._params.after is not None:
                return self._next(reader)
            return self._newest(reader)
        except OSError as exc:
            message = f"a log file cannot be read: {exc.strerror or exc}"
            raise LogIoFailed(message, sidecar=self._keeper.sidecar) from exc
        finally:
            reader.close()

    def _newest(self, reader: LogReader) -> LogPage:
        """The newest entries of the range."""
        begins, ends = reader.range_of(self._params)
        runs = merge_backward(reader.chosen(self._params.log_type), ends, begins)
        taken, more = self._take(reader, runs, newest=True)
        taken.reverse()
        before = taken[0].cursor if more else None
        after = taken[-1].cursor if taken and self._params.before is not None else None
        return LogPage(taken, before, after)

    def _next(self, reader: LogReader) -> LogPage:
        """The oldest entries of the range."""
        begins, ends = reader.range_of(self._params)
        runs = merge_forward(reader.chosen(self._params.log_type), begins, ends)
        taken, more = self._take(reader, runs, newest=False)
        assert self._params.after is not None
        before = taken[0].cursor if taken else _gap_behind(self._params.after)
        return LogPage(taken, before, taken[-1].cursor if more else None)

    def _take(self, reader: LogReader, runs: Iterator[Run], *, newest: bool) -> tuple[list[LogEntry], bool]:
        """Entries up to the bounds of a page, in the order of the runs, and whether there are more."""
        taken: list[LogEntry] = []
        size = 0
        exact = False
        """Whether `size` is the encoded size; before that it is a bound that is found without encoding."""
        for made, text_bytes in self._entries(reader, runs, newest=newest):
            wanted = made[: self._params.lines - len(taken)]
            bound = size + len(wanted) * ENTRY_BYTES + text_bytes * ESCAPED_BYTES
            if not exact and bound <= self._max_bytes:
                size = bound
                taken += wanted
            else:
                if not exact:
                    exact = True
                    size = sum(map(size_of, taken))
                for entry in wanted:
                    size += size_of(entry)
                    if size > self._max_bytes and taken:  # a single entry was cut to fit
                        return taken, True
                    taken.append(entry)
            if len(wanted) < len(made):
                return taken, True
        return taken, False

    def _entries(self, reader: LogReader, runs: Iterator[Run], *, newest: bool) -> Iterator[tuple[list[LogEntry], int]]:
        """The entries of each run in the order of reading, with a bound of the length of their texts together."""
        maker = Maker(reader, self._params.level, self._max_bytes)
        for run in runs:
            if newest:
                yield maker.entries(run, self._params.lines + 1)[::-1], len(run.data)
            else:
                # A run's lines are cheap to find and dear to read: no more of them than the page can take.
                while run.data:
                    head = head_of(run, self._params.lines + 1)
                    yield maker.entries(head), len(head.data)
                    if head is run:
                        break
                    run = tail_of(run, head)


def _gap_behind(text: str) -> str:
    """A cursor between the entry of a cursor and the next one."""
    cursor = parse_cursor(text, "after")
    return str(cursor._replace(position=cursor.position + 1))
