"""Answers as people read them: tables, times, durations. Plain text, also on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))
LONGEST: Final = 72
"""Longer texts are cut, where they are one of several things in a line."""


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give rows below the names of their columns."""
    lines = [tuple(name.upper() for name in names), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def facts(of: Sequence[tuple[str, str]]) -> str:
    """Give what is to be said of one thing, a line each, what is empty left out."""
    width = max(len(name) for name, _ in of)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in of if text)


def when(text: str | None) -> str:
    """Give a time of the API in the time zone of this machine, with its offset."""
    return datetime.fromisoformat(text).astimezone().isoformat(" ", "seconds") if text else "-"


def how_long(seconds: float | None) -> str:
    """Give a duration in its largest unit: `850 ms`, `1.2 s`, `3 m`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    return f"{seconds / size:.0f} {unit}"


def between(start: str | None, end: str | None) -> str:
    """Give how long it was from one time of the API to another."""
    if not start or not end:
        return "-"
    return how_long((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def line(text: object, *, longest: int = LONGEST) -> str:
    """Give a text on one line, without what would move the cursor, cut."""
    said = " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())
    return said if len(said) <= longest else said[: longest - 1] + "…"


def counted(number: int, noun: str) -> str:
    """Give a number of things: `1 slot`, `2 slots`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
