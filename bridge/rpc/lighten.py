"""A notification that is too long for a line -> the same one with less in it.

For those that may not be dropped. First goes what only explains (last lines of stderr, details), then every text and
list is cut short. What has to be known, that a state changed and to what, is a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from .. import model

TEXT_CHARS_MAX: Final = 200
"""Of a text that is cut; names, words and times of the protocol are shorter."""

LIST_ITEMS_MAX: Final = 20
"""Of a list that is cut. With texts of that length a command line takes half of the least message limit at most."""


def lighter(params: model.Notification) -> Iterator[model.Notification]:
    """Ever shorter versions of a notification."""
    if isinstance(params, model.StateChanged):
        params = replace(params, status=_without_explanations(params.status))
        yield params
    elif isinstance(params, model.Alert):
        params = replace(params, data=None)
        yield params
    yield msgspec.convert(_cut(msgspec.to_builtins(params)), type(params))


def _without_explanations(status: model.SidecarStatus) -> model.SidecarStatus:
    last_exit, error = status.last_exit, status.error
    return replace(
        status,
        last_exit=None if last_exit is None else replace(last_exit, stderr_tail=[], checks=[]),
        error=None if error is None else replace(error, stderr_tail=[], detail=None),
    )


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else f"{value[: TEXT_CHARS_MAX - 1]}…"
    if isinstance(value, list):
        return [_cut(item) for item in value[:LIST_ITEMS_MAX]]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value
