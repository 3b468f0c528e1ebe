"""The generated documents say what the contract says, and the OpenRPC one is valid by the meta-schema from npm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7, DRAFT202012

from bridge import contract, errors, model, schema
from bridge.rpc.messages import encode_body, encode_notification
from tests.rpc import peer

FOLDER = Path(__file__).resolve().parents[2] / "schemas"
PEERS = Path(__file__).resolve().parents[1] / "node"
PRINT_META = 'process.stdout.write(JSON.stringify(require("@open-rpc/meta-schema").default))'


def meta_schema() -> Any:
    """The meta-schema that `make test` has installed."""
    if not (PEERS / "node_modules").is_dir():
        pytest.fail("the packages of tests/node are not installed: run `make test`, or `npm ci --prefix tests/node`")
    printed = subprocess.run(["node", "-e", PRINT_META], cwd=PEERS, capture_output=True, timeout=30, check=True)
    return json.loads(printed.stdout)


def test_the_committed_schemas_are_up_to_date() -> None:
    assert schema.stale(FOLDER) == []


def test_the_document_is_valid_openrpc() -> None:
    any_schema = {
        "$id": "https://meta.json-schema.tools",
        "definitions": {"JSONSchemaObject": {"properties": {"$ref": {"type": "string"}}}},
    }
    meta = meta_schema()
    del meta["$schema"]  # names a dialect of its own, a subset of draft 7
    resource: Resource[Any] = DRAFT7.create_resource(any_schema)
    registry: Registry[Any] = Registry().with_resources(
        [("https://meta.json-schema.tools", resource), ("https://meta.json-schema.tools/", resource)]
    )
    problems = list(Draft7Validator(meta, registry=registry).iter_errors(schema.openrpc()))
    assert [problem.message for problem in problems] == []


def test_every_reference_points_to_something() -> None:
    document = schema.openrpc()

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target: Any = document
                for step in node["$ref"].removeprefix("#/").split("/"):
                    target = target[step]
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(document)


def test_the_document_has_every_method_notification_and_error() -> None:
    document = schema.openrpc()
    assert [method["name"] for method in document["methods"]] == list(contract.METHODS)
    assert [row["name"] for row in document["x-notifications"]] == list(contract.NOTIFICATIONS)
    for kind, error in errors.leaves().items():
        assert document["components"]["errors"][kind]["code"] == error.code
    assert {-32700, -32600, -32601, -32602, -32603, -32800} <= {
        error["code"] for error in document["components"]["errors"].values()
    }


def test_params_stand_in_positional_order() -> None:
    methods = {method["name"]: method for method in schema.openrpc()["methods"]}
    for name, row in contract.METHODS.items():
        assert [param["name"] for param in methods[name]["params"]] == list(row.params.__struct_fields__)


def test_optional_params_never_precede_required_ones() -> None:
    for method in schema.openrpc()["methods"]:
        required = [param["required"] for param in method["params"]]
        assert required == sorted(required, reverse=True)


@pytest.mark.parametrize(
    "params",
    [
        peer.alert("crashed", {"x": [1]}),
        peer.state_changed("web", 3),
        peer.log_lines("s1", ["a", "b"]),
        peer.metrics("web", 5),
        peer.progress("web", 2),
        model.BridgeClosing("eof"),
    ],
    ids=lambda params: type(params).__name__,
)
def test_what_is_written_matches_the_schema_of_its_notification(params: model.Notification) -> None:
    name = next(row.name for row in contract.NOTIFICATIONS.values() if row.params is type(params))
    line = encode_notification(name, encode_body(params), epoch="e", seq=7)
    validator = validator_of(type(params).__name__)
    written = json.loads(line)["params"]
    validator.validate(written)
    for required in ("seq", "epoch"):
        assert not validator.is_valid({key: value for key, value in written.items() if key != required})


def validator_of(name: str) -> Any:
    contents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    resources = [(file, DRAFT202012.create_resource(content)) for file, content in contents.items()]
    registry: Registry[Any] = Registry().with_resources(resources)
    return Draft202012Validator({"$ref": f"{name}.json"}, registry=registry)


def test_every_file_is_a_valid_schema_with_references_to_files_beside_it() -> None:
    for path in FOLDER.glob("*.json"):
        if path.name != schema.DOCUMENT:
            content = json.loads(path.read_text(encoding="utf-8"))
            Draft202012Validator.check_schema(content)
            assert content["title"] == path.stem


def test_a_change_of_any_kind_in_the_folder_is_found(tmp_path: Path) -> None:
    schema.write(tmp_path)
    assert schema.stale(tmp_path) == []
    (tmp_path / "LogEntry.json").write_text("{}\n")
    (tmp_path / "LogPage.json").unlink()
    (tmp_path / "Old.json").write_text("{}\n")
    assert schema.stale(tmp_path) == [
        "LogEntry.json: differs from the contract",
        "LogPage.json: missing",
        "Old.json: superfluous",
    ]
    schema.write(tmp_path)
    assert schema.stale(tmp_path) == []
    assert not (tmp_path / "Old.json").exists()


def test_without_a_folder_everything_is_missing_and_the_document_is_still_there(tmp_path: Path) -> None:
    assert f"{schema.DOCUMENT}: missing" in schema.stale(tmp_path / "nowhere")
    assert schema.openrpc()["openrpc"] == schema.OPENRPC_VERSION


def test_the_output_is_the_same_every_time() -> None:
    assert schema.files() == schema.files()
    assert all(text.endswith("}\n") for text in schema.files().values())
