"""What comes before a spawn: dependencies are checked and, where missing, installed.

It turns a `DependencySettings` into silence or DependencyFailed, and reports each line of the installer. Ports and
other sidecars are not its business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bridge.errors import DependencyFailed
from bridge.process.base import SpawnError
from bridge.settings import DependencySettings

from .tools import ToolResult, ToolRunner

CHECK_TIMEOUT_S = 60.0
"""A check looks at something that is there; one that takes longer hangs."""


async def ensure_dependencies(
    sidecar: str,
    settings: DependencySettings,
    *,
    run_tool: ToolRunner,
    cwd: str,
    env: Mapping[str, str],
    on_install: Callable[[str], None],
) -> None:
    """Return once the dependencies are there. `on_install` gets a sentence first and then each line of the installer.

    Raises DependencyFailed, with the last output in `detail`.
    """

    async def tool(what: str, argv: tuple[str, ...], timeout_s: float, **more: Callable[[str], None]) -> ToolResult:
        try:
            return await run_tool(argv, cwd=cwd, env=env, timeout_s=timeout_s, **more)
        except SpawnError as error:
            message = f"{what} could not be started: {error.message}"
            raise DependencyFailed(message, sidecar=sidecar, detail={"command": list(argv), "output": []}) from error

    paths = (settings.check_path, settings.check_path_in_cwd)

    async def met() -> bool:
        if settings.check_command is not None:
            timeout_s = min(CHECK_TIMEOUT_S, settings.timeout)
            return (await tool("The dependency check", settings.check_command, timeout_s)).ok
        return any(path is not None and os.path.exists(path) for path in paths)

    nothing_to_check = settings.check_path is None and settings.check_command is None
    if not nothing_to_check and await met():
        return
    if settings.install is None:
        missing = settings.check_path or " ".join(settings.check_command or ())
        raise DependencyFailed(
            f"A dependency is missing ({missing}) and no installer is configured.",
            sidecar=sidecar,
            detail={"output": []},
        )
    on_install(f"Installing dependencies: {os.path.basename(settings.install[0])}")
    result = await tool("The installer", settings.install, settings.timeout, on_line=on_install)
    if not result.ok:
        raise DependencyFailed(
            f"The installer {_end_of(result, settings.timeout)}.",
            sidecar=sidecar,
            detail={"command": list(settings.install), "output": result.tail},
        )
    if not nothing_to_check and not await met():
        raise DependencyFailed(
            "The installer ended well, but the dependency check still fails.",
            sidecar=sidecar,
            detail={"command": list(settings.install), "output": result.tail},
        )


def _end_of(result: ToolResult, timeout_s: float) -> str:
    if result.ended is None:
        return f"did not end within {timeout_s:g} s and was stopped"
    if result.ended.signal is not None:
        return f"was ended by {result.ended.signal}"
    return f"failed with exit code {result.ended.code}"
