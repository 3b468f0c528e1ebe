"""Bytes of a log line -> its level, as far as the line shows one.

Reads what common frameworks print: plain and bracketed words, logfmt, JSON lines (numeric pino levels too), Python
logging, uvicorn, log4j, Rust tracing, glog and klog, Chromium, nginx, PostgreSQL and others. `level_of` looks at one
line; `LevelReader` adds what continuation lines inherit. Only the head of a line is looked at, so the cost of a line
does not grow with its length.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..model import Level

HEAD_BYTES: Final = 200
"""Prefixes longer than this (time, host, process, logger) are not seen in practice."""
JSON_HEAD_BYTES: Final = 1024
"""JSON loggers may write the level behind the message."""
_CANDIDATES: Final = 8
"""Words that look like levels and are weighed, before a line counts as without."""
_VERDICTS_MAX: Final = 1024
"""Remembered verdicts on prefixes, which are alike in a program's output but for their digits."""
_SPOTS: Final = 3
"""Spots that are tried before a line is looked at; each costs a tenth of a look."""
_verdicts: Final[dict[bytes, bool]] = {}
_DIGITS: Final = bytes.maketrans(b"0123456789", b"0" * 10)

RANK: Final[dict[Level, int]] = {"trace": 0, "debug": 1, "info": 2, "warning": 3, "error": 4, "critical": 5}
"""Order of the levels, for "at least" filters."""

_SPELLINGS: Final[tuple[tuple[Level, bytes], ...]] = (
    ("trace", b"trace trc trce vrb verbose silly finest finer"),
    ("debug", b"debug dbg dbug debug1 debug2 debug3 debug4 debug5 fine config"),
    ("info", b"info inf notice information informational log statement hint detail http"),
    ("warning", b"warn wrn warning"),
    ("error", b"error err eror fail severe"),
    ("critical", b"critical crit crt fatal ftl panic emerg emergency alert dpanic"),
)
_WORDS: Final[dict[bytes, Level]] = {word: level for level, words in _SPELLINGS for word in words.split()}
_ONLY_UPPER: Final = frozenset(b"trc vrb dbg inf wrn eror ftl crt log statement hint detail fine finer finest".split())
"""Too common as ordinary words, or as parts of them, to count in lower case; `http` and `config` need brackets."""
_ONLY_ENCLOSED: Final = frozenset((b"http", b"config", b"silly", b"log", b"detail", b"hint", b"statement"))
_POSTGRES: Final = frozenset((b"log", b"detail", b"hint", b"statement"))

_LETTERS: Final[dict[bytes, Level]] = {
    b"V": "trace",
    b"T": "trace",
    b"D": "debug",
    b"I": "info",
    b"N": "info",
    b"W": "warning",
    b"E": "error",
    b"F": "critical",
    b"C": "critical",
}
_PINO: Final[dict[bytes, Level]] = {
    b"10": "trace",
    b"20": "debug",
    b"30": "info",
    b"40": "warning",
    b"50": "error",
    b"60": "critical",
}

