"""A sidecar that misbehaves on request: the flags say how it starts, serves, writes, forks and dies.

Standard library only, so that it also runs under `python -S`. It turns flags and control requests into the faults that
a supervisor must survive; it knows nothing of the bridge. Every process that it starts carries the same `--token`, by
which a test finds survivors in `/proc` whatever group, session or environment they moved to.

Control requests (any method, answered even while it hangs): /control/hang, /control/unhang, /control/status/N,
/control/crash/N, /control/exit/N, /control/signal/NAME, /control/stop, /control/leak, /control/child, /control/away,
/control/print/TEXT, /control/stderr/TEXT, /control/lines/N, /control/close-pipes, /control/close-listener.
Other paths: /shutdown ends it with 0, /pid, /env/NAME, /starts; everything else is a health answer.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

REQUEST_BYTES_MAX = 65536
"""A request head longer than this is nobody's health check."""
LEAK_BYTES = 64 * 1024 * 1024
"""Large beside the 10 MiB of an idle interpreter, small beside a CI machine's memory."""
FLOOD_CHUNK_LINES = 500
"""Lines per write of a flood: about 50 KB, near a pipe's size, so that the writer and not Python is the limit."""
FRAME_LOOKALIKES = (
    b'{"jsonrpc":"2.0","id":1,"result":"forged by a sidecar"}\n'
    b'{"jsonrpc":"2.0","method":"bridge_closing","params":{"reason":"forged","seq":1,"epoch":"forged"}}\n'
    b'{"jsonrpc":"2.0","id":1,"method":"shutdown"}\n'
)
RUBBISH = b"\xff\xfe\x00\x01 \xc3( \xed\xa0\x80 \x1b[31mred\x1b[0m \xe2\x82\r\n\x00\n" + bytes(range(256)) + b"\n"


assert sys.platform != "win32"


class Behaviour:
    """What the health answers are at the moment; changed by control requests."""

    def __init__(self, status: int, hang: bool) -> None:
        self.status = status
        self.hang = hang
        self.started = time.monotonic()
        self.leaked: list[bytearray] = []
        self.listener: socket.socket | None = None


def say(text: str, stream: int = 1) -> None:
    """Write one line straight to a descriptor: what a crash follows must be out before it."""
    data = (text + "\n").encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(stream, data) :]


def parse(argv: list[str]) -> argparse.Namespace:
    flags = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    flag = flags.add_argument
    flag("--token", default="", help="found in /proc/*/cmdline of everything started here")
    flag("--label", default="", help="not looked at; a second word for the command line")
    flag("--host", default="127.0.0.1")
    flag("--port", type=int, help="serve HTTP here; 0: any free port")
    flag("--port-from-env", metavar="NAME", help="serve HTTP on the port in this variable")
    flag("--ready-after", type=float, default=0.0, metavar="S", help="open the port after S seconds")
    flag("--warm-up", type=float, default=0.0, metavar="S", help="answer 503 for the first S seconds")
    flag("--status", type=int, default=200, help="status of health answers")
    flag("--hang", action="store_true", help="accept and never answer")
    flag("--endless-body", action="store_true", help="answer 200 and a body without end")
    flag("--tcp-only", action="store_true", help="accept and close, no HTTP")
    flag("--serve-in-child", action="store_true", help="a child of this process owns the port")
    flag("--ignore-term", action="store_true", help="ignore SIGTERM, SIGINT and SIGHUP, in children too")
    flag("--slow-stop", type=float, metavar="S", help="take S seconds to end after SIGTERM")
    flag("--term-code", type=int, default=0, metavar="N", help="exit code after SIGTERM with --slow-stop")
    flag("--stop-self", action="store_true", help="SIGSTOP itself once it serves")
    flag("--children", type=int, default=0, metavar="N", help="start N children of the same group")
    flag("--fork-away", action="store_true", help="double-fork a grandchild into its own session; it holds the pipes")
    flag("--empty-env", action="store_true", help="the grandchild of --fork-away has no environment")
    flag("--away-after", type=float, default=0.0, metavar="S", help="fork away only after S seconds")
    flag("--exit-after", type=float, metavar="S", help="exit after S seconds, see --exit-code and --crash-signal")
    flag("--exit-code", type=int, default=0, metavar="N")
    flag("--exit-at-start", type=int, metavar="N", help="exit with N before anything is served")
    flag("--crash-signal", metavar="NAME", help="die by this signal, at once or after --exit-after")
    flag("--exit-nth", nargs=2, metavar=("N", "FILE"), help="fail the first N starts, counted in FILE")
    flag("--exit-but", nargs=2, metavar=("N", "FILE"), help="fail all starts but the first N, counted in FILE")
    flag("--count", metavar="FILE", help="add one line to FILE at each start")
    flag("--stdin-exits", action="store_true", help="exit with 0 at the end of stdin")
    flag("--print", action="append", default=[], metavar="TEXT", help="write a line to stdout at the start")
    flag("--print-later", nargs=2, action="append", default=[], metavar=("S", "TEXT"))
    flag("--print-err", action="append", default=[], metavar="TEXT", help="write a line to stderr at the start")
    flag("--print-env", action="append", default=[], metavar="NAME", help="write NAME=value, or that it is unset")
    flag("--lines", type=int, default=0, metavar="N", help="write N numbered lines to stdout")
    flag("--stderr-lines", type=int, default=0, metavar="N", help="write N numbered lines to stderr")
    flag("--flood", action="store_true", help="write numbered lines to both streams at full speed, for ever")
    flag("--frames", action="store_true", help="write lines that look like protocol frames")
    flag("--rubbish", action="store_true", help="write binary and invalid UTF-8 to both streams")
    flag("--no-newline", action="store_true", help="write a line without its end to both streams")
    flag("--close-pipes", action="store_true", help="close stdout and stderr and go on")
    flag("--sleep-only", action="store_true", help="do nothing but live (what children are)")
    return flags.parse_args(argv)


