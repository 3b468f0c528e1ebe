"""Answers and notifications -> the bytes to write next, in bounded memory however slowly they are taken.

Two lanes. In front, in the order in which they came: answers, and notifications that tell of a change; so what a
request caused before its answer goes out before it. Behind: the bulk that flows by itself (log lines, metrics). Knows
no descriptors and no event loop; `rpc.server` writes what `peek` gives.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from .. import model
from ..contract import NOTIFICATIONS, Delivery, NotificationSpec
from .lighten import lighter
from .messages import encode_body, encode_notification

logger = logging.getLogger("bridge.rpc")

WRITE_BYTES_MAX: Final = 256 * 1024
"""About how much is joined for one write: more than any pipe takes at once gains nothing."""

REPLACE_ABOVE_BYTES: Final = 64 * 1024
"""Overtaken states are replaced only above this backlog. Below it the reader is not slow, it just has not been served
yet, and would miss states for nothing."""

ENVELOPE_BYTES: Final = 256
"""Allowance per queued line for what a queue entry costs beyond its text, and for the envelope of a notification."""

MISSED_KEYS_MAX: Final = 4096
"""Sources (a subscription, a sidecar's metrics) whose dropped notifications are remembered until their next one."""

_BULK: Final = (model.LogLines, model.MetricsSampled)
_COUNT_MARK: Final = b',"dropped":'

_SPECS: Final[dict[type[model.Notification], NotificationSpec]] = {row.params: row for row in NOTIFICATIONS.values()}


class _Notice:
    """A notification that waits. Its `seq` and `dropped` are not known before it is written."""

    __slots__ = ("body", "counted", "entries", "key", "name", "size")

    def __init__(self, name: str, body: bytes, key: tuple[str, str] | None, entries: int, counted: int | None) -> None:
        self.name = name
        self.body = body  # without its last member where that is `dropped`
        self.key = key
        self.entries = entries  # what a loss of it counts as
        self.counted = counted  # what its publisher had dropped before; None without the field
        self.size = len(body) + ENVELOPE_BYTES


class Outbox:
    """What the bridge has to say and has not written yet.

    `epoch` and `next_seq` go into notifications. `max_message_bytes` is the longest line, `max_outbound_bytes` the most
    that may wait before log lines, metrics and progress are dropped, oldest first; half of it may be answers before
    `full` asks for no further requests. `first` is written before anything else: what is left of a line that was begun
    elsewhere.
    """

    def __init__(
        self, *, epoch: str, next_seq: int, max_message_bytes: int, max_outbound_bytes: int, first: bytes = b""
    ) -> None:
        self._epoch = epoch
        self._next_seq = next_seq
        self._max_message_bytes = max_message_bytes
        self._max_outbound_bytes = max_outbound_bytes
        self._answer_bytes_max = max_outbound_bytes // 2
        self._serial = 0
        self._front: OrderedDict[int, bytes | _Notice] = OrderedDict()
        self._behind: OrderedDict[int, _Notice] = OrderedDict()
        self._lossy: OrderedDict[int, _Notice] = OrderedDict()  # those of both lanes that may be dropped, oldest first
        self._latest: dict[tuple[str, str], int] = {}  # serial of the unsent state of each sidecar
        self._missed: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._answers = 0
        self._answer_bytes = 0
        self._waiting_bytes = 0
        self._wire: memoryview = memoryview(first)
        self._abandoned = False
        self.on_pending: Callable[[], None] | None = None
        """Called when a notification was added; whoever writes sets it."""
        self.counters = model.DroppedCounters(0, 0, 0, 0)
        self.messages_out = 0

    @property
    def seq(self) -> int:
        """The `seq` given last."""
        return self._next_seq - 1

    @property
    def expected_seq(self) -> int:
        """The `seq` of the newest notification that is no log line and no sample, once it is written.

        Exact as long as none before it is dropped or overtaken; then it is too high, never too low.
        """
        return self._next_seq - 1 + len(self._front) - self._answers

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait, those that are being written included."""
        return self._waiting_bytes + len(self._wire)

    @property
    def full(self) -> bool:
        """Whether so many answers wait that no further request should be begun."""
        return self._answer_bytes > self._answer_bytes_max

    def publish(self, params: model.Notification) -> None:
        """Queue a notification. What it says is fixed now; the Struct may change afterwards."""
        if self._abandoned:
            return
        if isinstance(params, model.LogLines):
            self.counters.sidecar_log += params.dropped  # lost before they came here
        self._queue(params)

    def _queue(self, params: model.Notification) -> None:
        spec = _SPECS[type(params)]
        body = encode_body(params)
        if len(body) + ENVELOPE_BYTES > self._max_message_bytes:
            self._queue_less(spec, params, len(body))
            return
        notice = _notice(spec, params, body)
        if spec.delivery is Delivery.LATEST and notice.key is not None:
            self._overtake(notice.key)
        self._serial += 1
        if isinstance(params, _BULK):
            self._behind[self._serial] = notice
        else:
            self._front[self._serial] = notice
        if spec.delivery is Delivery.LOSSY:
            self._lossy[self._serial] = notice
        self._added(notice.size)

    def answer(self, encoded: bytes) -> None:
        """Queue an answer: one whole line without its `\\n`. Never dropped. Does not call `on_pending`.

        Only whoever writes has answers, often many at once, and knows when the last of them has come.
        """
        if self._abandoned:
            return
        self._serial += 1
        self._front[self._serial] = encoded
        size = len(encoded) + ENVELOPE_BYTES
        self._answers += 1
        self._answer_bytes += size
        self._waiting_bytes += size
        self._drop_oldest()

    def peek(self) -> memoryview:
        """The bytes to write now, whole lines but for what was written of them already; empty when there are none."""
        if not self._wire and (self._front or self._behind):
            self._wire = memoryview(self._take())
        return self._wire

    def wrote(self, count: int) -> None:
        """The first `count` bytes of what `peek` gave are written."""
        self._wire = self._wire[count:]

    def abandon(self) -> None:
        """Nobody reads any more: forget everything, now and from now on."""
        self._abandoned = True
        for queue in (self._front, self._behind, self._lossy, self._latest, self._missed):
            queue.clear()
        self._answers = self._answer_bytes = self._waiting_bytes = 0
        self._wire = memoryview(b"")

    def _added(self, size: int) -> None:
        self._waiting_bytes += size
        self._drop_oldest()
        if self.on_pending is not None:
            self.on_pending()

    def _take(self) -> bytes:
        lines: list[bytes] = []
        size = 0
        front, behind = self._front, self._behind
        while size < WRITE_BYTES_MAX:
            if front:
                serial, item = front.popitem(last=False)
            elif behind:
                serial, item = behind.popitem(last=False)
            else:
                break
            if isinstance(item, bytes):
                held = len(item) + ENVELOPE_BYTES
                self._answers -= 1
                self._answer_bytes -= held
                lines += (item, b"\n")
                size += len(item) + 1
            else:
                held = item.size
                line = self._finish(serial, item)
                lines.append(line)
                size += len(line)
            self._waiting_bytes -= held
            self.messages_out += 1
        return b"".join(lines)

    def _finish(self, serial: int, notice: _Notice) -> bytes:
        """The line of a notification whose turn has come."""
        self._lossy.pop(serial, None)
        body = notice.body
        if notice.key is not None:
            if self._latest.get(notice.key) == serial:
                del self._latest[notice.key]
            if notice.counted is not None:
                dropped = notice.counted + self._missed.pop(notice.key, 0)
                body = b"%b%b%d}" % (body, _COUNT_MARK, dropped)
        seq = self._next_seq
        self._next_seq += 1
        return encode_notification(notice.name, body, epoch=self._epoch, seq=seq)

    def _overtake(self, key: tuple[str, str]) -> None:
        """Take back the unsent state of a sidecar, where the backlog is worth it, and note the newer one's place."""
        if self._waiting_bytes + len(self._wire) > REPLACE_ABOVE_BYTES:
            older = self._front.pop(self._latest.get(key, 0), None)
            if isinstance(older, _Notice):
                self._waiting_bytes -= older.size
                self.counters.sidecar_state_changed += 1
        self._latest[key] = self._serial + 1

    def _drop_oldest(self) -> None:
        while self._waiting_bytes + len(self._wire) > self._max_outbound_bytes and self._lossy:
            serial, notice = self._lossy.popitem(last=False)
            if self._behind.pop(serial, None) is None:
                self._front.pop(serial)
            self._waiting_bytes -= notice.size
            self._count_loss(notice)

    def _count_loss(self, notice: _Notice) -> None:
        if notice.key is None or notice.counted is None:
            return  # the next `$/progress` says all that a lost one said
        setattr(self.counters, notice.name, getattr(self.counters, notice.name) + notice.entries)
        self._missed[notice.key] = self._missed.pop(notice.key, 0) + notice.entries + notice.counted
        if len(self._missed) > MISSED_KEYS_MAX:
            self._missed.popitem(last=False)

    def _queue_less(self, spec: NotificationSpec, params: model.Notification, size: int) -> None:
        """A notification that would be longer than a line may be.

        Log lines go in two halves. What may not be dropped goes with less in it, what may be is.
        """
        if isinstance(params, model.LogLines) and len(params.entries) > 1:
            middle = len(params.entries) // 2
            head, tail = params.entries[:middle], params.entries[middle:]
            self._queue(model.LogLines(params.subscription, params.sidecar, head, params.dropped))
            self._queue(model.LogLines(params.subscription, params.sidecar, tail))
            return
        if spec.delivery is not Delivery.LOSSY:
            for less in lighter(params):
                if len(encode_body(less)) + ENVELOPE_BYTES <= self._max_message_bytes:
                    self._queue(less)
                    return
        logger.error("a %s of %d bytes is above the message limit and was not sent", spec.name, size)
        self._count_loss(_notice(spec, params, b"{}"))


def _notice(spec: NotificationSpec, params: Any, body: bytes) -> _Notice:
    if isinstance(params, model.LogLines):
        return _Notice(
            spec.name, _uncounted(body), (spec.name, params.subscription), len(params.entries), params.dropped
        )
    if isinstance(params, model.MetricsSampled | model.StartProgressed):
        return _Notice(spec.name, _uncounted(body), (spec.name, params.sidecar), 1, params.dropped)
    if isinstance(params, model.StateChanged):
        return _Notice(spec.name, body, (spec.name, params.sidecar), 1, None)
    return _Notice(spec.name, body, None, 1, None)


def _uncounted(body: bytes) -> bytes:
    """A body up to its last member, `dropped`."""
    return body[: body.rfind(_COUNT_MARK)]
