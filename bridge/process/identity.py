"""What tells one process from every other that ever had or will have its number: when it started, since which boot.

Both are words for the file of trees (`trees`), to be compared and not to be understood. Linux counts clock ticks since
boot, macOS tells the time of day. Windows needs no such file, because a job ends with its bridge: there the boot has
no name, and nothing is ever recorded.
"""

from __future__ import annotations

import sys

if sys.platform == "linux":
    from . import procfs

    def boot_id() -> str:
        """The name of this run of the system; empty where it does not tell."""
        return procfs.read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()

    def start_of(pid: int) -> str:
        """When the process started; empty when there is none or it is a zombie."""
        seen = procfs.stat(pid)
        return "" if seen is None or seen.dead else str(seen.start)

elif sys.platform == "darwin":
    import ctypes

    import psutil

    _ANSWER_BYTES = 64
    """A UUID as text has 36."""

    def boot_id() -> str:
        """The name of this run of the system; empty where it does not tell."""
        answer = ctypes.create_string_buffer(_ANSWER_BYTES)
        size = ctypes.c_size_t(_ANSWER_BYTES)
        failed = ctypes.CDLL(None).sysctlbyname(
            b"kern.bootsessionuuid", answer, ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        return "" if failed else answer.value.decode("ascii", "replace").strip()

    def start_of(pid: int) -> str:
        """When the process started; empty when there is none or it is a zombie."""
        try:
            process = psutil.Process(pid)
            return "" if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
        except psutil.Error:
            return ""

else:

    def boot_id() -> str:
        """Empty: nothing is to be recorded here."""
        return ""

    def start_of(pid: int) -> str:
        """Empty: nobody asks here."""
        return ""
