"""Cold start: from spawn to `bridge_ready`, against a Python that does nothing, turn by turn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .kit import BareBridge, show, timed

ROUNDS = 25
GOAL = "goal: under 6.67, that is 100 ms where the bare interpreter takes 15"


def main() -> None:
    """Print the figure."""
    ready, nothing = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS + 1):
            began = time.perf_counter()
            with BareBridge({}, Path(folder)) as bridge:
                bridge.read()
                took = time.perf_counter() - began
            bare = timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
            if turn:
                ready.append(took)
                nothing.append(bare)
    show("cold start to bridge_ready", ready, nothing, "python -c pass")
    print(f"  {GOAL}")


if __name__ == "__main__":
    main()
