"""A process that serves the handlers of `peer` on its fd 0 and 1, as `python -m bridge serve` does with the real ones.

python -m tests.rpc.serve [--print]
"""

from bridge.rpc.fds import take_stdio

IN_FD, OUT_FD = take_stdio()

import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402

import anyio  # noqa: E402

from bridge import model  # noqa: E402
from bridge.rpc.messages import encode_ready  # noqa: E402
from bridge.rpc.outbox import Outbox  # noqa: E402
from bridge.rpc.server import RpcServer  # noqa: E402

RESULT = {"text": "x" * 225}


def ready() -> bytes:
    params = model.BridgeReady("1", "0", os.getpid(), sys.platform, [], "", "2026-01-01T00:00:00.000Z")
    return encode_ready(params, epoch="e", seq=1)


def prints(_: object) -> str:
    """Do what libraries do that think fd 1 is theirs."""
    print("stray print")
    os.write(1, b"stray write\n")
    subprocess.run([sys.executable, "-c", "import sys; print('stray child', repr(sys.stdin.read()))"], check=True)
    return "printed"


async def serve() -> str:
    outbox = Outbox(epoch="e", next_seq=2, max_message_bytes=4 << 20, max_outbound_bytes=8 << 20)
    handlers = {"ping": lambda _: RESULT, "list_sidecars": prints}
    server = RpcServer(IN_FD, OUT_FD, outbox=outbox, handlers=handlers, max_message_bytes=4 << 20)
    reason = await server.run()
    outbox.publish(model.BridgeClosing("eof"))
    await server.drain(1.0)
    return reason


if __name__ == "__main__":
    os.write(OUT_FD, ready())
    sys.stderr.write(f"{anyio.run(serve)}\n")
