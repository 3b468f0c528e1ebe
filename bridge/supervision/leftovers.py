"""At the start of a bridge: sees that what an earlier one left is ended before anything starts, and tells of it.

It turns the findings of `process.leftovers` into alerts and events. Requests are served meanwhile; what starts a
sidecar waits for `Surroundings.sweep`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import anyio
import anyio.to_thread

from bridge.process.leftovers import Leftover, sweep
from bridge.process.parent import wait_gone
from bridge.process.trees import PastBridge, TreeFile

from .cell import Surroundings

logger = logging.getLogger("bridge.supervision.leftovers")

ALERT = "leftover_process"
PIDS_TOLD_MAX = 20
"""In one sentence; `data` has up to `PIDS_IN_DATA_MAX`."""
PIDS_IN_DATA_MAX = 1000
"""A tree of thousands of processes must not make a message above the limit."""

_ENDED = ("ended", "fleeting")
_FATES = {
    "ended": "left over by an earlier bridge, ended now",
    "unproven": "left alone: the number and start time are those of a leftover, but no mark proves that it is one",
    "undying": "left over by an earlier bridge, could not be ended",
    "kin": "left over by an earlier bridge, left alone because this bridge descends from them",
}


def end_leftovers(around: Surroundings, trees: TreeFile, names: Collection[str]) -> None:
    """Begin to end what earlier bridges left; done at once where the folder's file tells of none.

    `names` are the sidecars that are configured now. From here on `trees` records.
    """
    past = trees.read_past()
    if not past:
        trees.begin()
        return
    around.sweep = anyio.Event()
    around.tasks.start_soon(_sweep, around, trees, names, past)


async def _sweep(around: Surroundings, trees: TreeFile, names: Collection[str], past: Sequence[PastBridge]) -> None:
    found: list[Leftover] = []
    kept: list[PastBridge] = []
    try:
        # A bridge that is to end does not wait: what is left then is found again by the next.
        found, kept = await anyio.to_thread.run_sync(sweep, past, abandon_on_cancel=True)
    except Exception:  # Whatever is wrong with leftovers must not keep the sidecars from starting.
        logger.exception("leftovers of an earlier bridge could not be looked for")
    trees.begin(kept)
    # Those that were ended first: their condition is over when another one of the same sidecar begins.
    for each in sorted(found, key=lambda leftover: leftover.fate not in _ENDED):
        _tell(around, each, each.sidecar if each.sidecar in names else None)
    assert around.sweep is not None
    around.sweep.set()
    around.sweep = None


def _tell(around: Surroundings, leftover: Leftover, sidecar: str | None) -> None:
    ended = leftover.fate in _ENDED
    message = sentence(leftover)
    data = {"pids": list(leftover.pids[:PIDS_IN_DATA_MAX]), "ended": ended}
    logger.warning(message)
    around.journal.record(sidecar, "alert", message, {"kind": ALERT, "severity": "warning", **data})
    if not around.alerts.raise_(sidecar, ALERT, "warning", message, data):
        return
    if ended:
        around.alerts.clear(sidecar, ALERT)
    else:
        around.tasks.start_soon(_clear_when_gone, around, sidecar, leftover.pids)


async def _clear_when_gone(around: Surroundings, sidecar: str | None, pids: Sequence[int]) -> None:
    for pid in pids:
        await wait_gone(pid)
    around.alerts.clear(sidecar, ALERT)


def sentence(leftover: Leftover) -> str:
    """What was found, for a person."""
    if leftover.fate == "fleeting":
        return "A program left over by an earlier bridge, which did nothing but start itself anew, was ended."
    count = len(leftover.pids)
    who = "process" if count == 1 else "processes"
    whose = f"of {leftover.sidecar}" if leftover.sidecar else "of an unknown sidecar"
    pids = ", ".join(map(str, leftover.pids[:PIDS_TOLD_MAX])) + (", …" if count > PIDS_TOLD_MAX else "")
    return f"{count} {who} {whose} (pid {pids}): {_FATES[leftover.fate]}."
