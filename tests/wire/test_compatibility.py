"""What is promised is tested, what is tested is promised, and the page that says so is up to date."""

from __future__ import annotations

import re

import pytest

from matins.api.app import OPERATIONS
from tests.wire.compatibility.document import PLACE, document
from tests.wire.compatibility.marks import Proof, covered
from tests.wire.compatibility.rows import Row, named, rows


@pytest.fixture(scope="module")
def promised() -> dict[tuple[str, str], Row]:
    return rows()


@pytest.fixture(scope="module")
def tested(promised: dict[tuple[str, str], Row]) -> dict[tuple[str, str], list[Proof]]:
    return covered(promised)


def test_every_promise_has_a_test(
    promised: dict[tuple[str, str], Row], tested: dict[tuple[str, str], list[Proof]]
) -> None:
    """A new field or route fails here: mark the test that shows it with @covers, or say that it is not there yet."""
    assert [place for place, row in promised.items() if not row.not_yet and place not in tested] == []


def test_every_mark_names_a_promise(
    promised: dict[tuple[str, str], Row], tested: dict[tuple[str, str], list[Proof]]
) -> None:
    assert {place: tests for place, tests in tested.items() if place not in promised} == {}


def test_what_is_not_there_yet_has_no_test(
    promised: dict[tuple[str, str], Row], tested: dict[tuple[str, str], list[Proof]]
) -> None:
    """One that has come is told of in its *.toml file, without `not_yet`."""
    assert [place for place, row in promised.items() if row.not_yet and place in tested] == []


def test_an_operation_is_mounted_or_not_there_yet(promised: dict[tuple[str, str], Row]) -> None:
    statuses = {named(each): {str(each.status), *map(str, each.other_statuses)} for each in OPERATIONS}
    for (subject, aspect), row in promised.items():
        if re.match("(GET|POST|PUT|PATCH|DELETE) /", subject):
            assert row.not_yet or subject in statuses, f"{subject} is not mounted"
            assert not (row.not_yet and aspect in statuses.get(subject, ())), f"{subject} has come"


def test_the_page_says_what_the_tests_say() -> None:
    assert PLACE.read_text("utf-8") == document(), "run `make docs`"