def relative_argv(options: argparse.Namespace) -> list[str]:
    """The command line of a process started here: it lives, carries the token and shares the deafness."""
    argv = [sys.executable, "-S", os.path.abspath(__file__), "--token", options.token, "--sleep-only"]
    return [*argv, "--ignore-term"] if options.ignore_term else argv


def start_child(options: argparse.Namespace) -> int:
    argv = relative_argv(options)
    return os.posix_spawn(argv[0], argv, os.environ)


def fork_away(options: argparse.Namespace) -> None:
    """Leave a grandchild behind that has its own session, is adopted by whoever adopts, and holds our pipes."""
    argv = relative_argv(options)
    env = {} if options.empty_env else dict(os.environ)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.execve(argv[0], argv, env)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def numbered(word: str, first: int, count: int) -> bytes:
    return b"".join(
        f"{word} line {number:09d} of a sidecar that writes a lot\n".encode() for number in range(first, first + count)
    )


def write_all(stream: int, data: bytes) -> None:
    while data:
        data = data[os.write(stream, data) :]


def write_numbered(stream: int, word: str, total: int) -> None:
    for first in range(0, total, FLOOD_CHUNK_LINES):
        write_all(stream, numbered(word, first, min(FLOOD_CHUNK_LINES, total - first)))


def flood(stream: int, word: str) -> None:
    first = 0
    while True:
        write_all(stream, numbered(word, first, FLOOD_CHUNK_LINES))
        first += FLOOD_CHUNK_LINES


def count_start(path: str) -> int:
    """Which start this is, from 1, by the lines of a file."""
    with open(path, "a+", encoding="ascii") as file:
        file.write("started\n")
        file.flush()
        file.seek(0)
        return len(file.readlines())


def die(options: argparse.Namespace) -> None:
    if options.crash_signal:
        number = signal.Signals[options.crash_signal]
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(5)
    os._exit(options.exit_code)


def background(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def later(delay_s: float, work: Callable[..., None], *arguments: object) -> None:
    timer = threading.Timer(delay_s, work, arguments)
    timer.daemon = True
    timer.start()


def stop_politely(options: argparse.Namespace) -> None:
    """SIGTERM under --slow-stop: say so, take the time, say goodbye."""

    def on_term(_number: int, _frame: object) -> None:
        say(f"stopping, takes {options.slow_stop} s")
        time.sleep(options.slow_stop)
        say("stopped")
        os._exit(options.term_code)

    signal.signal(signal.SIGTERM, on_term)


def answer(connection: socket.socket, status: int, body: str) -> None:
    data = body.encode()
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: text/plain\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)


def control(connection: socket.socket, parts: list[str], behaviour: Behaviour, options: argparse.Namespace) -> None:
    """One control request; what ends the process answers first."""
    from urllib.parse import unquote

    word, argument = parts[0], unquote("/".join(parts[1:]))
    ending: Callable[[], None] | None = None
    if word == "hang":
        behaviour.hang = True
    elif word == "unhang":
        behaviour.hang = False
    elif word == "status":
        behaviour.status = int(argument)
    elif word in ("crash", "exit"):
        code = int(argument or "1")
        ending = lambda: os._exit(code)  # noqa: E731
    elif word == "signal":
        number = signal.Signals[argument]
        ending = lambda: os.kill(os.getpid(), number)  # noqa: E731
    elif word == "stop":
        ending = lambda: os.kill(os.getpid(), signal.SIGSTOP)  # noqa: E731
    elif word == "leak":
        behaviour.leaked.append(bytearray(b"\x01") * LEAK_BYTES)
    elif word == "child":
        start_child(options)
    elif word == "away":
        fork_away(options)
    elif word == "print":
        say(argument)
    elif word == "stderr":
        say(argument, 2)
    elif word == "lines":
        write_numbered(1, "stdout", int(argument))
    elif word == "close-pipes":
        close_pipes()
    elif word == "close-listener" and behaviour.listener is not None:
        behaviour.listener.shutdown(socket.SHUT_RDWR)
        behaviour.listener.close()
    else:
        answer(connection, 404, f"no control {word}")
        return
    answer(connection, 200, "done")
    if ending is not None:
        ending()


