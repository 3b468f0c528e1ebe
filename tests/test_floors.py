"""A lower floor never imports a higher one, the core imports nothing that acts, each library has its one home."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "bridge"

FLOORS: dict[str, int] = {
    "errors": 1,
    "model": 1,
    "core": 2,
    "contract": 2,
    "settings": 2,
    "_values": 2,
    "process": 2,
    "logs": 3,
    "supervision": 3,
    "schema": 3,
    "rpc": 4,
    "diagnostics": 4,
    "app": 5,
    "serve": 6,
    "commands": 6,
    "__main__": 6,
}
BESIDE = ("client", "demo")
"""They talk to the bridge through its pipes; nothing of the bridge but the commands knows them."""

CORE_MAY_IMPORT = frozenset(
    {"__future__", "collections", "datetime", "enum", "functools", "itertools", "math", "re", "typing", "bridge"}
)
HOMES: dict[str, tuple[str, ...]] = {
    "anyio": ("",),
    "msgspec": ("",),
    "httpx": ("supervision.probes",),
    "psutil": ("supervision.procread", "process"),
    "jsonrpcserver": ("rpc.dispatch",),
    "watchfiles": ("supervision.watch",),
    "re2": ("logs.query",),
}
RPC_ROOMS = frozenset({"model", "contract", "errors", "rpc", "core.lines"})
"""What rpc sees of the bridge, its handlers excepted."""


def modules() -> list[str]:
    """Every module of the bridge by its dotted name without `bridge.`; a package by its own."""
    names = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")) if module else ROOT
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str, tree: ast.AST | None = None) -> Iterator[str]:
    """Absolute names of all that a module imports, wherever in it, for types included."""
    path = path_of(module)
    package = ["bridge", *module.split(".")] if module else ["bridge"]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(tree or ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                below = f"{origin}.{alias.name}"
                yield below if _is_module(below) else origin


def _is_module(name: str) -> bool:
    if not name.startswith("bridge."):
        return False
    path = ROOT.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def inner(module: str) -> list[str]:
    """What a module imports of the bridge, without `bridge.`; the face of the package, which has no floor, left out."""
    return [name.removeprefix("bridge.") for name in imports(module) if name.startswith("bridge.")]


def room(module: str) -> str:
    return module.partition(".")[0]


def violations(module: str, imported: list[str]) -> list[str]:
    """What a module imports although it stands higher or beside."""
    if room(module) in BESIDE:
        return [name for name in imported if room(name) not in (*BESIDE, "settings", "_values", "errors", "contract")]
    floor = FLOORS[room(module)]
    return [
        name
        for name in imported
        if (room(name) in BESIDE and floor < 6) or (room(name) not in BESIDE and FLOORS[room(name)] > floor)
    ]


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_a_lower_floor_never_imports_a_higher_one(module: str) -> None:
    assert room(module) in FLOORS or room(module) in BESIDE, f"bridge.{module} stands on no floor"
    assert violations(module, inner(module)) == []


@pytest.mark.parametrize("module", [name for name in modules() if room(name) == "core"])
def test_the_core_imports_values_only(module: str) -> None:
    found = set(imports(module))
    assert {name.partition(".")[0] for name in found} <= CORE_MAY_IMPORT
    assert {room(name) for name in inner(module)} <= {"core", "errors", "model"}


@pytest.mark.parametrize("module", [name for name in modules() if room(name) == "rpc" and name != "rpc.handlers"])
def test_only_the_handlers_know_what_stands_behind_the_wire(module: str) -> None:
    assert [name for name in inner(module) if name not in RPC_ROOMS and room(name) not in RPC_ROOMS] == []


def test_each_library_has_its_home() -> None:
    strangers = []
    for module in modules():
        for name in imports(module):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "bridge":
                continue
            homes = HOMES.get(top, ())
            if not any(home in ("", module) or module.startswith(f"{home}.") for home in homes):
                strangers.append((module, name))
    assert strangers == []


def test_a_wrong_import_would_be_found() -> None:
    tree = ast.parse(
        "def later() -> None:\n    from ..rpc import server\n    import bridge.app\n    from . import restart\n"
    )
    names = [name.removeprefix("bridge.") for name in imports("core.lifecycle", tree)]
    assert names == ["rpc.server", "app", "core.restart"]
    assert violations("core.lifecycle", names) == ["rpc.server", "app"]
