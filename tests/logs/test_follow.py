"""Subscriptions: backlog and live lines without gap or overlap, batched and bounded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bridge.errors import CursorExpired, InvalidParams, NotAllowed
from bridge.logs import LogLimits, SidecarLog, Subscription, facade, follow, subscription
from bridge.logs.batch import BATCH_ENTRIES, Place
from bridge.logs.janitor import Janitor
from bridge.logs.keeper import Keeper
from bridge.model import GetLogsParams, LogEntry, LogLines, LogPage, SubscribeLogsParams

from .support import SMALL, everything, flooding, opened, run, texts, until, writing


class Follower:
    """A subscription and what it got."""

    def __init__(self) -> None:
        self.id = ""
        self.batches: list[LogLines] = []
        self.times: list[float] = []

    def take(self, lines: LogLines) -> None:
        assert self.id, "a batch came before the subscription was known"
        assert lines.subscription == self.id
        self.batches.append(lines)
        self.times.append(time.monotonic())

    @property
    def entries(self) -> list[LogEntry]:
        return [entry for batch in self.batches for entry in batch.entries]

    @property
    def dropped(self) -> int:
        return sum(batch.dropped for batch in self.batches)


async def subscribe(log: SidecarLog, **params: Any) -> Follower:
    follower = Follower()
    follower.id = (await log.subscribe(SubscribeLogsParams(**params), follower.take)).id
    return follower


async def everything_at_once(log: SidecarLog) -> LogPage:
    """The newest page of the largest size."""
    return await log.page(GetLogsParams(lines=100_000))


def test_new_lines_come_live_and_old_ones_do_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"old\n")
                live = await subscribe(log)
                await writer.write(b"new\n")
                await writer.write(b"err\n", "stderr")
                await until(lambda: len(live.entries) == 2)
                assert texts(live.entries) == ["new", "err"]
                assert live.entries == (await everything(log))[1:]
                assert live.batches[0].sidecar == "web"

    run(test)


def test_the_backlog_comes_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                for number in range(300):
                    await writer.write(
                        b"%d " % number + b"x" * 40 + b"\n", ["stdout", "stderr"][number * number % 3 % 2]
                    )
                before = await everything(log)
                some = await subscribe(log, backlog=120)
                behind = await subscribe(log, after=before[9].cursor)
                whole = await subscribe(log, backlog=1000)
                await writer.write(b"live\n")
                for follower, wanted in ((some, before[-120:]), (behind, before[10:]), (whole, before)):
                    await until(lambda f=follower, w=wanted: len(f.entries) > len(w))  # type: ignore[misc]
                    assert follower.entries[:-1] == wanted
                    assert follower.entries[-1].text == "live"
                    assert follower.dropped == 0

    run(test)


def test_a_stream_and_a_level_can_be_chosen_for_backlog_and_live_lines(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:

                async def some(number: int) -> None:
                    await writer.write(b"INFO: %d\nERROR: %d\n  more\n" % (number, number))
                    await writer.write(b"ERROR: err %d\nplain\n" % number, "stderr")

                for number in range(5):
                    await some(number)
                errors = await subscribe(log, level="error", backlog=4)
                out = await subscribe(log, log_type="stdout", level="warning", backlog=2)
                plain = await subscribe(log, log_type="stderr")
                await some(5)
                await until(lambda: len(errors.entries) == 7 and len(out.entries) == 4 and len(plain.entries) == 2)
                assert texts(errors.entries)[:4] == ["ERROR: err 3", "ERROR: 4", "  more", "ERROR: err 4"]
                assert texts(errors.entries)[4:] == ["ERROR: 5", "  more", "ERROR: err 5"]
                assert texts(out.entries) == ["ERROR: 4", "  more", "ERROR: 5", "  more"]
                assert texts(plain.entries) == ["ERROR: err 5", "plain"]

    run(test)


COUNTING = """
import os, sys, time
n = 0
while True:
    count = int(sys.argv[1])
    os.write(1 + n // count % 2, b"".join(b"%d\\n" % i for i in range(n, n + count)))
    n += count
    time.sleep(float(sys.argv[2]))
"""


def test_a_busy_log_with_rotations_is_followed_without_gap_or_overlap(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(20_000, 1000))
            followers: list[Follower] = []
            async with flooding(log, COUNTING, "50", "0.004"):
                for _ in range(6):
                    seen = logs.lines_captured
                    await until(lambda seen=seen: logs.lines_captured > seen + 1000)  # type: ignore[misc]
                    followers.append(await subscribe(log, backlog=500 if len(followers) % 2 else 0))
            last = (await everything(log))[-1]
            for follower in followers:
                await until(lambda f=follower: f.entries[-1:] == [last])  # type: ignore[misc]
                assert follower.dropped == 0
                for stream in ("stdout", "stderr"):
                    numbers = [int(entry.text) for entry in follower.entries if entry.stream == stream]
                    span = range(numbers[0], numbers[-1] + 1)
                    assert numbers == [n for n in span if (n // 50 % 2 == 1) == (stream == "stderr")]

    run(test)


def test_what_a_flood_outruns_is_counted_exactly_and_capture_does_not_wait(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(1_000_000, 10_000))
            async with writing(log) as writer:
                live = await subscribe(log)
                await writer.write(b"begin\n")
                await until(lambda: len(live.entries) == 1)
            async with flooding(log, COUNTING, "2000", "0"):
                await until(lambda: live.dropped > 50_000)
            async with writing(log) as writer:
                await writer.write(b"end\n")
            await until(lambda: live.entries[-1].text == "end")
            assert len(live.entries) + live.dropped == logs.lines_captured
            position = 0
            for batch in live.batches:
                assert len(batch.entries) <= BATCH_ENTRIES
                assert len(msgspec.json.encode(batch)) < 2_000_000
                position += batch.dropped + len(batch.entries)
            assert position == logs.lines_captured

    run(test)


def test_batches_keep_their_distance(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            live = await subscribe(log, backlog=10)
            async with flooding(log, COUNTING, "1", "0.001"):
                await until(lambda: len(live.batches) >= 8)
            # The loop may be late with one, and then the next seems early; on the whole they cannot.
            assert live.times[7] - live.times[0] >= 7 * follow.INTERVAL_S * 0.9

    run(test)


def test_what_deliver_refuses_counts_in_the_next_batch(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            got: list[LogLines] = []

            def deliver(lines: LogLines) -> bool:
                got.append(lines)
                return len(got) > 2

            await log.subscribe(SubscribeLogsParams(), deliver)
            async with writing(log) as writer:
                for number in range(4):
                    await writer.write(b"%d\n" % number)
                    await until(lambda number=number: len(got) == number + 1)  # type: ignore[misc]
            assert [(texts(lines.entries), lines.dropped) for lines in got] == [
                (["0"], 0),
                (["1"], 1),
                (["2"], 2),
                (["3"], 0),
            ]

    run(test)


def test_lines_that_are_cleared_before_they_were_delivered_are_counted(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                live = await subscribe(log)
                await writer.write(b"0\n")
                await until(lambda: len(live.entries) == 1)
                await writer.write(b"1\n2\n3\n")
                await log.clear()
                await writer.write(b"4\n")
                await until(lambda: texts(live.entries)[-1] == "4")
                assert len(live.entries) + live.dropped == 5

    run(test)


def test_an_ended_subscription_gets_nothing_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                ended, other = await subscribe(log), await subscribe(log)
                assert logs.unsubscribe(ended.id)
                assert not logs.unsubscribe(ended.id)
                assert not log.unsubscribe("nonsense")
                await writer.write(b"x\n")
                await until(lambda: len(other.entries) == 1)
                assert ended.entries == []

    run(test)


def test_a_hundred_subscriptions_each_get_every_line(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            names = [f"s{number}" for number in range(10)]
            followers = [(name, await subscribe(logs.open(name))) for name in names for _ in range(12)]
            for name in names:
                async with writing(logs.open(name)) as writer:
                    await writer.write(b"".join(b"%d\n" % n for n in range(500)))
            for name, follower in followers:
                await until(lambda f=follower: len(f.entries) == 500)  # type: ignore[misc]
                assert {batch.sidecar for batch in follower.batches} == {name}
                assert texts(follower.entries) == [str(n) for n in range(500)]

    run(test)


def test_a_backlog_begins_at_the_oldest_line_that_is_wanted(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                for number in range(200):
                    await writer.write(b"INFO: quiet\n" * 9)
                    if number % 50 == 20:
                        await writer.write(b"ERROR: %d\n" % number)
                errors = await everything(log, level="error")
                assert len(errors) == 4
                for backlog in (1, 3, 4, 10):
                    follower = await subscribe(log, level="error", backlog=backlog)
                    await until(lambda f=follower, n=backlog: f.entries == errors[-n:])  # type: ignore[misc]
                some = await log.subscribe(SubscribeLogsParams(level="error", backlog=10), lambda _: None)
                assert some.start is not None
                assert f"{some.start.positions[0]:x}" == errors[0].cursor.rpartition(".")[2]

    run(test)


def test_every_sidecars_followers_have_their_turn_while_all_have_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "INTERVAL_S", 0.0)  # more is always due than can be served
    data = b"".join(b"%d\n" % n for n in range(30_000))
    names = [f"s{number}" for number in range(9)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "sidecar-stdout.log").write_bytes(data)

    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            cursors = [
                (await everything_at_once(logs.open(name, LogLimits(max_bytes=10_000_000)))).entries[0].cursor
                for name in names
            ]
            followers = [
                await subscribe(logs.open(name), after=cursor) for name, cursor in zip(names, cursors, strict=True)
            ]
            before = [len(follower.batches) for follower in followers]
            await until(lambda: sum(len(follower.batches) for follower in followers) >= sum(before) + 45)
            gains = [len(follower.batches) - had for follower, had in zip(followers, before, strict=True)]
            assert min(gains) >= 3, gains

    run(test)


def test_a_loop_that_is_busy_is_not_sent_more_than_one_batch(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            live = await subscribe(log)
            async with flooding(log, COUNTING, "100", "0.001"):
                await until(lambda: len(live.batches) >= 2)
                count = len(live.batches)
                time.sleep(0.5)
                await anyio.sleep(0)
                await anyio.sleep(0)
                assert len(live.batches) <= count + 1

    run(test)


def test_a_removed_sidecars_subscriptions_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            live = await subscribe(logs.open("web"))
            logs.remove("web")
            assert not logs.unsubscribe(live.id)

    run(test)


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            with pytest.raises(InvalidParams, match=r"^params\.after: "):
                await subscribe(log, after="nonsense")
            async with writing(log) as writer:
                await writer.write(b"x\n")
                cursor = (await everything(log))[0].cursor
                await log.clear()
                with pytest.raises(CursorExpired):
                    await subscribe(log, after=cursor)

    run(test)


def test_a_backlog_larger_than_a_batch_comes_in_several(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(100_000, 1000))
            async with writing(log) as writer:
                await writer.write(b"\n" * 5000 + b"\x01" * 3_000_000 + b"\n" + b"\x01" * 100_000 * 3 + b"\n")
                await writer.write(b"".join(b"%d\n" % n for n in range(9000)))
                follower = await subscribe(log, backlog=100_000)
                await writer.write(b"live\n")
                await until(lambda: len(follower.entries) == 14_003)
                assert follower.entries == await everything(log, size=5000)
                assert max(len(batch.entries) for batch in follower.batches) <= BATCH_ENTRIES
                assert max(len(msgspec.json.encode(batch)) for batch in follower.batches) < 1_500_000

    run(test)


def test_an_idle_subscription_does_not_wake_up(tmp_path: Path) -> None:
    import threading

    async def switches() -> int:
        follower = next(t for t in threading.enumerate() if t.name == "log-follow")
        lines = Path(f"/proc/self/task/{follower.native_id}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            live = await subscribe(logs.open("web"))
            await writer.write(b"x\n")
            await until(lambda: len(live.entries) == 1)
            await anyio.sleep(0.2)
            before = await switches()
            await anyio.sleep(0.5)
            assert await switches() - before <= 1

    if Path("/proc/self/task").exists():
        run(test)


def test_a_log_that_is_still_being_opened_keeps_no_other_waiting(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path / "good") as logs:
            log = logs.open("good")
            slow = Keeper(
                "slow",
                str(tmp_path / "slow"),
                LogLimits(),
                memory_lines=10,
                remover=Janitor(),
                clock=time.time,
            )
            came: list[LogLines] = []
            follower = await subscribe(log)
            early = Subscription("early", slow, "all", None, came.append)
            early.start = Place([0, 0], [0, 0])
            logs.follower.join(early)
            async with writing(log) as writer:
                for number in range(5):
                    begin = time.monotonic()
                    await writer.write(b"%d\n" % number)
                    await until(lambda number=number: len(follower.entries) == number + 1)  # type: ignore[misc]
                    assert time.monotonic() - begin < 2
            assert came == []
            slow.open()
            data = bytearray(b"late\n")
            slow.stores[0].append(data, len(data), time.monotonic())
            await until(lambda: [texts(lines.entries) for lines in came] == [["late"]])
            logs.follower.leave(early)
            slow.close()

    run(test)


def test_a_defect_in_following_one_log_ends_only_its_subscriptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            bad, good = logs.open("bad"), logs.open("good")
            async with writing(bad) as bad_writer, writing(good) as good_writer:
                lost, kept = await subscribe(bad), await subscribe(good)
                for number in range(3):
                    with monkeypatch.context() as patch:
                        patch.setattr(bad.keeper, "moment", lambda: 1 // 0)
                        await bad_writer.write(b"bad\n")
                        await until(lambda: "the log of bad" in caplog.text)
                    await good_writer.write(b"good\n")
                    await until(lambda number=number: len(kept.entries) == number + 1)  # type: ignore[misc]
                assert lost.entries == []
                anew = await subscribe(bad)
                await bad_writer.write(b"anew\n")
                await until(lambda: texts(anew.entries) == ["anew"])

    run(test)


def test_a_deliver_that_fails_takes_no_batch_from_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            await log.subscribe(SubscribeLogsParams(), lambda _: bool(1 // 0))
            follower = await subscribe(log)
            async with writing(log) as writer:
                await writer.write(b"x\n")
                await until(lambda: len(follower.entries) == 1)
        assert "ZeroDivisionError" in caplog.text

    run(test)


def test_too_many_subscriptions_are_refused_until_one_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "SUBSCRIPTIONS_MAX", 3)

    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            one, two = logs.open("one"), logs.open("two")
            followers = [await subscribe(one), await subscribe(two), await subscribe(one)]
            with pytest.raises(NotAllowed, match="3 log subscriptions already"):
                await subscribe(two)
            logs.unsubscribe(followers[0].id)
            await subscribe(two)
            logs.unsubscribe(followers[1].id)
            got: list[object] = []

            async def ask() -> None:
                try:
                    await subscribe(one)
                    got.append(None)
                except NotAllowed as refusal:
                    got.append(refusal)

            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(ask)
            assert got.count(None) == 1

    assert subscription.SUBSCRIPTIONS_MAX == 1000
    run(test)


def test_batches_stay_below_a_small_limit(tmp_path: Path) -> None:
    limit = 61_440

    async def test() -> None:
        async with opened(tmp_path, max_page_bytes=limit) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                live = await subscribe(log)
                await writer.write(b"".join(b"\x01" * (n * 997 % 20_000) + b" %d\n" % n for n in range(200)))
                past = await subscribe(log, backlog=1000)
                chosen = await subscribe(log, backlog=1000, log_type="stdout", level=None)
                wanted = await everything(log)
                assert len(wanted) == 200
                for follower in (live, past, chosen):
                    await until(lambda f=follower: len(f.entries) == 200)  # type: ignore[misc]
                    assert follower.entries == wanted
                    assert follower.dropped == 0
                    assert max(len(msgspec.json.encode(batch)) for batch in follower.batches) <= limit + 200

    run(test)
