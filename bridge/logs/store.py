"""One stream's log: bytes in, files with an index out.

`StreamStore` appends what the capture thread read, rotates, clears, and keeps lines in memory while files fail. It is
driven by that one thread; readers take views under the sidecar's lock. What is in files when a bridge starts is read
by `recovery`; what readers do with views is in `query`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from ..core.rotation import ArchiveName, current_name, plan_rotation
from ..model import Stream
from .files import open_write, pread, pwrite, write_all
from .index import Header, Record, new_epoch, pack_header, pack_record, record_offset
from .segment import FileView, MemoryBlock, MemoryView, Segment

COALESCE_MS: Final = 10
"""Chunks of one stream within this time share a record, as long as the other stream is silent."""
COALESCE_BYTES: Final = 64 * 1024
MEMORY_BYTES: Final = 8 * 1024 * 1024
"""Bytes a stream keeps in memory while files fail, beside the bound in lines."""
MEMORY_LINE_BYTES: Final = 1024 * 1024
"""In memory, a line longer than this is kept in pieces."""
CARRY_BYTES: Final = 16 * 1024 * 1024
"""An unfinished line is carried over a clear up to this length; a longer one loses its beginning."""
ASIDE: Final = ".cleared"
"""Behind the name of a file that a clear removes; what a kill leaves of it is removed by the next start."""
_CHECK_S: Final = 1.0
"""How often a file being written is compared with what stands under its name."""
_NAME_TRIES: Final = 1000
"""Archive names tried when strangers' files stand in the way."""


logger = logging.getLogger("bridge.logs")


class LogLimits(NamedTuple):
    """What is kept on disk of each stream."""

    max_bytes: int = 10_485_760
    """A file that has reached it is rotated at the end of the line."""
    max_files: int = 5
    """Archives kept beside the current file."""


class Remover(Protocol):
    """Deletes files away from the capture thread."""

    def remove(self, paths: list[str], done: Callable[[], None] | None = None) -> None: ...


