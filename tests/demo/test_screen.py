"""The terminal: colours and moving lines only where they belong."""

from __future__ import annotations

import io

from bridge.demo.screen import Screen


class Stream(io.TextIOWrapper):
    """A stream with an encoding, which may claim to be a terminal."""

    def __init__(self, encoding: str = "utf-8", *, tty: bool = False) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding, write_through=True)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def text(self) -> str:
        return self.raw_bytes.getvalue().decode(self.encoding)


def play(screen: Screen) -> None:
    screen.heading(1, 2, "Title")
    screen.live(f"{screen.bar(0.5)} half", "cyan")
    screen.line(screen.style("said", "red"))
    screen.proved("seen")
    screen.failed("not seen")
    screen.settle()


def test_a_plain_stream_gets_whole_lines_and_no_escape_sequences() -> None:
    with Stream() as stream:
        play(Screen(stream, environ={}))
        assert "\x1b" not in stream.text()
        assert "\r" not in stream.text()
        assert "half" not in stream.text()
        assert "said\n" in stream.text()


def test_a_terminal_gets_colours_and_a_line_that_changes() -> None:
    with Stream(tty=True) as stream:
        play(Screen(stream, environ={"TERM": "xterm"}))
        assert "\x1b[31msaid\x1b[0m" in stream.text()
        assert "half" in stream.text()
        assert stream.text().endswith("\r\x1b[K")


def test_no_color_takes_the_colours_and_leaves_the_line_that_changes() -> None:
    with Stream(tty=True) as stream:
        play(Screen(stream, environ={"TERM": "xterm", "NO_COLOR": "1"}))
        assert "\x1b[31m" not in stream.text()
        assert "half" in stream.text()


def test_a_dumb_terminal_counts_as_a_plain_stream() -> None:
    with Stream(tty=True) as stream:
        play(Screen(stream, environ={"TERM": "dumb"}))
        assert "\x1b" not in stream.text()


def test_a_stream_that_cannot_carry_the_drawings_gets_ascii() -> None:
    with Stream("ascii") as stream:
        screen = Screen(stream, environ={})
        play(screen)
        screen.line(screen.cut("x" * 50, 10) + screen.spark([1, 2, 3]) + screen.glyph("to"))
        assert "ok seen" in stream.text()
        assert "FAILED not seen" in stream.text()


def test_what_a_sidecar_wrote_cannot_move_the_cursor() -> None:
    with Stream(tty=True) as stream:
        screen = Screen(stream, environ={"TERM": "xterm", "NO_COLOR": "1"})
        assert screen.cut("\x1b[2Jgone\r\n\x07", 40) == " [2Jgone   "


def test_bars_and_sparks_keep_within_their_cells() -> None:
    with Stream() as stream:
        screen = Screen(stream, environ={})
        assert {len(screen.bar(fraction)) for fraction in (-1.0, 0.0, 0.3, 1.0, 7.0)} == {len(screen.bar(0.5))}
        assert screen.spark([]) == ""
        assert len(screen.spark([0.0, 0.0])) == 2
        assert screen.spark([0.0, 5.0, 10.0])[-1] == screen.glyph("spark")[-1]
