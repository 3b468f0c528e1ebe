"""The real supervision code against invented processes, on virtual time, from a seed.

`plan` draws a configuration and what will happen from a seed, `world` plays the operating system, `referee` watches
everything that is published and done and holds it against the protocol, `play` puts them together on the event loop
of `virtual`. `python -m tests.simulation SEED` replays one seed and prints its trace.
"""
