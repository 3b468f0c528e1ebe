"""Times on the wire: exactly the RFC 3339 grammar, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.errors import InvalidParams
from bridge.logs.times import parse_rfc3339, rfc3339

NOON_MS = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() * 1000


@pytest.mark.parametrize(
    ("text", "after_noon_ms"),
    [
        ("2026-01-31T12:00:00Z", 0),
        ("2026-01-31t12:00:00z", 0),
        ("2026-01-31t12:00:00.250Z", 250),
        ("2026-01-31 12:00:00z", 0),
        ("2026-01-31T12:00:00.1Z", 100),
        ("2026-01-31T12:00:00.0015Z", 1.5),
        ("2026-01-31T12:00:00." + "9" * 5000 + "Z", 999.999),
        ("2026-01-31T13:00:00+01:00", 0),
        ("2026-01-31T06:30:00.5-05:30", 500),
        ("2026-01-31T12:00:00-00:00", 0),
        ("2026-02-01T11:59:00+23:59", 0),
        ("2026-01-31T23:59:60Z", 12 * 3_600_000),
        ("2026-02-01T00:59:60.5+01:00", 12 * 3_600_000 + 500),
    ],
)
def test_every_form_of_rfc_3339_is_read(text: str, after_noon_ms: float) -> None:
    assert parse_rfc3339(text, "since") == pytest.approx(NOON_MS + after_noon_ms, abs=0.001, rel=0)


def test_the_first_and_the_last_year_are_read() -> None:
    assert parse_rfc3339("0001-01-01T00:00:00+23:59", "since") < parse_rfc3339("0001-01-01T00:00:00-23:59", "since") < 0
    assert parse_rfc3339("9999-12-31T23:59:60Z", "since") > parse_rfc3339("9999-12-31T23:59:59Z", "since") > NOON_MS


@pytest.mark.parametrize("time_ms", [0, 1, 999, 1_769_860_800_123, 253_402_300_799_999])
def test_what_is_written_is_read_back(time_ms: int) -> None:
    assert round(parse_rfc3339(rfc3339(time_ms), "since")) == time_ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "1769860800", "2026-01-31", "2026-01-31Z", "2026-01-31T", "12:00:00Z", "T12:00:00Z"),
        *("2026-01-31T12:00:00", "2026-01-31T12:00:00+01", "2026-01-31T12:00:00+0100", "2026-01-31T12:00:00+01:00:00"),
        *("2026-01-31T12:00:00+24:00", "2026-01-31T12:00:00+01:60", "2026-01-31T12:00:00 Z", "2026-01-31T12:00:00ZZ"),
        *("2026-01-31T12:00Z", "2026-01-31T12Z", "20260131T120000Z", "2026-01-31T120000Z", "20260131T12:00:00Z"),
        *("2026-W05-6T12:00:00Z", "2026W056T12:00:00Z", "2026-031T12:00:00Z", "2026-01-31_12:00:00Z"),
        *("2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00.Z", "2026-01-31T12:00:00.5", "2026-1-31T12:00:00Z"),
        *("2026-02-30T12:00:00Z", "2026-13-31T12:00:00Z", "2026-00-31T12:00:00Z", "0000-01-31T12:00:00Z"),
        *("2026-01-31T24:00:00Z", "2026-01-31T12:60:00Z", "2026-01-31T12:00:61Z", "2026-01-31T12:00:60Z"),
        *("2026-01-31T23:59:60+01:00", "2026-01-31T12:00:00Z\n", " 2026-01-31T12:00:00Z", "+2026-01-31T12:00:00Z"),
        *("２０２６-01-31T12:00:00Z", "2026-01-31T12:00:0٠Z", "2026-01-31T12:00:00\u2212\u0030\u0031:00", "\0" * 20),
        *("2026-01-31T12:00:00\u017f", "2026-01-31T12:00:00+01:00" + "0" * 100_000),
    ],
)
def test_everything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidParams, match=r"^params\.since: expected an RFC 3339 time with a zone") as caught:
        parse_rfc3339(text, "since")
    assert caught.value.detail == {"field": "since"}
    assert len(caught.value.message) < 300
