"""Ends what an earlier bridge left alive when it and its guardian died together.

It turns `PastBridge`s, which `trees` read from the log folder, into processes that were ended and processes that were
left alone. A process is a leftover when it carries the mark of a dead bridge, in the kernel or in its environment, or
descends from one that does. Its number and start time alone prove nothing to act on: such a leader is told of and left
alone. The work itself is the guardian's, done late: the same search, each tree's stop signal, then SIGKILL.

Everything here blocks, for `SWEEP_MAX_S` at most for each earlier bridge; call it in a thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from .trees import PastBridge

SWEEP_MAX_S = 6.0
"""3 s for a guardian that is still at work, and as long for the same work done here."""

Fate = Literal["ended", "fleeting", "unproven", "undying", "kin"]
"""What became of a leftover: it was ended; it was ended although each of its processes lived for a moment only, so that
none has a number to tell; it has the number and start time of one but no mark; it could not be ended; this very bridge
descends from it."""


class Leftover(NamedTuple):
    """Processes of one sidecar that share a fate. `sidecar` is None where it is not known for whom they ran."""

    sidecar: str | None
    pids: tuple[int, ...]
    fate: Fate


def sweep(past: Sequence[PastBridge]) -> tuple[list[Leftover], list[PastBridge]]:
    """End the leftovers of these bridges; what was found, and the bridges of which something lives on."""
    found: list[Leftover] = []
    kept: list[PastBridge] = []
    for bridge in past:
        if sys.platform != "win32":
            from .remains import Remains

            fates, living = Remains(bridge).end()
            found += group(bridge, fates)
            if living is not None:
                kept.append(living)
    return found, kept


def group(bridge: PastBridge, fates: Iterable[tuple[int, int, Fate]]) -> list[Leftover]:
    """Fates of single processes, each with its number and its tree's, by sidecar."""
    names = {tree.number: tree.sidecar for tree in bridge.trees}
    groups: dict[tuple[str | None, Fate], list[int]] = {}
    for pid, tree, fate in fates:
        pids = groups.setdefault((names.get(tree), fate), [])
        if fate != "fleeting":
            pids.append(pid)
    return [Leftover(sidecar, tuple(sorted(pids)), fate) for (sidecar, fate), pids in groups.items()]
