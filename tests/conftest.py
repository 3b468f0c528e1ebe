"""Fixtures that every test may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.kit import Kit
from tests.support.survivors import carriers


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run only where a `-m` expression asks for some marks."""
    if not config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """A test's tools; at its end nothing that carries its token may be alive."""
    tools = Kit(tmp_path)
    yield tools
    tools.finish()


@pytest.fixture
def survivors() -> Callable[[str], list[int]]:
    """`survivors(token)`: pids of everything alive that carries this token."""
    return carriers
