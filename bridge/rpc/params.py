"""`params` of a request, by name or by position -> the method's Struct, or a sentence that names the wrong field.

The usual case is one typed decode. Everything else (positions, nulls, mistakes) takes each field by itself, which is
how the message can name it. Knows the Structs of `bridge.model`, not the methods.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import FieldInfo, fields

from .. import model
from ..errors import InvalidParams, shorten
from .messages import ABSENT, UNREADABLE

_as_object: Final = msgspec.json.Decoder(dict[str, Raw])
_as_array: Final = msgspec.json.Decoder(list[Raw])

_WORDS: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
_SEEN: Final = {"bool": "a boolean"}
_EXPECTED: Final = re.compile(
    r"Expected `(?P<types>[^`]+)`(?P<bound>[^,]*?)(?:, got `(?P<got>\w+)`)?(?: - at `\$(?P<path>.*)`)?"
)
_VALUE: Final = re.compile(r"(?P<said>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)


class ParamsReader:
    """Reads the params of one method."""

    __slots__ = ("_decoder", "_field_decoders", "_fields", "_optional", "_struct")

    def __init__(self, struct: type[model.Params]) -> None:
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct)
        self._fields: dict[str, FieldInfo] = {field.encode_name: field for field in fields(struct)}
        self._optional = not any(field.required for field in fields(struct))
        self._field_decoders: dict[str, msgspec.json.Decoder[Any]] = {}

    def read(self, params: Raw) -> model.Params:
        """Raises InvalidParams, whose message names the field and what was expected."""
        if params is ABSENT and self._optional:
            return self._struct()
        text = bytes(params)
        if text[:1] == b"{":
            try:
                return self._decoder.decode(text)
            except UNREADABLE:
                return self._build(_as_object.decode(text))
        if text[:1] == b"[":
            return self._build(self._by_position(_as_array.decode(text)))
        return self._build({})

    def _by_position(self, values: list[Raw]) -> dict[str, Raw]:
        if len(values) > len(self._fields):
            names = f" ({', '.join(self._fields)})" if self._fields else ""
            raise InvalidParams(
                f"params: expected at most {len(self._fields)}{names}, got {len(values)}.", detail={"field": None}
            )
        return dict(zip(self._fields, values, strict=False))

    def _build(self, given: dict[str, Raw]) -> model.Params:
        values: dict[str, Any] = {}
        for name, raw in given.items():
            field = self._fields.get(name)
            if field is None:
                known = f"known are {', '.join(self._fields)}" if self._fields else "this method has none"
                raise InvalidParams.of(shorten(name), f"unknown param; {known}")
            # null for a param that has a default means left out
            if field.required or bytes(raw) != b"null":
                values[field.name] = self._value(field, raw)
        for name, field in self._fields.items():
            if field.required and field.name not in values:
                raise InvalidParams.of(name, "missing")
        return self._struct(**values)

    def _value(self, field: FieldInfo, raw: Raw) -> Any:
        name = field.encode_name
        decoder = self._field_decoders.get(name)
        if decoder is None:
            decoder = self._field_decoders[name] = msgspec.json.Decoder(field.type)
        try:
            return decoder.decode(raw)
        except UNREADABLE as error:
            path, problem = _explain(error, field, bytes(raw))
            raise InvalidParams.of(name, problem, path=path) from None


def _explain(error: Exception, field: FieldInfo, raw: bytes) -> tuple[str, str]:
    """Where below the field, and what was expected, in words."""
    if isinstance(error, RecursionError):
        return "", "nested too deeply"
    said = str(error)
    match = _EXPECTED.fullmatch(said)
    if match is not None:
        types = [word for word in match["types"].split(" | ") if word != "null" or match["path"]]
        expected = " or ".join(_WORDS.get(word, word) for word in types) + match["bound"]
        got = match["got"]
        seen = _SEEN.get(got, _WORDS.get(got, got)) if got else shorten(raw.decode())
        return match["path"] or "", f"expected {expected}, got {seen}"
    match = _VALUE.fullmatch(said)
    path, problem = (match["path"] or "", match["said"]) if match is not None else ("", said)
    choices = _choices(field.type)
    if choices and not path:
        return "", f"expected one of {', '.join(choices)}, got {shorten(raw.decode())}"
    return path, problem[:1].lower() + problem[1:]


def _choices(annotation: Any) -> list[str]:
    """The words that a field allows, where it is a choice of words."""
    from msgspec import inspect  # only mistakes need it

    info = inspect.type_info(annotation)
    while isinstance(info, inspect.Metadata):
        info = info.type
    options = info.types if isinstance(info, inspect.UnionType) else (info,)
    return [str(value) for option in options if isinstance(option, inspect.LiteralType) for value in option.values]
