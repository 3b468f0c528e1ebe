"""Subscriptions: what is new in the logs -> batches of entries for whoever follows them.

One thread reads new lines from where they were stored, once per sidecar, and hands them to all its subscriptions; so
there is neither gap nor overlap between backlog and live lines, and capture never waits. A subscription that begins in
the past first reads up to where the others are, while what is new queues up for it.

Each subscription gets a batch at most every 50 ms. What a flood writes beyond the named bounds is dropped, oldest
first, and counted where it is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from ..core.levels import RANK
from ..errors import BridgeError
from ..model import Level, LogEntry, LogLines
from .cursor import STREAMS
from .keeper import Keeper
from .query import LogReader, Maker, position_of, size_of
from .runs import Run, StreamReader, head_of, lines_of, merge_forward

INTERVAL_S: Final = 0.05
"""Shortest time between two batches of a subscription."""
BATCH_ENTRIES: Final = 2000
"""Entries of a batch at most: 40 000 lines a second, more than anybody can see."""
BATCH_BYTES: Final = 512 * 1024
"""Encoded size of a batch at most: sent in a few ms. Less where the message limit asks for it."""
LAG_LINES: Final = 20_000
"""Lines that live subscriptions may be behind before the oldest are dropped."""
LAG_BYTES: Final = 8 * 1024 * 1024
"""The same in bytes."""
KEEP_LINES: Final = 4000
"""Lines that are left when some are dropped."""
QUEUE_BYTES: Final = 4 * 1024 * 1024
"""Text that waits for a subscription which still reads its backlog."""
SCAN_BYTES: Final = 2 * 1024 * 1024
"""Log read for one batch: a level that is rare must not keep the others waiting."""

SUBSCRIPTIONS_MAX: Final = 1000
"""Each may hold QUEUE_BYTES, and is offered every line of its sidecar. Ten times what is promised; a client that needs
more has forgotten to end its old ones."""
RETRY_S: Final = 1.0
"""After a log could not be read."""

Deliver = Callable[[LogLines], bool | None]
"""Takes a batch, on the loop's thread; false means that it was dropped, and it counts in the next `dropped`."""
Post = Callable[[Callable[[], None]], bool]
"""Has a function called on the loop's thread; false when the loop has ended."""


logger = logging.getLogger("bridge.logs")


class Place:
    """How far a reader has come: positions, and lines before them, of each stream."""

    __slots__ = ("lines", "positions")

    def __init__(self, positions: list[int], lines: list[int]) -> None:
        self.positions = positions
        self.lines = lines

    def copy(self) -> Place:
        return Place(list(self.positions), list(self.lines))

    def behind(self, other: Place) -> bool:
        """Whether it is behind another place in either stream."""
        return any(here < there for here, there in zip(self.positions, other.positions, strict=True))


class Batch(NamedTuple):
    """What one read brought."""

    items: list[tuple[int, LogEntry | int]]
    """Stream and entry in order; a number stands for lines that are gone."""
    complete: bool
    """Whether the end was reached."""


