"""Methods of the contract -> calls on the supervisor and the logs.

The one table that joins names to deeds. Each function takes the method's params Struct; what it raises is turned into
an answer by `rpc.dispatch`. Functions that do not wait are plain ones and answer inline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

import msgspec

from bridge import __version__, errors
from bridge import model as m
from bridge.contract import METHODS, PROTOCOL_VERSION
from bridge.logs.times import parse_rfc3339
from bridge.process.base import platform_name
from bridge.supervision.journal import Journal
from bridge.supervision.metrics import Metrics
from bridge.supervision.supervisor import Supervisor

from .dispatch import Handler


class LogFloor(Protocol):
    """The logs, as far as methods use them."""

    async def page(self, sidecar: str, params: m.GetLogsParams) -> m.LogPage: ...

    async def files(self, sidecar: str) -> list[m.LogFile]: ...

    async def clear(self, sidecar: str) -> m.ClearedLogs: ...

    async def subscribe(self, sidecar: str, params: m.SubscribeLogsParams) -> str: ...

    def unsubscribe(self, subscription: str) -> bool: ...


class Identity(NamedTuple):
    """What the bridge says about itself that does not change."""

    epoch: str
    config_path: str | None
    log_dir: str
    limits: m.Limits
    started: float
    """Monotonic seconds."""


def build(
    *,
    supervisor: Supervisor,
    logs: LogFloor,
    metrics: Metrics,
    journal: Journal,
    identity: Identity,
    counters: Callable[[], m.Counters],
    rss: Callable[[], int],
    events_bytes_max: int,
    shut_down: Callable[[], Any],
) -> Mapping[str, Handler]:
    """Every method of the contract with its handler. `shut_down` returns an awaitable that ends with everything."""
    find = supervisor.find

    def get_sidecar_health(params: m.GetHealthParams) -> m.SidecarHealth:
        sidecar = find(params.sidecar)
        fold = sidecar.life.fold
        return m.SidecarHealth(
            health=fold.health,
            consecutive_failures=fold.failures,
            consecutive_successes=fold.successes,
            checks=sidecar.checks[-params.limit :],
        )

    def get_sidecar_metrics(params: m.GetMetricsParams) -> m.SidecarMetrics:
        sidecar = find(params.sidecar)
        running_since = sidecar.life.running_since if sidecar.life.state == "running" else None
        if running_since is not None:
            metrics.look_at(sidecar.name, running_since)
        samples = metrics.samples(sidecar.name)
        current = samples[-1] if samples and running_since is not None else None
        if params.since is not None:
            since_ms = parse_rfc3339(params.since, "since")
            samples = [sample for sample in samples if parse_rfc3339(sample.at, "at") >= since_ms]
        return m.SidecarMetrics(current=current, samples=samples[-params.limit :])

    def get_sidecar_events(params: m.GetEventsParams) -> list[m.Event]:
        name = find(params.sidecar).name
        return journal.page(name, params.limit, params.before, events_bytes_max)

    async def subscribe_sidecar_logs(params: m.SubscribeLogsParams) -> m.Subscription:
        return m.Subscription(subscription=await logs.subscribe(find(params.sidecar).name, params))

    async def clear_sidecar_logs(params: m.SidecarParams) -> m.ClearedLogs:
        name = find(params.sidecar).name
        cleared = await logs.clear(name)
        journal.record(name, "logs_cleared", "Its logs were cleared as requested.", cleared)
        return cleared

    async def check_sidecar_health(params: m.SidecarParams) -> m.HealthCheck:
        sidecar = find(params.sidecar)
        check = await sidecar.check_now()
        journal.record(sidecar.name, "check_requested", "A health check was requested.", check)
        return check

    def unsubscribe_sidecar_logs(params: m.UnsubscribeLogsParams) -> None:
        if not logs.unsubscribe(params.subscription):
            raise errors.SubscriptionNotFound(f"There is no subscription {errors.shorten(params.subscription)!r}.")

    def get_bridge_info(params: m.NoParams) -> m.BridgeInfo:
        return m.BridgeInfo(
            bridge_version=__version__,
            protocol_version=PROTOCOL_VERSION,
            epoch=identity.epoch,
            pid=os.getpid(),
            platform=platform_name(),
            uptime=round(time.monotonic() - identity.started, 3),
            rss=rss(),
            cpu_time=round(time.process_time(), 3),
            config_path=identity.config_path,
            log_dir=identity.log_dir,
            limits=identity.limits,
            counters=counters(),
        )

    @cache
    def document() -> msgspec.Raw:
        from bridge.schema import openrpc

        return msgspec.Raw(msgspec.json.encode(openrpc()))

    async def stop_sidecar(params: m.StopParams) -> m.SidecarStatus:
        return await supervisor.stop(params.sidecar, wait=params.wait, force=params.force)

    handlers: dict[str, Handler] = {
        "start_sidecar": lambda params: supervisor.start(params.sidecar, wait=params.wait),
        "stop_sidecar": stop_sidecar,
        "restart_sidecar": lambda params: supervisor.restart(params.sidecar, wait=params.wait),
        "get_sidecar_status": lambda params: find(params.sidecar).status(),
        "list_sidecars": lambda params: [sidecar.status() for sidecar in supervisor.sidecars.values()],
        "get_sidecar_logs": lambda params: logs.page(find(params.sidecar).name, params),
        "list_sidecar_log_files": lambda params: logs.files(find(params.sidecar).name),
        "clear_sidecar_logs": clear_sidecar_logs,
        "subscribe_sidecar_logs": subscribe_sidecar_logs,
        "unsubscribe_sidecar_logs": unsubscribe_sidecar_logs,
        "get_sidecar_health": get_sidecar_health,
        "check_sidecar_health": check_sidecar_health,
        "get_sidecar_metrics": get_sidecar_metrics,
        "get_sidecar_events": get_sidecar_events,
        "get_bridge_info": get_bridge_info,
        "rpc.discover": lambda params: document(),
        "ping": lambda params: "pong",
        "shutdown": lambda params: shut_down(),
    }
    missing = METHODS.keys() - handlers.keys()
    if missing:
        raise LookupError(f"methods without a handler: {sorted(missing)}")
    return handlers
