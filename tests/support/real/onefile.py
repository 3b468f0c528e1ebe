"""A program of the process shape of a PyInstaller one-file build, without the build.

Its boot loader unpacks into a temporary folder, starts the real program from there as a child, hands signals on to it,
waits, removes the folder and ends as the child did. Killed by SIGKILL it leaves child and folder behind: the child goes
on serving.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

assert sys.platform != "win32"


def main() -> int:
    folder = tempfile.mkdtemp(prefix="_MEI")
    program = Path(folder, "program.py")
    shutil.copy(Path(__file__).with_name("onefile_server.py"), program)
    with subprocess.Popen([sys.executable, str(program), *sys.argv[1:]]) as child:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda received, _frame: child.send_signal(received))
        code = child.wait()
    shutil.rmtree(folder)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
