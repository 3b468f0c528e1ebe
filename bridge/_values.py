"""One value of a configuration file -> a checked Python value, or `Refused` with a sentence.

A reader knows what a port, a duration or a command is, but no key: which key takes which reader stands in
`bridge.settings`. Here too is what may stand in a text: `${NAME}`, an environment variable, put in when the file is
read; and `{port}` and its like, checked when the file is read and filled in by `fill` when the value is used.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

SECONDS_MAX = 31_536_000.0
"""A year: longer is a slip of the unit, and sums with the clock must stay dates."""
INTEGER_MAX = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact."""
_SHOWN_CHARS_MAX = 60
"""Of a wrong value a message shows no more than tells which one it was."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_VARIABLE = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# These are compiled when the first such value is read: most files have one or two of them.
_HOST = r"[A-Za-z0-9]([A-Za-z0-9._%:-]*[A-Za-z0-9])?|::[0-9A-Fa-f:.]*"
_TCP = r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):([0-9]{1,5})"
_URL = r"https?://(?:[^\s/?#@]*@)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?(?:[/?#][!-~]*)?"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_STOP_SIGNALS = {
    *("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGKILL"),
    *("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGBREAK"),
}
"""Accepted on every system, so that one file serves all three."""
_SIGNALS_THAT_END_NOTHING = {"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT", "SIGCHLD", "SIGCLD"}


class Refused(Exception):
    """`message` says what was expected and what was found; `at` is the way from the field down, like `[1]`."""

    def __init__(self, message: str, *, at: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at


class Origin(NamedTuple):
    """What a value is read against."""

    folder: str
    """Relative paths start here; absolute."""
    environ: Mapping[str, str]
    samples: Mapping[str, str]
    """A plausible value for each placeholder that may be used here."""


Reader = Callable[[object, Origin], Any]


# --- text that is filled in ------------------------------------------------------------------------------------------


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` by `values[name]`, and `{{`, `}}` by single braces.

    A template that `settings.load` let pass holds no other names than port, host, log_dir and name. Raises ValueError
    for one that it would have refused.
    """

    def replacement(token: re.Match[str]) -> str:
        name: str | None = token[1]
        if name is None:
            if len(token[0]) == 1:
                raise ValueError(f"a single {token[0]}: write {token[0] * 2} for a brace")
            return token[0][0]
        if name not in values:
            raise ValueError(f"unknown placeholder {{{name}}}")
        return values[name]

    return _TOKEN.sub(replacement, template) if "{" in template or "}" in template else template


def escape(literal: str) -> str:
    """A template that `fill` turns into exactly this text."""
    return literal.replace("{", "{{").replace("}", "}}")


def url_values(values: Mapping[str, str]) -> dict[str, str]:
    """The same values for use in a URL or a `host:port`: an IPv6 host stands in brackets there."""
    host = values.get("host", "")
    return {**values, "host": f"[{host}]"} if ":" in host else dict(values)


def ready_pattern(template: str, values: Mapping[str, str]) -> re.Pattern[str]:
    """The regular expression of a `log` check; what is filled in stands for itself. Raises ValueError or re.error."""
    return re.compile(fill(template, {name: re.escape(value) for name, value in values.items()}))


def _expand(written: str, environ: Mapping[str, str], quote: Callable[[str], str]) -> str:
    """Put environment variables in; a `$` that begins neither `$$` nor `${` stands for itself."""

    def replacement(found: re.Match[str]) -> str:
        name, end = found[1], found[2]
        if name is None:
            return "$"
        if not end:
            raise Refused("`${` without `}`: write `$${` for a dollar and a brace")
        if not name:
            raise Refused("`${}` names no environment variable")
        if name not in environ:
            raise Refused(f"the environment variable {printable(name)} is not set")
        return quote(environ[name])

    return _VARIABLE.sub(replacement, written) if "$" in written else written


# --- how values and paths are shown ----------------------------------------------------------------------------------


def printable(written: str, chars_max: int = _SHOWN_CHARS_MAX) -> str:
    """The text in one line that can be encoded, and not too long."""
    if len(written) > chars_max:
        written = written[: chars_max - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in written)


