"""Gives sidecars their ports, and says who sits on one that is taken.

A sidecar with `port = 0` keeps the port it was given for as long as nobody else takes it, so that an address in a
window stays right over a restart. No two sidecars are given the same one.
"""

from __future__ import annotations

from bridge.errors import PortInUse
from bridge.process.base import System

PICKS_MAX = 50
"""The system hands out ports at random; so many in a row that are promised already do not happen by chance."""


class Ports:
    """The ports that this bridge has promised, by sidecar."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._promised: dict[str, int] = {}

    def obtain(self, sidecar: str, host: str, wanted: int) -> int:
        """A port that is free now: the wanted one, or with 0 the sidecar's last or a new one.

        Raises PortInUse, which names the holder where the system tells.
        """
        if wanted:
            self._require_free(sidecar, host, wanted)
            return wanted
        last = self._promised.get(sidecar)
        if last is not None and self._system.port_is_free(host, last):
            return last
        taken = set(self._promised.values())
        for _ in range(PICKS_MAX):
            port = self._system.free_port(host)
            if port not in taken:
                self._promised[sidecar] = port
                return port
        raise PortInUse(f"No free port was found on {host}.", sidecar=sidecar, detail={"host": host})

    def _require_free(self, sidecar: str, host: str, port: int) -> None:
        if self._system.port_is_free(host, port):
            return
        holder = self._system.port_holder(port)
        who = f"{holder.name} (pid {holder.pid})" if holder else "another process"
        raise PortInUse(
            f"Port {port} is in use by {who}.",
            sidecar=sidecar,
            detail={
                "port": port,
                "host": host,
                "pid": holder.pid if holder else None,
                "name": holder.name if holder else None,
            },
        )
