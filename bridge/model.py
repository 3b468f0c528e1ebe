"""Every Struct that crosses the wire, the single source of `schemas/` and of all clients.

Durations are seconds, sizes bytes, wall-clock times RFC 3339 UTC strings with milliseconds and `Z`. Results and
notifications carry every field (an absent value is null); params refuse unknown fields. The configuration's Structs
are in `bridge.settings`. This module has no behaviour.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

State = Literal["stopped", "starting", "running", "stopping", "backoff", "failed"]
Health = Literal["unknown", "healthy", "unhealthy"]
Stream = Literal["stdout", "stderr"]
LogType = Literal["stdout", "stderr", "all"]
Level = Literal["trace", "debug", "info", "warning", "error", "critical"]
Stage = Literal["checking_dependencies", "installing_dependencies", "spawning_process", "waiting_for_health", "ready"]
ExitCause = Literal["crash", "health", "stop_requested", "restart_requested", "reload", "memory_limit", "shutdown"]
CauseClass = Literal[
    "missing_module",
    "missing_library",
    "port_in_use",
    "permission",
    "out_of_memory",
    "bad_configuration",
    "timeout",
    "unknown",
]
Severity = Literal["info", "warning", "critical"]
ClosingReason = Literal["eof", "signal", "shutdown", "parent_died", "takeover"]

Time = Annotated[str, Meta(description="Wall-clock time, RFC 3339 in UTC with milliseconds and Z.")]
SidecarName = Annotated[str, Meta(description="Name of a sidecar as in the configuration.")]
OptionalSidecar = Annotated[
    str | None, Meta(description="Name of the sidecar; may be left out where exactly one is configured.")
]
Cursor = Annotated[str, Meta(description="Opaque position in a sidecar's log; survives rotation and a restart.")]


class Wire(Struct):
    """Base of results and notifications: every field is always present."""


class Params(Struct, forbid_unknown_fields=True):
    """Base of params: unknown fields are refused, the order of fields is the order of positional params."""


# --- shared values ---------------------------------------------------------------------------------------------------


class HealthCheck(Wire):
    """One health check."""

    at: Time
    ok: Annotated[bool, Meta(description="Whether the sidecar passed.")]
    latency: Annotated[float | None, Meta(description="Seconds from asking to the answer; null without an answer.")]
    status_code: Annotated[int | None, Meta(description="HTTP status, where the check is an http one.")]
    error: Annotated[str | None, Meta(description="Why it failed, one sentence.")]


class Exit(Wire):
    """How a process ended, and why as far as can be read from it."""

    code: Annotated[int | None, Meta(description="Exit code; null when a signal ended it.")]
    signal: Annotated[str | None, Meta(description="Signal name with SIG; null when it exited by itself.")]
    at: Time
    cause: Annotated[ExitCause, Meta(description="What led to the exit.")]
    cause_class: Annotated[CauseClass, Meta(description="What the exit and the output point to.")]
    hint: Annotated[str | None, Meta(description="A sentence to act on.")]
    uptime: Annotated[float | None, Meta(description="Seconds it had been running; null when it never was.")]
    stderr_tail: Annotated[list[str], Meta(description="Its last lines on stderr, oldest first.")]
    checks: Annotated[list[HealthCheck], Meta(description="The last 5 health checks, oldest first.")]


class StartProgress(Wire):
    """How far a start has come."""

    stage: Annotated[Stage, Meta(description="The stage of the start.")]
    step: Annotated[int, Meta(description="Number of this stage, from 1.")]
    total_steps: Annotated[int, Meta(description="Stages that this start has.")]
    fraction: Annotated[float, Meta(description="0 to 1, never falling within one start.", ge=0, le=1)]
    message: Annotated[str, Meta(description="A sentence for a person; the installer's last line while it runs.")]
    elapsed: Annotated[float, Meta(description="Seconds since this start began.")]


class SidecarFailure(Wire):
    """Why a sidecar is not running."""

    kind: Annotated[str, Meta(description="Error kind, as in the error table.")]
    message: Annotated[str, Meta(description="A sentence for a person.")]
    detail: Annotated[Any, Meta(description="What else is known; the shape depends on the kind.")]
    stderr_tail: Annotated[list[str], Meta(description="The last lines on stderr, oldest first.")]


class SidecarStatus(Wire):
    """Everything about a sidecar at one moment."""

    sidecar: SidecarName
    state: Annotated[State, Meta(description="Where it is in its life.")]
    message: Annotated[str, Meta(description="The state in a sentence for a person.")]
    uptime: Annotated[float | None, Meta(description="Seconds since it became running; null when it is not.")]
    restart_count: Annotated[
        int, Meta(description="Automatic restarts since the last stable period or operator action.")
    ]
    pid: Annotated[int | None, Meta(description="Process id of the leader; null without a process.")]
    since: Annotated[Time, Meta(description="When this state began.")]
    progress: Annotated[
        StartProgress | None, Meta(description="How far the start has come; null when none is under way.")
    ]
    health: Annotated[Health, Meta(description="What the checks say.")]
    last_exit: Annotated[Exit | None, Meta(description="How its last process ended.")]
    retry_at: Annotated[Time | None, Meta(description="When the next automatic restart comes; only in backoff.")]
    max_restarts: Annotated[int, Meta(description="Automatic restarts after which it is failed.")]
    error: Annotated[SidecarFailure | None, Meta(description="The last failure, until a start succeeds.")]
    port: Annotated[int | None, Meta(description="The port it was given.")]
    url: Annotated[str | None, Meta(description="http://host:port, where it has a port.")]
    command: Annotated[list[str], Meta(description="Its command line, secrets redacted.")]
    generation: Annotated[int, Meta(description="Counts this sidecar's processes.")]


class LogEntry(Wire):
    """One line of output."""

    at: Time
    stream: Annotated[Stream, Meta(description="The stream it was written to.")]
    level: Annotated[Level | None, Meta(description="Read from the line; null where it shows none.")]
    text: Annotated[str, Meta(description="The line without its line end; U+FFFD for bytes that are no UTF-8.")]
    cursor: Cursor
    truncated: Annotated[bool, Meta(description="True where text was cut at 16 KiB; the file has the whole line.")]


class LogPage(Wire):
    """Part of a log, oldest first."""

    entries: Annotated[list[LogEntry], Meta(description="The lines, oldest first.")]
    before: Annotated[str | None, Meta(description="Cursor to the page of older lines; null at the oldest end.")]
    after: Annotated[str | None, Meta(description="Cursor to the page of newer lines; null at the newest end.")]


class LogFile(Wire):
    """One log file on disk."""

    name: str
    path: str
    size: Annotated[int, Meta(description="Bytes.")]
    modified: Time
    log_type: Stream
    current: Annotated[bool, Meta(description="True for the file that is being written.")]


class ClearedLogs(Wire):
    """What a clear removed."""

    files: Annotated[int, Meta(description="Log files removed or emptied.")]
    bytes: Annotated[int, Meta(description="Bytes of those files.")]


class Subscription(Wire):
    """A log subscription."""

    subscription: Annotated[str, Meta(description="Its id, for sidecar_log and unsubscribe_sidecar_logs.")]


class SidecarHealth(Wire):
    """Health of a sidecar, with its last checks."""

    health: Health
    consecutive_failures: int
    consecutive_successes: int
    checks: Annotated[list[HealthCheck], Meta(description="The last checks, oldest first.")]


class MetricsSample(Wire):
    """What the whole process tree of a sidecar costs."""

    at: Time
    cpu_percent: Annotated[float, Meta(description="Percent of one core since the last sample; may exceed 100.")]
    rss: Annotated[int, Meta(description="Resident memory in bytes, summed over the tree.")]
    processes: int
    threads: int
    open_files: Annotated[int | None, Meta(description="Open descriptors; null where the system does not tell.")]


class SidecarMetrics(Wire):
    """Metrics of a sidecar."""

    current: Annotated[MetricsSample | None, Meta(description="The newest sample; null when it is not running.")]
    samples: Annotated[list[MetricsSample], Meta(description="Oldest first.")]


class Event(Wire):
    """One entry of the journal."""

    seq: Annotated[int, Meta(description="Same numbering as the notifications'.")]
    at: Time
    sidecar: Annotated[str | None, Meta(description="The sidecar it concerns; null for the bridge itself.")]
    kind: str
    message: str
    data: Any


class Limits(Wire):
    """Bounds in force."""

    max_message_bytes: int
    max_outbound_bytes: int
    memory_lines: int


class DroppedCounters(Wire):
    """Notifications that a slow reader missed, by kind."""

    sidecar_log: Annotated[int, Meta(description="Log entries, not notifications.")]
    sidecar_metrics: int
    sidecar_start_progress: int
    sidecar_state_changed: Annotated[
        int, Meta(description="State changes replaced by a newer one of the same sidecar.")
    ]


class Counters(Wire):
    """What the bridge has moved since it started."""

    messages_in: int
    messages_out: int
    dropped: DroppedCounters
    bytes_captured: int
    lines_captured: int


class BridgeInfo(Wire):
    """The bridge itself."""

    bridge_version: str
    protocol_version: str
    epoch: Annotated[str, Meta(description="Identifies this run of the bridge.")]
    pid: int
    platform: str
    uptime: Annotated[float, Meta(description="Seconds.")]
    rss: Annotated[int, Meta(description="Resident memory of the bridge in bytes.")]
    cpu_time: Annotated[float, Meta(description="Seconds of processor the bridge has used.")]
    config_path: str | None
    log_dir: str
    limits: Limits
    counters: Counters


class ErrorData(Wire):
    """The data member of every error."""

    kind: str
    sidecar: str | None
    detail: Any


# --- params ----------------------------------------------------------------------------------------------------------


class NoParams(Params):
    """No params."""


class SidecarParams(Params):
    sidecar: OptionalSidecar = None


Wait = Annotated[bool, Meta(description="Answer only once the transition has ended.")]


class StartParams(Params):
    sidecar: OptionalSidecar = None
    wait: Wait = True


class StopParams(Params):
    sidecar: OptionalSidecar = None
    wait: Wait = True
    force: Annotated[bool, Meta(description="Kill at once instead of asking first.")] = False


class RestartParams(Params):
    sidecar: OptionalSidecar = None
    wait: Wait = True


LogTypeParam = Annotated[LogType, Meta(description="Which stream.")]
LevelParam = Annotated[Level | None, Meta(description="The lowest level wanted; lines without a level are left out.")]
TimeParam = Annotated[str | None, Meta(description="RFC 3339 time with a zone.")]


class GetLogsParams(Params):
    log_type: LogTypeParam = "all"
    lines: Annotated[int, Meta(description="Entries at most.", ge=1, le=100_000)] = 100
    sidecar: OptionalSidecar = None
    before: Annotated[str | None, Meta(description="Cursor: entries older than it.")] = None
    after: Annotated[str | None, Meta(description="Cursor: the next entries newer than it.")] = None
    level: LevelParam = None
    since: TimeParam = None
    until: TimeParam = None


class SubscribeLogsParams(Params):
    sidecar: OptionalSidecar = None
    log_type: LogTypeParam = "all"
    level: LevelParam = None
    backlog: Annotated[int, Meta(description="Entries of the past to send first.", ge=0, le=100_000)] = 0
    after: Annotated[str | None, Meta(description="Cursor: send everything after it first.")] = None


class UnsubscribeLogsParams(Params):
    subscription: Annotated[str, Meta(description="Id given by subscribe_sidecar_logs.")]


class GetHealthParams(Params):
    sidecar: OptionalSidecar = None
    limit: Annotated[int, Meta(description="Checks at most.", ge=1, le=1000)] = 100


class GetMetricsParams(Params):
    sidecar: OptionalSidecar = None
    since: TimeParam = None
    limit: Annotated[int, Meta(description="Samples at most, the newest.", ge=1, le=3600)] = 600


class GetEventsParams(Params):
    sidecar: OptionalSidecar = None
    limit: Annotated[int, Meta(description="Events at most, the newest.", ge=1, le=10_000)] = 200
    before: Annotated[int | None, Meta(description="Only events with a smaller seq.")] = None


class CancelParams(Params):
    id: Annotated[Any, Meta(description="Id of the request to cancel.")]


# --- notifications ---------------------------------------------------------------------------------------------------


class Notification(Struct):
    """Base of notifications. `seq` and `epoch` are added when the notification is written."""


class BridgeReady(Notification):
    """The bridge serves."""

    protocol_version: str
    bridge_version: str
    pid: int
    platform: str
    sidecars: Annotated[list[str], Meta(description="Names in configuration order.")]
    log_dir: str
    started_at: Time


class StateChanged(Notification):
    """A sidecar's state changed."""

    at: Time
    sidecar: SidecarName
    previous: State
    state: State
    reason: Annotated[str, Meta(description="Why, one sentence.")]
    status: SidecarStatus


