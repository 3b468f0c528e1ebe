"""Diagnostics on fd 2: text or JSON lines that never block the event loop.

Nobody may read fd 2, and a pipe that nobody empties fills up: then lines are dropped and counted, and the next line
that fits says how many.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from typing import Any

LINE_BYTES_MAX = 4096
"""What a pipe takes in one piece (PIPE_BUF), so that lines of several processes do not mix."""


class StderrHandler(logging.Handler):
    """Writes records to fd 2 if that can be done at once."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or count it as dropped."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not break what it tells of
            line = f"a diagnostic of {record.name} could not be formatted".encode()
        if self.dropped:
            line = f"({self.dropped} lines were dropped) ".encode() + line
        self.dropped = 0 if _write_now(line) else self.dropped + 1


def _write_now(text: bytes) -> bool:
    rest = text + b"\n"
    try:
        while rest:
            # Writable means that PIPE_BUF bytes go without waiting.
            if not select.select([], [2], [], 0)[1]:
                return False
            rest = rest[os.write(2, rest[:LINE_BYTES_MAX]) :]
    except (OSError, ValueError):
        return False
    return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON with at, level, logger, message and, where there is one, traceback."""
        entry: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(form: str, level: str) -> None:
    """Send every logger of the bridge to fd 2, as `text` or `json`, from `level` on."""
    handler = StderrHandler()
    handler.setFormatter(
        JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bridge").setLevel(level.upper())
