"""What a bridge finds of the one before it: whole, torn, or without its indexes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import CursorExpired
from bridge.logs import LogLimits, SidecarLog
from bridge.model import GetLogsParams

from .support import LIMIT_S, SMALL, Writer, bytes_of, everything, files_of, opened, run, texts, until, writing

LINES = [f"{number} " + "x" * (number * 31 % 200) for number in range(300)]


async def fill(folder: Path) -> None:
    """300 lines, every third one on stderr."""
    async with opened(folder) as logs, writing(logs.open("web", SMALL)) as writer:
        for number, line in enumerate(LINES):
            await writer.write(line.encode() + b"\n", "stderr" if number % 3 == 0 else "stdout")


def indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.idx"))


def test_everything_is_as_it_was_for_the_next_bridge(tmp_path: Path) -> None:
    async def test() -> None:
        await fill(tmp_path)
        async with opened(tmp_path) as logs:
            before = await everything(logs.open("web", SMALL))
            assert texts(before) == LINES
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                await writer.write(b"new\n")
            after = await everything(log)
            assert after[:-1] == before
            assert after[-1].text == "new"

    run(test)


def test_all_indexes_lost_all_lines_are_there_and_old_cursors_expired(tmp_path: Path) -> None:
    async def test() -> None:
        await fill(tmp_path)
        async with opened(tmp_path) as logs:
            cursor = (await everything(logs.open("web", SMALL)))[7].cursor
        for path in indexes(tmp_path):
            path.unlink()
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            for stream in ("stdout", "stderr"):
                wanted = [line for n, line in enumerate(LINES) if (n % 3 == 0) == (stream == "stderr")]
                assert texts(await everything(log, log_type=stream, size=17)) == wanted
            assert sorted(texts(await everything(log))) == sorted(LINES)
            with pytest.raises(CursorExpired):
                await log.page(GetLogsParams(after=cursor))
        assert len(indexes(tmp_path)) == len(files_of(tmp_path, "stdout")) + len(files_of(tmp_path, "stderr"))

    run(test)


HARMS = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.sampled_from(["delete", "cut", "zeros", "rubbish"]),
        st.floats(0, 1),
        st.binary(max_size=100),
    ),
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(HARMS)
def test_any_harm_to_indexes_loses_no_line(
    tmp_path_factory: pytest.TempPathFactory, harms: list[tuple[int, str, float, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("harm")

    async def test() -> None:
        await fill(folder)
        for number, kind, share, rubbish in harms:
            paths = indexes(folder)
            path = paths[number % len(paths)]
            size = path.stat().st_size
            match kind:
                case "delete":
                    path.unlink()
                case "cut":
                    os.truncate(path, int(size * share))
                case "zeros":
                    kept = path.read_bytes()[: int(size * share)]
                    path.write_bytes(kept + bytes(size - len(kept)))
                case _:
                    path.write_bytes(rubbish)
        for _ in range(2):
            async with opened(folder) as logs:
                log = logs.open("web", SMALL)
                for stream in ("stdout", "stderr"):
                    wanted = [line for n, line in enumerate(LINES) if (n % 3 == 0) == (stream == "stderr")]
                    entries = await everything(log, log_type=stream, size=41)
                    assert texts(entries) == wanted
                entries = await everything(log, size=13)
                assert sorted(texts(entries)) == sorted(LINES)
                assert len({entry.cursor for entry in entries}) == len(LINES)

    run(test)


def test_an_index_lost_in_the_middle_keeps_the_cursors_of_all_files(tmp_path: Path) -> None:
    async def test() -> None:
        await fill(tmp_path)
        async with opened(tmp_path) as logs:
            before = await everything(logs.open("web", SMALL), log_type="stdout")
        for path in files_of(tmp_path, "stdout")[:-1:2]:
            path.with_suffix(".idx").unlink()
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            for entry, follower in zip(before[::7], before[1::7], strict=False):
                page = await log.page(GetLogsParams(after=entry.cursor, lines=1, log_type="stdout"))
                assert page.entries[0].text == follower.text

    run(test)


def test_what_was_captured_before_a_kill_is_in_the_files(tmp_path: Path) -> None:
    bridge = """
