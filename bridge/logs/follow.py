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
from collections.abc import Callable
from typing import Final

from ..errors import BridgeError
from ..model import LogEntry, LogLines
from .batch import BATCH_BYTES, Place, read_batch, skip
from .keeper import Keeper
from .query import LogReader
from .subscription import Subscription

INTERVAL_S: Final = 0.05
"""Shortest time between two batches of a subscription."""
RETRY_S: Final = 1.0
"""After a log could not be read."""

Post = Callable[[Callable[[], None]], bool]
"""Has a function called on the loop's thread; false when the loop has ended."""


logger = logging.getLogger("bridge.logs")

TURN_STEP = 0.618
"""Part of the subscriptions by which each turn begins further on: the golden ratio spreads the beginnings evenly."""


class _Feed:
    """All subscriptions of one sidecar."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.news = True
        self.turn = 0
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
        # Where the shell is too slow for all of them, the oldest are dropped: whose that are changes from turn to turn.
        feed.turn += 1
        first = int(feed.turn * TURN_STEP % 1.0 * len(batches))
        return batches[first:] + batches[:first], batch.complete

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
