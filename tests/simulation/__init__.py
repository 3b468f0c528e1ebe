"""The real supervision code against invented processes, on virtual time, from a seed.

`plan` draws a configuration and what will happen from a seed, `world` and `processes` play the operating system,
`referee` watches all that is published and done and holds it against the protocol (changes of state in `transitions`,
what it knows of a sidecar in `case`), `play` puts them together on the event loop of `virtual`. `mutations` break the
code, to see that the referee notices. `python -m tests.simulation SEED` replays one seed and prints its trace.
"""
