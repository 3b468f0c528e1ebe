"""The binary index beside a log file: positions and times of its lines, by chunk.

`sidecar-stdout.log` has `sidecar-stdout.idx`: a header, then one record for each chunk in which lines were completed.
A record says where the last complete line ends, when and as the how-manieth chunk of the sidecar (both streams counted
together) it was read, and how many lines the stream has had by then. Between two records lie whole lines only, so that
a reader never has to look for a line's end across records. A last line that a process left without its newline ends
with a record all the same: that is how the lines of two processes stay apart while the file holds just their bytes.

Positions are those of the stream: they only grow, over rotations, clears and restarts. The byte at position p of a
file stands at p - base.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from ..core.rotation import SUFFIX_MAX
from .files import pread

_MAGIC: Final = b"SBRIDX\x01\n"
_HEADER: Final = struct.Struct("<8sIIQQQ24x")
_RECORD: Final = struct.Struct("<QQQQ")
HEADER_BYTES: Final = _HEADER.size
RECORD_BYTES: Final = _RECORD.size
NUMBER_MAX: Final = 2**63 - 1
"""Positions, counts and orders above it are damage: no stream gets there, and sums with them must fit 64 bits."""
_SECOND_MAX: Final = 99_991_231_235_959
"""An archive's second has 14 digits."""
_TIME_MS_MAX: Final = 253_402_300_799_999
"""End of the year 9999."""
_SCAN_BYTES: Final = 256 * 1024
"""Block of a rebuild, and so the size of a rebuilt record."""


class Header(NamedTuple):
    """What an index says about its file."""

    epoch: int
    """Names the numbering of positions: chosen at random when a stream begins, or begins anew after a total loss."""
    base: int
    """Position of the file's first byte."""
    base_lines: int
    """Lines of the stream before this file."""
    last_second: int
    last_suffix: int
    """The latest archive name of the stream when this file was begun; 0, 0 for none."""


class Record(NamedTuple):
    """One chunk: everything from the end of the record before it up to `end`."""

    end: int
    time_ms: int
    """UNIX time in milliseconds at which it was read."""
    seq: int
    """Order among the chunks of both streams."""
    lines: int
    """Lines of the stream up to `end`."""


def new_epoch() -> int:
    """A number for a new numbering of positions."""
    return secrets.randbits(32) or 1


def pack_header(header: Header) -> bytes:
    return _HEADER.pack(_MAGIC, header.epoch, header.last_suffix, header.base, header.base_lines, header.last_second)


def read_header(fd: int) -> Header | None:
    """The header of an index file; None when it is no index, or one that cannot be true."""
    data = pread(fd, HEADER_BYTES, 0)
    if len(data) < HEADER_BYTES:
        return None
    magic, epoch, suffix, base, base_lines, second = _HEADER.unpack(data)
    possible = base <= NUMBER_MAX and base_lines <= NUMBER_MAX and second <= _SECOND_MAX and suffix <= SUFFIX_MAX
    return Header(epoch, base, base_lines, second, suffix) if magic == _MAGIC and possible else None


def pack_record(record: Record) -> bytes:
    return _RECORD.pack(*record)


def read_records(fd: int, first: int, count: int) -> list[Record]:
    """Up to `count` records from number `first` on."""
    return [Record(*fields) for fields in _RECORD.iter_unpack(read_block(fd, first, count))]


def read_block(fd: int, first: int, count: int) -> bytes:
    """As `read_records`, for `record_in`."""
    data = pread(fd, count * RECORD_BYTES, HEADER_BYTES + first * RECORD_BYTES)
    return data[: len(data) - len(data) % RECORD_BYTES]


def record_in(block: bytes, number: int) -> Record:
    """A record of what `read_block` returned."""
    return Record(*_RECORD.unpack_from(block, number * RECORD_BYTES))


def record_offset(number: int) -> int:
    """Where record `number` stands in the index file."""
    return HEADER_BYTES + number * RECORD_BYTES


def sound_records(fd: int, header: Header, file_bytes: int) -> tuple[int, Record]:
    """How many records can be trusted, and the last of them.

    A crash tears the end: a record cut short, zeros, or a record of bytes that never reached the file.
    """

    def follows(older: Record, record: Record) -> bool:
        return (
            older.end < record.end <= limit
            and older.seq <= record.seq <= NUMBER_MAX
            and older.lines < record.lines <= NUMBER_MAX
            and record.time_ms <= _TIME_MS_MAX
        )

    count = max(os.fstat(fd).st_size - HEADER_BYTES, 0) // RECORD_BYTES
    limit = header.base + file_bytes
    while count:
        first = max(count - 128, 0)
        records = read_records(fd, first, count - first)
        before = read_records(fd, first - 1, 1)[0] if first else Record(header.base, 0, 0, header.base_lines)
        chain = [before, *records]
        for number in range(len(records), 0, -1):
            if follows(chain[number - 1], chain[number]):
                return first + number, chain[number]
        count = first
    return 0, Record(header.base, 0, 0, header.base_lines)


def scan(fd: int, base: int, start: Record, file_bytes: int, time_ms: int, seq: int) -> list[Record]:
    """Records for what lies behind `start`, read from the log file itself.

    The time is the best that is known; an unterminated last line gets a record too.
    """
    records: list[Record] = []
    lines = start.lines
    position, limit = start.end, base + file_bytes
    while position < limit:
        data = pread(fd, min(_SCAN_BYTES, limit - position), position - base)
        if not data:
            break
        newline = data.rfind(b"\n")
        if newline >= 0:
            lines += data.count(b"\n")
            records.append(Record(position + newline + 1, time_ms, seq, lines))
        position += len(data)
    done = records[-1].end if records else start.end
    if done < position:
        records.append(Record(position, time_ms, seq, lines + 1))
    return records


def bisect(count: int, record: Callable[[int], Record], goes_on: Callable[[Record], bool]) -> int:
    """Number of the first record for which `goes_on` is false; it must be true for all before and false behind."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if goes_on(record(middle)):
            low = middle + 1
        else:
            high = middle
    return low
