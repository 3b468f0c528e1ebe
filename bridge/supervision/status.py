"""Turns the lifecycle's memory into what the wire shows: SidecarStatus, Exit, sentences."""

from __future__ import annotations

from msgspec.structs import replace

from bridge import errors
from bridge.core.lifecycle import Failure
from bridge.model import Exit, SidecarFailure
from bridge.process.base import Ended

_KINDS = errors.leaves()


def error_from(failure: Failure, sidecar: str) -> errors.BridgeError:
    """The error that a caller gets for a failure."""
    cls = _KINDS.get(failure.kind, errors.Crashed)
    if cls is errors.ConfigInvalid:
        return errors.ConfigInvalid(failure.message, sidecar=sidecar)
    return cls(failure.message, sidecar=sidecar, detail=failure.detail)


def failure_from(error: errors.BridgeError, *, permanent: bool = False) -> Failure:
    """The failure that an error makes of a start."""
    return Failure(error.kind, error.message, error.detail, permanent=permanent)


def shown_failure(failure: Failure | None, last_exit: Exit | None) -> SidecarFailure | None:
    """The failure as a status shows it, with the last lines of the process that failed and no other's.

    An Exit in the detail stands in full in `last_exit` beside it, so its lines and checks are not repeated.
    """
    if failure is None:
        return None
    detail, tail = failure.detail, []
    if isinstance(detail, Exit):
        tail, detail = detail.stderr_tail, replace(detail, stderr_tail=[], checks=[])
    elif isinstance(detail, dict) and isinstance(detail.get("detail"), Exit):
        last: Exit = detail["detail"]
        tail, detail = last.stderr_tail, {**detail, "detail": replace(last, stderr_tail=[], checks=[])}
    elif isinstance(detail, dict) and "stderr_tail" in detail:
        tail = detail["stderr_tail"]
        detail = {key: value for key, value in detail.items() if key != "stderr_tail"}
    elif failure.kind == "unhealthy" and last_exit is not None:
        tail = last_exit.stderr_tail
    return SidecarFailure(kind=failure.kind, message=failure.message, detail=detail, stderr_tail=tail)


def exit_sentence(ended: Ended, *, ready: bool, hint: str | None) -> str:
    """How a process ended, in a sentence."""
    how = f"was ended by {ended.signal}" if ended.signal is not None else f"exited with code {ended.code}"
    when = "" if ready else " before it was ready"
    return f"The process {how}{when}." + (f" {hint}" if hint else "")
