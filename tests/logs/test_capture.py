"""Files hold exactly the bytes of a sidecar, whatever it writes and however often they rotate."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.core.rotation import parse_archive
from bridge.logs import LogLimits, inlet
from bridge.model import GetLogsParams

from .support import (
    LIMIT_S,
    SMALL,
    bytes_of,
    everything,
    files_of,
    flooding,
    opened,
    run,
    spawn,
    texts,
    until,
    wait_exit,
    writing,
)

NUMBERED = """
import os, sys, threading
def write(fd, name, lines):
    done = 0
    while done < lines:
        count = min(5000, lines - done)
        data = b"".join(b"%s %d %s\\n" % (name, i, b"x" * (i * 7 % 90)) for i in range(done, done + count))
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
        done += count
lines = int(sys.argv[1])
threads = [threading.Thread(target=write, args=a) for a in ((1, b"out", lines), (2, b"err", lines))]
[t.start() for t in threads]
[t.join() for t in threads]
"""


def numbered(name: bytes, lines: int) -> bytes:
    return b"".join(b"%s %d %s\n" % (name, i, b"x" * (i * 7 % 90)) for i in range(lines))


def test_numbered_lines_at_full_speed_over_many_rotations_are_kept_byte_for_byte(tmp_path: Path) -> None:
    lines = 120_000

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(max_bytes=128 * 1024, max_files=1000))
            child, attachment = await spawn(log, NUMBERED, str(lines))
            await wait_exit(child)
            assert await attachment.flush(LIMIT_S)
            await attachment.close(LIMIT_S)
            assert logs.lines_captured == 2 * lines
            assert logs.bytes_captured == len(numbered(b"out", lines)) + len(numbered(b"err", lines))
        for stream, name in (("stdout", b"out"), ("stderr", b"err")):
            assert bytes_of(tmp_path, stream) == numbered(name, lines)
            files = files_of(tmp_path, stream)
            assert len(files) > 30
            for path in files[:-1]:
                data = path.read_bytes()
                assert data.endswith(b"\n")
                assert 128 * 1024 <= len(data) < 128 * 1024 + 110

    run(test)


def test_retention_keeps_the_newest_archives_and_their_order(tmp_path: Path) -> None:
    lines = 60_000

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(max_bytes=100_000, max_files=3))
            child, attachment = await spawn(log, NUMBERED, str(lines))
            await wait_exit(child)
            await attachment.close(LIMIT_S)
        for stream, name in (("stdout", b"out"), ("stderr", b"err")):
            assert len(files_of(tmp_path, stream)) == 4
            assert numbered(name, lines).endswith(bytes_of(tmp_path, stream))
        assert all(".log" in name or ".idx" in name for name in os.listdir(tmp_path))
        assert len(os.listdir(tmp_path)) == 16

    run(test)


def shown(line: bytes) -> str:
    """A line as an entry has it: cut at 16 KiB, before a character that would not be whole."""
    end = min(len(line), 16 * 1024)
    while end < len(line) and end > 16 * 1024 - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end].decode("utf-8", "replace")


@settings(max_examples=40, deadline=None)
@example([3012, 3012, 3066, 3066, 4230], 1)
@given(
    st.lists(st.binary(max_size=60) | st.just(b"\n") | st.integers(61, 5000), max_size=25),
    st.integers(1, 2000),
)
def test_any_chunks_and_any_rotation_size_keep_bytes_and_lines(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes | int], max_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    chunks = [b"\xc3\xa9x" * (piece // 3) if isinstance(piece, int) else piece for piece in pieces]
    data = b"".join(chunks)

    async def test() -> None:
        async with opened(folder) as logs:
            log = logs.open("web", LogLimits(max_bytes, 10_000))
            async with writing(log) as writer:
                for chunk in chunks:
                    await writer.write(chunk)
            lines = data.split(b"\n")
            if not lines[-1]:
                lines.pop()
            wanted = [shown(line.removesuffix(b"\r")) for line in lines]
            assert texts(await everything(log, size=7)) == wanted
        assert bytes_of(folder, "stdout") == data
        archives = files_of(folder, "stdout")[:-1]
        assert all(path.read_bytes().endswith(b"\n") for path in archives[:-1])

    run(test)


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    async def test() -> None:
        os.umask(0o022)
        existing = tmp_path / "logs" / "sidecar-stderr.log"
        existing.parent.mkdir(mode=0o700)
        existing.touch(mode=0o644)
        async with (
            opened(tmp_path / "logs" / "deeper", nested=True) as logs,
            writing(logs.open("web", SMALL)) as writer,
        ):
            await writer.write(b"x" * 5000 + b"\nmore\n")
        for folder, _, files in os.walk(tmp_path / "logs" / "deeper"):
            assert stat.S_IMODE(Path(folder).stat().st_mode) in (0o700, 0o755)
            for name in files:
                assert stat.S_IMODE(Path(folder, name).stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "logs" / "deeper" / "web").stat().st_mode) == 0o700
        async with opened(tmp_path / "logs") as logs, writing(logs.open("web")):
            pass
        assert stat.S_IMODE(existing.stat().st_mode) == 0o600

    run(test)


def test_nested_sidecars_have_a_folder_each(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            for name in ("web", "worker"):
                async with writing(logs.open(name)) as writer:
                    await writer.write(name.encode() + b"\n")
            assert texts(await everything(logs.open("worker"))) == ["worker"]
        assert (tmp_path / "web" / "sidecar-stdout.log").read_bytes() == b"web\n"
        assert (tmp_path / "worker" / "sidecar-stdout.log").read_bytes() == b"worker\n"

    run(test)


def test_lines_of_two_processes_stay_apart_while_the_file_has_only_their_bytes(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"first\nunfinished")
                assert texts(await everything(log)) == ["first"]
            assert texts(await everything(log)) == ["first", "unfinished"]
            async with writing(log) as writer:
                await writer.write(b"second\n")
            assert texts(await everything(log)) == ["first", "unfinished", "second"]
        assert bytes_of(tmp_path, "stdout") == b"first\nunfinishedsecond\n"
        async with opened(tmp_path) as logs:
            assert texts(await everything(logs.open("web"))) == ["first", "unfinished", "second"]

    run(test)


def test_processes_side_by_side_never_tear_each_others_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlet, "HOLD_S", LIMIT_S)  # a busy machine must not look like a silent process

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as old:
                await old.write(b"old be")
                async with writing(log) as new:
                    await new.write(b"new whole\nnew be")
                    await old.write(b"gins\nold again ")
                    await new.write(b"gins\n")
                    for number in range(200):
                        await old.write(b"%d\nold" % number)
                        await new.write(b"new %d\nnew " % number)
                    await new.write(b"last\n")
            lines = texts(await everything(log))
            assert lines[:2] == ["old begins", "new whole"]
            old_lines = ["old begins", "old again 0", *(f"old{n}" for n in range(1, 200)), "old"]
            assert [line for line in lines if line.startswith("old")] == old_lines
            assert len([line for line in lines if line.startswith("new")]) == 203

    run(test)


def test_a_silent_unfinished_line_does_not_hold_the_other_process_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as old:
                await old.write(b"prompt> ")
                async with writing(log) as new:
                    expected = new.attachment.expect("ready")
                    await new.write(b"ready\n")
                    with anyio.fail_after(LIMIT_S):
                        await expected.wait()
                        while texts(await everything(log)) != ["prompt> ", "ready"]:
                            await anyio.sleep(0.01)

    run(test)


def test_long_and_odd_lines_become_text_and_stay_bytes(tmp_path: Path) -> None:
    data = b"a" * 100_000 + b"\n" + "é".encode() * 9000 + b"\n\xff\xfe\r\n\n\x1b[31mred\x1b[0m\r\n" + b"\0" * 10 + b"\n"

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", SMALL)
            async with writing(log) as writer:
                await writer.write(data)
            for entries in (await everything(log, size=1), await everything(log)):
                assert [len(entry.text) for entry in entries] == [16384, 8192, 2, 0, 12, 10]
                assert [entry.truncated for entry in entries] == [True, True, False, False, False, False]
                assert texts(entries)[2:] == ["\ufffd\ufffd", "", "\x1b[31mred\x1b[0m", "\0" * 10]
        assert bytes_of(tmp_path, "stdout") == data

    run(test)


def test_a_line_longer_than_memory_would_hold_is_one_entry(tmp_path: Path) -> None:
    code = "import os\nfor _ in range(400): os.write(1, b'x' * 65536)\nos.write(1, b'\\nnext\\n')"

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(100_000, 3))
            child, attachment = await spawn(log, code)
            await wait_exit(child)
            await attachment.close(LIMIT_S)
            entries = await everything(log, size=1)
            assert [(len(e.text), e.truncated) for e in entries] == [(16384, True), (4, False)]
            page = await log.page(GetLogsParams(after=entries[0].cursor))
            assert texts(page.entries) == ["next"]
        assert len(files_of(tmp_path, "stdout")[0].read_bytes()) == 400 * 65536 + 1

    run(test)


def test_a_flush_does_not_wait_for_a_descendant_that_keeps_the_pipe(tmp_path: Path) -> None:
    code = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    os.write(write, b"x")
    while True: time.sleep(60)
os.read(read, 1)
os.write(1, b"last words")
"""

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            child, attachment = await spawn(log, code)
            await wait_exit(child)
            began = time.monotonic()
            assert await attachment.flush(LIMIT_S)
            assert attachment.tail("stdout", 1) == ["last words"]
            await attachment.close(LIMIT_S)
            assert time.monotonic() - began < LIMIT_S / 2
            lines = texts(await everything(log))
            os.kill(int(lines[0]), signal.SIGKILL)
            assert lines[1:] == ["last words"]

    run(test)


