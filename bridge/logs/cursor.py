"""Cursors: a position in a sidecar's log as an opaque string, and back.

A cursor names an entry: its stream, the numbering of positions it belongs to (`epoch`), the order of its chunk among
both streams (`seq`) and the position of its first byte. The position finds it in its own stream, the order in the
other. A position within a line stands for the gap behind that line.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import InvalidParams
from ..model import Stream

STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")
"""In the order in which lines of one chunk number would be shown."""
_LETTERS: Final = "oe"
_FORM: Final = re.compile(r"([0-9a-f]{1,8})([oe])([0-9a-f]{1,16})\.([0-9a-f]{1,16})")


class Cursor(NamedTuple):
    """A cursor, read."""

    epoch: int
    stream: int
    """Index into STREAMS."""
    seq: int
    position: int

    def __str__(self) -> str:
        return f"{prefix(self.epoch, self.stream, self.seq)}{self.position:x}"


def prefix(epoch: int, stream: int, seq: int) -> str:
    """What the cursors of one chunk have in common; the position in hexadecimal digits completes one."""
    return f"{epoch:x}{_LETTERS[stream]}{seq:x}."


def parse_cursor(text: str, field: str) -> Cursor:
    """Read a cursor given as param `field`. Raises InvalidParams."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidParams.of(field, "not a cursor of this bridge")
    return Cursor(int(match[1], 16), _LETTERS.index(match[2]), int(match[3], 16), int(match[4], 16))
