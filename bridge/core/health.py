"""Folds check results of one process into healthy or unhealthy.

A Fold is a value; `passed` and `failed` return the next one. When to check and how is `supervision.probes`' business,
what follows from unhealthy is `lifecycle`'s.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model import Health


class HealthPolicy(NamedTuple):
    """Thresholds, in checks."""

    checked: bool = True
    """False where nothing is checked (kind `none`): health stays unknown."""
    failure_threshold: int = 3
    success_threshold: int = 2


class Fold(NamedTuple):
    """What the checks of one process said so far."""

    health: Health = "unknown"
    failures: int = 0
    """In a row, up to now."""
    successes: int = 0
    """In a row, up to now; those made while it was starting count too."""


def passed(fold: Fold, policy: HealthPolicy) -> Fold:
    """One more success. An unhealthy process is healthy again after `success_threshold` of them."""
    successes = fold.successes + 1
    recovered = fold.health == "unhealthy" and successes >= policy.success_threshold
    return Fold("healthy" if recovered else fold.health, 0, successes)


def failed(fold: Fold, policy: HealthPolicy) -> Fold:
    """One more failure. A healthy process is unhealthy after `failure_threshold` in a row."""
    failures = fold.failures + 1
    broken = fold.health != "unhealthy" and failures >= policy.failure_threshold
    return Fold("unhealthy" if broken else fold.health, failures, 0)


def proven(fold: Fold, policy: HealthPolicy) -> bool:
    """Whether enough checks in a row passed for a stable period; always so where nothing is checked."""
    return not policy.checked or fold.successes >= policy.success_threshold
