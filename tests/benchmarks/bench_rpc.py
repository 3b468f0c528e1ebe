"""Round trips and throughput of the bridge's JSON-RPC against a bare Python loop and vscode-jsonrpc, in one run.

    python -m tests.benchmarks.bench_rpc [--node FOLDER_WITH_NODE_MODULES] [--rounds N] [--real]

All answer a ping with a result of 236 bytes; with --real it is `python -m bridge serve`, and all answer "pong". The
bare loop (readline, msgspec decode, encode, write) is the floor of what Python can do. Absolute figures depend on the
machine; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 7
"""Of each measurement, in turns; the best of them counts, as the others were disturbed."""
REQUEST = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n'

BARE = """
import sys, msgspec
decode, encode = msgspec.json.decode, msgspec.json.encode
write, flush = sys.stdout.buffer.write, sys.stdout.buffer.flush
result = RESULT
for line in sys.stdin.buffer:
    request = decode(line)
    write(encode({"jsonrpc": "2.0", "result": result, "id": request["id"]}) + b"\\n")
    flush()
"""

NODE = """
const rpc = require('vscode-jsonrpc/node');
const result = RESULT;
const connection = rpc.createMessageConnection(
  new rpc.StreamMessageReader(process.stdin), new rpc.StreamMessageWriter(process.stdout));
connection.onRequest('ping', () => result);
connection.listen();
"""


class Server:
    """A process and how a message is framed for it."""

    def __init__(self, argv: list[str], cwd: Path, headers: bool, last_bytes: bytes) -> None:
        self.process = subprocess.Popen(
            argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.headers = headers
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("no pipes")
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.end_mark = last_bytes if headers else b"\n"  # of one answer
        self.tail = b""
        self.exchange(self.frame(REQUEST % 1), 1)

    def frame(self, line: bytes) -> bytes:
        return b"Content-Length: %d\r\n\r\n%b" % (len(line) - 1, line[:-1]) if self.headers else line

    def read(self) -> int:
        """Read once and say how many answers that completed."""
        data = os.read(self.output, 1 << 20)
        if not data:
            raise EOFError
        seen = self.tail + data
        self.tail = seen[1 - len(self.end_mark) :] if self.headers else b""
        return seen.count(self.end_mark) - data.count(b'"bridge_ready"')

    def exchange(self, frame: bytes, answers: int) -> None:
        os.write(self.input, frame)
        while answers > 0:
            answers -= self.read()

    def round_trip_s(self, rounds: int) -> float:
        """Median seconds of one request and its answer."""
        frames = [self.frame(REQUEST % (100 + n % 900)) for n in range(rounds)]
        times = []
        for frame in frames:
            begin = time.perf_counter()
            self.exchange(frame, 1)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def requests_per_s(self, rounds: int, depth: int = 64) -> float:
        """Requests answered per second with `depth` of them under way."""
        blocks = [
            b"".join(self.frame(REQUEST % (1000 + n)) for n in range(first, first + depth))
            for first in range(0, rounds, depth)
        ]
        pending, sent, done = 0, 0, 0
        begin = time.perf_counter()
        while done < rounds:
            while sent < rounds and pending <= depth // 2:
                os.write(self.input, blocks[sent // depth])
                sent += depth
                pending += depth
            got = self.read()
            pending -= got
            done += got
        while pending:
            pending -= self.read()
        return done / (time.perf_counter() - begin)

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--node", type=Path, help="folder in which node finds vscode-jsonrpc")
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--real", action="store_true", help="measure `python -m bridge serve`")
    arguments = parser.parse_args()
    result = '"pong"' if arguments.real else '{"text": "%s"}' % ("x" * 225)
    last_bytes = b'g"}' if arguments.real else b'x"}}'
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE.replace("RESULT", result))
        config = Path(folder, "sidecars.toml")
        config.write_text("metrics_interval = 0\nlog_dir = 'logs'\n")
        real = ["-m", "bridge", "serve", "--config", str(config)]
        serve = real if arguments.real else ["-m", "tests.rpc.serve"]
        servers = {
            "bare loop": Server([sys.executable, str(bare)], ROOT, False, last_bytes),
            "bridge": Server([sys.executable, *serve], ROOT, False, last_bytes),
        }
        if arguments.node is not None:
            (arguments.node / "serve.cjs").write_text(NODE.replace("RESULT", result))
            servers["vscode-jsonrpc"] = Server(["node", "serve.cjs"], arguments.node, True, last_bytes)
        select.select([], [], [], 0.2)  # let the start-up work of all of them end
        trips: dict[str, list[float]] = {name: [] for name in servers}
        rates: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(REPEATS):
            for name, server in servers.items():
                trips[name].append(server.round_trip_s(arguments.rounds // 4))
                rates[name].append(server.requests_per_s(arguments.rounds))
        for server in servers.values():
            server.close()
    floor_trip, floor_rate = min(trips["bare loop"]), max(rates["bare loop"])
    print(f"{'server':16} {'round trip p50':>15} {'ratio':>6}   {'64 deep':>10} {'ratio':>6}")
    for name in servers:
        trip, rate = min(trips[name]), max(rates[name])
        print(
            f"{name:16} {trip * 1e6:12.1f} us {trip / floor_trip:6.2f}   {rate:8.0f}/s {rate / floor_rate:6.2f}",
        )


if __name__ == "__main__":
    main()
