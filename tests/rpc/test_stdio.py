"""The process's own descriptors, and every kind of thing that they may be."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

assert sys.platform != "win32"

ROOT = Path(__file__).resolve().parents[2]
ARGV = [sys.executable, "-m", "tests.rpc.serve"]
PING = b'{"jsonrpc":"2.0","method":"ping","id":1}\n'
LIMIT_S = 20


def lines(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in data.splitlines()]


def test_stray_prints_and_children_of_libraries_reach_fd_2_and_read_nothing() -> None:
    request = b'{"jsonrpc":"2.0","method":"list_sidecars","id":1}\n'
    done = subprocess.run(ARGV, cwd=ROOT, input=request, capture_output=True, timeout=LIMIT_S)
    ready, answer, closing = lines(done.stdout)
    assert (ready["method"], closing["method"]) == ("bridge_ready", "bridge_closing")
    assert answer["result"] == "printed"
    for stray in (b"stray print", b"stray write", b"stray child ''", b"eof"):
        assert stray in done.stderr


def test_a_file_can_be_the_input_and_another_the_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(PING * 5_000 + PING.rstrip())
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        subprocess.run(
            ARGV, cwd=ROOT, stdin=source, stdout=target, stderr=subprocess.DEVNULL, timeout=LIMIT_S, check=True
        )
    assert len(lines((tmp_path / "out").read_bytes())) == 5_003


def test_sockets_serve_as_they_do_under_electron() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            ARGV, cwd=ROOT, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
        )
        theirs.close()
        ours.settimeout(LIMIT_S)
        ours.sendall(PING * 100)
        ours.shutdown(socket.SHUT_WR)
        data = b""
        while part := ours.recv(65536):
            data += part
        assert process.wait(LIMIT_S) == 0
    assert len(lines(data)) == 102


def test_a_terminal_serves_and_keeps_its_mode() -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(ARGV, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
        data = b""
        while b"bridge_ready" not in data:
            data += os.read(ours, 65536)
        os.write(ours, PING)
        while b'"result"' not in data:
            data += os.read(ours, 65536)
        assert os.get_blocking(theirs) is True
        os.write(ours, b"\x04")
        assert process.wait(LIMIT_S) == 0
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_null_device_as_input_is_the_end_at_once() -> None:
    done = subprocess.run(ARGV, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)
    assert [message["method"] for message in lines(done.stdout)] == ["bridge_ready", "bridge_closing"]


def test_an_inherited_pipe_is_given_back_blocking() -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    try:
        process = subprocess.Popen(ARGV, cwd=ROOT, stdin=in_read, stdout=out_write, stderr=subprocess.DEVNULL)
        os.close(in_write)
        assert process.wait(LIMIT_S) == 0
        assert os.get_blocking(in_read) is True
        assert os.get_blocking(out_write) is True
    finally:
        for fd in (in_read, out_read, out_write):
            os.close(fd)


CLOSED = """
import os, sys
for fd in {closed}:
    os.close(fd)
{streams}
from bridge.rpc.fds import take_stdio
taken = take_stdio()
report = os.fdopen(os.dup({report}), "w")
print("stray", flush=True)
print(taken, [os.get_inheritable(fd) for fd in (0, 1, 2, *taken)], os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev,
      os.fstat(1).st_ino == os.fstat(2).st_ino, file=report, flush=True)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_descriptors_are_private_whichever_were_closed(closed: tuple[int, ...]) -> None:
    read, write = os.pipe()
    try:
        os.set_inheritable(write, True)
        streams = "\n".join(f"sys.{('stdin', 'stdout', 'stderr')[fd]} = None" for fd in closed)
        code = CLOSED.format(closed=closed, streams=streams, report=write)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, pass_fds=[write], timeout=LIMIT_S
        )
        os.close(write)
        write = -1
        said = os.read(read, 4096).decode()
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    taken, rest = said.split(") ")
    assert all(int(fd) >= 3 for fd in taken.strip("(").split(","))
    assert rest.split() == ["[True,", "True,", "True,", "False,", "False]", "True", "True"], done.stderr
    assert b"stray" not in done.stdout
    assert (b"stray" in done.stderr) is (2 not in closed)


KINDS = ("file", "null device", "pipe", "terminal")


class Opened:
    """A descriptor of some kind to write to, and what was written."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._path: Path | None = None
        self._read = -1
        if kind == "file":
            self._path = folder / os.urandom(4).hex()
            self.fd = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        elif kind == "null device":
            self.fd = os.open(os.devnull, os.O_WRONLY)
        elif kind == "pipe":
            self._read, self.fd = os.pipe()
        else:
            self._read, self.fd = pty.openpty()

    def written(self) -> bytes | None:
        """None where nobody can tell."""
        if self._path is not None:
            return self._path.read_bytes()
        if self._read < 0:
            return None
        os.set_blocking(self._read, False)
        try:
            return os.read(self._read, 65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.fd)
        if self._read >= 0:
            os.close(self._read)


TAKES = """
import os
from bridge.rpc.fds import take_stdio
_, out = take_stdio()
print("stray")
os.write(out, b"frame")
"""


@pytest.mark.parametrize("error_kind", KINDS)
@pytest.mark.parametrize("output_kind", KINDS)
def test_the_output_may_be_anything_whatever_the_error_output_is(
    output_kind: str, error_kind: str, tmp_path: Path
) -> None:
    output, error = Opened(output_kind, tmp_path), Opened(error_kind, tmp_path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", TAKES],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output.fd,
            stderr=error.fd,
            timeout=LIMIT_S,
        )
        said = error.written()
        assert done.returncode == 0, said
        assert output.written() in (b"frame", None)
        assert said is None or said.split() == [b"stray"]
    finally:
        output.close()
        error.close()
