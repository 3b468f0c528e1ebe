"""Asks the system for a free TCP port, and whether one is free; by binding, never by connecting.

Who holds a port is the system's own file's matter.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import deque

_RECENT_MAX = 64
"""Ports given lately are not given again: two sidecars that start at once must not get the same. More than 64 starts
between a port's choice and its use do not happen."""

_TRIES_MAX = 128
"""Bounds the search; twice the ports that can be refused, so that only an exhausted system ends it."""


class PortPicker:
    """Gives free ports and remembers the last ones."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_RECENT_MAX)

    def free(self, host: str) -> int:
        """A port on which nobody listens now. Raises OSError when the host is no local address."""
        family, _ = _addresses(host, 0)[0]
        for _attempt in range(_TRIES_MAX):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((host, 0))
                port: int = probe.getsockname()[1]
            # A dual-stack server may listen beside the chosen address.
            if port not in self._recent and is_free(host, port):
                self._recent.append(port)
                return port
        raise OSError(errno.EADDRNOTAVAIL, f"No free port found on {host}")


def is_free(host: str, port: int) -> bool:
    """Whether a listener could be opened on host and port now.

    A connection in TIME_WAIT does not count, a listener on the same or on every address does. Raises OSError where that
    cannot be told: a port that this user may not bind, an address that is not local, no descriptors left.
    """
    addresses = _addresses(host, port)
    if sys.platform == "darwin":
        # With SO_REUSEADDR, BSD lets an address be bound beside a listener on every address.
        addresses = [*addresses, (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104
    return all(_can_bind(family, address, port) for family, address in addresses)


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, str(address[0])) for family, _, _, _, address in answers]


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform == "win32":
                # There SO_REUSEADDR would steal a live listener's port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        # An address family that is switched off holds nothing.
        if error.errno == errno.EAFNOSUPPORT or (address == "::1" and error.errno == errno.EADDRNOTAVAIL):
            return True
        raise
    return True
