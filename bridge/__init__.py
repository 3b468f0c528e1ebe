"""sidecar-bridge: one process that supervises a desktop app's sidecars and speaks JSON-RPC on stdin and stdout."""

__version__ = "0.1.0"
