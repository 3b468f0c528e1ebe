"""Levels of real-looking lines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.levels import HEAD_BYTES, RANK, LevelReader, level_of, may_continue, may_reach
from bridge.model import Level

LINES: list[tuple[str, Level | None]] = [
    ('INFO:     127.0.0.1:5 - "GET / HTTP/1.1" 200 OK', "info"),
    ("INFO:root:hello", "info"),
    ("WARNING:root:hello", "warning"),
    ("2024-01-01 12:00:00,123 - mylogger - ERROR - boom", "error"),
    ("2024-01-01 12:00:00,123 [main] INFO  com.foo.Bar - msg", "info"),
    ("2024-01-01T12:00:00.123Z  WARN 123 --- [main] c.x : y", "warning"),
    ("2024-01-01T00:00:00.000Z  INFO crate::mod: msg", "info"),
    ("\x1b[2m2024-01-01T00:00:00.000Z\x1b[0m \x1b[32m INFO\x1b[0m crate: msg", "info"),
    ("[2024-01-01T00:00:00Z ERROR  crate] msg", "error"),
    ("2024/01/01 12:00:00 [error] 123#0: *1 open() failed", "error"),
    ("2024-01-01 12:00:00.000 UTC [123] LOG:  database system is ready", "info"),
    ("2024-01-01 12:00:00.000 UTC [123] user@db ERROR:  relation", "error"),
    ("2024-01-01 12:00:00.000 UTC [123] FATAL:  role", "critical"),
    ('info: listening {"a":1}', "info"),
    ("2024-01-01T12:00:00.000Z [info]: msg", "info"),
    ("[2024-01-01 12:00:00 +0000] [123] [INFO] Booting worker", "info"),
    ("[2024-01-01 12:00:00,123: INFO/MainProcess] celery ready", "info"),
    ("[01/Jan/2024 12:00:00] ERROR [django.request:241] Internal", "error"),
    ("2024-01-01T12:00:00.000Z\tDEBUG\tfile.go:1\tmsg", "debug"),
    ('time=2024-01-01T12:00:00Z level=warn msg="x"', "warning"),
    ("12:00PM INF started", "info"),
    ("[12:00:00.000] INFO (123): hello", "info"),
    ("[12:00:00 WRN] hi", "warning"),
    ("info: Microsoft.Hosting.Lifetime[14]", "info"),
    ("fail: Foo[0]", "error"),
    ("crit: Foo[0]", "critical"),
    ("dbug: Foo", "debug"),
    ("npm ERR! code ELIFECYCLE", "error"),
    ("npm WARN deprecated x", "warning"),
    ("npm error code 1", "error"),
    ("SEVERE: could not", "error"),
    ("I0101 12:00:00.123456   123 file.cc:12] hi", "info"),
    ("E0101 12:00:00.123456 1 x.go:1] no", "error"),
    ("[1234:5678:0101/120000.123456:ERROR:gpu.cc(12)] hm", "error"),
    ("2024-01-01T00:00:00.000000Z 0 [Warning] [MY-010] [Server] x", "warning"),
    ("[Mon Jan 01 12:00:00.123 2024] [core:error] [pid 1] x", "error"),
    ('{"level":30,"time":1,"msg":"x"}', "info"),
    ('{"level":"error","msg":"x"}', "error"),
    ('{"time":1,"severity":"WARNING"}', "warning"),
    ('{"t":{"$date":"x"},"s":"I","c":"NETWORK"}', "info"),
    ("(node:1234) Warning: foo", "warning"),
    ("Error: listen EADDRINUSE: address already in use", "error"),
    ("error: could not compile", "error"),
    ("warning: unused variable", "warning"),
    ("Jan  1 12:00:00 host app[12]: ERROR msg", "error"),
    ("DEBUG [worker-1] x", "debug"),
    ("TRACE x", "trace"),
    ("CRITICAL:app:down", "critical"),
    ("mylogger - INFO - msg", "info"),
    ("[ERROR] x", "error"),
    ("<warn> y", "warning"),
    ("[2024-01-01 12:00:00.000] [info]  msg", "info"),
    ("[I 12:00:00.123 ServerApp] Serving", "info"),
    ("2024-01-01 12:00:00.123 | INFO     | __main__:<module>:1 - hi", "info"),
    ("[error] 1", "error"),
    ("worker | ERROR boom", "error"),
    ("No errors found", None),
    ("Error handling is enabled", None),
    ("info about things", None),
    ("0 errors, 3 warnings", None),
    ("User typed ERROR in the box", None),
    ("GET /error HTTP/1.1", None),
    ("listening on 8080", None),
    ('127.0.0.1 - - [01/Jan/2024 12:00:00] "GET / HTTP/1.1" 200 -', None),
    ("log in to continue", None),
    ("fine, thanks", None),
    ("x.error(foo)", None),
    ("fatal error occurred", None),
    ("", None),
    ("Traceback (most recent call last):", None),
    ("ValueError: bad", None),
    ("2024-01-01T12:00:00.000Z info [app] started", "info"),
    ('ERROR: relation "x" does not exist', "error"),
    ("\x1b[33mwarn\x1b[39m: disk almost full", "warning"),
    ("\x1b[31mERROR\x1b[0m boom", "error"),
    ("[2024-01-01T12:00:00Z][WARN] x", "warning"),
    ("2024-01-01 12:00:00.000 [MainThread] DEBUG my.module:12 - x", "debug"),
    ('{"time":"x","log.level":"ERROR","message":"x"}', "error"),
    ('{"level":{"name":"x"},"msg":"ERROR in text"}', None),
    ('{"msg":"the \\"level\\":\\"error\\" was seen"}', None),
    ('level=error msg="x"', "error"),
    ('ts=1 caller=x.go:1 level=debug msg="x"', "debug"),
    ("url=/a?level=high", None),
    ("100% [====] error-free", None),
    ("HTTP/1.1 500 Internal Server Error", None),
    ("   at Foo.bar (/app/error.js:1:2)", None),
    ("Notice: something", "info"),
    ("PANIC: could not locate a valid checkpoint record", "critical"),
    ("[ 12.345678] usb 1-1: new device", None),
    ("W20240101 x", None),
    ("2024-01-01 12:00:00 [info     ] structured event", "info"),
    ("error[E0308]: mismatched types", "error"),
    (" " * 10, None),
    ("\x00\xff\xfe", None),
]


@pytest.mark.parametrize(("line", "level"), LINES)
def test_a_line_shows_its_level(line: str, level: Level | None) -> None:
    assert level_of(line.encode()) == level


def read(*lines: str) -> list[Level | None]:
    reader = LevelReader()
    return [reader.read(line.encode()) for line in lines]


def test_a_traceback_has_the_level_of_the_line_before_it_to_its_last_line() -> None:
    assert read(
        "INFO:root:started",
        "ERROR:root:request failed",
        "Traceback (most recent call last):",
        '  File "app.py", line 1, in <module>',
        "    raise ValueError(1)",
        "ValueError: 1",
        "listening again",
    ) == ["info", "error", "error", "error", "error", "error", None]


def test_a_chained_traceback_is_one() -> None:
    assert read(
        "ERROR:root:x",
        "Traceback (most recent call last):",
        "  File",
        "KeyError: 'a'",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        "  File",
        "app.errors.Failed",
    ) == ["error", "error", "error", "error", None, "error", None, "error", "error", "error"]


def test_a_java_stack_continues_its_line() -> None:
    assert (
        read(
            "2024-01-01 12:00:00,123 [main] WARN  com.foo.Bar - failed",
            "\tat com.foo.Bar.run(Bar.java:1)",
            "Caused by: java.io.IOException: no",
            "\t... 12 more",
        )
        == ["warning"] * 4
    )


def test_an_indented_line_takes_the_last_level_even_behind_a_line_without() -> None:
    assert read("DEBUG x", "plain", "  indented") == ["debug", None, "debug"]


def test_a_continuation_without_a_levelled_line_before_it_has_no_level() -> None:
    assert read("  indented", "Traceback (most recent call last):", "  File", "ValueError: x") == [None] * 4


def test_a_copy_goes_its_own_way() -> None:
    reader = LevelReader()
    reader.read(b"ERROR x")
    other = reader.copy()
    other.read(b"INFO y")
    assert (reader.read(b"  z"), other.read(b"  z")) == ("error", "info")


@given(
    st.lists(st.sampled_from([*(line.encode() for line, _ in LINES), b"  x", b"x", b"", b"ValueError: y"]), max_size=12)
)
def test_a_line_that_cannot_continue_has_the_same_level_whatever_was_before(lines: list[bytes]) -> None:
    reader = LevelReader()
    for line in lines:
        before = reader.copy()
        if not may_continue(line):
            assert before.read(line) == LevelReader().read(line)
        reader.read(line)


@given(
    st.lists(
        st.sampled_from([*(line.encode() for line, _ in LINES), b"  x", b"x", b"", b"ValueError: y"]),
        min_size=1,
        max_size=9,
    ),
    st.integers(0, 5),
)
def test_lines_that_cannot_reach_a_level_do_not(lines: list[bytes], rank: int) -> None:
    if may_reach(b"\n".join(lines) + b"\n", rank):
        return
    for before in (b"CRITICAL: x", b"Traceback (most recent call last):"):
        reader = LevelReader()
        reader.read(b"CRITICAL: x")
        reader.read(before)
        for line in lines:
            level = reader.read(line)
            assert level is None or RANK[level] < rank


_WHOLE = st.sampled_from([*(line.encode() for line, _ in LINES), b"  x", b"x", b"", b"ValueError: y", b"Caused by: z"])
_TAIL = st.sampled_from([b"", b" level=error", b"]", b" ]", b"\x1b[31m", b"s", b"1", b"=", b"/x]", b" ERROR: z", b"\r"])


@st.composite
def _alike(draw: st.DrawFn) -> list[bytes]:
    """Lines of which many have a beginning in common, with other digits and other ends."""
    lines = []
    for line in draw(st.lists(_WHOLE, min_size=1, max_size=4)):
        for _ in range(draw(st.integers(1, 4))):
            end = draw(st.integers(0, len(line)))
            digits = draw(st.sampled_from([bytes.maketrans(b"", b""), bytes.maketrans(b"0123456789", b"1234567890")]))
            lines.append(draw(st.sampled_from([line, line[:end]])).translate(digits) + draw(_TAIL))
    return draw(st.permutations(lines))


@settings(max_examples=1500, deadline=None)
@given(_alike(), st.booleans())
def test_lines_read_together_have_the_levels_that_they_have_one_by_one(lines: list[bytes], plain: bool) -> None:
    if plain:
        lines = [line.replace(b"=", b"").replace(b"\x1b", b"") for line in lines]
    one_by_one, together = LevelReader(), LevelReader()
    assert together.read_all(lines, plain=plain) == [one_by_one.read(line) for line in lines]
    assert together.last == one_by_one.last


@pytest.mark.parametrize(("line", "level"), LINES)
def test_each_level_is_seen_from_afar(line: str, level: Level | None) -> None:
    if level is not None:
        assert may_reach(b"x y\n" + line.encode() + b"\nx\n", RANK[level])
    assert not may_reach(b"now listening\n12 x\n", 0)


@given(st.binary(max_size=400))
def test_any_bytes_have_a_level_or_none(line: bytes) -> None:
    level_of(line)


@pytest.mark.parametrize(
    "line",
    [
        b"1 " + b"|-:-" * 40 + b'" ERROR: ',
        b"1" + b"-------" * 22 + b"x ERROR: ",
        b"[[[[[[[[[[[[" * 14 + b" ERROR: ",
        b"2024-01-01 " * 17 + b"zz yy xx ERROR: ",
        b"error " * 40,
        b"\x1b[" * 100,
    ],
)
def test_no_line_is_expensive(line: bytes) -> None:
    began = time.process_time()
    for _ in range(20):
        level_of(line)
    assert (time.process_time() - began) / 20 < 0.005


def test_the_cost_of_a_line_does_not_grow_with_its_length() -> None:
    assert level_of(b"x" * HEAD_BYTES + b" ERROR: y") is None
