"""Texts and JSON values -> the same without a sidecar's secret values.

What is secret says `secrets` of the configuration, by the name of the environment value. A secret of at least
`WHOLE_CHARS_MIN` characters is replaced wherever it stands, also inside a word, also in the forms that JSON and URLs
give it, and each line of one that has several. A shorter one is replaced only where it stands by itself: a secret `1`
must not tear every number apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bridge.settings import SidecarSettings, fill

MASK = "***"
WHOLE_CHARS_MIN = 4
LINE_CHARS_MIN = 8
"""The lines of a secret that are shorter, a lone `}` for instance, are no secrets by themselves."""


class Redactor:
    """Knows the secret values of one sidecar."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = sorted({form for value in values for form in _forms(value)}, key=lambda form: (-len(form), form))
        # The longest first: a secret may contain another one.
        self._pattern = re.compile("|".join(map(_wherever, forms))) if forms else None

    @classmethod
    def of(cls, settings: SidecarSettings, environ: Mapping[str, str]) -> Redactor:
        """For one sidecar. `environ` is what it inherits, or its whole environment as far as that is known.

        Of a secret that holds a placeholder (`key-{port}`) the text around it is redacted.
        """
        values: list[str] = []
        for name in settings.secrets:
            if name in environ:
                values.append(environ[name])
            if name in settings.env:
                # A NUL can stand in no environment value, so it shows where a placeholder was.
                holes = dict.fromkeys(("port", "host", "log_dir", "name"), "\0")
                values.extend(fill(settings.env[name], holes).split("\0"))
        return cls(values)

    def text(self, text: str) -> str:
        """The text with each secret as `***`."""
        return self._pattern.sub(MASK, text) if self._pattern is not None else text

    def value(self, value: Any) -> Any:
        """A copy of a JSON value or of Structs, with all their texts redacted, the keys of objects included."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, tuple):
            return tuple(self.value(each) for each in value)
        if isinstance(value, msgspec.Struct):
            fields = value.__struct_fields__
            return msgspec.structs.replace(value, **{field: self.value(getattr(value, field)) for field in fields})
        return value


def _forms(secret: str) -> Iterable[str]:
    """How a secret may appear; nothing for an empty one."""
    import json
    from urllib.parse import quote

    lines = [line.strip() for line in secret.splitlines()]
    for form in (secret, *(line for line in lines if len(line) >= LINE_CHARS_MIN)):
        if form:
            yield form
            yield json.dumps(form)[1:-1]
            yield json.dumps(form, ensure_ascii=False)[1:-1]
            # On POSIX the bytes of an environment value that are no UTF-8 arrive as halves of surrogate pairs.
            yield quote(form, safe="", errors="surrogateescape")


def _wherever(form: str) -> str:
    return re.escape(form) if len(form) >= WHOLE_CHARS_MIN else rf"(?<!\w){re.escape(form)}(?!\w)"
