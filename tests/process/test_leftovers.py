"""The file of trees tells where to look, marks prove what is left over, and nothing else is ever touched."""

# ruff: noqa: E402
from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

if sys.platform != "linux":
    pytest.skip("Linux", allow_module_level=True)
assert sys.platform == "linux"  # The type checker does not follow the skip.

from bridge.process.base import Process, SpawnSpec
from bridge.process.identity import boot_id, start_of
from bridge.process.leftovers import Leftover, sweep
from bridge.process.linux import LinuxSystem
from bridge.process.procfs import RLIMIT_LOCKS
from bridge.process.trees import DEAD_LINES_MAX, FILE_NAME, PastBridge, PastTree, RecordedSystem, TreeFile, parse

from .sightings import sighted, until_blocking

HEAD = f"sidecar-bridge-trees 1 {boot_id()}\n"
SELF = [sys.executable, "-m", "tests.process.leftovers_script"]
NOBODY = 65534


class DeadBridge:
    """A bridge that was killed and had no guardian any more."""

    def __init__(self, folder: Path, token: str, way: str, *names: str) -> None:
        self.folder = folder
        self.epoch = uuid.uuid4().hex[:16]
        self.process = subprocess.Popen(
            [*SELF, "start", str(folder), self.epoch, way, token, *names], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def past(self) -> list[PastBridge]:
        return TreeFile(str(self.folder), "0" * 16).read_past()


KINDS = [
    ("marks", "QUIET"),
    ("marks", "IGNORES_TERM"),
    ("marks", "CHILDREN_IN_OWN_SESSIONS"),
    ("marks", "DAEMON_WITHOUT_ENVIRONMENT"),
    ("marks", "THIRTY_CHILDREN"),
    ("marks", "STOPPED"),
    ("marks", "EXITS_AND_LEAVES_CHILD"),
    ("descent", "QUIET"),
    ("descent", "CHILDREN_IN_OWN_SESSIONS"),
]


@pytest.mark.parametrize(("way", "kind"), KINDS)
def test_what_a_killed_bridge_left_is_ended(tmp_path: Path, token: str, way: str, kind: str) -> None:
    dead = DeadBridge(tmp_path, token, way, kind)
    dead.kill()
    left = sighted(token)
    assert left
    found, kept = sweep(dead.past())
    assert kept == []
    assert {(each.sidecar, each.fate) for each in found} == {(kind.lower(), "ended")}
    assert sighted(token) == []
    assert {pid for each in found for pid in each.pids} == set(left)


def test_a_chain_of_forks_is_ended_too(tmp_path: Path, token: str) -> None:
    dead = DeadBridge(tmp_path, token, "marks", "FORKS_ON_WITH_A_LOCK")
    dead.kill()
    lock = os.open(tmp_path / "lock", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, kept = sweep(dead.past())
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert [each.fate for each in found] in (["fleeting"], ["ended"])
        assert kept == []
    finally:
        os.close(lock)


def test_a_bridge_that_lives_is_not_touched_whatever_a_file_says(tmp_path: Path, token: str) -> None:
    living = DeadBridge(tmp_path, token, "marks", "QUIET")
    before = sighted(token)
    assert sweep(living.past()) == ([], living.past())
    assert sighted(token) == before
    living.kill()
    sweep(living.past())


def test_a_second_sweep_finds_nothing(tmp_path: Path, token: str) -> None:
    dead = DeadBridge(tmp_path, token, "marks", "QUIET", "THIRTY_CHILDREN")
    dead.kill()
    found, _ = sweep(dead.past())
    assert {each.sidecar for each in found} == {"quiet", "thirty_children"}
    assert sweep(dead.past()) == ([], [])


def test_a_bridge_that_carries_the_mark_of_the_dead_one_leaves_it_alone(tmp_path: Path, token: str) -> None:
    """As when a sidecar has its app started anew by somebody else."""
    dead = DeadBridge(tmp_path, token, "marks", "QUIET")
    past = dead.past()
    pid = past[0].trees[0].pid
    limit = (resource.prlimit(pid, RLIMIT_LOCKS)[0], resource.RLIM_INFINITY)
    with subprocess.Popen(
        [*SELF, "sweep", str(tmp_path), str(dead.process.pid)],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(RLIMIT_LOCKS, limit),
    ) as kin:
        dead.kill()
        told, _ = kin.communicate(timeout=20)
    assert json.loads(told) == [[["quiet", "kin", [pid]]], [dead.epoch]]
    assert sighted(token) == [pid]
    assert sweep(past) == ([Leftover("quiet", (pid,), "ended")], [])


def test_a_bridge_that_descends_from_a_leftover_leaves_it_alone(tmp_path: Path, token: str) -> None:
    """As when a sidecar starts its app anew."""
    dead = DeadBridge(tmp_path, token, "marks", "STARTS_ITS_APP_ANEW")
    past = dead.past()
    pid = past[0].trees[0].pid
    dead.kill()
    until_blocking((tmp_path / "told to the end").exists, 20)
    told = json.loads((tmp_path / "told to the end").read_text())
    assert told == [[["starts_its_app_anew", "kin", [pid]]], [dead.epoch]]
    assert sighted(token) == [pid]
    assert sweep(past) == ([Leftover("starts_its_app_anew", (pid,), "ended")], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_what_cannot_be_ended_is_told_and_remembered(tmp_path: Path, token: str) -> None:
    dead = DeadBridge(tmp_path, token, "marks", "QUIET")
    past = dead.past()
    pid = past[0].trees[0].pid
    dead.kill()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(NOBODY)
            found, kept = sweep(past)
            code = 0 if found == [Leftover("quiet", (pid,), "undying")] and kept == past else 2
        finally:
            os._exit(code)
    os.close(read_end)
    os.close(write_end)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sighted(token) == [pid]
    assert sweep(past) == ([Leftover("quiet", (pid,), "ended")], [])


def test_a_leader_without_a_mark_is_left_alone(tmp_path: Path, token: str) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)", token]) as stranger:
        tree = PastTree(1, stranger.pid, start_of(stranger.pid), "SIGTERM", 5.0, "web")
        past = PastBridge("ab" * 8, 999_999_999, "1", (tree, tree._replace(number=2, pid=1, start="7")))
        found, kept = sweep([past])
        assert found == [Leftover("web", (stranger.pid,), "unproven")]
        assert kept == [past._replace(trees=(tree,))]
        assert stranger.poll() is None
        stranger.kill()
    assert sweep(kept) == ([], [])


# --- the file --------------------------------------------------------------------------------------------------------


class Recorder:
    """A system whose trees are recorded."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.trees = TreeFile(str(folder), "cd" * 8)
        self.system = RecordedSystem(LinuxSystem("cd" * 8, guardian=False), self.trees)

    def spawn(self, name: str) -> Process:
        process = self.system.spawn(SpawnSpec(("/bin/sleep", "1000"), "/", {"SIDECAR_NAME": name}))
        for fd in (process.stdout, process.stderr):
            assert fd is not None
            os.close(fd)
        return process

    async def end(self, process: Process) -> None:
        assert await process.extinguish(5)
        process.close()

    def recorded(self) -> list[str | None]:
        (own,), senseless = parse(self.path.read_text(), boot_id())
        assert senseless == 0
        assert (own.epoch, own.pid) == ("cd" * 8, os.getpid())
        return [tree.sidecar for tree in own.trees]


def test_living_trees_are_recorded_and_the_file_goes_with_an_orderly_end(tmp_path: Path) -> None:
    async def main() -> None:
        recorder = Recorder(tmp_path)
        recorder.trees.begin()
        assert recorder.path.stat().st_mode & 0o777 == 0o600
        await recorder.system.start()
        first = recorder.spawn("a")
        second = recorder.spawn("no name")
        assert recorder.recorded() == ["a", None]
        (own,), _ = parse(recorder.path.read_text(), boot_id())
        assert [(tree.pid, tree.start) for tree in own.trees] == [
            (each.pid, start_of(each.pid)) for each in (first, second)
        ]
        await recorder.system.close()
        assert os.listdir(tmp_path) == []

    anyio.run(main)


def test_the_file_stays_small_however_often_a_sidecar_is_restarted(tmp_path: Path) -> None:
    async def main() -> None:
        recorder = Recorder(tmp_path)
        recorder.trees.begin()
        await recorder.system.start()
        lasting = recorder.spawn("lasting")
        for _ in range(3 * DEAD_LINES_MAX):
            await recorder.end(recorder.spawn("brief"))
            assert len(recorder.recorded()) <= DEAD_LINES_MAX + 2
        assert recorder.recorded()[0] == "lasting"
        await recorder.end(lasting)
        for _ in range(2 * DEAD_LINES_MAX):
            await recorder.end(recorder.spawn("brief"))
        assert "lasting" not in recorder.recorded()
        await recorder.system.close()

    anyio.run(main)


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """No file can become longer than this: the same error as of a full disk, for this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_fails_no_start_and_tears_no_line(tmp_path: Path) -> None:
    async def main() -> None:
        recorder = Recorder(tmp_path)
        recorder.trees.begin()
        await recorder.system.start()
        recorder.spawn("a")
        with full_disk(recorder.path.stat().st_size + 10):
            for _ in range(2 * DEAD_LINES_MAX):
                recorder.spawn("b")
        assert recorder.recorded() == ["a"]
        recorder.spawn("c")
        assert recorder.recorded()[-1] == "c"
        await recorder.system.close()
        assert os.listdir(tmp_path) == []
        with full_disk(10):
            recorder.trees.begin()
        assert os.listdir(tmp_path) == []

    anyio.run(main)


def test_a_folder_that_was_replaced_gets_no_file_of_another_bridge(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "logs"
        folder.mkdir()
        recorder = Recorder(folder)
        recorder.trees.begin()
        await recorder.system.start()
        folder.rename(tmp_path / "old")
        folder.mkdir()
        (folder / FILE_NAME).write_text("another bridge's")
        lasting = recorder.spawn("lasting")
        for _ in range(2 * DEAD_LINES_MAX):
            await recorder.end(recorder.spawn("brief"))
        await recorder.end(lasting)
        await recorder.system.close()
        assert (folder / FILE_NAME).read_text() == "another bridge's"

    anyio.run(main)


def test_a_missing_folder_fails_nothing(tmp_path: Path) -> None:
    trees = TreeFile(str(tmp_path / "none"), "cd" * 8)
    assert trees.read_past() == []
    trees.begin()
    trees.end()


def test_what_is_kept_stands_before_the_own_trees_and_outlasts_an_orderly_end(tmp_path: Path) -> None:
    past = PastBridge(
        "ab" * 8, 7, "8", (PastTree(1, 2, "3", "SIGINT", 4.5, "web"), PastTree(2, 3, "4", "SIGTERM", 0, None))
    )
    trees = TreeFile(str(tmp_path), "cd" * 8)
    trees.begin([past])
    before, own = trees.read_past()
    assert before == past
    assert own.epoch == "cd" * 8
    trees.end()
    assert trees.read_past() == [past]


OWN = "bridge abababababababab 7 8\n"
TREE = "tree 1 2 3 SIGTERM 5.000 web\n"


@pytest.mark.parametrize(
    ("text", "trees", "senseless"),
    [
        (HEAD + OWN + TREE + TREE, [2], 0),
        (HEAD + OWN + TREE + "tree 1 2", [1], 1),
        (HEAD + OWN + "tree 1 -2 3 SIGTERM 5.000 web\n" + TREE, [1], 1),
        (HEAD + OWN + "tree 1 2 3 SIGTERM 5.000 ../web\n" + TREE, [1], 1),
        (HEAD + TREE + OWN + TREE, [1], 1),
        (HEAD + OWN + TREE + "bridge * 7 8\n" + TREE, [1], 2),
        (HEAD + "bridge  7 8\n", [], 1),
        (HEAD.replace("trees 1", "trees 2") + OWN + TREE, [], 3),
        ("sidecar-bridge-trees 1 another-boot\n" + OWN + TREE, [], 0),
        ("\0" * 10_000, [], 1),
        ("", [], 0),
    ],
)
def test_lines_that_make_no_sense_are_counted_and_mean_nothing(text: str, trees: list[int], senseless: int) -> None:
    past, ignored = parse(text, boot_id())
    assert [len(bridge.trees) for bridge in past] == trees
    assert ignored == senseless
    assert parse(text, "")[0] == []
