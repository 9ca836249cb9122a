from __future__ import annotations

import pytest

from matins.cli.words import between, counted, how_long, line, table


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0123, "12 ms"),
        (1.24, "1.2 s"),
        (59.94, "59.9 s"),
        (60, "1 m"),
        (185, "3 m"),
        (7200, "2 h"),
        (3 * 86400, "3 d"),
    ],
)
def test_a_duration_is_said_in_its_largest_unit(seconds: float | None, words: str) -> None:
    assert how_long(seconds) == words


def test_what_has_not_ended_took_no_time_yet() -> None:
    assert between("2030-01-31T09:00:00+00:00", None) == "-"
    assert between("2030-01-31T09:00:00+00:00", "2030-01-31T09:00:01.200Z") == "1.2 s"


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    assert table(("id", "said"), [("1", ""), ("200", "x")]).splitlines() == ["ID   SAID", "1", "200  x"]


def test_a_text_stays_on_its_line_and_moves_no_cursor() -> None:
    assert line("a\x1b[31m\n  b\t\x00c") == "a [31m b c"
    assert line("x" * 100, longest=5) == "xxxx…"


def test_things_are_counted_in_english() -> None:
    assert (counted(1, "slot"), counted(0, "slot")) == ("1 slot", "0 slots")
