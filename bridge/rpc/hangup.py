"""A descriptor that is written to -> the moment at which nobody reads it any more.

A write would tell, too, but there may be nothing to write for hours. What arrives on a descriptor that is read as well
(one socket for both directions) and half a hang-up, of the direction that is read, wake nobody here.
"""

from __future__ import annotations

import select
import sys

import anyio

if sys.platform == "linux":

    async def wait_broken(fd: int) -> None:
        """Return once nobody reads what is written to a descriptor; never where the system does not tell."""
        with select.epoll() as poll:
            try:
                poll.register(fd, 0)  # errors and hang-ups are reported unasked, and nothing else is then
            except PermissionError:
                await anyio.sleep_forever()  # a file, or the null device
            # The descriptor of a poll becomes readable when the poll has something to report.
            while not poll.poll(0):
                await anyio.wait_readable(poll.fileno())

elif sys.platform != "win32":

    async def wait_broken(fd: int) -> None:
        """Return once nobody reads what is written to a descriptor; never where the system does not tell."""
        queue = select.kqueue()
        try:
            # EV_CLEAR: reported when something changes, not for as long as there is room to write.
            change = select.kevent(fd, select.KQ_FILTER_WRITE, select.KQ_EV_ADD | select.KQ_EV_CLEAR)
            try:
                events = queue.control([change], 1, 0)
            except OSError:
                await anyio.sleep_forever()
            while not any(event.flags & select.KQ_EV_EOF for event in events):
                await anyio.wait_readable(queue.fileno())
                events = queue.control(None, 1, 0)
        finally:
            queue.close()

else:

    async def wait_broken(fd: int) -> None:
        """Never returns: Windows tells of a broken pipe only whoever writes to it."""
        await anyio.sleep_forever()