_ANSI: Final = re.compile(rb"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_KEYS: Final = (
    rb'"(?:[lL]evel|lvl|[sS]everity|levelname|log\.level|loglevel|log_level|severity_text|severityText|s|@l)"\s*:\s*'
)
_JSON: Final = re.compile(_KEYS + rb'(?:"([A-Za-z]+)\d?"|(\d+)(?=\s*[,}]))')
_JSON_SHORT: Final = re.compile(_KEYS + rb'(?:\d|"[A-Za-z]\d?")')
"""A level in JSON that is no word."""
_LOGFMT: Final = re.compile(rb'(?:^|[\s,])(?:level|lvl|severity|loglevel|log_level|log\.level)=["\']?([A-Za-z]+)')
_GLOG: Final = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:\d\d|\[([VDIWEC]) [\d:. -]{6,40}")
_GLOG_LINE: Final = re.compile(rb"^(?:[IWEF]\d{4} |\[[VDIWEC] )", re.M)
"""Where `_GLOG` may match on some line."""
_WORD: Final = re.compile(rb"(" + b"|".join(sorted(_WORDS, reverse=True)) + rb")(?:!(?=[ :])|(?![a-z0-9_.(=]))")
"""Longer words come before their beginnings. It is searched in the lower-cased head, without a look-behind: a pattern
that begins with letters is found 3x faster."""
_NOT_BEFORE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_./\\-")
_TIME = (
    rb"(?:[+-]?\d[\d:.,/TZ+_-]*|\d*/?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}[/\d:]*"
    rb"|(?:mon|tue|wed|thu|fri|sat|sun)|UTC|GMT|CES?T|[AP]M|\d+ms)"
)
_GROUP = rb"(?:\[[^\]\n]{0,80}\]?|\([^)\n]{0,60}\)|<[^>\n]{0,40}>|\"[^\"\n]{0,40}\")"
_NAMED = rb"(?:[\w.$@/#~-]{1,64}(?:::[\w.]+)*(?:\[\d+\])?)"
_PLAIN_PREFIX: Final = re.compile(
    rb"(?>\s*+(?:" + _GROUP + rb":?|npm|" + _NAMED + rb"\s*+(?::|\||(?<=\s)-)|[-|:*]))*+\s*+\[?", re.I
)
"""Before a level on an undated line: groups, and names that end with a separator.

Every repetition is possessive, here and below, so that no line makes the match backtrack.
"""
_DATED_START: Final = re.compile(rb"\s*+[\[(<]?" + _TIME + rb"(?=[\s\],|)>:-])", re.I)
_DATED_PREFIX: Final = re.compile(
    rb"(?>\s*+(?:[\[(<]?" + _TIME + rb"[\])>]?(?=[\s,:|-]|$)|" + _GROUP + rb":?|[-|:,*]))++"
    rb"(?>\s*+" + _NAMED + rb"(?:\s*+[:|-])?(?:\s++|$)){0,2}+"
    rb"(?>\s*+(?:" + _TIME + rb"(?=[\s,:|-]|$)|" + _GROUP + rb":?|[-|:,*]))*+\s*+[\[(<]?",
    re.I,
)
"""Before a level on a dated line: times, groups, separators and at most two bare names."""


def level_of(line: bytes) -> Level | None:
    """The level that a line itself shows; None where it shows none."""
    return _look(line)[0]


class _Spot(NamedTuple):
    """Where a line showed its level: a line that is alike up to there, digits apart, shows the same."""

    prefix: bytes
    """What stands before the level, each digit as 0."""
    word: bytes
    """The level and the two bytes behind it."""
    level: Level


def _look(line: bytes) -> tuple[Level | None, _Spot | None]:
    """The level that a line shows, and its spot where the level depends on nothing behind it."""
    head = line[:HEAD_BYTES]
    if b"\x1b" in head:
        head = _ANSI.sub(b"", line[: 2 * HEAD_BYTES])[:HEAD_BYTES]
    if head[:1] == b"{":
        return _json_level(line[:JSON_HEAD_BYTES]), None
    match = _GLOG.match(head)
    if match is not None:
        return _LETTERS[match[1] or match[2]], None
    if b"=" in head:
        match = _LOGFMT.search(head)
        if match is not None:
            return _WORDS.get(match[1].lower()), None
    lower = head.lower()
    position = 0
    for _ in range(_CANDIDATES):
        match = _WORD.search(lower, position)
        if match is None:
            return None, None
        start = match.start()
        if (start == 0 or lower[start - 1] not in _NOT_BEFORE) and _is_level(head, match):
            level = _WORDS[match[1]]
            return level, _spot(line, start, match.end(1), level) if position == 0 else None
        position = match.end()
    return None, None


def _spot(line: bytes, start: int, end: int, level: Level) -> _Spot | None:
    """The spot of the first word of a line that looks like a level and is one."""
    stop = end + 2
    prefix, word, behind = line[:start], line[start:stop], line[end : end + 1]
    if stop > min(HEAD_BYTES, len(line)) or behind == b"/" or (behind == b" " and prefix.endswith(b"[")):
        return None  # a bracket further behind may decide
    if b"debug" in prefix.lower() or b"=" in line[:HEAD_BYTES] or b"\x1b" in line[:HEAD_BYTES]:
        return None  # debug1 is a level and debug7 is none; and what else makes digits or the rest matter
    return _Spot(prefix.translate(_DIGITS), word, level)


def _json_level(head: bytes) -> Level | None:
    match = _JSON.search(head)
    if match is None:
        return None
    if match[2] is not None:
        return _PINO.get(match[2])
    word = match[1]
    if len(word) == 1:
        return _LETTERS.get(word.upper())
    return _WORDS.get(word.lower())


def _is_level(head: bytes, match: re.Match[bytes]) -> bool:
    """Whether a level's word stands where frameworks put the level, rather than in a sentence."""
    start, end = match.span(1)
    raw, word = head[start:end], match[1]
    before, behind = head[start - 1 : start], head[end : end + 1]
    upper = raw.isupper()
    closed = behind in (b"]", b">", b")", b"|") or (before == b"[" and head[end:].lstrip(b" ")[:1] == b"]")
    if closed or (behind == b"/" and b"]" in head[end:]):
        # [error], <warn>, (info), |WARN|, [core:error], 12:00:00: INFO/MainProcess]
        opened = before in (b"[", b"<", b"(", b"|", b":", b" ")
        if opened and before != b" ":
            return not (before == b"(" and start > 1 and head[start - 2 : start - 1].isalnum())
        return opened and upper
    if word in _ONLY_ENCLOSED and not (upper and word in _POSTGRES and behind == b":"):
        return False
    if word in _ONLY_UPPER and not upper:
        return False
    if behind == b":" and before == b":" and upper:
        return True  # Chromium: [pid:tid:date/time:ERROR:file.cc(12)]
    separated = behind in (b":", b"\t", b"|", b"!") or head[end : end + 2] in (b" -", b"  ", b" :", b" |", b" [")
    prefix = head[:start]
    if not prefix.strip():
        return upper or separated or behind == b"["
    if not (upper or separated or prefix == b"npm "):
        return False
    return _is_prefix(prefix)


def _is_prefix(prefix: bytes) -> bool:
    """Whether only what frameworks put before the level stands there; which digits does not matter."""
    shape = prefix.translate(_DIGITS)
    verdict = _verdicts.get(shape)
    if verdict is None:
        verdict = _PLAIN_PREFIX.fullmatch(shape) is not None or (
            _DATED_START.match(shape) is not None and _DATED_PREFIX.fullmatch(shape) is not None
        )
        if len(_verdicts) >= _VERDICTS_MAX:
            _verdicts.clear()
        _verdicts[shape] = verdict
    return verdict


_TRACEBACK: Final = (
    b"Traceback (most recent call last)",
    b"During handling of the above exception",
    b"The above exception was the direct cause",
    b"Caused by: ",
    b"Suppressed: ",
)
_OPENS: Final = b"Traceback (most recent call last)"
_EXCEPTION: Final = re.compile(rb"[A-Za-z_][\w.]*(?::|\r?$)")


class LevelReader:
    """Levels of one stream's lines in order: a line without one takes the last when it continues it.

    Continuations are indented lines and those of a traceback, its last line (`ValueError: …`) included.
    """

    __slots__ = ("_in_traceback", "_spots", "last")

    def __init__(self) -> None:
        self.last: Level | None = None
        """Level of the last line that showed one."""
        self._in_traceback = False
        self._spots: tuple[_Spot, ...] = ()
        """Where the last levels stood that were found by looking, the newest first."""

    def copy(self) -> LevelReader:
        """An independent reader in the same state."""
        other = LevelReader()
        other.last = self.last
        other._in_traceback = self._in_traceback
        other._spots = self._spots
        return other

    def read_all(self, lines: list[bytes], *, plain: bool = False) -> list[Level | None]:
        """The levels of the next lines; quicker than `read`, since lines of one program are alike.

        `plain` says that no line has an equals sign or an escape character.
        """
        levels: list[Level | None] = []
        for line in lines:
            for spot in self._spots:
                prefix, word, level = spot
                start = len(prefix)
                if (
                    line.startswith(word, start)
                    and not self._in_traceback
                    and line[:start].translate(_DIGITS) == prefix
                    and (plain or (line.find(b"=", 0, HEAD_BYTES) < 0 and line.find(b"\x1b", 0, HEAD_BYTES) < 0))
                ):
                    self.last = level
                    levels.append(level)
                    break
            else:
                levels.append(self.read(line))
        return levels

    def read(self, line: bytes) -> Level | None:
        """The level of the next line."""
        first = line[:1]
        if first in (b" ", b"\t"):
            # Indented lines show a level only where a framework pads its time or level, which then stands far left.
            shown = level_of(line) if not self._in_traceback else None
            if shown is None:
                return self.last
            self.last = shown
            return shown
        if line.startswith(_TRACEBACK):
            self._in_traceback = line.startswith(_OPENS)
            return self.last
        if self._in_traceback:
            if not line.rstrip(b"\r"):
                return self.last
            if level_of(line) is None and _EXCEPTION.match(line) is not None:
                self._in_traceback = False
                return self.last
        shown, spot = _look(line)
        if shown is not None:
            self.last = shown
        if spot is not None:
            self._spots = (spot, *self._spots[: _SPOTS - 1])
        self._in_traceback = False
        return shown


def may_continue(line: bytes) -> bool:
    """Whether a line's level can depend on lines before it, as far as the line alone tells."""
    return line[:1] in (b" ", b"\t", b"", b"\r") or line.startswith(_TRACEBACK) or _EXCEPTION.match(line) is not None


_MARKS: Final[tuple[tuple[bytes, ...], ...]] = tuple(
    tuple(
        word
        for word in sorted(words)
        if not any(other != word and other in word for other in words)  # what contains another needs no search
    )
    for words in ({word for word, level in _WORDS.items() if RANK[level] >= rank} for rank in range(len(RANK)))
)
_CONTINUES: Final = (b"\n ", b"\n\t", *(b"\n" + start for start in _TRACEBACK))


def may_reach(lines: bytes, rank: int) -> bool:
    """Whether one of these whole lines may have a level of this rank or a higher one; much quicker than to read them.

    False is certain, whatever the lines before were; true is not.
    """
    first = lines[: lines.find(b"\n") + 1].removesuffix(b"\n") if b"\n" in lines else lines
    if may_continue(first) or any(mark in lines for mark in _CONTINUES):
        return True
    if b"\x1b" in lines:
        lines = _ANSI.sub(b"", lines)
    lower = lines.lower()
    if any(mark in lower for mark in _MARKS[rank]):
        return True
    return _GLOG_LINE.search(lines) is not None or (b'":' in lines and _JSON_SHORT.search(lines) is not None)
