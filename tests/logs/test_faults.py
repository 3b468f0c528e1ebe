"""Files that cannot be written: capture goes on in memory, and what it kept is written later."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from bridge.errors import LogIoFailed
from bridge.logs import LogLimits, capture
from bridge.model import GetLogsParams

from .support import LIMIT_S, bytes_of, everything, files_of, opened, run, spawn, texts, until, wait_exit, writing


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "RETRY_S", 0.05)


@pytest.fixture
def size_limit() -> Iterator[None]:
    """Restores the limit of file sizes, by which these tests fill the disk: it works for root as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def limit(size: int) -> None:
    """No file of this process may grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.usefixtures("size_limit")
def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path: Path) -> None:
    faults: list[tuple[str, str | None]] = []
    lines = [f"line {number} " + "x" * 50 for number in range(2000)]

    async def test() -> None:
        async with opened(tmp_path, on_fault=lambda *fault: faults.append(fault)) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                limit(10_000)
                for line in lines[:1000]:
                    await writer.write(line.encode() + b"\n")
                assert texts(await everything(log, size=77)) == lines[:1000]
                page = await log.page(GetLogsParams(lines=10))
                with anyio.fail_after(LIMIT_S):
                    while not faults:
                        await anyio.sleep(0.01)
                await anyio.sleep(0.2)  # several tries must not tell it again
                assert [(name, fault is None) for name, fault in faults] == [("web", False)]
                assert "sidecar-stdout.log" in str(faults[0][1])
                limit(UNLIMITED)
                await until(lambda: len(faults) == 2)
                assert faults[1] == ("web", None)
                newer = await log.page(GetLogsParams(after=page.entries[-1].cursor))
                assert newer.entries == []
                for line in lines[1000:]:
                    await writer.write(line.encode() + b"\n")
            assert texts(await everything(log)) == lines
        assert bytes_of(tmp_path, "stdout") == "".join(line + "\n" for line in lines).encode()
        async with opened(tmp_path) as logs:
            assert texts(await everything(logs.open("web"))) == lines

    run(test)


@pytest.mark.usefixtures("size_limit")
def test_the_oldest_lines_are_dropped_when_memory_is_full_and_none_is_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[str | None] = []

    async def test() -> None:
        async with opened(tmp_path, memory_lines=100, on_fault=lambda _, fault: faults.append(fault)) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"first\nbegun ")
                limit(15)
                await writer.write(b"in the file\n" + b"".join(b"%d\n" % n for n in range(1000)))
                assert texts(await everything(log, size=9)) == ["first", *(str(n) for n in range(900, 1000))]
                await writer.write(b"unfinished")
                limit(UNLIMITED)
                await until(lambda: faults[-1:] == [None])
                await writer.write(b" line\n")
                assert logs.lines_dropped == 901
            wanted = ["first", *(str(n) for n in range(900, 1000)), "unfinished line"]
            assert texts(await everything(log, size=9)) == wanted
        assert bytes_of(tmp_path, "stdout").decode().splitlines() == wanted
        assert files_of(tmp_path, "stdout")[0].read_bytes() == b"first\n"
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert "sidecar-stdout.log: the file can be written again; 901 lines are missing" in warnings[0]

    run(test)


def test_a_folder_that_is_replaced_by_a_file_and_comes_back(tmp_path: Path) -> None:
    faults: list[str | None] = []
    folder = tmp_path / "logs"

    async def test() -> None:
        async with opened(folder, on_fault=lambda _, fault: faults.append(fault)) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"kept in the first folder\n")
                folder.rename(tmp_path / "moved")
                folder.write_bytes(b"")
                written = 0
                with anyio.fail_after(LIMIT_S):
                    while not faults:
                        await writer.write(b"%d\n" % written)
                        written += 1
                        await anyio.sleep(0.02)
                await writer.write(b"in memory\n")
                assert texts(await everything(log))[-1] == "in memory"
                folder.unlink()
                await until(lambda: faults[-1] is None)
                await writer.write(b"in the new folder\n")
                assert texts(await everything(log))[-2:] == ["in memory", "in the new folder"]
        assert (folder / "sidecar-stdout.log").read_bytes().endswith(b"in memory\nin the new folder\n")
        # What was written before somebody looked is in the folder that was moved away.
        moved = bytes_of(tmp_path / "moved", "stdout") + bytes_of(folder, "stdout")
        numbers = [int(line) for line in moved.split(b"\n") if line.isdigit()]
        assert numbers == list(range(written))

    run(test)


def test_a_log_folder_that_cannot_be_made_is_a_fault_from_the_start(tmp_path: Path) -> None:
    faults: list[str | None] = []
    (tmp_path / "logs").write_bytes(b"in the way")

    async def test() -> None:
        async with opened(tmp_path / "logs", nested=True, on_fault=lambda _, fault: faults.append(fault)) as logs:
            log = logs.open("web")
            await until(lambda: bool(faults))
            async with writing(log) as writer:
                await writer.write(b"x\ny")
                assert texts(await everything(log)) == ["x"]
                assert await log.files() == []
                assert (await log.clear()).files == 0
                assert await everything(log) == []
                await writer.write(b"z\n")
                (tmp_path / "logs").unlink()
                await until(lambda: faults[-1] is None)
                assert texts(await everything(log)) == ["yz"]
        assert bytes_of(tmp_path / "logs" / "web", "stdout") == b"yz\n"

    run(test)


@pytest.mark.usefixtures("size_limit")
def test_a_sidecar_does_not_notice(tmp_path: Path) -> None:
    code = "import os\nfor n in range(200): os.write(1, b'x' * 99 * 1000 + b'\\n')"

    async def test() -> None:
        async with opened(tmp_path, memory_lines=10) as logs:
            log = logs.open("web")
            limit(1000)
            child, attachment = await spawn(log, code)
            await wait_exit(child)
            assert child.returncode == 0
            await attachment.close(LIMIT_S)
            assert logs.bytes_captured == 200 * 99_001
            assert len(await everything(log)) == 10
            limit(UNLIMITED)

    run(test)


def test_an_unclean_end_in_a_fault_leaves_whole_lines(tmp_path: Path) -> None:
    bridge = """
