"""A moment of a sidecar's log -> what cursors and times mean in it, and runs of lines -> entries.

`page` reads pages with it, `batch` what subscriptions get. Everything runs in worker threads.
"""

from __future__ import annotations

from itertools import accumulate, count
from typing import Final, NamedTuple

import msgspec

from ..core.levels import RANK, LevelReader, may_continue, may_reach
from ..errors import CursorExpired, LogIoFailed
from ..model import GetLogsParams, Level, LogEntry
from .breath import Breath
from .cursor import STREAMS, Cursor, parse_cursor, prefix
from .keeper import Keeper
from .runs import TEXT_BYTES, Run, StreamReader, lines_of
from .times import parse_rfc3339, rfc3339

PAGE_BYTES: Final = 3 * 1024 * 1024
"""Encoded size of a page, well under the message limit of 4 MiB."""
ENTRY_BYTES: Final = 190
"""Encoded size of an entry beside its text, at most."""
ESCAPED_BYTES: Final = 6
"""Encoded size of a character, at most: a control character is written as \\u0001."""
OPEN_S: Final = 10.0
"""How long a reader waits for the log to be opened: the index of a large log may have to be written anew."""
_LOOK_BACK: Final = (2 * 1024, 16 * 1024, 128 * 1024)
"""How far, in bytes, the line is sought whose level a continuation line takes, in growing steps."""

_encode = msgspec.json.Encoder().encode


class Range(NamedTuple):
    """Positions of each stream between which entries are wanted."""

    begins: list[int]
    ends: list[int]


class LogReader:
    """A moment of a sidecar's log, to read pages and runs from. Close it."""

    def __init__(self, keeper: Keeper, breath: Breath | None = None, *, wait_s: float = OPEN_S) -> None:
        """Waits for the log to be opened. Raises LogIoFailed when that takes too long."""
        if not keeper.ready.wait(wait_s):
            raise LogIoFailed("the log is still being opened", sidecar=keeper.sidecar)
        self.breath = breath or Breath(keeper.sidecar)
        self._sidecar = keeper.sidecar
        self.streams = [StreamReader(number, moment) for number, moment in enumerate(keeper.moment())]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()

    def ends(self) -> list[int]:
        """Positions behind the last line of each stream."""
        return [stream.end for stream in self.streams]

    def chosen(self, log_type: str) -> list[StreamReader]:
        """The streams that a `log_type` means."""
        return [s for s in self.streams if log_type in ("all", STREAMS[s.stream])]

    def _cursor(self, text: str, field: str) -> Cursor:
        cursor = parse_cursor(text, field)
        own = self.streams[cursor.stream]
        # The gap behind an empty last line is the end of the log.
        there = own.holds(cursor.position) or (cursor.position == own.end and own.holds(cursor.position - 1))
        if cursor.epoch != own.epoch or not there:
            raise CursorExpired(
                f"{field}: the log file that the cursor points into is gone",
                sidecar=self._sidecar,
                detail={"field": field},
            )
        return cursor

    def before(self, text: str, field: str) -> list[int]:
        """Where entries older than a cursor end, per stream. Raises CursorExpired, InvalidParams."""
        cursor = self._cursor(text, field)
        return [
            stream.line_at(cursor.position)
            if stream.stream == cursor.stream
            else stream.behind(2, cursor.seq, inclusive=stream.stream < cursor.stream)
            for stream in self.streams
        ]

    def after(self, text: str, field: str) -> list[int]:
        """Where entries newer than a cursor begin, per stream. Raises CursorExpired, InvalidParams."""
        cursor = self._cursor(text, field)
        return [
            stream.line_behind(cursor.position)
            if stream.stream == cursor.stream
            else stream.behind(2, cursor.seq, inclusive=stream.stream < cursor.stream)
            for stream in self.streams
        ]

    def range_of(self, params: GetLogsParams) -> Range:
        """What the cursors and times of params leave. Raises CursorExpired, InvalidParams."""
        begins = [0] * len(self.streams)
        ends = self.ends()
        if params.before is not None:
            ends = self.before(params.before, "before")
        if params.after is not None:
            begins = self.after(params.after, "after")
        if params.since is not None:
            since = parse_rfc3339(params.since, "since")
            begins = [max(b, s.behind(1, since, inclusive=False)) for b, s in zip(begins, self.streams, strict=True)]
        if params.until is not None:
            until = parse_rfc3339(params.until, "until")
            ends = [min(e, s.behind(1, until, inclusive=True)) for e, s in zip(ends, self.streams, strict=True)]
        return Range(begins, ends)

    def level_before(self, stream: int, position: int) -> LevelReader:
        """The state of levels in front of a line, as far as can be seen from a bounded stretch of log."""
        state = LevelReader()
        for limit in _LOOK_BACK:
            runs: list[Run] = []
            size = 0
            for run in self.streams[stream].backward(position, block=min(limit, 16 * 1024)):
                runs.append(run)
                size += len(run.data)
                if size >= limit:
                    break
            state = LevelReader()
            for run in reversed(runs):
                self.breath.take()
                for _, line in lines_of(run):
                    state.read(line)
            if state.last is not None or size < limit:
                break
        return state


