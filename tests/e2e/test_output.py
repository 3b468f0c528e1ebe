"""What sidecars write: kept byte for byte, read back in pages, followed live, and never a frame of the protocol."""

from __future__ import annotations

import json
import stat
import time

import pytest

from tests.support import survivors
from tests.support.bridge import Bridge, Json
from tests.support.fault_sidecar import FRAME_LOOKALIKES, RUBBISH
from tests.support.kit import Kit, control

pytestmark = pytest.mark.timeout(60, method="signal")


SLOW_READER_BYTES = 20 * 1024 * 1024
"""What a reader that does not read may cost: max_outbound_bytes, and some room for the allocator."""


def whole_log(bridge: Bridge, log_type: str = "all") -> list[Json]:
    """The whole log, by its pages from the newest to the oldest."""
    pages: list[Json] = []
    page = bridge.call("get_sidecar_logs", {"lines": 400, "log_type": log_type})
    while True:
        pages = page["entries"] + pages
        if page["before"] is None:
            return pages
        page = bridge.call("get_sidecar_logs", {"lines": 400, "log_type": log_type, "before": page["before"]})


def test_frames_and_rubbish_of_a_sidecar_never_reach_the_wire(kit: Kit) -> None:
    web = kit.server("--frames", "--rubbish", "--no-newline")
    with kit.bridge(kit.config(web=web)) as bridge:
        bridge.start()
        for _ in range(20):
            assert bridge.call("ping") == "pong"
        bridge.close()
        assert not set(bridge.lines) & set(FRAME_LOOKALIKES.splitlines())
        assert not [m for m in bridge.messages if m.get("result") == "forged by a sidecar"]
        assert bridge.of("bridge_closing")[-1]["reason"] == "eof"
        assert len(bridge.of("bridge_closing")) == 1
        assert "forged" not in bridge.stderr
        expected = FRAME_LOOKALIKES + RUBBISH + b"a line without its end"
        assert (bridge.log_dir / "sidecar-stderr.log").read_bytes() == expected


