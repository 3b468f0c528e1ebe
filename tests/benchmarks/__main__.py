"""Run every benchmark, one after the other."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Run those named on the command line, or all."""
    found = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    for name in sys.argv[1:] or found:
        print(f"--- {name}", flush=True)
        importlib.import_module(f"tests.benchmarks.bench_{name}").main()


if __name__ == "__main__":
    main()