def shown(value: object) -> str:
    """A value as it may stand behind "got"."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{printable(value)}"'
        case int():
            # Python refuses to print integers of more than 4300 digits.
            return str(value) if value.bit_length() <= 64 else "a number of many digits"
        case float():
            return repr(value)
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
    return "a date or a time"


def step(path: str, key: str) -> str:
    """The path one key further down, as TOML would write it."""
    here = key if _BARE_KEY.fullmatch(key) else f'"{printable(key)}"'
    return f"{path}.{here}" if path else here


def expected(what: str, value: object) -> Refused:
    return Refused(f"expected {what}, got {shown(value)}")


# --- readers ---------------------------------------------------------------------------------------------------------


def boolean(value: object, origin: Origin) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def integer(low: int, high: int = INTEGER_MAX, noun: str = "a whole number") -> Reader:
    what = f"{noun} from {low} to {high}" if high < INTEGER_MAX else f"{noun} of at least {low}"

    def read(value: object, origin: Origin) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise expected(what, value)
        return value

    return read


def number(low: float, high: float, noun: str = "a number", *, zero: bool = False) -> Reader:
    """A finite number in a closed range; with `zero` also 0, which then means off."""
    what = f"{noun} from {low:g} to {high:.12g}" + (", or 0 for off" if zero else "")

    def read(value: object, origin: Origin) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_as_float(value)):
            raise expected(what, value)
        if not (low <= value <= high or (zero and value == 0)):
            raise expected(what, value)
        return float(value)

    return read


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def seconds(low: float = 0.0, *, zero: bool = False) -> Reader:
    return number(low, SECONDS_MAX, "a number of seconds", zero=zero)


def word(*words: str) -> Reader:
    what = " or ".join(f'"{each}"' for each in words)

    def read(value: object, origin: Origin) -> str:
        if not isinstance(value, str) or value not in words:
            raise expected(what, value)
        return value

    return read


def text(value: object, origin: Origin, *, what: str = "a text") -> str:
    """A text in which nothing is filled in later: braces stand for themselves."""
    return _text(value, origin, what, filled=False)


def template(value: object, origin: Origin, *, what: str = "a text") -> str:
    """A text for `fill`."""
    return _text(value, origin, what, filled=True)


def _text(value: object, origin: Origin, what: str, *, filled: bool) -> str:
    if not isinstance(value, str):
        hint = f' (write it as text: "{shown(value)}")' if isinstance(value, int | float) else ""
        raise Refused(f"expected {what}, got {shown(value)}{hint}")
    result = _expand(value, origin.environ, escape if filled else str)
    _check_passable(result)
    if filled:
        _check_placeholders(result, origin)
    return result


def _check_passable(written: str) -> None:
    if "\0" in written:
        raise Refused("contains a NUL byte, which no system lets through")
    if not _encodable(written):
        raise Refused("is no valid Unicode text: it has half of a surrogate pair or bytes that are no UTF-8")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_placeholders(written: str, origin: Origin) -> None:
    for token in _TOKEN.finditer(written):
        name: str | None = token[1]
        if name is None:
            if len(token[0]) == 1:
                raise Refused(f"a single {token[0]}: write {token[0] * 2} for a brace")
        elif name not in origin.samples:
            if name == "port":
                raise Refused("uses {port}, but the sidecar has no `port` (0 lets the bridge pick one)")
            known = ", ".join(f"{{{each}}}" for each in origin.samples)
            raise Refused(f"unknown placeholder {{{printable(name)}}}: known are {known}; write {{{{ for a brace")


def non_empty(value: object, origin: Origin) -> str:
    result = text(value, origin)
    if not result:
        raise Refused("must not be empty")
    return result


def path(value: object, origin: Origin) -> str:
    """An absolute path; a relative one begins at the folder of the file."""
    result = text(value, origin, what="a path")
    _check_not_empty_path(result)
    if result == "~" or result.startswith("~/"):
        raise Refused("`~` stands for no folder here: write ${HOME}")
    return os.path.normpath(os.path.join(origin.folder, result))


def argument_path(written: str) -> str:
    """An absolute path from an argument, where the shell has put variables in; relative to the current directory."""
    _check_passable(written)
    _check_not_empty_path(written)
    return os.path.abspath(written)


def _check_not_empty_path(written: str) -> None:
    if not written:
        raise Refused("expected a path, got an empty text")


def listing(item: Reader, what: str = "a list", *, unique: bool = False) -> Reader:
    def read(value: object, origin: Origin) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise expected(what, value)
        result: list[Any] = []
        for index, each in enumerate(value):
            try:
                result.append(item(each, origin))
            except Refused as refused:
                raise Refused(refused.message, at=f"[{index}]{refused.at}") from None
            if unique and result[-1] in result[:-1]:
                raise Refused(f"{shown(each)} stands in the list twice", at=f"[{index}]")
        return tuple(result)

    return read


def plain_command(value: object, origin: Origin) -> tuple[str, ...]:
    """A program and its arguments; a program given as a relative path is one below the folder of the file."""
    return _command(value, origin, text, str)


def command(value: object, origin: Origin) -> tuple[str, ...]:
    """As `plain_command`, each part a text for `fill`."""
    return _command(value, origin, template, escape)


def _command(value: object, origin: Origin, part: Reader, quote: Callable[[str], str]) -> tuple[str, ...]:
    what = "a list of texts, the program first"
    if isinstance(value, str):
        raise Refused(f'expected {what}, got a text: write ["program", "argument"], there is no shell')
    parts: tuple[str, ...] = listing(part, what)(value, origin)
    if not parts:
        raise Refused("must not be empty: the program comes first")
    program = parts[0]
    if not program.strip():
        raise Refused("the program must not be empty", at="[0]")
    separated = os.sep in program or (os.altsep is not None and os.altsep in program)
    if separated and not program.startswith("{log_dir}") and not os.path.isabs(program):
        program = os.path.normpath(os.path.join(quote(origin.folder), program))
    return (program, *parts[1:])


def environment(value: object, origin: Origin) -> dict[str, str]:
    if not isinstance(value, dict):
        raise expected("a table of texts", value)
    result: dict[str, str] = {}
    for key, each in value.items():
        at = step("", str(key))
        if not isinstance(key, str) or not key or "=" in key or "\0" in key or not _encodable(key):
            raise Refused("is no name for an environment variable", at=f".{at}")
        try:
            if not isinstance(each, str):  # whose value might be a secret, so it is not shown
                raise Refused("expected a text" + (", in quotes" if isinstance(each, int | float) else ""))
            result[key] = template(each, origin)
        except Refused as refused:
            raise Refused(refused.message, at=f".{at}") from None
    return result


def host(value: object, origin: Origin) -> str:
    what = "localhost or an IP address of this machine"
    result = text(value, origin, what=what)
    # Any other name would have to be looked up at each start, which may take seconds in which nothing else is served.
    numeric = ":" in result or re.fullmatch(r"[0-9.]+", result)
    if not re.fullmatch(_HOST, result) or not (numeric or result == "localhost"):
        raise expected(what, value)
    return result


def http_url(value: object, origin: Origin) -> str:
    what = "a URL that begins with http:// or https://"
    result = template(value, origin, what=what)
    found = re.fullmatch(_URL, fill(result, url_values(origin.samples)))
    if found is None or not _is_port(found[2] or "80"):
        raise expected(what, value)
    return result


def host_and_port(value: object, origin: Origin) -> str:
    what = '"host:port"'
    result = template(value, origin, what=what)
    found = re.fullmatch(_TCP, fill(result, url_values(origin.samples)))
    if found is None or not _is_port(found[2]):
        raise expected(what, value)
    return result


def _is_port(digits: str) -> bool:
    return 1 <= int(digits) <= 65_535


def http_request(value: object, origin: Origin) -> str:
    """`METHOD URL`, or an empty text for none."""
    what = '"METHOD URL", like "POST http://127.0.0.1:{port}/shutdown"'
    result = template(value, origin, what=what)
    if not result:
        return result
    method, _, url = result.partition(" ")
    if method not in _METHODS:
        raise Refused(f"expected {what}, with one of {', '.join(_METHODS)}, got {shown(value)}")
    found = re.fullmatch(_URL, fill(url, url_values(origin.samples)))
    if found is None or not _is_port(found[2] or "80"):
        raise expected(what, value)
    return result


def pattern(value: object, origin: Origin) -> str:
    """A regular expression as a text for `fill`."""
    import warnings

    result = template(value, origin, what="a regular expression")
    if not result:
        raise Refused("expected a regular expression, got an empty text")
    try:
        with warnings.catch_warnings():  # Python warns of patterns that it may read otherwise one day
            warnings.simplefilter("ignore")
            ready_pattern(result, origin.samples)
    except (re.error, RecursionError, OverflowError) as error:
        raise Refused(f"is no valid regular expression (braces are written twice): {error}") from None
    return result


def signal_name(value: object, origin: Origin) -> str:
    what = 'the name of a signal that ends a program, like "SIGTERM"'
    result = text(value, origin, what=what)
    if result not in _STOP_SIGNALS and not _is_signal_here(result):
        raise expected(what, value)
    return result


def _is_signal_here(name: str) -> bool:
    import signal

    is_name = re.fullmatch("SIG[A-Z0-9]+", name) is not None and name not in _SIGNALS_THAT_END_NOTHING
    return is_name and isinstance(getattr(signal, name, None), signal.Signals)


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that was probably meant."""
    import difflib

    return next(iter(difflib.get_close_matches(key[:100], list(known), n=1)), None)
