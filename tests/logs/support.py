"""What the tests of the log floor share: a writer with real pipes, whole logs by pages, real files read back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from bridge.core.rotation import parse_archive
from bridge.logs import Attachment, LogLimits, Logs, SidecarLog
from bridge.model import GetLogsParams, LogEntry

LIMIT_S = 20.0
"""No wait of these tests is longer."""


def run(test: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run an async test, bounded."""

    async def bounded() -> None:
        with anyio.fail_after(LIMIT_S * 2):
            await test(*args)

    anyio.run(bounded)


@contextlib.asynccontextmanager
async def opened(folder: Path, *, nested: bool = False, **options: Any) -> AsyncIterator[Logs]:
    """Logs that are closed at the end."""
    logs = Logs(str(folder), nested=nested, **options)
    try:
        yield logs
    finally:
        await logs.aclose()


class Writer:
    """Both streams of an invented process, over real pipes."""

    def __init__(self, log: SidecarLog) -> None:
        out_r, self.out = os.pipe()
        err_r, self.err = os.pipe()
        self.attachment: Attachment = log.attach(out_r, err_r)

    async def write(self, data: bytes, stream: str = "stdout") -> None:
        """Write, and wait until it is stored."""
        fd = self.out if stream == "stdout" else self.err
        for start in range(0, len(data), 32 * 1024):
            os.write(fd, data[start : start + 32 * 1024])
            assert await self.attachment.flush(LIMIT_S)

    async def end(self) -> None:
        """Close both streams."""
        os.close(self.out)
        os.close(self.err)
        await self.attachment.close(LIMIT_S)


@contextlib.asynccontextmanager
async def writing(log: SidecarLog) -> AsyncIterator[Writer]:
    """A writer that is ended at the end."""
    writer = Writer(log)
    try:
        yield writer
    finally:
        await writer.end()


async def spawn(log: SidecarLog, code: str, *args: str) -> tuple[subprocess.Popen[bytes], Attachment]:
    """A real Python process whose output is kept."""
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    child = subprocess.Popen([sys.executable, "-S", "-c", code, *args], stdout=out_w, stderr=err_w)
    os.close(out_w)
    os.close(err_w)
    return child, log.attach(out_r, err_r)


@contextlib.asynccontextmanager
async def flooding(log: SidecarLog, code: str, *args: str) -> AsyncIterator[Attachment]:
    """A real Python process that writes until the end of the block."""
    child, attachment = await spawn(log, code, *args)
    try:
        yield attachment
    finally:
        child.kill()
        child.wait()
        await attachment.close(LIMIT_S)


async def wait_exit(child: subprocess.Popen[bytes]) -> None:
    """Wait for the exit of a process in a worker thread."""
    with anyio.fail_after(LIMIT_S):
        await anyio.to_thread.run_sync(child.wait, abandon_on_cancel=True)


def files_of(folder: Path, stream: str) -> list[Path]:
    """Log files of a stream, oldest first."""
    archives = sorted(name for name in map(parse_archive, os.listdir(folder)) if name and name.stream == stream)
    current = folder / f"sidecar-{stream}.log"
    return [folder / str(name) for name in archives] + ([current] if current.exists() else [])


def bytes_of(folder: Path, stream: str) -> bytes:
    """All bytes that the files of a stream hold, in order."""
    return b"".join(path.read_bytes() for path in files_of(folder, stream))


async def everything(log: SidecarLog, size: int = 1000, **params: Any) -> list[LogEntry]:
    """All entries, paged from the newest to the oldest."""
    entries: list[LogEntry] = []
    before = params.pop("before", None)
    while True:
        page = await log.page(GetLogsParams(lines=size, before=before, **params))
        entries[:0] = page.entries
        before = page.before
        if before is None:
            return entries


async def everything_forward(log: SidecarLog, after: str, size: int = 1000, **params: Any) -> list[LogEntry]:
    """All entries behind a cursor, paged from the oldest to the newest."""
    entries: list[LogEntry] = []
    cursor: str | None = after
    while cursor is not None:
        page = await log.page(GetLogsParams(lines=size, after=cursor, **params))
        entries += page.entries
        cursor = page.after
    return entries


def texts(entries: list[LogEntry]) -> list[str]:
    return [entry.text for entry in entries]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event announces."""
    with anyio.fail_after(LIMIT_S):
        while not condition():
            await anyio.sleep(0.005)


SMALL = LogLimits(max_bytes=4096, max_files=1000)
"""Rotates often, keeps everything."""
