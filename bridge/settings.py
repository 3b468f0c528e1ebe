"""A configuration file (TOML or JSON) -> frozen Settings, or one ConfigInvalid that names every field that is wrong.

Which keys exist, what each may hold and what contradicts what stands here; what a port or a command is, in
`bridge._values`. Nothing here starts, creates or looks for anything: a missing program is found when it is started.

`${NAME}` in any text is an environment variable, put in at once; `$$` is a dollar, any other `$` stands for itself.
`{port}`, `{host}`, `{log_dir}` and `{name}` in `command`, `env`, `health` and `stop_http` are checked here and filled
in by `fill` when the sidecar is started. A key whose value is null counts as left out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from msgspec import Meta, Struct
from msgspec.structs import replace

from . import _values as v
from ._values import fill, ready_pattern, url_values
from .errors import ConfigInvalid

__all__ = [
    "DependencySettings",
    "HealthSettings",
    "LogSettings",
    "Settings",
    "SidecarSettings",
    "check_depends_on",
    "default_log_dir",
    "fill",
    "from_mapping",
    "load",
    "ready_pattern",
    "sidecar_from_mapping",
    "unused",
    "url_values",
]

FILE_BYTES_MAX = 1024 * 1024
"""No configuration is larger; a larger file is another file, given by mistake."""
FURTHER_PROBLEMS_MAX = 20
"""Beside the first problem that many more are told; behind them it is mostly the same slip again."""
MESSAGE_BYTES_MIN = 64 * 1024
"""Smaller bounds could not carry every state of a sidecar, which is never dropped."""
LOG_FILE_BYTES_MIN = 1024
"""Smaller files would rotate with every few lines."""
PAUSE_MIN_S = 0.01
"""The shortest pause between two checks: below it checking would be all that a sidecar does."""
SAMPLE_PAUSE_MIN_S = 0.1
"""The shortest pause between two samples, for the same reason."""
BACKOFF_FACTOR_MAX = 1000.0
EXIT_CODE_MAX = 2**32 - 1
"""Windows tells a crash as a code of 32 bits."""
NAME_CHARS_MAX = 100
"""A name is also a folder's name."""

_UNUSED = ("allow_dynamic", "watch_config")
_UNUSED_OF_SIDECARS = ("watch", "max_memory", "max_cpu_percent")
"""Keys whose purpose this version does not serve yet; what each has by default means off."""
_PATH_CHARS_MAX = 1024
"""Of the file's path a message shows as much as any real one has."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


# --- what a configuration becomes; compared by value, so that a reload sees what changed ------------------------------


class HealthSettings(Struct, frozen=True, kw_only=True):
    """How a sidecar shows that it is healthy; the field named by `kind` holds what to ask."""

    kind: Literal["http", "tcp", "command", "log", "none"] = "none"
    http: Annotated[str, Meta(description="Template of a URL; status 200-399 is healthy.")] = ""
    tcp: Annotated[str, Meta(description='Template of a "host:port" that accepts connections.')] = ""
    command: Annotated[tuple[str, ...], Meta(description="Templates of a program and arguments that exits 0.")] = ()
    log: Annotated[str, Meta(description="Template of a pattern in the output; see ready_pattern.")] = ""
    interval: Annotated[float, Meta(description="Seconds between checks.")] = 30.0
    timeout: Annotated[float, Meta(description="Seconds until a check counts as failed.")] = 5.0
    retry_interval: Annotated[float, Meta(description="Seconds to the next check after a failed one.")] = 5.0
    failure_threshold: Annotated[int, Meta(description="Failures in a row that mean unhealthy.")] = 3
    success_threshold: Annotated[int, Meta(description="Successes in a row that count as stable.")] = 2
    expect_status: Annotated[tuple[int, ...], Meta(description="HTTP statuses wanted instead of 200-399.")] = ()
    verify_owner: Annotated[bool, Meta(description="The listener must belong to the sidecar's tree.")] = True
    ready_after: Annotated[float, Meta(description="Seconds alive that count as ready, for kind none.")] = 0.5


class LogSettings(Struct, frozen=True, kw_only=True):
    """How much of a sidecar's output is kept."""

    max_bytes: Annotated[int, Meta(description="Bytes of a log file before it rotates.")] = 10_485_760
    max_files: Annotated[int, Meta(description="Archives kept per stream.")] = 5


