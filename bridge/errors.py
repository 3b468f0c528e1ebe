"""The tree of errors that may cross the wire.

Every leaf has a `kind` (the word in `data.kind`), a `code` (the JSON-RPC error code) and a message that can be shown to
a person. Whoever raises one says what happened; `rpc.dispatch` alone turns it into an answer. This module knows nothing
of JSON-RPC framing, processes or files.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

QUOTED_CHARS_MAX: Final = 80
"""How much of a client's own text (the name of a method or a sidecar, say) an error repeats."""


def shorten(text: str) -> str:
    """A client's own text for use in an error."""
    return text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}…"


class BridgeError(Exception):
    """An expected failure, with a wire code.

    `message` is one sentence for a person, `sidecar` the name it concerns, `detail` any JSON value that helps a program
    or a bug report (the shape depends on the kind).
    """

    kind: ClassVar[str] = "internal_error"
    code: ClassVar[int] = -32603
    summary: ClassVar[str] = "a defect of the bridge itself"

    def __init__(self, message: str, *, sidecar: str | None = None, detail: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.sidecar = sidecar
        self.detail = detail


class InvalidParams(BridgeError):
    kind = "invalid_params"
    code = -32602
    summary = "a parameter is missing, unknown or of the wrong type; the message names it"

    @classmethod
    def of(cls, field: str, problem: str, *, path: str = "", **more: Any) -> InvalidParams:
        """For the param `field`, or the value at `path` within it; `problem` without its full stop."""
        return cls(f"params.{field}{path}: {problem}.", detail={"field": field, **more})


class RequestCancelled(BridgeError):
    kind = "request_cancelled"
    code = -32800
    summary = "the client cancelled the request"


class SidecarNotFound(BridgeError):
    kind = "sidecar_not_found"
    code = 1001
    summary = "no sidecar of that name; detail lists the names"


class AlreadyRunning(BridgeError):
    kind = "already_running"
    code = 1002
    summary = "the sidecar runs already"


class NotRunning(BridgeError):
    kind = "not_running"
    code = 1003
    summary = "the sidecar does not run"


class StartupTimeout(BridgeError):
    kind = "startup_timeout"
    code = 1004
    summary = "not healthy within startup_timeout; the process was stopped again, tree and all"


class DependencyFailed(BridgeError):
    kind = "dependency_failed"
    code = 1005
    summary = "a dependency check or its installer failed; detail has its last output"


class SpawnFailed(BridgeError):
    kind = "spawn_failed"
    code = 1006
    summary = "the program could not be started: missing, not executable, bad working directory"


class ExitedEarly(BridgeError):
    kind = "exited_early"
    code = 1007
    summary = "the process ended before it was healthy; detail has its Exit"


class StoppedWhileStarting(BridgeError):
    kind = "stopped_while_starting"
    code = 1008
    summary = "a stop overtook the start"


class RestartLimitExceeded(BridgeError):
    kind = "restart_limit_exceeded"
    code = 1009
    summary = "the sidecar failed more often than its restart policy allows; detail has the last failure"


class PortInUse(BridgeError):
    kind = "port_in_use"
    code = 1010
    summary = "another process holds the port; it is named where the system tells"


class LogIoFailed(BridgeError):
    kind = "log_io_failed"
    code = 1011
    summary = "a log file could not be read or written"


class CursorExpired(BridgeError):
    kind = "cursor_expired"
    code = 1012
    summary = "the log file that the cursor points into is gone"


class InvalidRegex(BridgeError):
    kind = "invalid_regex"
    code = 1013
    summary = "the regular expression has a syntax that is not supported"


class ConfigInvalid(BridgeError):
    """`path` is the dotted path of the field, like `sidecars.web.health.interval`; empty for the whole file."""

    kind = "config_invalid"
    code = 1014
    summary = "the configuration is wrong; the message begins with the path of the field"

    def __init__(self, message: str, *, path: str = "", sidecar: str | None = None) -> None:
        super().__init__(f"{path}: {message}" if path else message, sidecar=sidecar, detail={"path": path})
        self.path = path

    def lines(self) -> list[str]:
        """The message, and one line for each further problem that `detail` names."""
        further = self.detail.get("problems", ())
        return [self.message, *(f"{each['path']}: {each['message']}".removeprefix(": ") for each in further)]


class NotAllowed(BridgeError):
    kind = "not_allowed"
    code = 1015
    summary = "the configuration does not allow this"


class ShuttingDown(BridgeError):
    kind = "shutting_down"
    code = 1016
    summary = "the bridge is ending and starts nothing more"


class ForeignListener(BridgeError):
    kind = "foreign_listener"
    code = 1017
    summary = "the health endpoint is answered by a process that is not of this sidecar's tree"


class SubscriptionNotFound(BridgeError):
    kind = "subscription_not_found"
    code = 1018
    summary = "no such subscription"


class Crashed(BridgeError):
    kind = "crashed"
    code = 1019
    summary = "the process ended unexpectedly after it had been running"


class DependencyNotRunning(BridgeError):
    kind = "dependency_not_running"
    code = 1020
    summary = "a sidecar of depends_on could not be started"


def leaves() -> dict[str, type[BridgeError]]:
    """Every error class by its kind, in order of declaration."""
    return {cls.kind: cls for cls in BridgeError.__subclasses__()}