class StartProgressed(Notification):
    """A start has come further."""

    at: Time
    sidecar: SidecarName
    progress: StartProgress
    dropped: Annotated[
        int, Meta(description="Notifications of this kind and sidecar that were dropped before this one.")
    ] = 0


class LogLines(Notification):
    """New lines for a subscription."""

    subscription: str
    sidecar: SidecarName
    entries: list[LogEntry]
    dropped: Annotated[int, Meta(description="Entries of this subscription that were dropped before these.")] = 0


class HealthChanged(Notification):
    """A sidecar's health changed."""

    at: Time
    sidecar: SidecarName
    health: Health
    check: Annotated[HealthCheck | None, Meta(description="The check that decided; null when none did.")]


class MetricsSampled(Notification):
    """A metrics sample of a sidecar's tree."""

    sidecar: SidecarName
    sample: MetricsSample
    dropped: Annotated[int, Meta(description="Samples of this sidecar that were dropped before this one.")] = 0


class Alert(Notification):
    """A condition that a person should know of; raised once and cleared once."""

    at: Time
    sidecar: Annotated[str | None, Meta(description="The sidecar it concerns; null for the bridge itself.")]
    severity: Severity
    kind: str
    message: str
    data: Any
    cleared: Annotated[bool, Meta(description="True when the condition is over.")]


class SystemResumed(Notification):
    """The computer slept, or its clock jumped."""

    at: Time
    slept: Annotated[float, Meta(description="Seconds.")]


class BridgeClosing(Notification):
    """The bridge ends."""

    reason: ClosingReason


class Progress(Notification):
    """Progress of a request that gave a progress_token."""

    token: Annotated[str | int, Meta(description="The request's progress_token.")]
    fraction: Annotated[float | None, Meta(description="0 to 1; null where unknown.")]
    message: str
