"""Fixtures that every test may take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import survivors
from tests.support.kit import Kit


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """A test's tools; at its end nothing that carries its token may be alive."""
    tools = Kit(tmp_path)
    yield tools
    tools.finish()


@pytest.fixture
def assert_gone() -> object:
    """`assert_gone(token, timeout=2.0)`: nothing with this token is alive within the time."""
    return survivors.assert_gone
