"""Archive names, and what a rotation renames and deletes, as a plan.

Turns the names in a folder and the time into the next archive's name and the names that fall out of retention. Knows
no file system; `bridge.logs.store` carries plans out.

An archive is `sidecar-STREAM-YYYYMMDD-HHMMSS.log`, in UTC, with `-N` where one second brings several. Names order as
(second, N), with N as a number and none as 0. They only grow: a clock that is set back goes on counting N in the last
second used, so order by name stays order of time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

SUFFIX_MAX: Final = 999_999_999
"""The largest N of a name: `parse_archive` reads no more digits."""

_ARCHIVE = re.compile(r"sidecar-(stdout|stderr)-(\d{8})-(\d{6})(?:-([1-9]\d{0,8}))?\.log")


class ArchiveName(NamedTuple):
    """The name of an archive; compares in order of time among those of one stream."""

    stream: str
    second: int
    """The UTC second as the decimal number YYYYMMDDHHMMSS."""
    suffix: int = 0

    def __str__(self) -> str:
        digits = f"{self.second:014d}"
        tail = f"-{self.suffix}" if self.suffix else ""
        return f"sidecar-{self.stream}-{digits[:8]}-{digits[8:]}{tail}.log"


def current_name(stream: str) -> str:
    """Name of the file that is being written."""
    return f"sidecar-{stream}.log"


def parse_archive(name: str) -> ArchiveName | None:
    """Read a file name; None when it is no archive's."""
    match = _ARCHIVE.fullmatch(name)
    if match is None:
        return None
    return ArchiveName(match[1], int(match[2] + match[3]), int(match[4] or 0))


def second_of(unix_s: float) -> int:
    """A UNIX time as the decimal number YYYYMMDDHHMMSS in UTC; times outside the years 1970 to 9999 are clamped."""
    bounded = min(max(unix_s, 0.0), 253402300799.0)
    return int(datetime.fromtimestamp(bounded, UTC).strftime("%Y%m%d%H%M%S"))


def next_archive(stream: str, now_unix_s: float, last: ArchiveName | None) -> ArchiveName:
    """The name for an archive made now, later than `last`, the latest name ever used for this stream."""
    second = second_of(now_unix_s)
    if last is not None and second <= last.second:
        if last.suffix >= SUFFIX_MAX:
            return ArchiveName(stream, last.second + 1)
        return ArchiveName(stream, last.second, last.suffix + 1)
    return ArchiveName(stream, second)


class RotationPlan(NamedTuple):
    """Rename the current file to `archive`, then delete `delete` (oldest first)."""

    archive: ArchiveName
    delete: tuple[ArchiveName, ...]


def plan_rotation(
    stream: str,
    existing: Iterable[ArchiveName],
    last: ArchiveName | None,
    now_unix_s: float,
    max_files: int,
) -> RotationPlan:
    """What a rotation does, with `max_files` archives kept, the new one included.

    With `max_files` 0 the new archive itself is deleted.
    """
    ours = sorted(name for name in existing if name.stream == stream)
    latest = max(filter(None, (last, ours[-1] if ours else None)), default=None)
    archive = next_archive(stream, now_unix_s, latest)
    ours.append(archive)
    return RotationPlan(archive, tuple(ours[: max(len(ours) - max_files, 0)]))
