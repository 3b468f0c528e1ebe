"""Figures against named peers, each a ratio taken in one run. `python -m tests.benchmarks` prints them all."""
