"""Replays seeds: `python -m tests.simulation SEED` prints the trace of one, `FIRST COUNT` plays many."""

from __future__ import annotations

import sys

from .plan import draw_plan
from .play import play


def main(arguments: list[str]) -> int:
    """1 when something was found."""
    first, count = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 1
    found = 0
    for seed in range(first, first + count):
        outcome = play(seed)
        if count == 1:
            print(*draw_plan(seed)[0], *outcome.trace, sep="\n")
        if outcome.blames:
            found += 1
            print(f"seed {seed}: {outcome.blames[0]}")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
