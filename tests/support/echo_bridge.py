"""A stand-in that speaks a little of the protocol, for the tests of the test client and of the transcript player."""

from __future__ import annotations

import json
import sys
from typing import Any

seq = 0


def write(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def notify(method: str, **params: Any) -> None:
    global seq
    seq += 1
    write({"jsonrpc": "2.0", "method": method, "params": {**params, "seq": seq, "epoch": "e1"}})


def main() -> int:
    global seq
    notify("bridge_ready", protocol_version="1", pid=7)
    for line in sys.stdin:
        try:
            request = json.loads(line)
        except ValueError:
            write({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "no JSON", "data": None}})
            continue
        method, id = request["method"], request["id"]
        if method == "ping":
            write({"jsonrpc": "2.0", "id": id, "result": "pong"})
        elif method == "tell":
            for number in range(3):
                notify("told", number=number)
            write({"jsonrpc": "2.0", "id": id, "result": {"name": "n-1", "port": 5, "ratio": 0.5, "ok": True}})
        elif method == "echo":
            write({"jsonrpc": "2.0", "id": id, "result": request["params"]})
        elif method == "skip":
            seq += 5
            notify("told", number=9)
            write({"jsonrpc": "2.0", "id": id, "result": None})
        elif method == "garble":
            sys.stdout.write("not json at all\n")
            write({"jsonrpc": "2.0", "id": id, "result": None})
        elif method == "exit":
            return int(request["params"][0])
        else:
            data = {"kind": "method_not_found", "sidecar": None, "detail": None}
            write({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": f"no {method}", "data": data}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
