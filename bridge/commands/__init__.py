"""The commands beside `serve`: each module has `main(argv) -> exit code` and imports only what it needs."""
