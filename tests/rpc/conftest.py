"""Real pipes with a real RpcServer at one end, in the test's own event loop."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
