"""Diagnostics on fd 2: text or JSON lines that never block the event loop.

Nobody may read fd 2, and a pipe that nobody empties fills up: then records are dropped and counted, and before the next
one that fits stands how many. Whatever is written are whole lines.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, Protocol

LINE_BYTES_MAX: Final = 4096
"""What a pipe takes in one piece (PIPE_BUF on Linux), so that lines of several processes do not mix. A longer line is
cut, or a pipe that is full behind its beginning would leave half a line for the next one to continue."""

CUT: Final = "…"
"""Stands where something was left out."""


class Form(Protocol):
    """How a record becomes lines."""

    def lines(self, record: logging.LogRecord) -> Iterator[bytes]:
        """Lines of at most LINE_BYTES_MAX bytes, their `\\n` included."""


class TextForm:
    """Time, level, logger and message; a traceback in lines of its own."""

    def __init__(self) -> None:
        self._formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def lines(self, record: logging.LogRecord) -> Iterator[bytes]:
        """As many lines as the text has."""
        for line in self._formatter.format(record).split("\n"):
            data = _encode(line)
            if len(data) >= LINE_BYTES_MAX:
                room = LINE_BYTES_MAX - 1 - len(_encode(CUT))
                data = data[:room].decode("utf-8", "ignore").encode() + _encode(CUT)
            yield data + b"\n"


class JsonForm:
    """One JSON object a record: at, level, logger, message and, where there is one, traceback."""

    def __init__(self) -> None:
        self._formatter = logging.Formatter()

    def lines(self, record: logging.LogRecord) -> Iterator[bytes]:
        """One line. The beginning of a long message is kept, and the end of a long traceback."""
        entry: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self._formatter.formatException(record.exc_info)
        for name in ("traceback", "message"):
            if name in entry and len(self._dump(entry)) > LINE_BYTES_MAX:
                self._cut(entry, name)
        yield self._dump(entry)

    def _cut(self, entry: dict[str, Any], name: str) -> None:
        """Leave as much of a text as the line has room for."""
        text = entry[name]

        def size(chars: int) -> int:
            entry[name] = text[:chars] + CUT if name == "message" else CUT + text[len(text) - chars :]
            return len(self._dump(entry))

        size(max(bisect_right(range(len(text)), LINE_BYTES_MAX, key=size) - 1, 0))

    def _dump(self, entry: dict[str, Any]) -> bytes:
        # What JSON cannot hold as it is (a lone surrogate) becomes an escape that it can.
        return _encode(json.dumps(entry, ensure_ascii=False)) + b"\n"


class StderrHandler(logging.Handler):
    """Writes records to fd 2 if that can be done at once."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form
        self._dropped = 0
        self._rest = b""  # of what was begun

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it as dropped."""
        if self._dropped:
            said = _record("bridge.diagnostics", f"{self._dropped} diagnostics were dropped, as nobody read them")
            if not self._write(said):
                self._dropped += 1
                return
            self._dropped = 0
        if not self._write(record):
            self._dropped += 1

    def _write(self, record: logging.LogRecord) -> bool:
        try:
            lines = list(self._form.lines(record))
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not break what it tells of
            lines = list(self._form.lines(_record(record.name, "a diagnostic that cannot be formatted")))
        return all(self._put(piece) for piece in _pieces(lines))

    def _put(self, piece: bytes) -> bool:
        """Write some lines. What was begun is finished before anything else, so it counts as written."""
        self._rest = _write_now(self._rest)
        if not self._rest:
            self._rest = _write_now(piece)
            if len(self._rest) < len(piece):
                return True
            self._rest = b""
        return False


def _record(logger: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.WARNING, "", 0, message, None, None)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Whole lines joined, up to what goes in one piece."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > LINE_BYTES_MAX:
            yield piece
            piece = b""
        piece += line
    yield piece


def _write_now(data: bytes) -> bytes:
    """Write what goes at once and return what is left."""
    try:
        # Writable means that PIPE_BUF bytes go without waiting; a socket may take less at a time.
        while data and select.select([], [2], [], 0)[1]:
            data = data[os.write(2, data) :]
    except (OSError, ValueError):
        pass  # nobody reads: there is no place left to say so
    return data


def configure(form: str, level: str) -> None:
    """Send every logger of the bridge to fd 2, as `text` or `json`, from `level` on."""
    root = logging.getLogger()
    root.handlers[:] = [StderrHandler(JsonForm() if form == "json" else TextForm())]
    root.setLevel(logging.WARNING)
    logging.getLogger("bridge").setLevel(level.upper())