class DependencySettings(Struct, frozen=True, kw_only=True):
    """What must be there before a start, and how to get it. Texts are used as they are, nothing is filled in."""

    check_path: Annotated[str | None, Meta(description="Absolute path that must exist.")] = None
    check_path_in_cwd: Annotated[
        str | None, Meta(description="The same relative path below cwd, where the installer works; either will do.")
    ] = None
    check_command: Annotated[tuple[str, ...] | None, Meta(description="Command that must exit 0.")] = None
    install: Annotated[
        tuple[str, ...] | None, Meta(description="Command run when the check fails; without a check before each start.")
    ] = None
    timeout: Annotated[float, Meta(description="Seconds for the installer.")] = 600.0


class SidecarSettings(Struct, frozen=True, kw_only=True):
    """One sidecar."""

    name: str
    command: Annotated[tuple[str, ...], Meta(description="Templates of the program and its arguments.")]
    cwd: Annotated[str, Meta(description="Absolute working directory; by default the file's folder.")]
    env: Annotated[Mapping[str, str], Meta(description="Templates by name, beside the inherited environment.")] = {}
    host: str = "127.0.0.1"
    port: Annotated[int | None, Meta(description="0: the bridge picks a free one; null: none.")] = None
    stdin: Literal["null", "pipe"] = "null"
    autostart: bool = True
    depends_on: tuple[str, ...] = ()
    restart: Literal["on_failure", "always", "never"] = "on_failure"
    stop_signal: str = "SIGTERM"
    stop_http: Annotated[str, Meta(description='Template of "METHOD URL"; empty for none.')] = ""
    startup_timeout: Annotated[float, Meta(description="Seconds.")] = 30.0
    shutdown_timeout: Annotated[float, Meta(description="Seconds between stop_signal and kill; 0 kills at once.")] = 5.0
    max_restarts: int = 5
    backoff_initial: Annotated[float, Meta(description="Seconds before the first restart.")] = 1.0
    backoff_factor: float = 2.0
    backoff_max: Annotated[float, Meta(description="Seconds.")] = 16.0
    backoff_jitter: Annotated[float, Meta(description="Seconds added by chance, at most.")] = 0.0
    stable_after: Annotated[float, Meta(description="Seconds of running that reset the restart counter.")] = 60.0
    flapping_restarts: int = 10
    flapping_window: Annotated[float, Meta(description="Seconds.")] = 3600.0
    permanent_exit_codes: tuple[int, ...] = ()
    watch: Annotated[tuple[str, ...], Meta(description="Globs, relative to the folder of the file.")] = ()
    max_memory: Annotated[int, Meta(description="Bytes of the tree; 0 for no limit.")] = 0
    max_cpu_percent: Annotated[float, Meta(description="Percent of one core; 0 for no limit.")] = 0.0
    secrets: Annotated[tuple[str, ...], Meta(description="Names of environment values that are never shown.")] = ()
    dependencies: DependencySettings | None = None
    health: HealthSettings = HealthSettings()
    logs: LogSettings = LogSettings()


class Settings(Struct, frozen=True, kw_only=True):
    """A whole configuration; `sidecars` in the order of the file."""

    path: Annotated[str | None, Meta(description="The file, absolute; null when there was none.")]
    folder: Annotated[str, Meta(description="Where relative paths begin, absolute.")]
    log_dir: Annotated[str, Meta(description="Absolute; need not exist yet.")]
    allow_dynamic: bool = False
    metrics_interval: Annotated[float, Meta(description="Seconds; 0 for off.")] = 2.0
    watch_config: bool = False
    max_message_bytes: int = 4 * 1024 * 1024
    max_outbound_bytes: int = 8 * 1024 * 1024
    memory_lines: int = 10_000
    sidecars: Mapping[str, SidecarSettings] = {}


