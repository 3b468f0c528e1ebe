"""The demo: a real bridge with a real sidecar, played in the terminal as a story that checks what it shows.

`server` is the sidecar, `config` what the bridge is told of it, `story` the acts, `screen` the terminal, `processes`
the look at the process table that proves the end.
"""
