"""What is known of one process's output: tails, patterns, ends."""

from __future__ import annotations

import os
import re
from pathlib import Path

import anyio
import pytest

from .support import LIMIT_S, everything, opened, run, texts, until, writing


def test_a_tail_has_the_last_lines_of_this_process_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"of the first\n")
            async with writing(log) as writer:
                assert writer.attachment.tail("stderr") == []
                await writer.write(b"".join(b"%d\r\n" % n for n in range(30)) + b"fatal: no newline \xff", "stderr")
                assert writer.attachment.tail("stderr", 2) == ["29", "fatal: no newline \ufffd"]
                assert len(writer.attachment.tail("stderr")) == 20
                assert writer.attachment.tail("stdout") == []
            assert writer.attachment.tail("stderr", 1) == ["fatal: no newline \ufffd"]

    run(test)


def test_a_tail_is_bounded(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"".join(b"%d" % n + b"x" * 2000 + b"\n" for n in range(500)))
            lines = writer.attachment.tail("stdout", 1000)
            assert 5 < len(lines) < 20
            assert {len(line) for line in lines} == {1000}
            assert [line.rstrip("x") for line in lines] == [str(n) for n in range(500 - len(lines), 500)]

    run(test)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_pattern_is_found_in_what_comes_however_it_is_cut(tmp_path: Path, stream: str) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            expected = writer.attachment.expect(r"^listening on \d+$")
            await writer.write(b"starting\nnot listening on 1\nlisten", stream)
            await writer.write(b"ing on 80", stream)
            assert not expected.met
            await writer.write(b"80\r\nmore", stream)
            with anyio.fail_after(LIMIT_S):
                await expected.wait()
            assert expected.met

    run(test)


def test_a_pattern_is_found_in_what_came_before(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"ready\nand more\nunfini")
            with anyio.fail_after(LIMIT_S):
                await writer.attachment.expect(re.compile("^READY$", re.I)).wait()
                spanning = writer.attachment.expect("^unfinished$")
                await writer.write(b"shed\n")
                await spanning.wait()

    run(test)


def test_the_lines_of_another_process_do_not_count(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as old, writing(log) as new:
                expected = new.attachment.expect("ready")
                await old.write(b"ready\n")
                await new.write(b"not yet\n")
                assert not expected.met
                expected.cancel()
                await new.write(b"ready\n")
                await anyio.sleep(0)
                assert not expected.met

    run(test)


def test_a_bad_pattern_is_refused_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            with pytest.raises(re.error):
                writer.attachment.expect("(")

    run(test)


def test_merged_output_needs_one_pipe(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            read, write = os.pipe()
            attachment = log.attach(read, None)
            os.write(write, b"x\n")
            assert await attachment.flush(LIMIT_S)
            os.close(write)
            await attachment.close(LIMIT_S)
            await attachment.close(LIMIT_S)
            assert await attachment.flush(LIMIT_S)
            assert texts(await everything(log)) == ["x"]

    run(test)


def test_an_end_of_the_pipe_ends_the_line_and_frees_the_descriptor(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            read, write = os.pipe()
            log.attach(read)
            os.write(write, b"last")
            os.close(write)
            await until(lambda: logs.lines_captured == 1)
            assert texts(await everything(log)) == ["last"]
            await until(lambda: not os.path.exists(f"/proc/self/fd/{read}") or os.name != "posix")

    run(test)


def test_nothing_is_left_open_at_the_end(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc")

    def descriptors() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and _there(fd)}

    async def test() -> None:
        async with opened(tmp_path, nested=True) as logs:
            for name in ("a", "b"):
                read, write = os.pipe()
                log = logs.open(name)
                log.attach(read)
                os.write(write, b"x" * 100)
                os.close(write)
            logs.remove("a")
            assert (await everything(log)) is not None
        assert not [path for path in descriptors() if str(tmp_path) in path]
        assert (tmp_path / "a" / "sidecar-stdout.log").read_bytes() == b"x" * 100

    run(test)


def _there(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")
