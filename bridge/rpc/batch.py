"""The answers of one batch -> one line that keeps to the message limit.

Knows nothing of requests; `rpc.server` puts each member's answer in as it comes.
"""

from __future__ import annotations

from typing import Final

STAND_IN_BYTES: Final = 320
"""At least as long as the error that stands in for an answer that does not fit, without the id."""


class Batch:
    """Collects answers.

    Room for a stand-in of every member is set aside at the start; what is left goes to those who come first. So the
    line always fits, and what is held meanwhile is never more than the line.
    """

    __slots__ = ("_answers", "_open", "_spare", "held_bytes")

    def __init__(self, id_bytes: list[int], line_bytes_max: int) -> None:
        self._answers: list[bytes] = []
        self.held_bytes = 0
        self._open = len(id_bytes)
        self._spare = line_bytes_max - 2 - sum(id_bytes) - len(id_bytes) * (STAND_IN_BYTES + 1)

    @property
    def fits(self) -> bool:
        """Whether a line can hold an answer to every member at all; asked before any of them is begun."""
        return self._spare >= 0

    def room(self, id_bytes: int) -> int:
        """How long the next answer may be."""
        return self._spare + STAND_IN_BYTES + id_bytes

    def put(self, answer: bytes, id_bytes: int) -> bytes | None:
        """Take an answer of at most `room` bytes; the whole line without its end, once it is the last."""
        self._spare -= len(answer) - STAND_IN_BYTES - id_bytes
        self._answers.append(answer)
        self.held_bytes += len(answer)
        self._open -= 1
        return None if self._open else b"[%b]" % b",".join(self._answers)