class Maker:
    """Runs -> entries, with what the lines before a run mean for their levels."""

    def __init__(self, reader: LogReader, level: Level | None, max_bytes: int) -> None:
        """No entry's encoded size is above `max_bytes`: its text is cut further where that is needed."""
        self._reader = reader
        self._text_bytes = max_bytes - ENTRY_BYTES
        self._rank = -1 if level is None else RANK[level]

    def entries(self, run: Run, newest: int | None = None) -> list[LogEntry]:
        """The entries of a run that are wanted, oldest first; of its last `newest` lines where that is enough."""
        self._reader.breath.take()
        rank = self._rank
        if rank >= 0 and not run.cut and not may_reach(run.data, rank):
            return []
        state, known = LevelReader(), False
        at = rfc3339(run.time_ms)
        stream = STREAMS[run.stream]
        start = prefix(self._reader.streams[run.stream].epoch, run.stream, run.seq)
        lines, first = _lines(run, newest if rank < 0 else None)
        levels: list[Level | None] = []
        position = first
        for line in lines:
            if may_continue(line):
                state, known = self._reader.level_before(run.stream, position), True
            if known:
                break
            levels.append(state.read(line))
            known = state.last is not None
            position += len(line) + 1
        levels += state.read_all(lines[len(levels) :], plain=b"=" not in run.data and b"\x1b" not in run.data)
        positions = accumulate(map(len, lines), initial=first)
        texts = self._plain_texts(run, lines, first) if rank < 0 else None
        if texts is not None:
            return [
                LogEntry(at, stream, level, text, f"{start}{position + number:x}", False)
                for number, position, level, text in zip(count(), positions, levels, texts, strict=False)
            ]
        entries = []
        for number, position, level, line in zip(count(), positions, levels, lines, strict=False):
            if rank < 0 or (level is not None and RANK[level] >= rank):
                text, truncated = text_of(line)
                if len(text) * ESCAPED_BYTES > self._text_bytes:
                    text, truncated = cut_text(text, truncated, self._text_bytes)
                entries.append(LogEntry(at, stream, level, text, f"{start}{position + number:x}", truncated))
        return entries

    def _plain_texts(self, run: Run, lines: list[bytes], first: int) -> list[str] | None:
        """The texts of lines, decoded at once where there is nothing special in them; None where there is."""
        if not lines or run.cut:
            return None
        data = run.data[first - run.position :].removesuffix(b"\n")
        longest = max(map(len, lines))
        if longest > TEXT_BYTES or longest * ESCAPED_BYTES > self._text_bytes or not data.isascii() or b"\r" in data:
            return None
        return data.decode("ascii").split("\n")


def _lines(run: Run, newest: int | None) -> tuple[list[bytes], int]:
    """The lines of a run without their newlines, or the last `newest` of them, and the first one's position."""
    data = run.data
    if run.cut:
        return [data], run.position
    data = data.removesuffix(b"\n")
    if newest is None:
        return data.split(b"\n"), run.position
    older, *lines = data.rsplit(b"\n", newest)
    if len(lines) < newest:
        return [older, *lines], run.position
    return lines, run.position + len(older) + 1


def text_of(line: bytes) -> tuple[str, bool]:
    """A line's text, and whether it had to be cut."""
    if len(line) <= TEXT_BYTES or (len(line) == TEXT_BYTES + 1 and line.endswith(b"\r")):
        return line.removesuffix(b"\r").decode("utf-8", "replace"), False
    end = TEXT_BYTES
    while end > TEXT_BYTES - 4 and line[end] & 0xC0 == 0x80:
        end -= 1  # not within a character
    return line[:end].decode("utf-8", "replace"), True


def position_of(entry: LogEntry) -> int:
    """Where an entry's line begins in its stream."""
    return int(entry.cursor.rpartition(".")[2], 16)


def cut_text(text: str, truncated: bool, max_bytes: int) -> tuple[str, bool]:
    """The longest beginning of a text whose encoded size is `max_bytes` at most, and whether anything was cut."""
    if len(_encode(text)) <= max_bytes:
        return text, truncated
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encode(text[:middle])) <= max_bytes:
            low = middle
        else:
            high = middle - 1
    return text[:low], True


def size_of(entry: LogEntry) -> int:
    """Encoded size of an entry in bytes, at most."""
    return ENTRY_BYTES + len(_encode(entry.text))
