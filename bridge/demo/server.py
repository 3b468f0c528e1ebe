"""The demo's sidecar: a small HTTP server with a helper process, as desktop apps have them.

It runs by its path with the standard library alone and knows nothing of the bridge. GET /health answers 200; /hang
makes every later answer wait for ever, as a deadlock would, and SIGTERM without effect; /crash ends it with exit code
1; /work computes for a moment. It starts a helper in a session of its own, which it ends on SIGTERM, and which outlives
it where it has no time to. `--install FILE` plays the installer of what it depends on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORK_S = 2.0
HELPER_LIFE_S = 600.0
"""A helper that everybody forgot ends by itself: a demo leaves nothing behind even if the bridge is broken."""
SENTENCES = (
    ("INFO", "loading the settings"),
    ("INFO", "opening the database"),
    ("WARNING", "no cache from last time, building one"),
    ("INFO", "building the cache"),
    ("INFO", "warming up"),
)
PACKAGES = ("left-pad", "router", "templates", "database-driver", "worker-pool")

hanging = threading.Event()


def log(level: str, text: str) -> None:
    """Warnings and errors go to stderr, the rest to stdout, as most servers do."""
    stream = sys.stdout if level == "INFO" else sys.stderr
    # Whoever read its output may have been killed; that is no reason not to end in order.
    with contextlib.suppress(OSError):
        print(f"{level:<8}{text}", file=stream, flush=True)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        if hanging.is_set():
            threading.Event().wait()
        if self.path == "/health":
            self.answer(200, "ok")
        elif self.path == "/hang":
            log("ERROR", "deadlock: two workers wait for each other")
            hanging.set()
            self.answer(200, "from now on nothing answers")
        elif self.path == "/crash":
            log("CRITICAL", "crashing as asked")
            os._exit(1)
        elif self.path == "/work":
            threading.Thread(target=work, daemon=True).start()
            self.answer(200, "working")
        else:
            self.answer(404, "not here")

    def answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path != "/health":
            log("INFO", f"GET {self.path} {status}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Nothing: `answer` logs what is worth it."""


def work() -> None:
    end = time.monotonic() + WORK_S
    blocks = []
    while time.monotonic() < end:
        blocks.append(bytes(100_000))
        sum(range(100_000))
    log("INFO", f"worked for {WORK_S:g} s")


def serve(options: argparse.Namespace) -> int:
    for level, text in SENTENCES:
        log(level, text)
        time.sleep(options.warm_up / len(SENTENCES))
    helper = subprocess.Popen(
        [sys.executable, "-I", os.path.abspath(__file__), "--helper", "--token", options.token],
        start_new_session=True,
    )
    log("INFO", f"started a helper, pid {helper.pid}")

    def stop(number: int, frame: object) -> None:
        if not hanging.is_set():
            helper.terminate()
            log("INFO", "stopping, and the helper with me")
            sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    log("INFO", f"listening on port {options.port}")
    server.serve_forever()
    return 0


def install(path: str, seconds: float) -> int:
    for number, package in enumerate(PACKAGES, 1):
        print(f"fetching {package} ({number} of {len(PACKAGES)})", flush=True)
        time.sleep(seconds / len(PACKAGES))
    with open(path, "w", encoding="utf-8") as file:
        file.write("installed\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo's sidecar.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="", help="found in the command line of everything that belongs to it")
    parser.add_argument("--warm-up", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--helper", action="store_true")
    parser.add_argument("--install", metavar="FILE")
    options = parser.parse_args()
    if options.helper:
        time.sleep(HELPER_LIFE_S)
        return 0
    if options.install:
        return install(options.install, options.warm_up)
    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
