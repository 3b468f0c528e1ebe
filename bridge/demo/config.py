"""What the demo's bridge is told: a TOML file in a folder of its own, and the pace of the story."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from bridge._values import escape

NAME = "web"
"""The sidecar's name in the configuration below."""


class Pace(NamedTuple):
    """How long things take, in seconds."""

    warm_up: float
    backoff_initial: float
    interval: float
    timeout: float
    reading: float
    """A pause in which a person reads a paragraph."""


CALM = Pace(warm_up=3.0, backoff_initial=2.0, interval=1.0, timeout=1.0, reading=2.5)
FAST = Pace(warm_up=0.4, backoff_initial=0.5, interval=0.3, timeout=0.4, reading=0.0)

_TEMPLATE = """\
log_dir = {log_dir}
metrics_interval = 0.5

[sidecars.web]
command = [{python_template}, "-I", {server_template}, "--port", "{{port}}",
           "--warm-up", "{warm_up:g}", "--token", "{token}"]
port = 0
autostart = false
shutdown_timeout = 1
backoff_initial = {backoff_initial:g}

[sidecars.web.dependencies]
check = {{ path = {installed} }}
install = [{python}, "-I", {server}, "--install", {installed},
           "--warm-up", "{warm_up:g}"]

[sidecars.web.health]
http = "http://127.0.0.1:{{port}}/health"
interval = {interval:g}
timeout = {timeout:g}
retry_interval = {interval:g}
"""


def text(folder: Path, token: str, pace: Pace) -> str:
    """The configuration of the example sidecar."""
    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
    return _TEMPLATE.format(
        log_dir=_quoted(str(folder / "logs")),
        python=_quoted(sys.executable),
        python_template=_quoted(escape(sys.executable)),
        server=_quoted(server),
        server_template=_quoted(escape(server)),
        token=token,
        installed=_quoted(str(folder / "installed")),
        **pace._asdict(),
    )


def _quoted(literal: str) -> str:
    """A TOML text that the configuration reads as exactly this."""
    return json.dumps(literal.replace("$", "$$"), ensure_ascii=False)
