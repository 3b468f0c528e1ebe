"""`sidecar-bridge demo`: set the stage, play the story, clear away; 0 only when each act was really observed."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from bridge import __version__, settings
from bridge.client import bridge_command
from bridge.demo import config
from bridge.demo.screen import Screen
from bridge.demo.story import FAILURES, Cast, Story
from bridge.errors import ConfigInvalid

STDERR_BYTES_SHOWN = 8000
"""The end of the bridge's diagnostics is what explains a failure."""
TOKEN_VARIABLE = "SIDECAR_BRIDGE_DEMO"  # noqa: S105 - a name, and the token is no secret
_EPILOG = """\
The story: a bridge is started with a small web server as its sidecar; the sidecar starts, is killed, hangs, is
restarted on request and measured; the bridge ends cleanly; a second bridge is killed. After each end the process table
is asked, without the bridge, whether anything is left.

With --config the story is played with a sidecar of yours: it is killed, stopped by SIGSTOP and restarted, with its
health checked once a second. Its logs go to a folder of the demo, not to yours.

exit codes: 0 every act was observed; 1 one was not, which one and the bridge's own words are printed; 2 wrong arguments
or configuration; 130 ended by Ctrl-C
"""


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    screen = Screen()
    token = f"demo-{os.urandom(6).hex()}"
    folder = Path(tempfile.mkdtemp(prefix="sidecar-bridge-demo-"))
    try:
        return _perform(options, screen, token, folder)
    except BrokenPipeError:
        # Nobody reads any more, as when a pager was left. What is still to be written, at exit too, goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        if options.keep:
            screen.line(f"  Configuration, logs and diagnostics are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar-bridge demo",
        description="Watch a sidecar being started, killed, hung, restarted and stopped, in about a minute.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--fast", action="store_true", help="the same without pauses to read, in about 15 seconds")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configuration, logs and diagnostics")
    parser.add_argument("--config", metavar="FILE", help="play with a sidecar of this configuration")
    parser.add_argument("--sidecar", metavar="NAME", help="which one of it; by default its first")
    return parser


def _perform(options: argparse.Namespace, screen: Screen, token: str, folder: Path) -> int:
    pace = config.FAST if options.fast else config.CALM
    try:
        cast = _cast(options, token, folder, pace)
    except ConfigInvalid as error:
        print(error.message, file=sys.stderr)
        return 2
    began = time.monotonic()
    screen.line()
    screen.line(f"  {screen.style('sidecar-bridge', 'bold')} {__version__}")
    screen.say(
        "A desktop app leaves its helper processes, its sidecars, to a bridge. This demo plays the app: what you see "
        f"is what a real bridge says. {'' if options.fast else 'It takes about a minute; '}Ctrl-C ends it cleanly."
    )
    with open(folder / "bridge.stderr", "w+b") as stderr:
        story = Story(screen, cast, stderr)
        try:
            story.play()
        except FAILURES as error:
            screen.settle()
            screen.line()
            screen.failed(f"{story.act}: {error}")
            _show_diagnostics(screen, stderr)
            return 1
        except KeyboardInterrupt:
            screen.settle()
            screen.line()
            screen.line("  Ended by Ctrl-C; the bridge took its sidecar with it.")
            return 130
    screen.line()
    screen.line(
        f"  {screen.style('Every act was observed and checked', 'green', 'bold')}, in {time.monotonic() - began:.0f} s."
        " Next: spawn a bridge from your own app, as the README shows."
    )
    screen.line()
    return 0


def _cast(options: argparse.Namespace, token: str, folder: Path, pace: config.Pace) -> Cast:
    """Who plays. Raises ConfigInvalid for a configuration that the story cannot use."""
    own = options.config is not None
    file, text, name = options.config, "", options.sidecar
    if not own:
        if name is not None:
            raise ConfigInvalid("--sidecar chooses from the sidecars of a --config FILE")
        text = config.text(folder, token, pace)
        file = str(folder / "sidecars.toml")
        Path(file).write_text(text, encoding="utf-8")
    log_dir = str(folder / "logs")
    loaded = settings.load(file, log_dir=log_dir, environ=os.environ)
    if name is None:
        name = next(iter(loaded.sidecars), None)
    if name is None or name not in loaded.sidecars:
        there = ", ".join(loaded.sidecars) or "none"
        raise ConfigInvalid(f"there is no sidecar {name or ''} in {file}; there: {there}".replace("  ", " "))
    overrides = _overrides(loaded.sidecars[name], pace) if own else []
    loaded = settings.load(file, overrides=overrides, log_dir=log_dir, environ=os.environ)
    sidecar = loaded.sidecars[name]
    if sidecar.restart == "never" or sidecar.max_restarts < 2:
        raise ConfigInvalid(
            "the story needs a sidecar that is restarted at least twice", path=f"sidecars.{name}.restart"
        )
    serve = [*bridge_command(), "serve", "--config", file, "--log-dir", log_dir, "--log-level", "info"]
    for each in overrides:
        serve += ["--set", each]
    env = {**os.environ, TOKEN_VARIABLE: token}
    return Cast(sidecar, serve, env, token, own, text, log_dir, pace.reading)


def _overrides(sidecar: settings.SidecarSettings, pace: config.Pace) -> list[str]:
    """What the story changes in a user's configuration: nothing starts before its act, and no act takes minutes."""
    path = f'sidecars."{sidecar.name}"'
    changed = ["metrics_interval=0.5", f"{path}.autostart=false"]
    if sidecar.health.kind in ("http", "tcp", "command"):
        for key, most in (("interval", 1.0), ("timeout", 2.0), ("retry_interval", 1.0)):
            changed.append(f"{path}.health.{key}={min(getattr(sidecar.health, key), most):g}")
    return changed


def _show_diagnostics(screen: Screen, stderr: IO[bytes]) -> None:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(size - STDERR_BYTES_SHOWN, 0))
    text = stderr.read().decode("utf-8", "replace").strip()
    screen.line()
    screen.say("The bridge's diagnostics:" if text else "The bridge wrote no diagnostics.")
    for line in text.splitlines():
        screen.line(f"    {line}")
