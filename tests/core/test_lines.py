"""Lines come out the same however the bytes come in."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.lines import TOO_LONG, LineSplitter, LineTooLong

Lines = list[bytes | LineTooLong]


def split(chunks: list[bytes], line_bytes_max: int) -> tuple[Lines, bytes | None]:
    splitter = LineSplitter(line_bytes_max)
    lines: Lines = []
    for chunk in chunks:
        lines += splitter.feed(chunk)
    return lines, splitter.end()


def expected(data: bytes, line_bytes_max: int) -> tuple[Lines, bytes | None]:
    *whole, tail = data.split(b"\n")
    lines: Lines = [line if len(line) <= line_bytes_max else TOO_LONG for line in whole]
    if len(tail) > line_bytes_max:
        return [*lines, TOO_LONG], None
    return lines, tail or None


@given(
    data=st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"bcd", b"\n\n", b"x" * 9, b"\xff"])).map(b"".join),
    cuts=st.lists(st.integers(0, 200)),
    line_bytes_max=st.integers(1, 12),
)
def test_any_chunking_gives_the_same_lines(data: bytes, cuts: list[int], line_bytes_max: int) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert split(chunks, line_bytes_max) == expected(data, line_bytes_max)


def test_a_line_of_exactly_the_bound_is_whole_and_one_byte_more_is_too_long() -> None:
    assert split([b"12345\n123456\n1\n"], 5) == ([b"12345", TOO_LONG, b"1"], None)


def test_a_line_that_never_ends_is_told_once_and_takes_no_memory() -> None:
    splitter = LineSplitter(1000)
    lines: Lines = []
    for _ in range(10_000):
        lines += splitter.feed(b"x" * 100)
        assert splitter.held_bytes <= 1000
    assert lines == [TOO_LONG]
    assert splitter.feed(b"rest\nnext\n") == [b"next"]


def test_a_last_line_without_newline_is_given_at_the_end_once() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"a\nb") == [b"a"]
    assert splitter.feed(b"c") == []
    assert splitter.end() == b"bc"
    assert splitter.end() is None
