"""Capture, files, pages and subscriptions of what sidecars write.

`facade` is the door, with `sidecar_log` and `attachment` behind it; `capture` reads pipes, `store` writes files, `page`
reads pages, `follow` serves subscriptions, and both read with `query`.
"""

from __future__ import annotations

from .attachment import Attachment, Expectation
from .facade import Logs
from .sidecar_log import SidecarLog
from .store import LogLimits
from .subscription import Subscription

__all__ = ["Attachment", "Expectation", "LogLimits", "Logs", "SidecarLog", "Subscription"]
