"""Pages: order, cursors, filters, bounds."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import CursorExpired, InvalidParams
from bridge.logs import LogLimits
from bridge.model import GetLogsParams, LogEntry

from .support import (
    SMALL,
    everything,
    everything_forward,
    flooding,
    opened,
    run,
    texts,
    until,
    writing,
)


def test_an_empty_log_has_an_empty_page(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            page = await logs.open("web").page(GetLogsParams())
            assert (page.entries, page.before, page.after) == ([], None, None)

    run(test)


def test_the_newest_lines_come_oldest_first_with_cursors_both_ways(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"".join(b"%d\n" % n for n in range(10)))
            newest = await log.page(GetLogsParams(lines=3))
            assert texts(newest.entries) == ["7", "8", "9"]
            assert newest.after is None
            older = await log.page(GetLogsParams(lines=3, before=newest.before))
            assert texts(older.entries) == ["4", "5", "6"]
            again = await log.page(GetLogsParams(lines=3, after=older.after))
            assert texts(again.entries) == ["7", "8", "9"]
            assert again.after is None
            assert again.before is not None
            oldest = await log.page(GetLogsParams(lines=100, before=older.before))
            assert texts(oldest.entries) == ["0", "1", "2", "3"]
            assert oldest.before is None
            between = await log.page(GetLogsParams(after=oldest.entries[0].cursor, before=newest.entries[0].cursor))
            assert texts(between.entries) == ["1", "2", "3", "4", "5", "6"]

    run(test)


def test_a_poller_goes_on_from_its_last_entry(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                await writer.write(b"begin\n")
                cursor = (await log.page(GetLogsParams())).entries[-1].cursor
                seen = []
                for number in range(50):
                    await writer.write(
                        b"%d " % number + b"x" * (number * 13 % 400) + b"\n", ["stdout", "stderr"][number % 2]
                    )
                    page = await log.page(GetLogsParams(after=cursor))
                    seen += [int(text.split()[0]) for text in texts(page.entries)]
                    cursor = page.entries[-1].cursor
                    empty = await log.page(GetLogsParams(after=cursor))
                    assert (empty.entries, empty.after) == ([], None)
                    back = await log.page(GetLogsParams(before=empty.before, lines=1))
                    assert back.entries[0].cursor == cursor
                assert seen == list(range(50))

    run(test)


def test_streams_are_merged_in_the_order_they_were_read(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                for number in range(300):
                    stream = ["stdout", "stderr"][(number * number // 3) % 2]
                    await writer.write(b"%d\n" % number, stream)
            wanted = [str(n) for n in range(300)]
            assert texts(await everything(log, size=7)) == wanted
            first = (await everything(log))[0].cursor
            assert texts(await everything_forward(log, first, size=11)) == wanted[1:]
            only = await everything(log, log_type="stderr", size=10)
            assert {entry.stream for entry in only} == {"stderr"}
            assert len(only) == sum(1 for n in range(300) if (n * n // 3) % 2)
            # A cursor of one stream is a place in the other too.
            page = await log.page(GetLogsParams(log_type="stdout", before=only[5].cursor, lines=1))
            assert int(page.entries[0].text) == max(n for n in range(int(only[5].text)) if not (n * n // 3) % 2)

    run(test)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=60), st.booleans()), max_size=40),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 300),
)
def test_every_entry_comes_exactly_once_both_ways_over_any_page_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    writes: list[tuple[bool, bytes, bool]],
    size_back: int,
    size_on: int,
    max_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("pages")

    async def test() -> None:
        async with opened(folder) as logs:
            log = logs.open("web", LogLimits(max_bytes, 10_000))
            async with writing(log) as writer:
                for err, data, ends in writes:
                    await writer.write(data + (b"\n" if ends else b""), "stderr" if err else "stdout")
            back = await everything(log, size=size_back)
            assert len({entry.cursor for entry in back}) == len(back)
            for stream, err in (("stdout", False), ("stderr", True)):
                data = b"".join(d + (b"\n" if e else b"") for which, d, e in writes if which == err)
                lines = data.split(b"\n")[: None if data and not data.endswith(b"\n") else -1]
                found = [entry.text for entry in back if entry.stream == stream]
                assert found == [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]
            if back:
                assert await everything_forward(log, back[0].cursor, size=size_on) == back[1:]
        async with opened(folder) as logs:
            assert await everything(logs.open("web"), size=size_on) == back

    run(test)


def test_paging_during_a_flood_with_rotations_misses_and_doubles_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
n = 0
while True:
    data = b"".join(b"%d\\n" % i for i in range(n, n + 500))
    os.write(1 + n // 500 % 2, data)
    n += 500
"""

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(200_000, 1000))
            async with flooding(log, code):
                await until(lambda: logs.lines_captured > 50_000)
                back = await everything(log, size=3000)
                for stream in ("stdout", "stderr"):
                    numbers = [int(entry.text) for entry in back if entry.stream == stream]
                    wanted = [n for n in range(numbers[0], numbers[-1] + 1) if n // 500 % 2 == (stream == "stderr")]
                    assert numbers == wanted
                middle = len(back) // 2
                page = await log.page(GetLogsParams(lines=1000, after=back[middle].cursor))
                assert page.entries == back[middle + 1 : middle + 1001]

    run(test)


def test_a_cursor_survives_rotation_and_the_next_bridge_and_expires_with_its_file(tmp_path: Path) -> None:
    async def test() -> None:
        limits = LogLimits(1000, 2)
        async with opened(tmp_path) as logs:
            log = logs.open("web", limits)
            async with writing(log) as writer:
                await writer.write(b"mark\n" + b"x" * 300 + b"\n")
                cursor = (await log.page(GetLogsParams())).entries[0].cursor
                await writer.write(b"y" * 1000 + b"\nnext\n")
                page = await log.page(GetLogsParams(after=cursor))
                assert [text[:1] for text in texts(page.entries)] == ["x", "y", "n"]
        async with opened(tmp_path) as logs:
            log = logs.open("web", limits)
            page = await log.page(GetLogsParams(after=cursor))
            assert [text[:1] for text in texts(page.entries)] == ["x", "y", "n"]
            async with writing(log) as writer:
                for _ in range(3):
                    await writer.write(b"z" * 1000 + b"\n")
            for params in (GetLogsParams(after=cursor), GetLogsParams(before=cursor)):
                with pytest.raises(CursorExpired):
                    await log.page(params)

    run(test)


def test_a_clear_empties_the_log_expires_cursors_and_keeps_an_unfinished_line(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                await writer.write(b"x" * 5000 + b"\nold\nunfin")
                cursor = (await log.page(GetLogsParams())).entries[-1].cursor
                cleared = await log.clear()
                assert (cleared.files, cleared.bytes) == (2, 5010)
                assert (await log.page(GetLogsParams())).entries == []
                await writer.write(b"ished\nnew\n")
                assert texts(await everything(log)) == ["unfinished", "new"]
                assert sorted(os.listdir(tmp_path)) == [
                    "sidecar-stderr.idx",
                    "sidecar-stderr.log",
                    "sidecar-stdout.idx",
                    "sidecar-stdout.log",
                ]
                assert (tmp_path / "sidecar-stdout.log").read_bytes() == b"unfinished\nnew\n"
                with pytest.raises(CursorExpired):
                    await log.page(GetLogsParams(after=cursor))

    run(test)


def test_clears_during_a_flood_tear_no_line(tmp_path: Path) -> None:
    code = """
import os, time
n = 0
while True:
    os.write(1, b"".join(b"line %d end\\n" % i for i in range(n, n + 371)))
    n += 371
    time.sleep(0.002)
"""

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(50_000, 1000))
            async with flooding(log, code):
                last = -1
                for _ in range(20):
                    seen = logs.lines_captured
                    await until(lambda seen=seen: logs.lines_captured > seen + 200)  # type: ignore[misc]
                    await log.clear()
                    lines = texts((await log.page(GetLogsParams(lines=5000))).entries)
                    numbers = [int(text.removeprefix("line ").removesuffix(" end")) for text in lines]
                    if numbers:
                        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                        assert numbers[0] > last
                        last = numbers[-1]
                assert (await log.files())[0].current

    run(test)


def test_levels_filter_and_continuation_lines_follow_theirs(tmp_path: Path) -> None:
    data = (
        b"INFO: start\n"
        + b"plain\n" * 3000
        + b"2026-01-01 00:00:00,000 - app - ERROR - failed\nTraceback (most recent call last):\n"
        + b'  File "x.py", line 1\n' * 2000
        + b"ValueError: bad\nafter\nWARNING: late\n"
    )

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(10_000, 1000))
            async with writing(log) as writer:
                await writer.write(data)
            errors = await everything(log, level="error", size=500)
            assert len(errors) == 2003
            assert {entry.level for entry in errors} == {"error"}
            assert texts(errors)[-1] == "ValueError: bad"
            assert len(await everything(log, level="info")) == 2005
            page = await log.page(GetLogsParams(lines=3))
            assert [entry.level for entry in page.entries] == ["error", None, "warning"]
            first = await log.page(GetLogsParams(level="info", lines=2))
            assert texts(first.entries) == ["ValueError: bad", "WARNING: late"]
            assert len(await everything_forward(log, (await everything(log))[0].cursor, level="warning")) == 2004

    run(test)


