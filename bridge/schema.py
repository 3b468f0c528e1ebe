"""The contract -> an OpenRPC document and one JSON Schema per Struct.

Everything is computed from `bridge.contract`; `schemas/` holds the same, written, for generators in other languages and
for people. `stale` compares the two without touching the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from . import contract, errors, model

OPENRPC_VERSION: Final = "1.3.2"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DOCUMENT: Final = "openrpc.json"

_REF: Final = "#/components/schemas/{name}"
_REF_START: Final = _REF.format(name="")

_BASE_ERRORS: Final[dict[str, tuple[int, str]]] = {
    "parse_error": (-32700, "the line is not valid JSON in UTF-8"),
    "invalid_request": (-32600, "a JSON value that is no request, or a line above the message limit"),
    "method_not_found": (-32601, "there is no such method"),
    "internal_error": (errors.BridgeError.code, errors.BridgeError.summary),
}

Json = dict[str, Any]


def openrpc() -> Json:
    """The OpenRPC document of the protocol, which `rpc.discover` returns."""
    schemas = _schemas()
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "Sidecar Bridge Protocol",
            "version": contract.PROTOCOL_VERSION,
            "description": "JSON-RPC 2.0 on the bridge's stdin and stdout, one message per line. Durations are "
            "seconds, sizes bytes, wall-clock times RFC 3339 in UTC.",
            "license": {"name": "MIT"},
        },
        "methods": [_method(row, schemas) for row in contract.METHODS.values()],
        "components": {"schemas": schemas, "errors": _errors()},
        "x-notifications": [
            {
                "name": row.name,
                "summary": row.summary,
                "delivery": row.delivery.value,
                "params": {"$ref": _REF.format(name=row.params.__name__)},
            }
            for row in contract.NOTIFICATIONS.values()
        ],
        "x-client-notifications": [
            {
                "name": contract.CANCEL_REQUEST,
                "summary": "End a running request; it is answered with error -32800.",
                "params": {"$ref": _REF.format(name=model.CancelParams.__name__)},
            }
        ],
    }


def files() -> dict[str, str]:
    """The text of every file of the schemas folder, by name."""
    document = openrpc()
    texts = {DOCUMENT: _text(document)}
    for name, schema in document["components"]["schemas"].items():
        texts[f"{name}.json"] = _text({"$schema": DIALECT, **_with_file_refs(schema)})
    return texts


def write(folder: Path) -> None:
    """Write the schemas folder anew and remove the JSON files that have no place in it any more."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = files()
    for path in folder.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def stale(folder: Path) -> list[str]:
    """What is wrong with the schemas folder, one line per file; empty when it says what the contract says."""
    texts = files()
    findings = []
    for name, text in texts.items():
        path = folder / name
        if not path.is_file():
            findings.append(f"{name}: missing")
        elif path.read_text(encoding="utf-8") != text:
            findings.append(f"{name}: differs from the contract")
    findings += [f"{path.name}: superfluous" for path in folder.glob("*.json") if path.name not in texts]
    return sorted(findings)


def _text(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _result_types() -> Iterable[Any]:
    return (row.result for row in contract.METHODS.values())


def _schemas() -> dict[str, Json]:
    """The schema of every Struct that crosses the wire, by name, in alphabetical order."""
    notifications = [row.params for row in contract.NOTIFICATIONS.values()]
    params = [row.params for row in contract.METHODS.values()]
    _, found = msgspec.json.schema_components(
        [*params, *_result_types(), *notifications, model.CancelParams], ref_template=_REF
    )
    schemas = {name: _with_typed_enums(found[name]) for name in sorted(found)}
    for struct in notifications:
        schemas[struct.__name__] = _as_written(schemas[struct.__name__])
    return schemas


def _as_written(schema: Json) -> Json:
    """A notification as it is on the wire: with the members that the outbox adds, and with every field present."""
    properties = {
        "seq": {"description": "Increases by 1 with every notification of this bridge.", "type": "integer"},
        "epoch": {"description": "Identifies this run of the bridge.", "type": "string"},
        **{
            name: {key: value for key, value in field.items() if key != "default"}
            for name, field in schema["properties"].items()
        },
    }
    return {**schema, "properties": properties, "required": list(properties)}


def _with_typed_enums(node: Any) -> Any:
    """Say of every choice of words that it is a string, which msgspec leaves out and generators want."""
    if isinstance(node, dict):
        typed = {key: _with_typed_enums(value) for key, value in node.items()}
        if "enum" in typed and "type" not in typed and all(isinstance(word, str) for word in typed["enum"]):
            typed["type"] = "string"
        return typed
    if isinstance(node, list):
        return [_with_typed_enums(value) for value in node]
    return node


def _with_file_refs(node: Any) -> Any:
    """Let references point to the file beside this one instead of into the document."""
    if isinstance(node, dict):
        return {
            key: f"{value.removeprefix(_REF_START)}.json" if key == "$ref" else _with_file_refs(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_with_file_refs(value) for value in node]
    return node


def _method(row: contract.Method, schemas: dict[str, Json]) -> Json:
    raised: tuple[type[errors.BridgeError], ...] = (errors.InvalidParams, *row.errors)
    kinds = dict.fromkeys(error.kind for error in raised)
    (result,), _ = msgspec.json.schema_components([row.result], ref_template=_REF)
    return {
        "name": row.name,
        "summary": row.summary,
        "paramStructure": "either",
        "params": _params(schemas[row.params.__name__]),
        "result": {"name": "result", "required": True, "schema": _with_typed_enums(result)},
        "errors": [{"$ref": f"#/components/errors/{kind}"} for kind in kinds],
    }


def _params(schema: Json) -> list[Json]:
    descriptors = []
    for name, field in schema["properties"].items():
        descriptor: Json = {"name": name, "required": name in schema["required"], "schema": field}
        if "description" in field:
            descriptor["description"] = field["description"]
        descriptors.append(descriptor)
    return descriptors


def _errors() -> dict[str, Json]:
    """Every error by its kind, which is `data.kind` on the wire."""
    table = dict(_BASE_ERRORS)
    table.update({kind: (error.code, error.summary) for kind, error in errors.leaves().items()})
    return {kind: {"code": code, "message": summary} for kind, (code, summary) in table.items()}