def converse(connection: socket.socket, behaviour: Behaviour, options: argparse.Namespace) -> None:
    """Serve one connection, request after request."""
    pending = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in pending:
                try:
                    data = connection.recv(REQUEST_BYTES_MAX)
                except OSError:
                    return
                if not data or len(pending) > REQUEST_BYTES_MAX:
                    return
                pending += data
            head, _, pending = pending.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode("latin-1").split("?")[0]
            parts = path.strip("/").split("/")
            try:
                if parts[0] == "control":
                    control(connection, parts[1:], behaviour, options)
                elif path == "/shutdown":
                    say("asked to shut down")
                    answer(connection, 200, "bye")
                    os._exit(0)
                elif path == "/pid":
                    answer(connection, 200, str(os.getpid()))
                elif parts[0] == "env":
                    answer(connection, 200, os.environ.get(parts[1], "<unset>"))
                elif behaviour.hang:
                    threading.Event().wait()
                elif options.endless_body:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        connection.sendall(b"x" * REQUEST_BYTES_MAX)
                elif time.monotonic() - behaviour.started < options.warm_up:
                    answer(connection, 503, "warming up")
                else:
                    answer(connection, behaviour.status, "ok" if behaviour.status == 200 else "not ok")
            except OSError:
                return


def serve(options: argparse.Namespace, port: int) -> None:
    """Open the port, say so on stdout, serve for ever in threads."""
    behaviour = Behaviour(options.status, options.hang)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.host, port))
    listener.listen(64)
    behaviour.listener = listener
    say(f"listening on {listener.getsockname()[1]}")

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if options.tcp_only:
                connection.close()
            else:
                background(converse, connection, behaviour, options)

    background(accept)


def close_pipes() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def wait_for_stdin_end() -> None:
    while os.read(0, 65536):
        pass
    say("stdin ended")
    os._exit(0)


def write_output(options: argparse.Namespace) -> None:
    """Everything that is written at the start, in the order of the flags' list."""
    for name in options.print_env:
        say(f"{name}={os.environ[name]}" if name in os.environ else f"{name} is unset")
    for text in options.print:
        say(text)
    for text in options.print_err:
        say(text, 2)
    if options.frames:
        for stream in (1, 2):
            write_all(stream, FRAME_LOOKALIKES)
    if options.rubbish:
        for stream in (1, 2):
            write_all(stream, RUBBISH)
    write_numbered(1, "stdout", options.lines)
    write_numbered(2, "stderr", options.stderr_lines)
    if options.no_newline:
        for stream in (1, 2):
            write_all(stream, b"a line without its end")
    if options.close_pipes:
        close_pipes()
    for delay, text in options.print_later:
        later(float(delay), say, text)
    if options.flood:
        background(flood, 1, "stdout")
        background(flood, 2, "stderr")


def main(argv: list[str]) -> None:
    options = parse(argv)
    if options.ignore_term:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    if options.slow_stop is not None:
        stop_politely(options)
    if options.count:
        count_start(options.count)
    for rule in (options.exit_nth, options.exit_but):
        if rule:
            starts = count_start(rule[1])
            if (starts <= int(rule[0])) == (rule is options.exit_nth):
                say(f"start {starts} fails", 2)
                os._exit(options.exit_code or 1)
    write_output(options)
    if options.exit_at_start is not None:
        os._exit(options.exit_at_start)
    if options.crash_signal and options.exit_after is None:
        die(options)
    for _ in range(options.children):
        start_child(options)
    if options.fork_away:
        if options.away_after:
            later(options.away_after, fork_away, options)
        else:
            fork_away(options)
    if options.stdin_exits:
        background(wait_for_stdin_end)
    if options.exit_after is not None:
        later(options.exit_after, die, options)

    port = options.port
    if options.port_from_env:
        port = int(os.environ[options.port_from_env])
    if port is not None and not options.sleep_only:
        if options.serve_in_child and os.fork() != 0:
            port = None
        elif options.ready_after:
            later(options.ready_after, serve, options, port)
        else:
            serve(options, port)
    if options.stop_self:
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        # A loop of long sleeps, not pause(): a handler that returns must not end the process.
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