def test_a_sidecar_that_finds_the_bridges_descriptors_cannot_tear_a_frame(kit: Kit) -> None:
    # Whatever it writes to its parent's stdout by /proc is not on the wire: that descriptor is not 1 any more.
    script = "for fd in 0 1 2; do echo torn > /proc/$PPID/fd/$fd; done 2>/dev/null; echo tried; exec tail -f "
    nap = kit.program(["sh", "-c", script + kit.sleeper()[-1]], health={"log": "tried"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        assert bridge.call("ping") == "pong"


def test_a_log_file_holds_exactly_what_was_written(kit: Kit) -> None:
    web = kit.server("--lines", "3000", "--stderr-lines", "2000")
    with kit.bridge(kit.config(web=web)) as bridge:
        port = bridge.start()["port"]
        bridge.call("stop_sidecar")
        out = (bridge.log_dir / "sidecar-stdout.log").read_bytes().splitlines()
        err = (bridge.log_dir / "sidecar-stderr.log").read_bytes().splitlines()
        lines = [line for line in out if line.startswith(b"stdout line")]
        assert [int(line.split()[2]) for line in lines] == list(range(3000))
        assert [int(line.split()[2]) for line in err] == list(range(2000))
        assert f"listening on {port}".encode() in out
        assert stat.S_IMODE((bridge.log_dir / "sidecar-stdout.log").stat().st_mode) == 0o600
        entries = whole_log(bridge)
        assert len(entries) == 5001
        numbers = [int(entry["text"].split()[2]) for entry in entries if entry["text"].startswith("stderr line")]
        assert numbers == list(range(2000))
        info = bridge.call("get_bridge_info")["counters"]
        assert info["lines_captured"] == 5001


def test_rotation_loses_doubles_and_tears_nothing(kit: Kit) -> None:
    web = kit.server(logs={"max_bytes": 20_000, "max_files": 100})
    with kit.bridge(kit.config(web=web)) as bridge:
        control(bridge.start()["port"], "lines/5000")
        bridge.call("stop_sidecar")
        files = bridge.call("list_sidecar_log_files")
        archives = [file for file in files if file["log_type"] == "stdout" and not file["current"]]
        assert len(archives) >= 5
        assert [file["name"] for file in files if file["current"] and file["log_type"] == "stdout"] == [
            "sidecar-stdout.log"
        ]
        content = b""
        # They are listed newest first.
        for file in reversed(archives):
            data = (bridge.log_dir / file["name"]).read_bytes()
            assert data.endswith(b"\n")
            content += data
        content += (bridge.log_dir / "sidecar-stdout.log").read_bytes()
        numbers = [int(line.split()[2]) for line in content.splitlines() if line.startswith(b"stdout line")]
        assert numbers == list(range(5000))
        texts = [entry["text"] for entry in whole_log(bridge, "stdout") if entry["text"].startswith("stdout line")]
        assert [int(text.split()[2]) for text in texts] == list(range(5000))


def test_old_archives_are_removed(kit: Kit) -> None:
    web = kit.server(logs={"max_bytes": 10_000, "max_files": 2})
    with kit.bridge(kit.config(web=web)) as bridge:
        control(bridge.start()["port"], "lines/5000")
        bridge.call("stop_sidecar")
        files = [file for file in bridge.call("list_sidecar_log_files") if file["log_type"] == "stdout"]
        assert len(files) <= 3
        assert bridge.call("get_sidecar_logs", {"lines": 1})["entries"][0]["text"].startswith("stdout line 000004999")


def test_several_sidecars_have_folders_of_their_own(kit: Kit) -> None:
    config = kit.config(a=kit.sidecar("--print", "from a"), b=kit.sidecar("--print", "from b"))
    with kit.bridge(config) as bridge:
        for name in ("a", "b"):
            bridge.start(name)
            bridge.wait_log(f"from {name}", name)
            assert (bridge.log_dir / name / "sidecar-stdout.log").read_text() == f"from {name}\n"


def test_a_clear_empties_the_files_and_capture_goes_on(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        port = bridge.start()["port"]
        control(port, "print/before")
        bridge.wait_log("before")
        cleared = bridge.call("clear_sidecar_logs")
        assert cleared["bytes"] == len(f"listening on {port}\nbefore\n")
        control(port, "print/after")
        bridge.wait_log("after")
        assert [entry["text"] for entry in whole_log(bridge)] == ["after"]


def test_a_subscription_has_neither_gap_nor_overlap_while_a_lot_is_written(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server())) as bridge:
        port = bridge.start()["port"]
        control(port, "lines/1000")
        bridge.wait_log("stdout line 000000999")
        id = bridge.call("subscribe_sidecar_logs", {"log_type": "stdout", "backlog": 500})["subscription"]
        control(port, "lines/2000")
        control(port, "print/the end")

        def entries() -> list[Json]:
            return [entry for params in bridge.of("sidecar_log") for entry in params["entries"]]

        bridge.wait_for("sidecar_log", lambda p: p["entries"][-1]["text"] == "the end")
        assert {params["subscription"] for params in bridge.of("sidecar_log")} == {id}
        assert sum(params["dropped"] for params in bridge.of("sidecar_log")) == 0
        numbers = [int(entry["text"].split()[2]) for entry in entries() if entry["text"].startswith("stdout line")]
        assert numbers == [*range(500, 1000), *range(2000)]
        cursors = [entry["cursor"] for entry in entries()]
        assert len(set(cursors)) == len(cursors)


def test_a_subscription_goes_on_over_a_restart(kit: Kit) -> None:
    with kit.bridge(kit.config(web=kit.server("--print", "hello"))) as bridge:
        bridge.call("subscribe_sidecar_logs")
        bridge.start()
        bridge.wait_for("sidecar_log", lambda p: any(e["text"] == "hello" for e in p["entries"]))
        since = bridge.mark()
        bridge.call("restart_sidecar")
        bridge.wait_for("sidecar_log", lambda p: any(e["text"] == "hello" for e in p["entries"]), since=since)


def test_a_client_that_polls_misses_nothing_over_rotations(kit: Kit) -> None:
    web = kit.server(logs={"max_bytes": 20_000, "max_files": 100})
    with kit.bridge(kit.config(web=web)) as bridge:
        port = bridge.start()["port"]
        bridge.wait_log("listening")
        cursor = bridge.call("get_sidecar_logs", {"lines": 1})["entries"][-1]["cursor"]
        control(port, "lines/3000")
        control(port, "print/the end")
        seen: list[str] = []
        deadline = time.monotonic() + 20
        while not seen or seen[-1] != "the end":
            assert time.monotonic() < deadline
            page = bridge.call("get_sidecar_logs", {"after": cursor, "lines": 250})
            if page["entries"]:
                cursor = page["entries"][-1]["cursor"]
                seen += [entry["text"] for entry in page["entries"]]
            else:
                time.sleep(0.02)
        assert [int(text.split()[2]) for text in seen[:-1]] == list(range(3000))


def test_binary_output_is_text_with_replacements_on_the_wire(kit: Kit) -> None:
    nap = kit.sidecar("--rubbish", "--print-later", "0.1", "end", health={"log": "end"})
    with kit.bridge(kit.config(nap=nap)) as bridge:
        bridge.start()
        entries = whole_log(bridge, "stdout")
        assert entries[0]["text"] == RUBBISH.split(b"\r\n")[0].decode("utf-8", "replace")
        json.dumps(entries).encode()


def test_a_reader_that_stops_reading_stalls_nothing_and_learns_what_it_missed(kit: Kit) -> None:
    flood = kit.server("--flood", logs={"max_bytes": 2_000_000, "max_files": 2})
    config = {**kit.config(flood=flood, web=kit.server()), "max_outbound_bytes": 1_000_000}
    with kit.bridge(config) as bridge:
        bridge.start("web")
        bridge.start("flood")
        bridge.call("subscribe_sidecar_logs", {"sidecar": "flood"})
        bridge.wait_for("sidecar_log")
        port = bridge.status("web")["port"]
        old = set(kit.alive())
        rss = bridge.call("get_bridge_info")["rss"]
        bridge.pause_reading()
        control(port, "crash/3")
        # It is supervised although nobody reads: another process takes its place.
        survivors.until(lambda: set(kit.alive()) - old, 10, "another process")
        # Long enough for the flood to fill what the bridge keeps for a slow reader: there is no event for that.
        time.sleep(0.5)
        bridge.resume_reading()
        bridge.wait_state("web", "running", generation=2)
        bridge.wait_for("sidecar_log", lambda p: p["dropped"] > 0)
        info = bridge.call("get_bridge_info")
        assert info["counters"]["dropped"]["sidecar_log"] > 0
        assert info["rss"] - rss < SLOW_READER_BYTES
        bridge.call("stop_sidecar", {"sidecar": "flood"})
