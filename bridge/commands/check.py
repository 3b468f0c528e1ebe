"""`sidecar-bridge check`: a configuration file -> a readable summary, or what is wrong with it, field by field.

Nothing is started or created. What may well be right but looks odd on this machine, like a program that is not
installed here, is a note and no error: the configuration may be meant for another machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping

from bridge.errors import ConfigInvalid
from bridge.settings import HealthSettings, Settings, SidecarSettings, fill, load, unused
from bridge.supervision.redact import Redactor

_EPILOG = """\
example:
  sidecar-bridge check sidecars.toml --set sidecars.web.port=8080

exit codes: 0 the configuration is right; 2 it is not, each wrong field stands on fd 2 with its path in front
"""
_LABEL_CHARS = 13
_DELAYS_SHOWN = 6
"""Enough to see how a backoff grows; a policy of a thousand restarts would fill the screen."""
_OPEN = {name: f"{{{name}}}" for name in ("port", "host", "log_dir", "name")}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sidecar-bridge check",
        description="Read a configuration as `serve` would and say what it means, or what is wrong with it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="configuration, JSON when its name ends in .json, otherwise TOML")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="set one field (repeatable)")
    parser.add_argument("--log-dir", metavar="DIR", help="where the sidecars' logs go")
    options = parser.parse_args(argv)
    try:
        settings = load(options.file, overrides=options.set, log_dir=options.log_dir, environ=os.environ)
    except ConfigInvalid as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return 2
    print("\n".join(summary(settings, os.environ)))
    return 0


# --- the summary -----------------------------------------------------------------------------------------------------


def summary(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """A configuration in lines for a person, without the values of any sidecar's `secrets`."""
    # Each line goes through all of them: one sidecar's secret may well stand in the command of another.
    redactors = [Redactor.of(sidecar, environ) for sidecar in settings.sidecars.values() if sidecar.secrets]
    for line in _lines(settings):
        for redactor in redactors:
            line = redactor.text(line)
        yield line


def _lines(settings: Settings) -> Iterator[str]:
    count = len(settings.sidecars)
    sidecars = "no sidecars" if count == 0 else _count(count, "sidecar")
    yield f"{settings.path} is right: {sidecars}"
    yield ""
    yield _line("logs in", settings.log_dir, indent=2)
    yield _line("metrics", f"every {_s(settings.metrics_interval)}" if settings.metrics_interval else "off", indent=2)
    for sidecar in settings.sidecars.values():
        yield ""
        yield f"  {sidecar.name}"
        for label, text in _sidecar(sidecar):
            yield _line(label, text)
    remarks = [f"not yet in this version: {path}" for path in unused(settings)]
    remarks += [f"note: {note}" for note in _notes(settings)]
    if remarks:
        yield ""
        yield from remarks


def _line(label: str, text: str, indent: int = 4) -> str:
    return f"{'':{indent}}{label:{_LABEL_CHARS + 4 - indent}}{text}"


def _sidecar(sidecar: SidecarSettings) -> Iterator[tuple[str, str]]:
    yield "command", " ".join(_quoted(_plain(part)) for part in sidecar.command)
    yield "in", sidecar.cwd
    if sidecar.env:
        names = (f"{name} (secret)" if name in sidecar.secrets else name for name in sidecar.env)
        yield "environment", ", ".join(names)
    if sidecar.port is not None:
        yield "port", f"{sidecar.host}:{sidecar.port}" if sidecar.port else f"{sidecar.host}, a free port at each start"
    if sidecar.dependencies is not None:
        yield "needs", _dependencies(sidecar)
    after = f" after {', '.join(sidecar.depends_on)}" if sidecar.depends_on else ""
    yield (
        "starts",
        f"{'with the bridge' if sidecar.autostart else 'on request'}{after}, {_s(sidecar.startup_timeout)} at most",
    )
    yield "healthy if", _health(sidecar.health)
    if sidecar.health.kind not in ("log", "none"):
        yield "checked", _checks(sidecar.health)
    yield "restarts", _restarts(sidecar)
    yield "stops by", _stops(sidecar)
    yield "logs", f"{_bytes(sidecar.logs.max_bytes)} a file, {_count(sidecar.logs.max_files, 'archive')} per stream"


