"""How jsonrpcserver is used, in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
import msgspec
from bridge.rpc.dispatch import Dispatcher, Success
from bridge.rpc.messages import Request
assert_ = lambda holds: None if holds else sys.exit("failed")
assert_("jsonrpcserver.dispatcher" not in sys.modules)
dispatcher = Dispatcher({"ping": lambda _: "pong"})
assert_("jsonrpcserver.dispatcher" in sys.modules)
assert_(not {"jsonrpcserver", "jsonschema", "http.server"} & sys.modules.keys())
assert_(dispatcher.begin(Request("2.0", "ping")) == Success("ping", "pong"))
try:
    Dispatcher({"nope": lambda _: None})
except ValueError:
    pass
else:
    sys.exit("accepted")
"""


@pytest.mark.parametrize("option", ["-Werror", "-O"])
def test_only_the_light_parts_of_jsonrpcserver_are_loaded_and_not_before_they_are_needed(option: str) -> None:
    done = subprocess.run([sys.executable, option, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_saying_ready_needs_nothing_heavy() -> None:
    code = "import sys, bridge.rpc.messages; print({'anyio', 'asyncio', 'jsonrpcserver', 'httpx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "set()\n"
