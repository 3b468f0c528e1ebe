"""What the demo says -> a terminal or a plain stream: colours, a progress bar, one line at the bottom that changes.

On a terminal the live line is drawn anew in place; elsewhere only what stays is written, one plain line after another.
Colours only on a terminal and without NO_COLOR; where the stream cannot carry the drawing characters, ASCII stands in.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
_FANCY = {
    "ok": "✔",
    "no": "✘",
    "to": "→",
    "bar": "█",
    "rest": "░",
    "log": "│",
    "rule": "─",
    "alert": "▲",
    "state": "●",
    "spark": "▁▂▃▄▅▆▇█",
    "cut": "…",
}
_PLAIN = {
    "ok": "ok",
    "no": "FAILED",
    "to": "->",
    "bar": "#",
    "rest": ".",
    "log": "|",
    "rule": "-",
    "alert": "!",
    "state": "*",
    "spark": "_.-=*#%@",
    "cut": "~",
}
_WIDTH_MAX = 100
"""Longer lines of prose are hard to read, however wide the window."""
_BAR_CELLS = 24


class Screen:
    """Writes to one stream. `tty` and `colour` can be set for tests; by default the stream and NO_COLOR decide."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        tty: bool | None = None,
        colour: bool | None = None,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        dumb = environ.get("TERM") == "dumb"
        self.tty = (self._stream.isatty() and not dumb) if tty is None else tty
        self._colour = (self.tty and not environ.get("NO_COLOR")) if colour is None else colour
        self._glyphs = _FANCY if _carries(self._stream, "".join(_FANCY.values())) else _PLAIN
        self._live = ""
        if self.tty and sys.platform == "win32":
            # An empty command makes Windows' console understand escape sequences from now on.
            os.system("")  # noqa: S605

    def glyph(self, name: str) -> str:
        """A drawing character, or its stand-in."""
        return self._glyphs[name]

    def style(self, text: str, *names: str) -> str:
        """The text in these styles, if there are colours."""
        if not self._colour or not text or not names:
            return text
        return f"\x1b[{';'.join(str(_CODES[name]) for name in names)}m{text}\x1b[0m"

    @property
    def width(self) -> int:
        return min(shutil.get_terminal_size((_WIDTH_MAX, 24)).columns, _WIDTH_MAX)

    # --- what stays ---------------------------------------------------------------------------------------------------

    def line(self, text: str = "") -> None:
        """Write one line above the live one."""
        self._write(f"{self._erased()}{text}\n{self._live if self.tty else ''}")

    def say(self, text: str) -> None:
        """Write a paragraph."""
        for line in textwrap.wrap(text, self.width - 4):
            self.line(f"  {line}")

    def heading(self, number: int, total: int, title: str) -> None:
        """Begin an act."""
        rule = self.glyph("rule") * max(self.width - len(title) - len(f"{number}/{total}") - 5, 3)
        self.line()
        self.line(f"{self.style(f'{number}/{total}', 'dim')}  {self.style(title, 'bold')}  {self.style(rule, 'dim')}")
        self.line()

    def proved(self, text: str) -> None:
        """Write what was observed and checked."""
        self.line(f"  {self.style(self.glyph('ok'), 'green', 'bold')} {text}")

    def failed(self, text: str) -> None:
        """Write what did not come as it should."""
        self.line(f"  {self.style(self.glyph('no'), 'red', 'bold')} {text}")

    # --- what changes -------------------------------------------------------------------------------------------------

    def live(self, text: str, *styles: str) -> None:
        """Change the live line. Nothing happens where lines cannot be changed."""
        if self.tty:
            shown = self.style(self.cut(f"  {text}", self.width - 1), *styles)
            self._write(self._erased() + shown)
            self._live = shown

    def settle(self) -> None:
        """Take the live line away."""
        if self.tty:
            self._write(self._erased())
            self._live = ""

    def bar(self, fraction: float) -> str:
        """A progress bar."""
        full = round(min(max(fraction, 0.0), 1.0) * _BAR_CELLS)
        return self.glyph("bar") * full + self.glyph("rest") * (_BAR_CELLS - full)

    def spark(self, values: Sequence[float]) -> str:
        """Numbers as a row of little bars, the largest one full."""
        steps = self.glyph("spark")
        top = max(values, default=0.0) or 1.0
        return "".join(steps[round(max(value, 0.0) / top * (len(steps) - 1))] for value in values)

    def cut(self, text: str, width: int) -> str:
        """At most so many characters, with a sign where something was cut off; control characters become spaces."""
        text = "".join(char if char.isprintable() else " " for char in text)
        return text if len(text) <= width else text[: max(width - 1, 0)] + self.glyph("cut")[0]

    def _erased(self) -> str:
        return "\r\x1b[K" if self.tty and self._live else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _carries(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
