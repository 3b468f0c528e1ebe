"""What a former bridge left in a log folder -> the segments to go on from.

Finishes a rotation that was cut short, drops index records that cannot be trusted, and writes an index anew where it is
lost or torn. Times of what is rebuilt are those of the file; its order between the streams follows from them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from ..core.rotation import ArchiveName, current_name, parse_archive
from .files import open_read, open_write, pwrite
from .index import (
    NUMBER_MAX,
    Header,
    Record,
    new_epoch,
    pack_header,
    pack_record,
    read_header,
    read_records,
    record_offset,
    scan,
    sound_records,
)
from .segment import Segment
from .store import ASIDE, Numbering, StreamStore, check_directory, index_path


class _Found(NamedTuple):
    """A log file on disk; `header` is None where its index is lost."""

    path: str
    archive: ArchiveName | None
    size: int
    mtime_ms: int
    header: Header | None
    records: int
    first_seq: int
    last: Record | None


def recover(stores: tuple[StreamStore, StreamStore], numbering: Numbering) -> None:
    """Let both streams of a sidecar go on from what lies in their folder. A fault is kept in the stores."""
    found: list[tuple[StreamStore, list[_Found]]] = []
    for store in stores:
        try:
            check_directory(store.directory)
            _finish_clear(store)
            _finish_rotation(store)
            found.append((store, _look(store)))
        except OSError:
            found.append((store, []))  # adopting nothing then fails, and is reported, in the same way
    known = (piece.last.seq for _, pieces in found for piece in pieces if piece.last is not None)
    numbering.seq = max(known, default=0)
    for store, pieces in found:
        _adopt(store, pieces, numbering)


def _names(store: StreamStore) -> set[str]:
    return set(os.listdir(store.directory))


def _finish_clear(store: StreamStore) -> None:
    """Delete what a clear had set aside."""
    current = os.path.join(store.directory, current_name(store.stream))
    for path in (current, index_path(current)):
        with contextlib.suppress(OSError):  # there is none, or it is in nobody's way
            os.unlink(path + ASIDE)


def _finish_rotation(store: StreamStore) -> None:
    """Give the current file the archive name that its index already has; delete an index without a file."""
    names = _names(store)
    current = current_name(store.stream)
    for name in sorted(names):
        archive = parse_archive(name.removesuffix(".idx") + ".log") if name.endswith(".idx") else None
        if archive is None or archive.stream != store.stream or str(archive) in names:
            continue
        if current in names and index_path(current) not in names:
            os.rename(os.path.join(store.directory, current), os.path.join(store.directory, str(archive)))
            names = _names(store)
        else:
            with contextlib.suppress(OSError):  # it is in nobody's way
                os.unlink(os.path.join(store.directory, name))


def _look(store: StreamStore) -> list[_Found]:
    """The stream's files, oldest first, the current one last."""
    names = _names(store)
    parsed = (parse_archive(name) for name in names)
    archives = sorted(a for a in parsed if a is not None and a.stream == store.stream)
    wanted: list[ArchiveName | None] = [*archives]
    if current_name(store.stream) in names:
        wanted.append(None)
    found = []
    for archive in wanted:
        path = os.path.join(store.directory, str(archive) if archive else current_name(store.stream))
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            found.append(_inspect(path, archive, status))
    return found


def _inspect(path: str, archive: ArchiveName | None, status: os.stat_result) -> _Found:
    mtime_ms = int(status.st_mtime * 1000)
    lost = _Found(path, archive, status.st_size, mtime_ms, None, 0, 0, None)
    try:
        fd = open_read(index_path(path))
    except OSError:
        return lost
    try:
        header = read_header(fd)
        if header is None or header.base + status.st_size > NUMBER_MAX:
            return lost
        count, last = sound_records(fd, header, status.st_size)
        first_seq = read_records(fd, 0, 1)[0].seq if count else 0
        return lost._replace(header=header, records=count, first_seq=first_seq, last=last)
    except OSError:
        return lost
    finally:
        os.close(fd)


def _adopt(store: StreamStore, pieces: list[_Found], numbering: Numbering) -> None:
    valid = [piece.header for piece in pieces if piece.header is not None]
    epoch = valid[-1].epoch if valid else new_epoch()
    named = [piece.archive for piece in pieces if piece.archive is not None]
    if valid and valid[-1].last_second:
        named.append(ArchiveName(store.stream, valid[-1].last_second, valid[-1].last_suffix))
    last_archive = max(named, default=None)
    segments: list[Segment] = []
    end, lines, seq = _origin(pieces)
    for number, piece in enumerate(pieces):
        header, anew = piece.header, False
        if header is None or header.epoch != epoch or header.base < end:
            header = Header(epoch, end, lines, 0, 0)
            anew = True
            piece = piece._replace(records=0, last=None)
        following = [p.first_seq for p in pieces[number + 1 :] if p.records]
        segment = Segment(piece.path, index_path(piece.path), header, piece.archive)
        if piece.last is not None and piece.records:
            segment.count, segment.last = piece.records, piece.last
        if anew or segment.last.end < header.base + piece.size:
            if following:
                seq = min(seq + 1, following[0])
            else:
                numbering.seq += 1
                seq = numbering.seq
            with contextlib.suppress(OSError):  # an unreadable file has no lines
                _rebuild(segment, piece, max(seq, segment.last.seq))
        if segment.count or piece.archive is None:
            segments.append(segment)
        end, lines, seq = max(header.base + piece.size, segment.last.end), segment.last.lines, segment.last.seq or seq
    store.adopt(segments, epoch, last_archive)


def _origin(pieces: list[_Found]) -> tuple[int, int, int]:
    """Position, lines and order before the oldest file, so that it joins the oldest one that has an index."""
    size = 0
    for piece in pieces:
        if piece.header is not None:
            return max(piece.header.base - size, 0), 0, max(piece.first_seq - 1, 0)
        size += piece.size
    return 0, 0, 0


def _rebuild(segment: Segment, piece: _Found, seq: int) -> None:
    """Write the missing records of a file, header included."""
    log = open_read(piece.path)
    try:
        start = segment.last
        records = scan(log, segment.header.base, start, piece.size, max(piece.mtime_ms, start.time_ms), seq)
    finally:
        os.close(log)
    index = open_write(segment.index_path, append=False)
    try:
        os.ftruncate(index, record_offset(segment.count))
        pwrite(index, pack_header(segment.header), 0)
        pwrite(index, b"".join(map(pack_record, records)), record_offset(segment.count))
    finally:
        os.close(index)
    segment.count += len(records)
    if records:
        segment.last = records[-1]
