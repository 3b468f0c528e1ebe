"""Capture, files, pages and subscriptions of what sidecars write.

`facade` is the door; `capture` reads pipes, `store` writes files, `query` reads pages, `follow` serves subscriptions.
"""

from __future__ import annotations

from .facade import Attachment, Expectation, Logs, SidecarLog
from .follow import Subscription
from .store import LogLimits

__all__ = ["Attachment", "Expectation", "LogLimits", "Logs", "SidecarLog", "Subscription"]