class Subscription:
    """One follower of one sidecar."""

    def __init__(
        self,
        number: str,
        keeper: Keeper,
        log_type: str,
        level: Level | None,
        deliver: Deliver,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.id = number
        self.keeper = keeper
        self.log_type = log_type
        self.deliver = deliver
        self.closed = False
        self.undelivered = 0
        """Entries that `deliver` dropped since the last batch. Used on the loop's thread alone."""
        self.start: Place | None = None
        """Where it begins; entries before it are none of its business."""
        self.past: tuple[Place, list[int]] | None = None
        """What it still has to read, and up to where."""
        self._streams = [n for n, name in enumerate(STREAMS) if log_type in ("all", name)]
        self._rank = -1 if level is None else RANK[level]
        self.level = level
        self._batch_bytes = batch_bytes
        self._queue: deque[LogEntry | int] = deque()
        self._queue_bytes = 0

    def offer(self, items: list[tuple[int, LogEntry | int]]) -> None:
        """Queue what it wants of these; the oldest are dropped beyond the bounds."""
        start = self.start
        for stream, item in items:
            if stream not in self._streams:
                continue
            if isinstance(item, LogEntry):
                if self._rank >= 0 and (item.level is None or RANK[item.level] < self._rank):
                    continue
                if start is not None and position_of(item) < start.positions[stream]:
                    continue
                self._queue_bytes += len(item.text)
            self._queue.append(item)
        lost = 0
        while len(self._queue) > LAG_LINES or self._queue_bytes > QUEUE_BYTES:
            lost += self._pop()
        if lost:
            self._queue.appendleft(lost)

    def _pop(self) -> int:
        """Drop the oldest item; returns how many entries that are."""
        item = self._queue.popleft()
        if isinstance(item, int):
            return item
        self._queue_bytes -= len(item.text)
        return 1

    def take(self) -> LogLines | None:
        """The next batch of the queue; None when there is none."""
        dropped = 0
        while self._queue and isinstance(self._queue[0], int):
            dropped += self._pop()
        entries: list[LogEntry] = []
        size = 0
        while self._queue and len(entries) < BATCH_ENTRIES:
            item = self._queue[0]
            if isinstance(item, int):
                break  # it belongs in front of what follows
            size += size_of(item)
            if size > self._batch_bytes and entries:
                break
            self._pop()
            entries.append(item)
        if not entries:
            if dropped:
                self._queue.appendleft(dropped)
            return None
        return LogLines(self.id, self.keeper.sidecar, entries, dropped)

    @property
    def waiting(self) -> bool:
        """Whether there is more to send without anything new being written."""
        return self.past is not None or any(isinstance(item, LogEntry) for item in self._queue)


class _Feed:
    """All subscriptions of one sidecar."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.news = True
        self.next_s = 0.0
        self.posted = False
        """A batch has not been taken by the loop yet."""
        self.place: Place | None = None
        self.joining: list[Subscription] = []
        self.subscriptions: list[Subscription] = []

    @property
    def busy(self) -> bool:
        return self.news or bool(self.joining) or any(s.waiting for s in self.subscriptions)


class Follower:
    """The thread that serves subscriptions; it begins with the first and sleeps while nothing is new."""

    def __init__(self, post: Post, batch_bytes: int = BATCH_BYTES) -> None:
        """`batch_bytes` is the encoded size of a batch at most."""
        self._post = post
        self._batch_bytes = batch_bytes
        self._changed = threading.Condition()
        self._feeds: dict[Keeper, _Feed] = {}
        self._thread: threading.Thread | None = None
        self._stopping = False

    # --- from the loop's thread --------------------------------------------------------------------------------------

    def join(self, subscription: Subscription) -> None:
        """Begin to serve a subscription."""
        keeper = subscription.keeper
        with self._changed:
            feed = self._feeds.get(keeper)
            if feed is None:
                feed = self._feeds[keeper] = _Feed(keeper)
                keeper.on_lines = lambda: self._on_lines(feed)
            feed.joining.append(subscription)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-follow", daemon=True)
                self._thread.start()
            self._changed.notify()

    def leave(self, subscription: Subscription) -> None:
        """End a subscription; nothing is delivered to it any more."""
        subscription.closed = True
        with self._changed:
            feed = self._feeds.get(subscription.keeper)
            if feed is None:
                return
            for group in (feed.joining, feed.subscriptions):
                if subscription in group:
                    group.remove(subscription)
            if not feed.joining and not feed.subscriptions:
                feed.keeper.on_lines = None
                del self._feeds[feed.keeper]

    def stop(self) -> None:
        """End the thread; `wait` waits for it."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def wait(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _on_lines(self, feed: _Feed) -> None:
        if not feed.news:
            with self._changed:
                feed.news = True
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._due()
                while due is None and not self._stopping:
                    now = time.monotonic()
                    waits = [f.next_s - now for f in self._feeds.values() if f.busy and not f.posted]
                    self._changed.wait(max(min(waits), 0.0) if waits else None)
                    due = self._due()
                if self._stopping or due is None:
                    return
                due.next_s = time.monotonic() + INTERVAL_S
                due.news = False
                joining = list(due.joining)
                subscriptions = list(due.subscriptions)
            self._serve(due, subscriptions, joining)

    def _due(self) -> _Feed | None:
        """The feed that has waited longest among those whose turn it is, so that no flood keeps another one waiting."""
        now = time.monotonic()
        ready = [feed for feed in self._feeds.values() if feed.busy and not feed.posted and feed.next_s <= now]
        return min(ready, key=lambda feed: feed.next_s, default=None)

    def _serve(self, feed: _Feed, subscriptions: list[Subscription], joining: list[Subscription]) -> None:
        """One batch for every subscription of a sidecar."""
        try:
            reader = LogReader(feed.keeper, wait_s=0)  # the others must not wait for a slow disk
            try:
                batches, complete = self._read(reader, feed, subscriptions, joining)
            finally:
                reader.close()
        except (BridgeError, OSError):
            # Still being opened, or no descriptor is left: a later turn begins where this one did.
            with self._changed:
                feed.news = True
                feed.next_s = time.monotonic() + RETRY_S
            return
        except Exception:
            logger.exception("the subscriptions to the log of %s end", feed.keeper.sidecar)
            self._drop(feed)
            return
        with self._changed:
            for subscription in joining:
                if subscription in feed.joining:  # it was not ended meanwhile
                    feed.joining.remove(subscription)
                    feed.subscriptions.append(subscription)
            feed.news = feed.news or not complete
            feed.posted = bool(batches)
        if batches and not self._post(lambda: self._deliver(feed, batches)):
            with self._changed:
                self._stopping = True

    def _drop(self, feed: _Feed) -> None:
        """End all subscriptions of a sidecar, whose log cannot be followed; a later one begins anew."""
        with self._changed:
            for subscription in feed.subscriptions + feed.joining:
                subscription.closed = True
            if self._feeds.get(feed.keeper) is feed:
                feed.keeper.on_lines = None
                del self._feeds[feed.keeper]

    def _read(
        self, reader: LogReader, feed: _Feed, subscriptions: list[Subscription], joining: list[Subscription]
    ) -> tuple[list[tuple[Subscription, LogLines]], bool]:
        """What each subscription gets now, and whether that was all. Raises OSError, and then nothing has moved."""
        begin = feed.place or Place(reader.ends(), [stream.lines for stream in reader.streams])
        place = begin.copy()
        dropped = skip(reader, place)
        batch = read_batch(reader, place, reader.ends(), reader.streams, None, self._batch_bytes)
        everyone = subscriptions + joining
        pasts = {s: self._read_past(reader, s, begin) for s in everyone if s.past is not None or s in joining}
        feed.place = place
        batches = []
        for subscription in everyone:
            subscription.offer(dropped + batch.items)
            if subscription.start is not None and not place.behind(subscription.start):
                subscription.start = None
            lines = pasts.get(subscription)
            if lines is None and subscription.past is None:
                lines = subscription.take()
            if lines is not None:
                batches.append((subscription, lines))
        return batches, batch.complete

    def _read_past(self, reader: LogReader, subscription: Subscription, join: Place) -> LogLines | None:
        """The next batch of what lies before the place at which a subscription joined the others."""
        if subscription.past is None:
            start = subscription.start
            if start is None or not start.behind(join):
                return None
            subscription.past = (start.copy(), list(join.positions))
        place, ends = subscription.past[0].copy(), subscription.past[1]
        chosen = reader.chosen(subscription.log_type)
        items, complete = read_batch(reader, place, ends, chosen, subscription.level, self._batch_bytes)
        subscription.past = None if complete else (place, ends)
        dropped = sum(item for _, item in items if isinstance(item, int))
        entries = [item for _, item in items if isinstance(item, LogEntry)]
        if not entries and not dropped:
            return None
        return LogLines(subscription.id, subscription.keeper.sidecar, entries, dropped)

    def _deliver(self, feed: _Feed, batches: list[tuple[Subscription, LogLines]]) -> None:
        """On the loop's thread: hand batches over."""
        try:
            for subscription, lines in batches:
                if subscription.closed:
                    continue
                lines.dropped += subscription.undelivered
                taken: bool | None = False
                try:
                    taken = subscription.deliver(lines)
                except Exception:
                    logger.exception("lines of %s could not be handed over", subscription.keeper.sidecar)
                subscription.undelivered = len(lines.entries) + lines.dropped if taken is False else 0
        finally:
            with self._changed:
                feed.posted = False
                self._changed.notify()


def read_batch(
    reader: LogReader,
    place: Place,
    ends: list[int],
    chosen: list[StreamReader],
    level: Level | None,
    batch_bytes: int,
) -> Batch:
    """Read on from `place` towards `ends` within the bounds of a batch, and move `place`."""
    maker = Maker(reader, level, batch_bytes)
    items: list[tuple[int, LogEntry | int]] = []
    entries, size, scanned = 0, 0, 0
    for run in merge_forward(chosen, place.positions, ends):
        stream = run.stream
        if run.position > place.positions[stream]:
            _note_gap(place, stream, reader.streams[stream].lines_before(run.position), items)
        if entries >= BATCH_ENTRIES or scanned >= SCAN_BYTES:
            return Batch(items, False)
        run = head_of(run, BATCH_ENTRIES - entries)
        for entry in maker.entries(run):
            size += size_of(entry)
            if size > batch_bytes and entries:
                _move(place, run, position_of(entry))
                return Batch(items, False)
            items.append((stream, entry))
            entries += 1
        scanned += len(run.data)
        _move(place, run, run.position + run.span)
        if run.position + run.span < ends[stream] and entries >= BATCH_ENTRIES:
            return Batch(items, False)
    for source in chosen:
        number = source.stream
        if place.positions[number] < ends[number]:
            place.positions[number] = ends[number]
            _note_gap(place, number, source.lines_before(ends[number]), items)
    return Batch(items, True)


def _move(place: Place, run: Run, position: int) -> None:
    """Move `place` to a position at the end of a run, or at a line of it."""
    place.positions[run.stream] = position
    place.lines[run.stream] += sum(1 for start, _ in lines_of(run) if start < position)


def _note_gap(place: Place, stream: int, lines: int, items: list[tuple[int, LogEntry | int]]) -> None:
    """Count lines that went with their file before they were read."""
    if lines > place.lines[stream]:
        items.append((stream, lines - place.lines[stream]))
        place.lines[stream] = lines


def skip(reader: LogReader, place: Place) -> list[tuple[int, LogEntry | int]]:
    """Move `place` on where it is too far behind, and count what that leaves out."""
    lag_lines = sum(stream.lines - place.lines[stream.stream] for stream in reader.streams)
    lag_bytes = sum(stream.end - place.positions[stream.stream] for stream in reader.streams)
    if lag_lines <= LAG_LINES and lag_bytes <= LAG_BYTES:
        return []
    positions, lines = reader.ends(), [stream.lines for stream in reader.streams]
    walks = [stream.records_backward(stream.end, place.positions[stream.stream]) for stream in reader.streams]
    heads = [next(walk, None) for walk in walks]
    kept = 0
    while any(heads):
        number = max((head[0].seq, n) for n, head in enumerate(heads) if head is not None)[1]
        head = heads[number]
        assert head is not None
        record, before = head
        kept += record.lines - before.lines
        if positions[number] - before.end > LAG_BYTES or (kept > KEEP_LINES and positions != reader.ends()):
            break
        positions[number], lines[number] = before.end, before.lines
        heads[number] = next(walks[number], None)
    dropped: list[tuple[int, LogEntry | int]] = []
    for stream in reader.streams:
        number = stream.stream
        if positions[number] > place.positions[number]:
            if lines[number] > place.lines[number]:
                dropped.append((number, lines[number] - place.lines[number]))
            place.positions[number], place.lines[number] = positions[number], lines[number]
    return dropped