import sys, anyio, os
from bridge.logs import Logs, LogLimits
async def main():
    logs = Logs(sys.argv[1], nested=False)
    read, write = os.pipe()
    logs.open("web", LogLimits(100_000, 1000)).attach(read)
    n = 0
    while True:
        data = b"".join(b"%d\\n" % i for i in range(n, n + 400))
        await anyio.to_thread.run_sync(os.write, write, data)
        n += 400
        if logs.lines_captured > 50_000:
            print(logs.lines_captured, flush=True)
anyio.run(main)
"""

    async def test() -> None:
        child = subprocess.Popen([sys.executable, "-c", bridge, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        try:
            captured = int(child.stdout.readline())
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
        data = bytes_of(tmp_path, "stdout")
        count = data.count(b"\n")
        assert count >= captured
        assert data.startswith(b"".join(b"%d\n" % n for n in range(count)))
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(100_000, 1000))
            entries = await everything(log, size=5000)
            assert texts(entries)[:count] == [str(n) for n in range(count)]
            async with writing(log) as writer:
                await writer.write(b"next\n")
            assert texts((await log.page(GetLogsParams(lines=1))).entries) == ["next"]

    run(test)


@pytest.mark.parametrize("renamed", ["idx", "both"])
def test_a_rotation_that_a_kill_cut_short_is_finished(tmp_path: Path, renamed: str) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"one\ntwo\n")
        for kind in ["idx"] if renamed == "idx" else ["idx", "log"]:
            (tmp_path / f"sidecar-stdout.{kind}").rename(tmp_path / f"sidecar-stdout-20260131-120000.{kind}")
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"three\n")
            assert texts(await everything(log)) == ["one", "two", "three"]
        assert [path.read_bytes() for path in files_of(tmp_path, "stdout")] == [b"one\ntwo\n", b"three\n"]

    run(test)


def test_files_that_are_deleted_or_cut_or_moved_under_a_running_bridge_are_begun_anew(tmp_path: Path) -> None:
    current = tmp_path / "sidecar-stdout.log"

    async def until_kept(log: SidecarLog, writer: Writer, text: str) -> None:
        """Files are looked at once a second: write until that has happened."""
        with anyio.fail_after(LIMIT_S):
            while True:
                await writer.write(text.encode() + b"\n")
                page = await log.page(GetLogsParams(lines=1))
                if (
                    texts(page.entries) == [text]
                    and current.exists()
                    and current.read_bytes().endswith(text.encode() + b"\n")
                ):
                    return
                await anyio.sleep(0.05)

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"one\n")
                current.unlink()
                await until_kept(log, writer, "two")
                os.truncate(current, 0)
                await until_kept(log, writer, "three")
                current.rename(tmp_path / "elsewhere.log")
                await until_kept(log, writer, "four")

    run(test)


def test_strangers_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "notes.log").write_bytes(b"mine")
        (tmp_path / "sidecar-stdout-20200101-000000.log").mkdir()
        (tmp_path / "sidecar-stdout.log.bak").write_bytes(b"mine")
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(10, 1))
            async with writing(log) as writer:
                for number in range(5):
                    await writer.write(b"line number %d\n" % number)
            await log.clear()
        assert (tmp_path / "notes.log").read_bytes() == b"mine"
        assert (tmp_path / "sidecar-stdout.log.bak").read_bytes() == b"mine"
        assert (tmp_path / "sidecar-stdout-20200101-000000.log").is_dir()

    run(test)


def test_old_logs_without_indexes_are_read(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "sidecar-stdout-20250101-000000.log").write_bytes(b"a\nb\n")
        (tmp_path / "sidecar-stdout.log").write_bytes(b"c\nd")
        os.utime(tmp_path / "sidecar-stdout-20250101-000000.log", (1_769_860_800, 1_769_860_800))
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"e\n")
            entries = await everything(log)
            assert texts(entries) == ["a", "b", "c", "d", "e"]
            assert entries[0].at == "2026-01-31T12:00:00.000Z"
            await until(lambda: len(indexes(tmp_path)) == 3)

    run(test)