class Numbering:
    """Order of chunks over both streams of a sidecar."""

    __slots__ = ("newest", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.newest: StreamStore | None = None
        """The stream that has the latest chunk; only that one may still grow."""


class StreamMoment(NamedTuple):
    """What a stream had at one moment, oldest first."""

    epoch: int
    views: list[FileView | MemoryView]
    end: int
    """Position behind its last complete line."""
    lines: int


def index_path(path: str) -> str:
    """Where the index of a log file lies."""
    return path.removesuffix(".log") + ".idx"


class StreamStore:
    """One stream of one sidecar. Only the capture thread calls what changes it."""

    def __init__(
        self,
        directory: str,
        stream: Stream,
        limits: LogLimits,
        *,
        memory_lines: int,
        lock: threading.Lock,
        numbering: Numbering,
        remover: Remover,
        clock: Callable[[], float],
    ) -> None:
        self.directory = directory
        self.stream = stream
        self.limits = limits
        self.fault: str | None = None
        """Why files cannot be written, a sentence; None while they can."""
        self.epoch = new_epoch()
        self.segments: list[Segment] = []
        """Archives oldest first, then the file being written."""
        self.end = 0
        """Position behind the last byte."""
        self.line_end = 0
        """Position behind the last complete line."""
        self.lines = 0
        self.last_archive: ArchiveName | None = None
        self.dropped_lines = 0
        """Lines that memory could not keep while files failed."""
        self._dropped_before = 0
        """The same when files began to fail."""
        self._memory: deque[MemoryBlock] | None = None
        self._memory_partial = bytearray()
        self._memory_lines_max = memory_lines
        self._memory_bytes = 0
        self._lock = lock
        self._numbering = numbering
        self._remover = remover
        self._clock = clock
        self._log = -1
        self._index = -1
        self._inode = 0
        self._next_check = 0.0
        self._record_start = 0
        self._sealed = True
        """The last record ends a process's output or a file: no later chunk may join it."""

    # --- for readers, under the lock ---------------------------------------------------------------------------------

    def moment(self) -> StreamMoment:
        """Views of everything, to be closed by the caller. Called under the lock."""
        views: list[FileView | MemoryView] = [FileView(s, self._lock) for s in self.segments if s.count]
        if self._memory:
            views.append(MemoryView(tuple(self._memory)))
        return StreamMoment(self.epoch, views, self.line_end, self.lines)

    # --- for the capture thread --------------------------------------------------------------------------------------

    @property
    def mid_line(self) -> bool:
        """Whether the last line still waits for its end."""
        return self.end > self.line_end

    def adopt(self, segments: list[Segment], epoch: int, last_archive: ArchiveName | None) -> None:
        """Go on from what a former bridge left; the last segment is the current file unless it is an archive."""
        with self._lock:
            self.segments = segments
            self.epoch = epoch
            self.last_archive = last_archive
            if segments:
                self.end = self.line_end = segments[-1].last.end
                self.lines = segments[-1].last.lines
        try:
            if segments and segments[-1].archive is None:
                self._open_current(segments[-1])
            else:
                self._begin_file(self.line_end, self.lines)
        except OSError as exc:
            self._enter_memory(exc, b"")

    def begin_anew(self, fault: str) -> None:
        """Go on in memory with nothing, whatever state a defect has left; what is in files is read by the next bridge.

        `retry` begins a file as after any other fault. Cursors from before it are expired.
        """
        self._close_files()
        with self._lock:
            for segment in self.segments:
                segment.gone = True
            self.segments = []
            self.epoch = new_epoch()
            self.end = self.line_end = self.lines = 0
            self.last_archive = None
            self._memory = deque()
            self._memory_partial = bytearray()
            self._memory_bytes = 0
        self._dropped_before = self.dropped_lines
        self.fault = fault
        self._sealed = True

    def append(self, buf: bytearray, end: int, now_s: float) -> None:
        """Store the first `end` bytes of `buf`. `now_s` is the monotonic time."""
        time_ms = int(self._clock() * 1000)
        start = 0
        if self._memory is None and now_s >= self._next_check:
            self._next_check = now_s + _CHECK_S
            self._check_file()
        while start < end:
            if self._memory is not None:
                self._remember(bytes(memoryview(buf)[start:end]), time_ms)
                return
            stop = end
            room = self.limits.max_bytes - (self.end - self.segments[-1].header.base)
            rotate = False
            if room <= end - start:
                newline = buf.find(b"\n", start + max(room - 1, 0), end)
                if newline >= 0:
                    stop = newline + 1
                    rotate = True
            whole = start == 0 and stop == len(buf)
            self._store(buf if whole else buf[start:stop], time_ms)
            start = stop
            if rotate and self._memory is None:
                self._rotate()

    def seal(self) -> None:
        """End the line: what comes next belongs to another process."""
        if self.mid_line:
            time_ms = int(self._clock() * 1000)
            if self._memory is not None:
                self._remember_block(bytes(self._memory_partial), time_ms, 1)
                self._memory_partial.clear()
            else:
                try:
                    self._put(self.end, 1, time_ms)
                except OSError as exc:
                    self._enter_memory(exc, b"")
                    self.seal()
                    return
                if self.end - self.segments[-1].header.base >= self.limits.max_bytes:
                    self._rotate()
        self._sealed = True

    def retry(self) -> None:
        """Try the files again after a fault, and write what memory kept."""
        memory = self._memory
        if memory is None:
            return
        try:
            start, lines = (memory[0].start, memory[0].first_lines) if memory else (self.line_end, self.lines)
            if self._log >= 0:
                self._cut_torn(self.segments[-1])
            if self._log < 0 or start != self.segments[-1].last.end or not self._stands():
                self._close_files()
                self._begin_file(start, lines)
            while memory:
                self._replay(memory)
            partial = bytes(self._memory_partial)
            if partial and write_all(self._log, partial) < len(partial):
                raise OSError(errno.ENOSPC, "the disk is full")
        except OSError as exc:
            self.fault = self._sentence(exc)
            return
        self._memory = None
        self._memory_partial = bytearray()
        self._memory_bytes = 0
        self.fault = None
        self._sealed = True
        dropped = self.dropped_lines - self._dropped_before
        if dropped:
            logger.warning(
                "%s: the file can be written again; %d lines are missing in it, which memory could not keep until then",
                self._current,
                dropped,
            )

    def set_aside(self) -> None:
        """Take the current file away from its name, as the first step of a clear, which alone may fail.

        Raises OSError, and then everything is as it was. The next step is `clear` or `put_back`.
        """
        moves = [(path, path + ASIDE) for path in (self._current, index_path(self._current))]
        if os.path.isdir(self._current):
            raise IsADirectoryError(errno.EISDIR, "a folder stands in the place of the log file", self._current)
        with self._lock:
            done: list[tuple[str, str]] = []
            try:
                for path, aside in moves:
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        os.replace(path, aside)
                        done.append((path, aside))
            except OSError:
                for path, aside in done:
                    os.replace(aside, path)
                raise
            self._name_current(*(aside for _, aside in moves))

    def put_back(self) -> None:
        """Give the current file its name again. Raises OSError."""
        path = self._current
        with self._lock:
            for name in (path, index_path(path)):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.replace(name + ASIDE, name)
            self._name_current(path, index_path(path))

    def _name_current(self, path: str, index: str) -> None:
        for segment in self.segments[-1:]:
            if segment.archive is None:
                segment.path, segment.index_path = path, index

    def clear(self) -> tuple[int, int, list[str]]:
        """Forget everything but an unfinished line; returns files, their bytes, and what is still to be deleted.

        The second step of a clear, behind `set_aside`.
        """
        files, size = 0, 0
        paths: list[str] = []
        for segment in self.segments:
            with contextlib.suppress(OSError):  # one that somebody deleted by hand is none
                file_bytes = os.stat(segment.path).st_size
                size += file_bytes
                files += 1 if file_bytes or segment.archive else 0
            if segment.archive is not None:
                paths += [segment.path, segment.index_path]
        carried = self._partial()
        self._close_files()
        with self._lock:
            for segment in self.segments:
                segment.gone = True
            self.segments = []
            if self._memory is not None:
                self._memory.clear()
                self._memory_bytes = 0
        # Here and not later, when a next clear may have set other files aside under the same names.
        for path in (self._current, index_path(self._current)):
            with contextlib.suppress(OSError):  # there is none, or the next start tries it again
                os.unlink(path + ASIDE)
        if self._memory is None:
            self._restart(carried)
        return files, size, paths

    def close(self) -> None:
        """End the line and let go of the files."""
        self.seal()
        self._close_files()

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def _current(self) -> str:
        return os.path.join(self.directory, current_name(self.stream))

    def _store(self, data: bytearray, time_ms: int) -> None:
        """Write bytes to the current file and note the lines they complete; on a fault they go to memory."""
        length = len(data)
        try:
            if write_all(self._log, memoryview(data)) < length:
                raise OSError(errno.ENOSPC, "the disk is full")
            newline = data.rfind(b"\n")
            if newline >= 0:
                # Counting by what a replace leaves is 3x faster than bytes.count.
                self._put(self.end + newline + 1, length - len(data.replace(b"\n", b"")), time_ms)
        except OSError as exc:
            self._enter_memory(exc, bytes(data))
            return
        self.end += length

    def _put(self, line_end: int, lines: int, time_ms: int) -> None:
        """Write the record of completed lines, then let readers see them. Raises OSError."""
        segment = self.segments[-1]
        numbering = self._numbering
        last = segment.last
        number = segment.count
        if (
            not self._sealed
            and numbering.newest is self
            and 0 <= time_ms - last.time_ms < COALESCE_MS
            and line_end - self._record_start < COALESCE_BYTES
        ):
            number -= 1
            record = Record(line_end, last.time_ms, last.seq, last.lines + lines)
        else:
            numbering.seq += 1
            numbering.newest = self
            self._record_start = self.line_end
            record = Record(line_end, time_ms, numbering.seq, last.lines + lines)
        pwrite(self._index, pack_record(record), record_offset(number))
        self._sealed = False
        with self._lock:
            segment.count = number + 1
            segment.last = record
            self.line_end = line_end
            self.lines = record.lines

    def _open_current(self, segment: Segment) -> None:
        log = open_write(segment.path, append=True)
        try:
            self._index = open_write(segment.index_path, append=False)
            os.ftruncate(self._index, record_offset(segment.count))
            status = os.fstat(log)
        except BaseException:
            os.close(log)
            raise
        self._log = log
        self._inode = status.st_ino
        self._sealed = True

    def _begin_file(self, base: int, base_lines: int) -> None:
        """Make an empty current file whose first byte has position `base`. Raises OSError."""
        check_directory(self.directory)
        path = self._current
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_size:
                self._move_away()
            else:
                self._drop_empty()
        last = self.last_archive
        header = Header(self.epoch, base, base_lines, last.second if last else 0, last.suffix if last else 0)
        log = open_write(path, append=True)
        index = -1
        try:
            index = open_write(index_path(path), append=False)
            os.ftruncate(index, 0)
            pwrite(index, pack_header(header), 0)
            self._inode = os.fstat(log).st_ino
        except BaseException:
            os.close(log)
            if index >= 0:
                os.close(index)
            with contextlib.suppress(OSError):  # the next try finds an empty file just as well
                os.unlink(path)
            raise
        self._log, self._index = log, index
        self._sealed = True
        with self._lock:
            self.segments = [*self.segments, Segment(path, index_path(path), header, None)]

    def _drop_empty(self) -> None:
        """Forget the current file where it has nothing in it; its name is used anew."""
        with self._lock:
            for segment in self.segments[-1:]:
                if segment.archive is None:
                    segment.gone = True
                    self.segments = self.segments[:-1]

    def _move_away(self) -> None:
        """Rename the current file and its index to the next archive name, and let retention have its way.

        The index goes first: an archive's index without its file tells the next start that this was cut short.
        """
        path = self._current
        ours = self.segments[-1] if self.segments and self.segments[-1].archive is None else None
        archives = [s.archive for s in self.segments if s.archive is not None]
        for _ in range(_NAME_TRIES):
            plan = plan_rotation(self.stream, archives, self.last_archive, self._clock(), self.limits.max_files)
            self.last_archive = plan.archive
            target = os.path.join(self.directory, str(plan.archive))
            if not os.path.lexists(target) and not os.path.lexists(index_path(target)):
                break
        else:
            raise FileExistsError(errno.EEXIST, "no archive name is free")
        with self._lock:
            indexed = os.path.lexists(index_path(path))
            if indexed:
                os.rename(index_path(path), index_path(target))
            try:
                os.rename(path, target)
            except OSError:
                if indexed:
                    os.rename(index_path(target), index_path(path))
                raise
            if ours is not None:
                ours.path, ours.index_path, ours.archive = target, index_path(target), plan.archive
            delete = set(plan.delete)
            removed = [s for s in self.segments if s.archive in delete]
            for segment in removed:
                segment.gone = True
            self.segments = [s for s in self.segments if not s.gone]
        paths = [path for s in removed for path in (s.path, s.index_path)]
        if ours is None and plan.archive in delete:
            paths += [target, index_path(target)]
        if paths:
            self._remover.remove(paths)

    def _rotate(self) -> None:
        """Archive the current file, which ends with a whole line, and begin the next."""
        self._close_files()
        try:
            self._begin_file(self.line_end, self.lines)
        except OSError as exc:
            self._enter_memory(exc, b"")

    def _stands(self) -> bool:
        """Whether the current file still has its name and its length."""
        try:
            status = os.lstat(self._current)
        except OSError:
            return False
        end = self.end if self._memory is None else self.segments[-1].last.end
        length = end - self.segments[-1].header.base
        return status.st_ino == self._inode and status.st_size == length

    def _check_file(self) -> None:
        """Notice that somebody deleted, replaced or cut the current file, and begin a new one."""
        if self._stands():
            return
        carried = self._partial()
        self._close_files()
        with self._lock:
            for segment in self.segments[-1:]:
                segment.gone = True
            self.segments = self.segments[:-1]
        self._restart(carried)

    def _restart(self, carried: bytes) -> None:
        """Begin a new file with the beginning of an unfinished line."""
        with self._lock:
            self.end = self.line_end + len(carried)
        try:
            self._begin_file(self.line_end, self.lines)
        except OSError as exc:
            self._enter_memory(exc, carried)
            return
        self.end = self.line_end
        if carried:
            self._store(bytearray(carried), 0)

    def _partial(self) -> bytes:
        """The unfinished line, read back from the file."""
        length = self.end - self.line_end
        if not length or self._log < 0:
            return b""
        keep = min(length, CARRY_BYTES)
        with contextlib.suppress(OSError):  # what cannot be read back is lost with its file
            return pread(self._log, keep, self.end - keep - self.segments[-1].header.base)
        return b""

    def _close_files(self) -> None:
        fds = (self._log, self._index)
        self._log = self._index = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    # --- memory ------------------------------------------------------------------------------------------------------

    def _enter_memory(self, exc: OSError, data: bytes) -> None:
        """Go on in memory: with the unfinished line, and with `data`, whatever part of it reached the file."""
        self.fault = self._sentence(exc)
        partial = b""
        if self._log >= 0:
            partial = self._partial()
            with contextlib.suppress(OSError):  # tried again before the file is next written
                self._cut_torn(self.segments[-1])
        self._memory = deque()
        self._memory_bytes = 0
        self._memory_partial = bytearray()
        self._dropped_before = self.dropped_lines
        self.end = self.line_end
        self._remember(partial + data, int(self._clock() * 1000))

    def _cut_torn(self, segment: Segment) -> None:
        """Cut the file back to its last whole line; what was behind it is in memory."""
        size = segment.last.end - segment.header.base
        if os.fstat(self._log).st_size > size:
            os.ftruncate(self._log, size)

    def _remember(self, data: bytes, time_ms: int) -> None:
        newline = data.rfind(b"\n")
        if newline >= 0:
            whole = bytes(self._memory_partial) + data[: newline + 1]
            self._memory_partial = bytearray(data[newline + 1 :])
            self._remember_block(whole, time_ms, whole.count(b"\n"))
        else:
            self._memory_partial += data
        if len(self._memory_partial) > MEMORY_LINE_BYTES:
            piece = bytes(self._memory_partial)
            self._memory_partial.clear()
            self._remember_block(piece, time_ms, 1)
        self.end = self.line_end + len(self._memory_partial)

    def _remember_block(self, data: bytes, time_ms: int, lines: int) -> None:
        memory = self._memory
        assert memory is not None
        self._numbering.seq += 1
        self._numbering.newest = self
        record = Record(self.line_end + len(data), time_ms, self._numbering.seq, self.lines + lines)
        with self._lock:
            memory.append(MemoryBlock(self.line_end, record, data, self.lines))
            self.line_end, self.lines = record.end, record.lines
            self.end = self.line_end
            self._memory_bytes += len(data)
            self._forget(memory)

    def _forget(self, memory: deque[MemoryBlock]) -> None:
        """Drop the oldest lines beyond the bounds."""
        while True:
            surplus = self.lines - memory[0].first_lines - self._memory_lines_max
            if surplus <= 0 and self._memory_bytes <= MEMORY_BYTES:
                return
            first = memory.popleft()
            count = first.record.lines - first.first_lines
            if surplus < count and surplus > 0:
                cut = 0
                for _ in range(surplus):
                    cut = first.data.index(b"\n", cut) + 1
                rest = MemoryBlock(first.start + cut, first.record, first.data[cut:], first.first_lines + surplus)
                memory.appendleft(rest)
                self._memory_bytes -= cut
                self.dropped_lines += surplus
                continue
            self._memory_bytes -= len(first.data)
            self.dropped_lines += count
            if not memory:
                return

    def _replay(self, memory: deque[MemoryBlock]) -> None:
        """Write the oldest block of memory to the current file. Raises OSError, and then memory still has it."""
        block = memory[0]
        segment = self.segments[-1]
        if write_all(self._log, block.data) < len(block.data):
            raise OSError(errno.ENOSPC, "the disk is full")
        pwrite(self._index, pack_record(block.record), record_offset(segment.count))
        with self._lock:
            segment.count += 1
            segment.last = block.record
            memory.popleft()
            self._memory_bytes -= len(block.data)
        if segment.last.end - segment.header.base >= self.limits.max_bytes:
            self._close_files()
            self._begin_file(segment.last.end, segment.last.lines)

    def _sentence(self, exc: OSError) -> str:
        reason = exc.strerror or str(exc)
        return f"{self._current}: {reason}; output is kept in memory until the file can be written again"


def check_directory(path: str) -> None:
    """Make the folder where it is missing, for its owner alone. Raises OSError, for a symbolic link too."""
    if os.path.islink(path):
        raise NotADirectoryError(20, "a symbolic link stands in the place of the log folder", path)
    os.makedirs(path, mode=0o700, exist_ok=True)
