"""Milliseconds since 1970 <-> RFC 3339 text."""

from __future__ import annotations

import time
from datetime import datetime

from ..errors import InvalidParams


def rfc3339(time_ms: int) -> str:
    """A UNIX time in milliseconds as RFC 3339 in UTC, with milliseconds and `Z`."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def parse_rfc3339(text: str, field: str) -> float:
    """RFC 3339 text with a zone, given as param `field`, as UNIX milliseconds. Raises InvalidParams."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or len(text) < len("2000-01-01T00:00:00Z") or text[10] not in "Tt ":
        raise InvalidParams(
            f"{field}: expected an RFC 3339 time with a zone, like 2026-01-31T12:00:00.000Z", detail={"field": field}
        )
    return moment.timestamp() * 1000
