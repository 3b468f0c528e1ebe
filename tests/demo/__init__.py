"""The demo: its story end to end, its terminal, its look at the process table."""
