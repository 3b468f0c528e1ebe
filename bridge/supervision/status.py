"""Turns the lifecycle's memory into what the wire shows: SidecarStatus, Exit, sentences."""

from __future__ import annotations

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


def shown_failure(failure: Failure | None, exit_: Exit | None) -> SidecarFailure | None:
    """The failure as a status shows it, with the last lines that the process wrote."""
    if failure is None:
        return None
    return SidecarFailure(
        kind=failure.kind,
        message=failure.message,
        detail=failure.detail,
        stderr_tail=exit_.stderr_tail if exit_ is not None else [],
    )


def exit_sentence(ended: Ended, *, ready: bool, hint: str | None) -> str:
    """How a process ended, in a sentence."""
    how = f"was ended by {ended.signal}" if ended.signal is not None else f"exited with code {ended.code}"
    when = "" if ready else " before it was ready"
    return f"The process {how}{when}." + (f" {hint}" if hint else "")