# --- which key takes what --------------------------------------------------------------------------------------------

_TOP: dict[str, v.Reader] = {
    "log_dir": v.path,
    "allow_dynamic": v.boolean,
    "metrics_interval": v.seconds(SAMPLE_PAUSE_MIN_S, zero=True),
    "watch_config": v.boolean,
    "max_message_bytes": v.integer(MESSAGE_BYTES_MIN, noun="a number of bytes"),
    "max_outbound_bytes": v.integer(MESSAGE_BYTES_MIN, noun="a number of bytes"),
    "memory_lines": v.integer(1, noun="a number of lines"),
}
_SIDECAR: dict[str, v.Reader] = {
    "command": v.command,
    "cwd": v.path,
    "env": v.environment,
    "host": v.host,
    "port": v.integer(0, 65_535, "a port"),
    "stdin": v.word("null", "pipe"),
    "autostart": v.boolean,
    "depends_on": v.listing(v.non_empty, "a list of sidecar names", unique=True),
    "restart": v.word("on_failure", "always", "never"),
    "stop_signal": v.signal_name,
    "stop_http": v.http_request,
    "startup_timeout": v.seconds(PAUSE_MIN_S),
    "shutdown_timeout": v.seconds(),
    "max_restarts": v.integer(0),
    "backoff_initial": v.seconds(),
    "backoff_factor": v.number(1, BACKOFF_FACTOR_MAX),
    "backoff_max": v.seconds(),
    "backoff_jitter": v.seconds(),
    "stable_after": v.seconds(),
    "flapping_restarts": v.integer(1),
    "flapping_window": v.seconds(PAUSE_MIN_S),
    "permanent_exit_codes": v.listing(v.integer(0, EXIT_CODE_MAX, "an exit code"), "a list of exit codes"),
    "watch": v.listing(v.non_empty, "a list of patterns"),
    "max_memory": v.integer(0, noun="a number of bytes"),
    "max_cpu_percent": v.number(0, float(v.INTEGER_MAX), "a percentage"),
    "secrets": v.listing(v.non_empty, "a list of names"),
}
_KINDS: dict[str, v.Reader] = {
    "http": v.http_url,
    "tcp": v.host_and_port,
    "command": v.command,
    "log": v.pattern,
    "none": v.boolean,
}
_HEALTH: dict[str, v.Reader] = {
    **_KINDS,
    "interval": v.seconds(PAUSE_MIN_S),
    "timeout": v.seconds(PAUSE_MIN_S),
    "retry_interval": v.seconds(PAUSE_MIN_S),
    "failure_threshold": v.integer(1),
    "success_threshold": v.integer(1),
    "expect_status": v.listing(v.integer(100, 599, "an HTTP status"), "a list of HTTP statuses"),
    "verify_owner": v.boolean,
    "ready_after": v.seconds(),
}
_LOGS: dict[str, v.Reader] = {
    "max_bytes": v.integer(LOG_FILE_BYTES_MIN, noun="a number of bytes"),
    "max_files": v.integer(0, 100_000, "a number of files"),
}
_DEPENDENCIES: dict[str, v.Reader] = {"install": v.plain_command, "timeout": v.seconds(PAUSE_MIN_S)}
_CHECK: dict[str, v.Reader] = {"path": v.path, "command": v.plain_command}


# --- from mappings ---------------------------------------------------------------------------------------------------


