"""The only place that knows the operating system. `base` is the contract, one file for each system keeps it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from .base import System


def create_system(
    epoch: str,
    *,
    guardian: bool = True,
    on_guardian_lost: Callable[[], None] | None = None,
    on_guardian_given_up: Callable[[], None] | None = None,
) -> System:
    """The operating system that this runs on. `epoch` names this run of the bridge in the marks of what it starts.

    The guardian kills everything if the bridge is killed; `on_guardian_lost` is called when it died and another is
    about to start, `on_guardian_given_up` when it died too often and the bridge goes on without. On Windows the system
    itself does its work.
    """
    if sys.platform == "win32":
        from .windows import WindowsSystem

        return WindowsSystem(epoch)
    elif sys.platform == "darwin":  # noqa: RET505 - the type checker follows a chain of platforms, not early returns
        from .darwin import DarwinSystem

        return DarwinSystem(
            epoch, guardian=guardian, on_guardian_lost=on_guardian_lost, on_guardian_given_up=on_guardian_given_up
        )
    else:
        from .linux import LinuxSystem

        return LinuxSystem(
            epoch, guardian=guardian, on_guardian_lost=on_guardian_lost, on_guardian_given_up=on_guardian_given_up
        )