def _dependencies(sidecar: SidecarSettings) -> str:
    needs = sidecar.dependencies
    assert needs is not None
    parts = []
    if needs.check_path is not None:
        places = dict.fromkeys((needs.check_path, needs.check_path_in_cwd or needs.check_path))
        parts.append(" or ".join(places))
    if needs.check_command is not None:
        parts.append(f"exit 0 of `{' '.join(needs.check_command)}`")
    if needs.install is not None:
        when = "else" if parts else "before each start"
        parts.append(f"{when} `{' '.join(needs.install)}` ({_s(needs.timeout)} at most)")
    return ", ".join(parts) or "nothing"


def _health(health: HealthSettings) -> str:
    if health.kind == "none":
        return f"alive for {_s(health.ready_after)}"
    within = f" within {_s(health.timeout)}"
    return {
        "http": f"{_plain(health.http)} answers {_statuses(health.expect_status)}{within}",
        "tcp": f"{_plain(health.tcp)} accepts connections{within}",
        "command": f"`{' '.join(map(_plain, health.command))}` exits 0{within}",
        "log": f"its output matches {_plain(health.log)}",
    }[health.kind]


def _checks(health: HealthSettings) -> str:
    failures = _count(health.failure_threshold, "failure")
    return (
        f"every {_s(health.interval)}, every {_s(health.retry_interval)} after a failure; "
        f"unhealthy after {failures} in a row"
    )


def _statuses(expected: Iterable[int]) -> str:
    return ", ".join(str(status) for status in expected) or "200-399"


def _restarts(sidecar: SidecarSettings) -> str:
    if sidecar.restart == "never":
        return "never"
    when = "after every exit" if sidecar.restart == "always" else "after a failure"
    if sidecar.max_restarts == 0:
        return f"{when}, but max_restarts is 0: the first one is the last"
    shown = min(sidecar.max_restarts, _DELAYS_SHOWN)
    delays = [min(sidecar.backoff_initial * sidecar.backoff_factor**n, sidecar.backoff_max) for n in range(shown)]
    waits = ", ".join(f"{delay:g}" for delay in delays) + (", …" if sidecar.max_restarts > shown else "")
    return (
        f"{when}, {_count(sidecar.max_restarts, 'time')} at most, {waits} s later; "
        f"counted anew after {_s(sidecar.stable_after)} of running"
    )


def _stops(sidecar: SidecarSettings) -> str:
    steps = [_plain(sidecar.stop_http)] if sidecar.stop_http else []
    steps += ["end of its input"] if sidecar.stdin == "pipe" else []
    steps.append(sidecar.stop_signal)
    return f"{', then '.join(steps)}; killed after {_s(sidecar.shutdown_timeout)}"


def _notes(settings: Settings) -> Iterator[str]:
    for sidecar in settings.sidecars.values():
        program = _plain(sidecar.command[0])
        if any(placeholder in program for placeholder in _OPEN.values()):
            continue
        beside = os.path.join(sidecar.cwd, program)
        if not os.path.isdir(sidecar.cwd):
            yield f"{sidecar.name}: there is no folder {sidecar.cwd} here"
        elif shutil.which(beside if os.path.dirname(program) else program) is None:
            yield f"{sidecar.name}: there is no program `{program}` here"


def _plain(template: str) -> str:
    """A text for `fill` as it will be, its placeholders left open: no Redactor knows a secret by doubled braces."""
    return fill(template, _OPEN)


def _quoted(text: str) -> str:
    return f'"{text}"' if not text or any(char.isspace() for char in text) else text


def _s(seconds: float) -> str:
    return f"{seconds:g} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _bytes(number: int) -> str:
    size = float(number)
    unit = _UNITS[0]
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.4g} {unit}"