def test_times_choose_lines(tmp_path: Path) -> None:
    clock = itertools.count(1_769_860_800, 10)
    now = [next(clock)]

    async def test() -> None:
        async with opened(tmp_path, clock=lambda: float(now[0])) as logs:
            log = logs.open("web", LogLimits(200, 1000))
            async with writing(log) as writer:
                for number in range(100):
                    await writer.write(b"%d\n" % number, ["stdout", "stderr"][number % 2])
                    now[0] = next(clock)
            entries = await everything(log)
            assert entries[0].at == "2026-01-31T12:00:00.000Z"
            assert entries[1].at == "2026-01-31T12:00:10.000Z"
            chosen = await everything(log, since="2026-01-31T12:01:00Z", until="2026-01-31T13:02:00.000+01:00", size=2)
            assert texts(chosen) == ["6", "7", "8", "9", "10", "11", "12"]
            assert texts(await everything(log, since="2026-01-31T12:16:25Z")) == ["99"]
            assert texts(await everything(log, until="2026-01-31T11:59:59Z")) == []
            assert len(await everything(log, since="2020-01-01T00:00:00Z", until="2030-01-01T00:00:00Z")) == 100

    run(test)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("before", ""),
        ("before", "nonsense"),
        ("after", "1o2.3.4"),
        ("after", "é" * 10),
        ("since", "yesterday"),
        ("since", "2026-01-31"),
        ("until", "2026-01-31T12:00:00"),
        ("until", "2026-13-31T12:00:00Z"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, field: str, value: str) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            with pytest.raises(InvalidParams, match=rf"^params\.{field}: "):
                await logs.open("web").page(GetLogsParams(**{field: value}))  # type: ignore[arg-type]

    run(test)