def test_a_flood_does_not_make_another_sidecars_flush_wait(tmp_path: Path) -> None:
    flood = "import os\nwhile True: os.write(1, b'x' * 99 + b'\\n')"

    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            quiet = logs.open("quiet")
            async with flooding(logs.open("flood", LogLimits(1_000_000, 2)), flood) as attachment:
                await until(lambda: logs.bytes_captured > 1_000_000)
                async with writing(quiet) as writer:
                    for number in range(20):
                        began = time.monotonic()
                        await writer.write(b"%d\n" % number)
                        assert time.monotonic() - began < 1
                assert await attachment.flush(LIMIT_S)
            assert texts(await everything(quiet)) == [str(number) for number in range(20)]

    run(test)


def test_an_idle_capture_does_not_wake_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"x\n")
            capture = next(t for t in threading.enumerate() if t.name == "log-capture")
            status = Path(f"/proc/self/task/{capture.native_id}/status")

            def switches() -> int:
                lines = status.read_text().splitlines()
                return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

            await anyio.sleep(0.1)
            before = switches()
            await anyio.sleep(0.5)
            assert switches() - before <= 1

    if Path("/proc/self/task").exists():
        run(test)


def test_archive_names_are_never_used_twice_even_by_the_next_bridge(tmp_path: Path) -> None:
    seen: list[str] = []

    async def test() -> None:
        for _ in range(3):
            async with opened(tmp_path, clock=lambda: 1_769_860_800.5) as logs:
                log = logs.open("web", LogLimits(10, 1))
                async with writing(log) as writer:
                    for number in range(3):
                        await writer.write(b"line number %d\n" % number)
                        seen.extend(name for name in os.listdir(tmp_path) if parse_archive(name))
                await log.clear()
        assert sorted({str(parse_archive(name)) for name in seen})
        suffixes = sorted({name.suffix for name in map(parse_archive, seen) if name})
        assert suffixes == list(range(9))

    run(test)


def test_a_log_can_be_followed_by_its_name_only_through_its_own_file(tmp_path: Path) -> None:
    """A symbolic link in the place of a log file is not followed."""

    async def test() -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        folder = tmp_path / "logs"
        folder.mkdir()
        (folder / "sidecar-stdout.log").symlink_to(victim)
        (folder / "sidecar-stderr.idx").symlink_to(victim)
        faults: list[str | None] = []
        async with opened(folder, on_fault=lambda _, fault: faults.append(fault)) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"kept in memory\n")
                await writer.write(b"also\n", "stderr")
            assert texts(await everything(log)) == ["kept in memory", "also"]
            await until(lambda: bool(faults))
        assert victim.read_bytes() == b"precious"

    run(test)