import sys, anyio, os, resource, signal
from bridge.logs import Logs, LogLimits
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1005, resource.RLIM_INFINITY))
async def main():
    logs = Logs(sys.argv[1], nested=False)
    read, write = os.pipe()
    attachment = logs.open("web").attach(read)
    for n in range(100):
        os.write(write, b"%02d" % n + b"x" * 17 + b"\\n")
        await attachment.flush(10)
    os.kill(os.getpid(), 9)
anyio.run(main)
"""
    child = subprocess.run([sys.executable, "-c", bridge, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert bytes_of(tmp_path, "stdout") == b"".join(b"%02d" % n + b"x" * 17 + b"\n" for n in range(50))


def test_memory_and_rotation_go_together(tmp_path: Path) -> None:
    """What memory kept is rotated like anything else when it is written."""
    folder = tmp_path / "logs"
    folder.write_bytes(b"")
    faults: list[str | None] = []

    async def test() -> None:
        async with opened(folder, on_fault=lambda _, fault: faults.append(fault)) as logs:
            log = logs.open("web", LogLimits(100, 1000))
            async with writing(log) as writer:
                for number in range(200):
                    await writer.write(b"%d\n" % number)
                folder.unlink()
                await until(lambda: faults[-1:] == [None])
            assert texts(await everything(log, size=7)) == [str(n) for n in range(200)]
            assert len(files_of(folder, "stdout")) > 5
        assert bytes_of(folder, "stdout") == b"".join(b"%d\n" % n for n in range(200))

    run(test)


def test_an_unreadable_archive_is_no_page_but_an_error_or_a_gap(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(10, 100))
            async with writing(log) as writer:
                for number in range(4):
                    await writer.write(b"line number %d\n" % number)
                archives = files_of(tmp_path, "stdout")[:-1]
                os.unlink(archives[1])
                assert texts(await everything(log)) == ["line number 0", "line number 2", "line number 3"]

    run(test)


def test_a_clear_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web", LogLimits(20, 100))
            async with writing(log) as writer:
                for number in range(10):
                    await writer.write(b"line %d\n" % number, ["stdout", "stderr"][number % 2])
                await writer.write(b"unfinished")
                before = await everything(log)
                names = sorted(os.listdir(tmp_path))
                # A folder in the place of a name that the clear needs: it fails at the second stream, also for root.
                (tmp_path / "sidecar-stderr.idx.cleared").mkdir()
                with pytest.raises(LogIoFailed, match="cannot be removed"):
                    await log.clear()
                (tmp_path / "sidecar-stderr.idx.cleared").rmdir()
                assert sorted(os.listdir(tmp_path)) == names
                assert await everything(log) == before
                await writer.write(b" and finished\n")
                assert texts(await everything(log)) == [*texts(before), "unfinished and finished"]
                cleared = await log.clear()
                assert cleared.files == sum(name.endswith(".log") for name in names)
                assert sorted(os.listdir(tmp_path)) == [
                    "sidecar-stderr.idx",
                    "sidecar-stderr.log",
                    "sidecar-stdout.idx",
                    "sidecar-stdout.log",
                ]

    run(test)


def test_a_clear_that_a_kill_cut_short_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"one\n")
        for name in ("sidecar-stdout.log", "sidecar-stdout.idx"):
            (tmp_path / name).rename(tmp_path / f"{name}.cleared")
        async with opened(tmp_path) as logs:
            assert await everything(logs.open("web")) == []
        assert [name for name in os.listdir(tmp_path) if name.endswith(".cleared")] == []

    run(test)