def test_a_cursor_of_another_log_is_expired(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            async with writing(logs.open("one")) as one, writing(logs.open("two")) as two:
                await one.write(b"x\n")
                await two.write(b"x\n")
            cursor = (await logs.open("one").page(GetLogsParams())).entries[0].cursor
            with pytest.raises(CursorExpired):
                await logs.open("two").page(GetLogsParams(after=cursor))

    run(test)


@settings(max_examples=20, deadline=None)
@given(st.text("0123456789abcdefoe.", max_size=30) | st.from_regex(r"[0-9a-f]{1,8}[oe][0-9a-f]{1,3}\.[0-9a-f]{1,3}"))
def test_no_cursor_does_harm(tmp_path_factory: pytest.TempPathFactory, cursor: str) -> None:
    async def test() -> None:
        async with opened(tmp_path_factory.mktemp("cursor")) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"some\nlines\n")
            own = (await log.page(GetLogsParams())).entries[0].cursor.partition("o")[0]
            for text in (cursor, own + cursor):
                for params in (GetLogsParams(after=text), GetLogsParams(before=text)):
                    try:
                        page = await log.page(params)
                    except (CursorExpired, InvalidParams):
                        continue
                    assert {entry.text for entry in page.entries} <= {"some", "lines"}

    run(test)


def test_a_page_stays_below_its_size_and_the_cursor_tells_the_rest(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, max_page_bytes=50_000) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"".join(b"\x01" * (n % 700) + b"%d\n" % n for n in range(1000)))
            page = await log.page(GetLogsParams(lines=1000))
            assert page.before is not None
            assert 10 < len(page.entries) < 500
            assert len(msgspec.json.encode(page)) <= 50_500
            assert len(await everything(log)) == 1000
            assert len(await everything_forward(log, (await everything(log))[0].cursor)) == 999

    run(test)


def test_a_single_line_that_is_too_long_for_a_page_is_cut_further(tmp_path: Path) -> None:
    limit = 61_440
    hard = [b"\x01" * 20_000, b"\xff" * 20_000, "\N{PILE OF POO}".encode() * 5000, b'"' * 16_384, b"x" * 16_384]

    async def test() -> None:
        async with opened(tmp_path, max_page_bytes=limit) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"first\n" + b"\n".join(hard) + b"\nlast\n")
            entries: list[LogEntry] = []
            cursor: str | None = None
            for _ in range(20):
                page = await log.page(GetLogsParams(lines=1000, before=cursor))
                assert page.entries
                assert len(msgspec.json.encode(page)) <= limit + 200
                entries[:0] = page.entries
                cursor = page.before
                if cursor is None:
                    break
            assert [entry.truncated for entry in entries] == [False, True, True, True, False, False, False]
            assert len(entries[1].text) > 10_000
            assert entries[1].text == "\x01" * len(entries[1].text)
            assert await everything_forward(log, entries[0].cursor) == entries[1:]
            assert await everything(log, size=1) == entries

    run(test)


def test_files_are_listed_newest_first_without_their_indexes(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(100, 2))
            async with writing(log) as writer:
                for number in range(5):
                    await writer.write(b"%d" % number * 100 + b"\n")
                await writer.write(b"rest", "stderr")
                files = await log.files()
                assert [file.current for file in files] == [True, True, False, False]
                assert {file.name for file in files[:2]} == {"sidecar-stdout.log", "sidecar-stderr.log"}
                assert files[2].name > files[3].name or files[2].name.count("-") > files[3].name.count("-")
                assert {file.name: file.size for file in files}["sidecar-stderr.log"] == 4
                assert all(file.path == str(tmp_path / file.name) for file in files)

    run(test)
