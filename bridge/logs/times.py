"""Milliseconds since 1970 <-> RFC 3339 text."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone

from ..errors import InvalidParams

_SHOWN_CHARS_MAX = 40
"""Of a wrong time a message shows no more than tells which one it was; a right one is shorter."""
# Python's own reader takes more of ISO 8601, such as week dates and times without seconds. The blank instead of a T is
# what the standard allows for readability.
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MINUTE_OF_DAY = 24 * 60 - 1


def rfc3339(time_ms: int) -> str:
    """A UNIX time in milliseconds as RFC 3339 in UTC, with milliseconds and `Z`."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def parse_rfc3339(text: str, field: str) -> float:
    """RFC 3339 text, given as param `field`, as UNIX milliseconds; a leap second is the one after it.

    Any case of `T` and `Z` and any number of digits behind the point are read, of which the first six count. Raises
    InvalidParams, whose message names the field, for everything else.
    """
    time_ms = _milliseconds(text)
    if time_ms is None:
        raise InvalidParams.of(
            field,
            f"expected an RFC 3339 time with a zone, like 2026-01-31T12:00:00.000Z, got {text[:_SHOWN_CHARS_MAX]!r}",
        )
    return time_ms


def _milliseconds(text: str) -> float | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = found.groups()[6:]
    zone = (int(zone_hours) * 60 + int(zone_minutes)) * (-1 if sign == "-" else 1) if sign else 0
    leap = second == 60 and (hour * 60 + minute - zone) % (24 * 60) == _LAST_MINUTE_OF_DAY
    try:
        moment = datetime(
            *(year, month, day, hour, minute, second - leap),
            int((fraction or "")[:6].ljust(6, "0")),
            timezone(timedelta(minutes=zone)),
        )
    except ValueError:  # no such day, or no such time of a day
        return None
    return (moment - _EPOCH) / timedelta(milliseconds=1) + (1000 if leap else 0)
