"""Real pipes with a real RpcServer at one end, in the test's own event loop."""

from __future__ import annotations

import sys

import pytest

# Pipes are made non-blocking and waited for, which Windows has not.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
