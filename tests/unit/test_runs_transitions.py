from __future__ import annotations

import itertools

import pytest

from matins.domain.runs import NEXT, Change, RunStatus, sources, target

LIFE = """
pending claimed running
pending cancelled interrupted
running released pending
running succeeded success
running failed error
running timed_out timeout
running stopped interrupted
"""


def test_the_life_of_a_run_is_this_and_nothing_else() -> None:
    told = {(status.value, change.value): after.value for (status, change), after in NEXT.items()}
    assert told == {(a, b): c for a, b, c in (line.split() for line in LIFE.strip().splitlines())}


@pytest.mark.parametrize("change", Change)
def test_each_change_comes_from_its_sources_and_leads_to_one_status(change: Change) -> None:
    assert {status for status, happening in NEXT if happening is change} == set(sources(change))
    assert {NEXT[status, change] for status in sources(change)} == {target(change)}


@pytest.mark.parametrize(
    ("status", "change"),
    [pair for pair in itertools.product(RunStatus, Change) if pair not in NEXT],
    ids=lambda part: part.value,
)
def test_what_is_not_in_the_table_cannot_happen(status: RunStatus, change: Change) -> None:
    assert status not in sources(change)


@pytest.mark.parametrize("status", RunStatus)
def test_a_run_has_ended_when_nothing_more_can_happen_to_it(status: RunStatus) -> None:
    assert status.is_terminal is not any(before is status for before, _ in NEXT)
