"""Replays seeds: `python -m tests.simulation SEED` prints the plan and the trace of one, `FIRST COUNT` plays many."""

from __future__ import annotations

import argparse
import sys

from .plan import draw_plan
from .play import play


def main(arguments: list[str]) -> int:
    """1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Play seeds of the simulation.")
    parser.add_argument("seed", type=int, help="the seed, or the first of many")
    parser.add_argument(
        "count", type=int, nargs="?", default=1, help="how many; more than one tell only what they find"
    )
    given = parser.parse_args(arguments)
    found = 0
    for seed in range(given.seed, given.seed + given.count):
        outcome = play(seed)
        if given.count == 1:
            plan, _ = draw_plan(seed)
            print(*plan.sidecars, *plan.moods.items(), *plan.requests, *plan.sleeps, *plan.strangers, sep="\n")
            print(*outcome.trace, sep="\n")
        for blame in outcome.blames:
            print(f"seed {seed}: {blame}")
        found += bool(outcome.blames)
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
