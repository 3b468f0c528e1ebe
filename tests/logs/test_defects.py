"""Damage and defects in one sidecar's log: no sidecar notices, and no other log does."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from bridge.logs import LogLimits, capture, inlet, keeper
from bridge.logs.index import HEADER_BYTES

from .support import LIMIT_S, bytes_of, everything, files_of, opened, run, spawn, texts, until, wait_exit, writing

HUGE = 2**64 - 1


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (12, "<I", 2**32 - 1),
        (16, "<Q", HUGE),
        (16, "<Q", 2**63 - 1),
        (24, "<Q", HUGE),
        (32, "<Q", HUGE),
        (HEADER_BYTES, "<Q", HUGE),
        (HEADER_BYTES + 8, "<Q", HUGE),
        (HEADER_BYTES + 16, "<Q", HUGE),
        (HEADER_BYTES + 24, "<Q", HUGE),
    ],
    ids=["suffix", "base", "base-just-below", "base-lines", "second", "end", "time", "order", "lines"],
)
@pytest.mark.parametrize("rotates", [False, True])
def test_a_number_in_an_index_that_cannot_be_true_loses_no_line(
    tmp_path: Path, offset: int, form: str, value: int, rotates: bool
) -> None:
    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"one\ntwo\n")
        with (tmp_path / "sidecar-stdout.idx").open("r+b") as index:
            index.seek(offset)
            index.write(struct.pack(form, value))
        faults: list[str | None] = []
        for number in range(2):
            async with opened(tmp_path, on_fault=lambda _, fault: faults.append(fault)) as logs:
                log = logs.open("web", LogLimits(max_bytes=1 if rotates else 1000, max_files=100))
                async with writing(log) as writer:
                    await writer.write(b"more %d\n" % number)
                    await writer.write(b"more\n")
                assert texts(await everything(log))[:2] == ["one", "two"]
                assert texts(await everything(log))[-2:] == [f"more {number}", "more"]
        assert faults == []
        assert bytes_of(tmp_path, "stdout") == b"one\ntwo\nmore 0\nmore\nmore 1\nmore\n"

    run(test)


def test_a_log_that_cannot_be_gone_on_with_begins_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "RETRY_S", 0.05)
    faults: list[tuple[str, str | None]] = []

    def defect(*_: object) -> None:
        raise IndexError("a defect")

    async def test() -> None:
        async with opened(tmp_path) as logs, writing(logs.open("web")) as writer:
            await writer.write(b"old\n")
        with monkeypatch.context() as patch:
            patch.setattr(keeper, "recover", defect)
            async with opened(tmp_path, on_fault=lambda *fault: faults.append(fault)) as logs:
                log = logs.open("web")
                async with writing(log) as writer:
                    await writer.write(b"new\n")
                    assert texts(await everything(log)) == ["new"]
                    await until(lambda: len(faults) == 2)
                    await writer.write(b"newer\n")
                    assert texts(await everything(log)) == ["new", "newer"]
        assert faults[0][0] == "web"
        assert "memory" in str(faults[0][1])
        assert faults[1] == ("web", None)
        assert [path.read_bytes() for path in files_of(tmp_path, "stdout")] == [b"old\n", b"new\nnewer\n"]
        async with opened(tmp_path) as logs:
            assert sorted(texts(await everything(logs.open("web")))) == ["new", "newer", "old"]

    run(test)


def test_a_sidecar_lives_on_when_keeping_its_output_runs_into_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "RETRY_S", 0.05)
    faults: list[tuple[str, str | None]] = []
    lines = 20_000
    code = f"import os\nfor n in range({lines}): os.write(1, b'%d %s\\n' % (n, b'x' * 50))"

    def defect(*_: object) -> None:
        raise IndexError("a defect")

    async def test() -> None:
        async with opened(tmp_path, nested=True, on_fault=lambda *fault: faults.append(fault)) as logs:
            bad, good = logs.open("bad"), logs.open("good")
            async with writing(good) as writer:
                with monkeypatch.context() as patch:
                    patch.setattr(bad.keeper.stores[0], "append", defect)
                    child, attachment = await spawn(bad, code)
                    await wait_exit(child)
                    assert child.returncode == 0
                    assert await attachment.flush(LIMIT_S)
                    assert attachment.tail("stdout", 1) == [f"{lines - 1} " + "x" * 50]
                    await attachment.close(LIMIT_S)
                    await until(lambda: bool(faults))
                    assert logs.lines_dropped == lines
                    assert logs.bytes_captured > lines * 50
                await writer.write(b"not concerned\n")
                assert texts(await everything(good)) == ["not concerned"]
            async with writing(bad) as writer:
                await writer.write(b"kept again\n")
                assert texts(await everything(bad)) == ["kept again"]
                await until(lambda: faults[-1][1] is None)
        assert "thrown away" in str(faults[0][1])
        assert {name for name, _ in faults} == {"bad"}
        assert bytes_of(tmp_path / "bad", "stdout") == b"kept again\n"

    run(test)


def test_an_end_that_runs_into_a_defect_closes_the_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise IndexError("a defect")

    async def test() -> None:
        async with opened(tmp_path) as logs:
            log = logs.open("web")
            async with writing(log) as writer:
                await writer.write(b"unfinished")
                with monkeypatch.context() as patch:
                    patch.setattr(inlet.Inlet, "remove", defect)
                    await writer.attachment.close(LIMIT_S)
                with pytest.raises(BrokenPipeError):
                    os.write(writer.err, b"x")

    run(test)
