"""Draws the picture in docs/lifecycle.md from the lifecycle table: `python -m tests.core.redraw_lifecycle`."""

from __future__ import annotations

from pathlib import Path

from bridge.core.lifecycle import diagram

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"
BEGIN = "<!-- begin: drawn by python -m tests.core.redraw_lifecycle -->\n"
END = "<!-- end -->\n"


def redrawn(page: str) -> str:
    """The page with the picture of today's table. Raises ValueError where the page has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page has no place for the picture")
    return f"{before}{BEGIN}\n```mermaid\n{diagram()}```\n\n{END}{behind}"


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
