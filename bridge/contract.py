"""The protocol as two tables: METHODS and NOTIFICATIONS.

Each row names the Structs of `bridge.model`, the errors and one sentence of summary. `bridge.schema` turns the tables
into OpenRPC and JSON Schema, `rpc.dispatch` validates against them, `rpc.outbox` takes the delivery class from them.
What the methods do stands in `rpc.handlers`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from . import model as m
from .errors import (
    AlreadyRunning,
    BridgeError,
    CursorExpired,
    DependencyFailed,
    DependencyNotRunning,
    ExitedEarly,
    ForeignListener,
    InvalidParams,
    LogIoFailed,
    NotAllowed,
    NotRunning,
    PortInUse,
    RequestCancelled,
    ShuttingDown,
    SidecarNotFound,
    SpawnFailed,
    StartupTimeout,
    StoppedWhileStarting,
    SubscriptionNotFound,
)

PROTOCOL_VERSION = "1"


class Method(NamedTuple):
    """A request: `params` in positional order, `result` as a type that msgspec encodes, `errors` beyond -32602."""

    name: str
    params: type[m.Params]
    result: Any
    summary: str
    errors: tuple[type[BridgeError], ...] = ()
    bulky: bool = False
    """Whether an answer may be so long that only a few may be in the making at a time."""


class Delivery(Enum):
    """What becomes of a notification when the shell reads slowly."""

    KEEP = "keep"
    """Never dropped; rare by nature."""
    LATEST = "latest"
    """Never dropped, but an unsent one may be replaced by a newer one of the same sidecar."""
    LOSSY = "lossy"
    """Dropped oldest first and counted in the next one's `dropped`."""


class NotificationSpec(NamedTuple):
    """A notification from the bridge to the shell."""

    name: str
    params: type[m.Notification]
    summary: str
    delivery: Delivery = Delivery.KEEP


_NAMED = (SidecarNotFound, InvalidParams)
_START = (
    *_NAMED,
    StartupTimeout,
    DependencyFailed,
    SpawnFailed,
    ExitedEarly,
    StoppedWhileStarting,
    PortInUse,
    ForeignListener,
    DependencyNotRunning,
    ShuttingDown,
    RequestCancelled,
)

METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method(
            "start_sidecar",
            m.StartParams,
            m.SidecarStatus,
            "Start a sidecar; the answer comes once it runs, or at once when wait is false.",
            (AlreadyRunning, *_START),
        ),
        Method(
            "stop_sidecar",
            m.StopParams,
            m.SidecarStatus,
            "Stop a sidecar with everything it started; works in every state.",
            (*_NAMED, RequestCancelled),
        ),
        Method(
            "restart_sidecar",
            m.RestartParams,
            m.SidecarStatus,
            "Stop and start a sidecar; works from every state and resets the restart counter.",
            _START,
        ),
        Method("get_sidecar_status", m.SidecarParams, m.SidecarStatus, "Everything about one sidecar now.", _NAMED),
        Method(
            "list_sidecars", m.NoParams, list[m.SidecarStatus], "The status of every sidecar in configuration order."
        ),
        Method(
            "get_sidecar_logs",
            m.GetLogsParams,
            m.LogPage,
            "A page of a sidecar's log, oldest first; the newest lines unless a cursor says otherwise.",
            (*_NAMED, CursorExpired, LogIoFailed, RequestCancelled),
            bulky=True,
        ),
        Method(
            "list_sidecar_log_files",
            m.SidecarParams,
            list[m.LogFile],
            "The log files of a sidecar, newest first.",
            (*_NAMED, LogIoFailed),
            bulky=True,
        ),
        Method(
            "clear_sidecar_logs",
            m.SidecarParams,
            m.ClearedLogs,
            "Remove a sidecar's log files; capture goes on in empty ones.",
            (*_NAMED, LogIoFailed),
        ),
        Method(
            "subscribe_sidecar_logs",
            m.SubscribeLogsParams,
            m.Subscription,
            "Follow a sidecar's log: sidecar_log notifications, the backlog first.",
            (*_NAMED, CursorExpired, LogIoFailed, NotAllowed),
        ),
        Method(
            "unsubscribe_sidecar_logs",
            m.UnsubscribeLogsParams,
            None,
            "End a log subscription.",
            (SubscriptionNotFound, InvalidParams),
        ),
        Method(
            "get_sidecar_health",
            m.GetHealthParams,
            m.SidecarHealth,
            "Health of a sidecar and its last checks.",
            _NAMED,
            bulky=True,
        ),
        Method(
            "check_sidecar_health",
            m.SidecarParams,
            m.HealthCheck,
            "Make one health check now.",
            (*_NAMED, NotRunning, RequestCancelled),
        ),
        Method(
            "get_sidecar_metrics",
            m.GetMetricsParams,
            m.SidecarMetrics,
            "Processor, memory and processes of a sidecar's whole tree.",
            _NAMED,
            bulky=True,
        ),
        Method(
            "get_sidecar_events",
            m.GetEventsParams,
            list[m.Event],
            "What happened and why, oldest first.",
            _NAMED,
            bulky=True,
        ),
        Method("get_bridge_info", m.NoParams, m.BridgeInfo, "The bridge itself: version, limits, counters."),
        Method("rpc.discover", m.NoParams, dict[str, Any], "The OpenRPC document of this protocol.", bulky=True),
        Method("ping", m.NoParams, str, 'Answers "pong".'),
        Method("shutdown", m.NoParams, None, "Stop every sidecar, answer, and end the bridge."),
    )
}

NOTIFICATIONS: dict[str, NotificationSpec] = {
    row.name: row
    for row in (
        NotificationSpec("bridge_ready", m.BridgeReady, "The first line of every bridge: it serves."),
        NotificationSpec(
            "sidecar_state_changed", m.StateChanged, "A sidecar's state or generation changed.", Delivery.LATEST
        ),
        NotificationSpec("sidecar_start_progress", m.StartProgressed, "A start has come further.", Delivery.LOSSY),
        NotificationSpec("sidecar_log", m.LogLines, "New lines for a subscription.", Delivery.LOSSY),
        NotificationSpec("sidecar_health_changed", m.HealthChanged, "A sidecar's health changed."),
        NotificationSpec("sidecar_metrics", m.MetricsSampled, "A sample of a sidecar's tree.", Delivery.LOSSY),
        NotificationSpec("sidecar_alert", m.Alert, "A condition begins or ends that a person should know of."),
        NotificationSpec("system_resumed", m.SystemResumed, "The computer slept, or its clock jumped."),
        NotificationSpec("bridge_closing", m.BridgeClosing, "The bridge ends; its sidecars are stopped next."),
        NotificationSpec("$/progress", m.Progress, "Progress of a request that gave a progress_token.", Delivery.LOSSY),
    )
}

CANCEL_REQUEST = "$/cancelRequest"
