"""No bytes whatever end the server: each bad line has its error, and the next one is served.

The categories are those of the public JSON parsing test suite (`y_` must be accepted, `n_` refused, `i_` either way),
written as generators, so that each has many members instead of one file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .peer import Served, served

pytestmark = pytest.mark.anyio

NO_NUMBERS = """
-01 01 012 -012 .5 -.5 1. -1. 0.e1 2.e3 2.e+3 0.1.2 .2e-3 1e 1e+ 1e- 1E+ 0e 0E 0e+ 0E+ 1eE2 9.e+ + +1 ++1 -- -
1x 1a 0x1 0x 0x42 1+2 -1x -foo -NaN NaN Infinity -Infinity +Inf Inf nan -1.0. 1_000 1e1.5 1.8011670033376514H-308
123.x １
"""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600


def accepted() -> Iterator[bytes]:
    """Values that are JSON."""
    yield from (b"[]", b"{}", b"[[]]", b"null", b"true", b"false", b'""', b'" "', b"[ ]", b"\t[ 1 ]\t", b"[[]   ]")
    for number in ("0", "-0", "1", "-1", "1.5", "0e1", "0e+1", "1E1", "1E-2", "1e+2", "-0.0", "123.456e78", "1E22"):
        yield f"[{number}]".encode()
    for digits in (1, 15, 17, 19, 20, 40, 400):
        yield b"[" + b"1" * digits + b"]"
        yield b"[-" + b"9" * digits + b"]"
        yield b"[0." + b"0" * digits + b"1]"
    for escape in (
        '\\"',
        "\\\\",
        "\\/",
        "\\b",
        "\\f",
        "\\n",
        "\\r",
        "\\t",
        "\\u0012",
        "\\uFFFF",
        "\\u005C",
        "\\uD834\\uDd1e",
    ):
        yield f'["{escape}"]'.encode()
        yield f'{{"{escape}":0}}'.encode()
    for char in ("é", "€", "𝄞", "\u2028", "\u2029", "\uffff", "\x7f", "\ufeff", "\u0080", "\u200b", "\U0010ffff"):
        yield f'["{char}"]'.encode()
        yield f'{{"{char}":"{char}"}}'.encode()
    yield from (b'{"a":1,"a":1}', b'{"a":1,"a":2}', b'{"":0}', b'{"a":[],"b":{}}', b'{"min":-1.0e+28,"max":1.0e+28}')
    for length in (10, 1000, 60_000):
        yield b'["' + b"x" * length + b'"]'
        yield b"[" + b",".join([b"null"] * length) + b"]"
    for depth in (2, 10, 100):
        yield b"[" * depth + b"]" * depth
        yield b'{"a":' * depth + b"1" + b"}" * depth


def refused() -> Iterator[bytes]:
    """Bytes that are no JSON."""
    for number in NO_NUMBERS.split():
        yield f"[{number}]".encode()
        yield number.encode()
        yield f'{{"a":{number}}}'.encode()
    for word in (
        "nul",
        "nulll",
        "Null",
        "tru",
        "truth",
        "True",
        "fals",
        "falsex",
        "undefined",
        "a",
        "ａ",
        "'a'",
        "a\x00",
    ):
        yield f"[{word}]".encode()
        yield word.encode()
    for array in (
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1,,2]",
        "[1 2]",
        "[1:2]",
        "[1]]",
        "[1]x",
        "[*]",
        "[x",
        "[1;2]",
    ):
        yield array.encode()
    yield from (
        b"[1,\x0b2]",
        b"[\x0c]",
        b"[\xa0]",
        b"[1],",
        b"[][]",
        b"[]{}",
        b"][",
        b'["a',
        b'["a",',
        b'["a"',
        b"[/**/]",
        b"[1]//",
    )
    for body in (
        "a:1",
        "1:1",
        "null:1",
        '"a"',
        '"a":',
        '"a" 1',
        '"a"::1',
        '"a":1,',
        '"a":1,,"b":2',
        ',"a":1',
        '"a":1 "b":2',
        "'a':1",
    ):
        yield f"{{{body}}}".encode()
        yield f"{{{body}".encode()
    yield from (
        b"{",
        b"}",
        b"{]",
        b"[}",
        b"{{}}",
        b"{[:1]}",
        b'{"a":1}}',
        b'{"a":1}#',
        b'{"a":/**/1}',
        b'{"a" b}',
        b"{\xf0\x9f\x87\xa8:1}",
    )
    for escape in (
        "\\x00",
        "\\a",
        "\\",
        "\\u",
        "\\u1",
        "\\u00A",
        "\\u00Ag",
        "\\uD834\\",
        "\\uD800\\u",
        "\\'",
        "\\é",
        "\\\t",
        "\\U0041",
    ):
        yield f'["{escape}"]'.encode()
        yield f'{{"{escape}":1}}'.encode()
    for control in [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20)]:
        yield b'["' + bytes([control]) + b'"]'
        yield bytes([control])
    for bad in (
        *(b"\x80 \xbf \xc0\xaf \xc1\x81 \xe0\x80\xaf \xf0\x80\x80\xaf \xf5\x80\x80\x80 \xff \xfe".split()),
        *(b"\xed\xa0\x80 \xed\xbf\xbf \xf4\x90\x80\x80 \xe2\x82 \xf0\x9d\x84 \xc3 \xe9 \xfc\x80\x80\x80\x80".split()),
    ):
        yield b'["' + bad + b'"]'
        yield b'{"' + bad + b'":1}'
        yield b'{"jsonrpc":"2.0","method":"ping","id":"' + bad + b'"}'
        yield bad
    text = '{"jsonrpc":"2.0","method":"ping","params":{"a":[1,"é\\n",null]},"id":1}'.encode()
    for end in range(1, len(text)):
        yield text[:end]
    yield from (
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf{}",
        b"\xef\xbb{}",
        b"\xff\xfe[\x00]\x00",
        "[]".encode("utf-16"),
        "[]".encode("utf-32"),
    )
    for depth in (5_000, 100_000):
        yield b"[" * depth
        yield b'{"a":' * depth
        yield b'[{"":' * depth
    # How deep the decoder goes depends on the Python: 1000 levels in 3.11, 10 000 in 3.13.
    depth = 100_000
    yield b"[" * depth + b"]" * depth
    yield b'{"jsonrpc":"2.0","method":"ping","params":' + b"[" * depth + b"]" * depth + b',"id":1}'
    yield b'{"jsonrpc":"2.0","method":"ping","id":' + b"[" * depth + b"]" * depth + b"}"


def either() -> Iterator[bytes]:
    """JSON by its grammar, but nothing that every program can hold."""
    for number in (
        "1e400",
        "-1e400",
        "1e-400",
        "123e65536",
        "-123123e100000",
        "0.4e00669999999999999999999969999999006",
    ):
        yield f"[{number}]".encode()
    for digits in (310, 5_000, 100_000):
        yield b"[" + b"9" * digits + b"]"
        yield b"[-" + b"9" * digits + b".0]"
    for escape in (
        "\\uD800",
        "\\uDFAA",
        "\\uDd1e\\uD834",
        "\\uD800abc",
        "\\uD800\\uD800\\n",
        "\\uD888\\u1234",
        "\\ud800\\udbff",
    ):
        yield f'["{escape}"]'.encode()
        yield f'{{"{escape}":1}}'.encode()
    for depth in (500, 800, 1_000, 2_000, 5_000):
        yield b"[" * depth + b"]" * depth


async def answers(it: Served, lines: list[bytes]) -> list[object]:
    """What each line is answered with, one by one over the same connection: code and id, by the ping behind it."""
    seen: list[object] = []

    async def write() -> None:
        for number, line in enumerate(lines):
            await it.peer.send(line + b'\n{"jsonrpc":"2.0","method":"ping","id":"after %d"}\n' % number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for number in range(len(lines)):
            codes = []
            while (answer := await it.peer.message()) != {"jsonrpc": "2.0", "result": "pong", "id": f"after {number}"}:
                parts = answer if isinstance(answer, list) else [answer]
                codes += [(part["error"]["code"], part["id"]) for part in parts]
            seen.append(codes)
    return seen


async def test_json_that_is_no_request_is_an_invalid_request() -> None:
    lines = [line for line in accepted() if line.strip()[:1] != b"["]
    async with served() as it:
        for line, codes in zip(lines, await answers(it, lines), strict=True):
            assert codes == [(INVALID_REQUEST, None)], line[:100]


async def test_arrays_that_are_no_requests_are_batches_of_invalid_ones() -> None:
    lines = [line for line in accepted() if line.strip()[:1] == b"["]
    async with served() as it:
        for line, codes in zip(lines, await answers(it, lines), strict=True):
            assert isinstance(codes, list)
            assert set(codes) == {(INVALID_REQUEST, None)}, line[:100]


async def test_what_is_no_json_is_a_parse_error_with_id_null() -> None:
    lines = list(refused())
    assert len(lines) > 318
    async with served() as it:
        for line, codes in zip(lines, await answers(it, lines), strict=True):
            assert codes == [(PARSE_ERROR, None)], line[:100]


async def test_what_json_leaves_open_is_refused_one_way_or_the_other() -> None:
    lines = list(either())
    async with served() as it:
        for line, codes in zip(lines, await answers(it, lines), strict=True):
            assert codes in ([(PARSE_ERROR, None)], [(INVALID_REQUEST, None)]), line[:100]


async def test_an_overlong_line_is_answered_once_and_the_next_one_is_served() -> None:
    async with served(max_message_bytes=65_536) as it:
        await it.peer.send(b"x" * 3_000_000)
        answer = await it.peer.exchange(b'{"jsonrpc":"2.0","method":"ping","id":1}')
        assert (answer["error"]["code"], answer["id"]) == (INVALID_REQUEST, None)
        assert await it.peer.pings()


@pytest.mark.parametrize("over", [False, True])
async def test_the_message_limit_counts_the_bytes_before_the_line_end(over: bool) -> None:
    async with served(max_message_bytes=65_536) as it:
        line = b'{"jsonrpc":"2.0","method":"ping","id":1}'
        answer = await it.peer.exchange(line + b" " * (65_536 - len(line) + over))
        assert ("error" in answer) is over


async def test_the_last_line_may_lack_its_newline() -> None:
    async with served() as it:
        await it.peer.send(b'{"jsonrpc":"2.0","method":"restart_sidecar","params":["a"],"id":1}')
        it.peer.hang_up()
        assert (await it.peer.message())["result"] == "a"
        assert await it.end() == "eof"


async def test_half_a_line_at_the_end_is_a_parse_error() -> None:
    async with served() as it:
        await it.peer.send(b'{"jsonrpc":"2.0","meth')
        it.peer.hang_up()
        assert (await it.peer.message())["error"]["code"] == PARSE_ERROR
        assert await it.end() == "eof"


LINE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(list(refused())[:200] + list(either())[:10]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["jsonrpc", "method", "params", "id"]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "method": st.sampled_from(["ping", "get_sidecar_logs", "get_sidecar_status"])},
        optional={"params": st.none() | st.lists(st.integers()), "id": st.none() | st.integers() | st.text()},
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(lines=st.lists(LINE, max_size=20), seed=st.integers(0, 2**32))
def test_no_bytes_and_no_chunking_end_the_server(lines: list[bytes], seed: int) -> None:
    async def run() -> None:
        async with served() as it:
            data = b"\n".join([*lines, b"", b'{"jsonrpc":"2.0","method":"ping","id":"the end"}', b""])
            cut = random.Random(seed)
            while data:
                size = cut.choice((1, 7, 100, 100_000))
                await it.peer.send(data[:size])
                data = data[size:]
                if cut.random() < 0.2:
                    await anyio.lowlevel.checkpoint()
            while True:
                line = await it.peer.line()
                if b'"the end"' in line and b"pong" in line:
                    return

    anyio.run(run)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_chunking_gives_the_same_answers(seed: int) -> None:
    cut = random.Random(seed)
    lines = [
        json.dumps({"jsonrpc": "2.0", "method": "get_sidecar_logs", "params": {"lines": 1 + n}, "id": n}).encode()
        for n in range(30)
    ]
    data = b"\r\n".join([*lines, b""])

    async def run() -> None:
        async with served() as it:
            rest = data
            while rest:
                size = cut.randint(1, 200)
                await it.peer.send(rest[:size])
                rest = rest[size:]
                await anyio.lowlevel.checkpoint()
            for n in range(30):
                assert await it.peer.message() == {"jsonrpc": "2.0", "result": "x" * (1 + n), "id": n}

    anyio.run(run)