class _Problems:
    """Everything that is wrong, in the order in which it was found."""

    def __init__(self, overridden: Iterable[str] = ()) -> None:
        self._overridden = tuple(overridden)
        self._found: list[tuple[str, str, str | None]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, path: str, message: str, sidecar: str | None = None) -> None:
        if any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in self._overridden):
            message += " (given by --set)"
        self._found.append((path, message, sidecar))

    def raise_any(self) -> None:
        if self._found:
            path, message, sidecar = self._found[0]
            error = ConfigInvalid(message, path=path, sidecar=sidecar)
            further = [{"path": p, "message": m} for p, m, _ in self._found[1 : 1 + FURTHER_PROBLEMS_MAX]]
            error.detail = {"path": path, "problems": further}
            raise error


class _Reading:
    """Reads the tables of one sidecar or of the top of the file; what is wrong goes to `problems`."""

    def __init__(self, origin: v.Origin, problems: _Problems, sidecar: str | None = None) -> None:
        self._origin = origin
        self._problems = problems
        self._sidecar = sidecar

    def refuse(self, path: str, message: str) -> None:
        self._problems.add(path, message, self._sidecar)

    def table(self, value: object, path: str) -> dict[str, object]:
        """The keys that have a value."""
        if isinstance(value, dict):
            return {str(key): each for key, each in value.items() if each is not None}
        self.refuse(path, v.expected("a table", value).message)
        return {}

    def fields(
        self, table: Mapping[str, object], readers: Mapping[str, v.Reader], path: str, *, beside: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The values of the keys that `readers` knows. Any other key is refused, unless it stands in `beside`."""
        result: dict[str, Any] = {}
        for key, value in table.items():
            at = v.step(path, key)
            if key in readers:
                try:
                    result[key] = readers[key](value, self._origin)
                except v.Refused as refused:
                    self.refuse(at + refused.at, refused.message)
            elif key not in beside:
                meant = v.nearest(key, [*readers, *beside])
                self.refuse(at, "unknown key" + (f"; did you mean `{meant}`?" if meant else ""))
        return result


def from_mapping(
    data: object,
    *,
    folder: str,
    environ: Mapping[str, str],
    path: str | None = None,
    log_dir: str | None = None,
    overridden: Iterable[str] = (),
) -> Settings:
    """Settings from what a configuration file holds.

    `folder` is where relative paths begin, `log_dir` goes before what the file says, `overridden` are the paths of
    fields that `--set` gave. Raises ConfigInvalid; its detail has `path` and `problems`, the further ones.
    """
    problems = _Problems(overridden)
    folder = os.path.abspath(folder)
    reading = _Reading(v.Origin(folder, environ, {}), problems)
    table = reading.table(data, "")
    values = reading.fields(table, _TOP, "", beside=("sidecars",))
    if log_dir is not None:
        try:
            values["log_dir"] = v.argument_path(log_dir)
        except v.Refused as refused:
            reading.refuse("log_dir", f"{refused.message} (given by --log-dir)")
    sidecars = {
        name: sidecar
        for name, value in reading.table(table.get("sidecars", {}), "sidecars").items()
        if (sidecar := _sidecar(name, value, folder, environ, problems)) is not None
    }
    _check_names(sidecars, problems)
    if not problems:
        _check_depends_on(sidecars, problems)
    problems.raise_any()
    if "log_dir" not in values:
        values["log_dir"] = default_log_dir(path or folder, environ)
    return Settings(path=path, folder=folder, sidecars=sidecars, **values)


def sidecar_from_mapping(name: str, data: object, *, folder: str, environ: Mapping[str, str]) -> SidecarSettings:
    """One sidecar from what its table holds; whether its `depends_on` exist is for `check_depends_on` to say."""
    problems = _Problems()
    sidecar = _sidecar(name, data, os.path.abspath(folder), environ, problems)
    problems.raise_any()
    return cast(SidecarSettings, sidecar)


def _sidecar(
    name: str, data: object, folder: str, environ: Mapping[str, str], problems: _Problems
) -> SidecarSettings | None:
    before = len(problems)
    path = v.step("sidecars", name)
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        problems.add(
            path,
            "a sidecar's name begins with a letter or digit, goes on with letters, digits, `.`, `_` or `-`, "
            f"and has at most {NAME_CHARS_MAX} characters",
        )
        return None
    samples = {"host": "localhost", "log_dir": os.sep, "name": name}
    has_port = isinstance(data, dict) and data.get("port") is not None
    reading = _Reading(v.Origin(folder, environ, {"port": "1", **samples} if has_port else samples), problems, name)
    table = reading.table(data, path)
    if len(problems) > before:
        return None
    values = reading.fields(table, _SIDECAR, path, beside=("dependencies", "health", "logs"))
    if "command" not in table:
        reading.refuse(v.step(path, "command"), "is missing: the program to start and its arguments")
    if "dependencies" in table:
        values["dependencies"] = _dependencies(reading, table["dependencies"], v.step(path, "dependencies"))
    if "health" in table:
        values["health"] = _health(reading, table["health"], v.step(path, "health"))
    if "logs" in table:
        at = v.step(path, "logs")
        values["logs"] = LogSettings(**reading.fields(reading.table(table["logs"], at), _LOGS, at))
    if len(problems) > before:
        return None
    values = {"cwd": folder, **values}
    needs = values.get("dependencies")
    if needs is not None and needs.check_path is not None and _is_plain_relative(table["dependencies"]):
        # An installer like `npm ci` works in cwd, and what it makes there is written as seen from there.
        seen = os.path.relpath(needs.check_path, folder)
        values["dependencies"] = replace(needs, check_path_in_cwd=os.path.normpath(os.path.join(values["cwd"], seen)))
    sidecar = SidecarSettings(name=name, **values)
    health = sidecar.health
    if health.kind == "none" and health.ready_after >= sidecar.startup_timeout:
        asked = table.get("health")
        if isinstance(asked, dict) and "ready_after" in asked:
            reading.refuse(
                v.step(v.step(path, "health"), "ready_after"),
                f"{health.ready_after:g} s is not less than startup_timeout, {sidecar.startup_timeout:g} s",
            )
        sidecar = replace(sidecar, health=replace(health, ready_after=sidecar.startup_timeout / 2))
    if sidecar.backoff_max < sidecar.backoff_initial:
        said = "" if "backoff_max" in table else ", the default,"
        reading.refuse(
            v.step(path, "backoff_max"),
            f"{sidecar.backoff_max:g} s{said} is less than backoff_initial, {sidecar.backoff_initial:g} s",
        )
    return sidecar


def _is_plain_relative(dependencies: Any) -> bool:
    written = dependencies["check"]["path"]
    return "$" not in written and not os.path.isabs(written)


def _health(reading: _Reading, value: object, path: str) -> HealthSettings:
    table = reading.table(value, path)
    values = reading.fields(table, _HEALTH, path)
    kinds = [kind for kind in _KINDS if kind in table]
    if len(kinds) != 1:
        found = " and ".join(f"`{kind}`" for kind in kinds) or "none of them"
        if isinstance(value, dict):  # what is no table was refused as such
            reading.refuse(path, f"expected exactly one of http, tcp, command, log and none, got {found}")
        return HealthSettings()
    if values.pop("none", True) is False:
        reading.refuse(v.step(path, "none"), "expected true, or another key instead")
    return HealthSettings(kind=cast(Any, kinds[0]), **values)


def _dependencies(reading: _Reading, value: object, path: str) -> DependencySettings:
    table = reading.table(value, path)
    values = reading.fields(table, _DEPENDENCIES, path, beside=("check",))
    if "check" in table:
        at = v.step(path, "check")
        check = reading.table(table["check"], at)
        for kind, found in reading.fields(check, _CHECK, at).items():
            values[f"check_{kind}"] = found
        if check.keys() >= _CHECK.keys():
            reading.refuse(at, "expected `path` or `command`, got both")
        elif isinstance(table["check"], dict) and not check:
            reading.refuse(at, "expected `path` or `command`, got neither")
    if isinstance(value, dict) and "check" not in table and "install" not in table:
        reading.refuse(path, "expected `check` or `install`, got neither")
    return DependencySettings(**values)


def unused(settings: Settings) -> list[str]:
    """Paths of the fields that ask for what this version does not do yet, like `sidecars.web.watch`.

    They are accepted, so that one file serves this version and the next; who sets one wants to be told.
    """
    found = [key for key in _UNUSED if getattr(settings, key)]
    for name, sidecar in settings.sidecars.items():
        path = v.step("sidecars", name)
        found += [v.step(path, key) for key in _UNUSED_OF_SIDECARS if getattr(sidecar, key)]
    return found


# --- what one sidecar cannot say alone -------------------------------------------------------------------------------


def check_depends_on(sidecars: Mapping[str, SidecarSettings]) -> None:
    """Raise ConfigInvalid where a `depends_on` names what is not there, itself, or closes a circle."""
    problems = _Problems()
    _check_depends_on(sidecars, problems)
    problems.raise_any()


def _check_names(sidecars: Mapping[str, SidecarSettings], problems: _Problems) -> None:
    seen: dict[str, str] = {}
    for name in sidecars:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            problems.add(
                v.step("sidecars", name), f"differs from `{other}` only in case: they would share a folder", name
            )


def _check_depends_on(sidecars: Mapping[str, SidecarSettings], problems: _Problems) -> None:
    before = len(problems)
    for name, sidecar in sidecars.items():
        for index, wanted in enumerate(sidecar.depends_on):
            at = f"{v.step('sidecars', name)}.depends_on[{index}]"
            if wanted == name:
                problems.add(at, "a sidecar cannot depend on itself", name)
            elif wanted not in sidecars:
                meant = v.nearest(wanted, sidecars)
                hint = f"; did you mean `{meant}`?" if meant else ""
                problems.add(at, f"there is no sidecar `{v.printable(wanted)}`{hint}", name)
    if len(problems) == before and (circle := _circle(sidecars)) is not None:
        around = " -> ".join([*circle, circle[0]])
        problems.add(f"{v.step('sidecars', circle[0])}.depends_on", f"goes in a circle: {around}", circle[0])


def _circle(sidecars: Mapping[str, SidecarSettings]) -> list[str] | None:
    """The names of one circle, beginning with the one that stands first in the configuration."""
    clear: set[str] = set()
    for first in sidecars:
        trail = {first: iter(sidecars[first].depends_on)}  # the way down to the one looked at, in order
        while trail:
            name = next(reversed(trail))
            wanted = next(trail[name], None)
            if wanted is None:
                clear.add(name)
                del trail[name]
            elif wanted in trail:
                names = list(trail)
                circle = names[names.index(wanted) :]
                start = min(range(len(circle)), key=lambda i: list(sidecars).index(circle[i]))
                return circle[start:] + circle[:start]
            elif wanted not in clear:
                trail[wanted] = iter(sidecars[wanted].depends_on)
    return None


# --- from files ------------------------------------------------------------------------------------------------------


def load(
    path: str, *, overrides: Sequence[str] = (), log_dir: str | None = None, environ: Mapping[str, str]
) -> Settings:
    """Read a configuration file: JSON when its name ends in .json, otherwise TOML.

    `overrides` are the `key=value` of `--set`, later ones win; `log_dir`, relative to the current directory, goes
    before what the file says. Raises ConfigInvalid; its detail has `path` and `problems`, the further ones.
    """
    file = os.path.abspath(path)
    data = _parsed(file)
    overridden = [_override(data, each) for each in overrides]
    return from_mapping(
        data, folder=os.path.dirname(file), environ=environ, path=file, log_dir=log_dir, overridden=overridden
    )


def _parsed(file: str) -> dict[str, Any]:
    shown = v.printable(os.path.basename(file))
    try:
        with open(file, "rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigInvalid(f"{v.printable(file, _PATH_CHARS_MAX)} cannot be read: {reason}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigInvalid(f"{shown} has more than {FILE_BYTES_MAX} bytes: that is no configuration")
    is_json = file.lower().endswith(".json")
    kind = "JSON" if is_json else "TOML"
    try:
        text = raw.decode("utf-8-sig")
        data = _from_json(text) if is_json else _from_toml(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid(f"{shown} is no {kind}: not UTF-8 in line {line}") from None
    except RecursionError:
        raise ConfigInvalid(f"{shown} is no configuration: it is nested too deeply") from None
    except ValueError as error:  # both parsers' errors, and Python's limit on the digits of a number
        raise ConfigInvalid(f"{shown} is no valid {kind}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigInvalid(f"{shown}: expected a table at the top, got {v.shown(data)}")
    return data


def _from_toml(text: str) -> object:
    import tomllib

    return tomllib.loads(text)


def _from_json(text: str) -> object:
    import json

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ValueError(f'the key "{v.printable(key)}" stands in one table twice')
            result[key] = value
        return result

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    return json.loads(text, object_pairs_hook=table, parse_constant=refuse)


_KEY_PART = r"""\s*(?:"([^"\\]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.|\Z)"""


def _override(data: dict[str, Any], text: str) -> str:
    """Put one `key=value` in place; the path of what it gave. Messages leave the value out: it may be a secret."""
    key, equals, value = text.partition("=")
    shown = f"--set {v.printable(key)}"
    if not equals:
        raise ConfigInvalid(f"{shown}: expected key=value")
    *above, last = _key_parts(key, shown)
    table: dict[str, Any] = data
    path = ""
    for part in above:
        path = v.step(path, part)
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigInvalid(f"{shown}: {path} is no table")
        table = below
    table[last] = _override_value(value)
    return v.step(path, last)


def _key_parts(key: str, shown: str) -> list[str]:
    parts: list[str] = []
    position = 0
    while (found := re.match(_KEY_PART, key[position:])) is not None:
        parts.append(next(each for each in found.groups() if each is not None))
        if not found[4]:
            return parts
        position += found.end()
    raise ConfigInvalid(
        f'{shown}: expected keys joined by dots, a key with other characters in quotes, like sidecars."my.app".port'
    )


def _override_value(written: str) -> object:
    """A TOML value where it is one, otherwise the text itself."""
    import tomllib

    try:
        parsed = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):
        return written
    return parsed["value"] if parsed.keys() == {"value"} else written


def default_log_dir(config: str, environ: Mapping[str, str], platform: str = sys.platform) -> str:
    """The platform's log folder, below it one folder per configuration: two apps never share one.

    Linux: `$XDG_STATE_HOME/sidecar-bridge/logs` (`~/.local/state`), macOS: `~/Library/Logs/sidecar-bridge`, Windows:
    `%LOCALAPPDATA%\\sidecar-bridge\\logs`; in it the name of the configuration's folder and eight hex digits that stand
    for its whole path, like `myapp-1f0c3b9a`. An app whose configuration lies elsewhere at each start, as one that
    unpacks itself does, sets `log_dir`.
    """
    from zlib import crc32

    home = environ.get("HOME") or os.path.expanduser("~")
    if platform == "win32":
        base = environ.get("LOCALAPPDATA") or os.path.join(os.path.expanduser("~"), "AppData", "Local")
        logs = os.path.join(base, "sidecar-bridge", "logs")
    elif platform == "darwin":
        logs = os.path.join(home, "Library", "Logs", "sidecar-bridge")
    else:
        state = environ.get("XDG_STATE_HOME", "")
        # The XDG rules: a path that is not absolute is ignored.
        base = state if os.path.isabs(state) else os.path.join(home, ".local", "state")
        logs = os.path.join(base, "sidecar-bridge", "logs")
    identity = os.path.realpath(config)
    folder = identity if os.path.isdir(identity) else os.path.dirname(identity)
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(folder))[:40].strip("-.") or "app"
    return os.path.join(os.path.abspath(logs), f"{label}-{crc32(os.fsencode(identity)):08x}")
