from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from matins.domain.budgets import Ceilings, Room, Spent, room
from matins.domain.crons import Cron
from matins.domain.ids import AssistantId, CronId, RunId, ThreadId
from matins.domain.policies import Policy
from matins.domain.runs import NewRun
from matins.engine.limits import reached, within
from matins.storage.firing import NewFire

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def cron() -> Cron:
    facts: dict[str, Any] = dict.fromkeys(Cron.__dataclass_fields__)
    return Cron(**{**facts, "cron_id": CronId(uuid4())})


def fires(of: Cron, number: int) -> list[NewFire]:
    run = NewRun(
        run_id=RunId(uuid4()),
        thread_id=ThreadId(uuid4()),
        assistant_id=AssistantId(uuid4()),
        metadata=b"{}",
        kwargs=b"{}",
    )
    return [NewFire(of, NOON + timedelta(seconds=second), "fired", run=run) for second in range(number)]


def test_what_goes_beyond_is_skipped_and_pauses_its_cron() -> None:
    of = cron()
    rooms = {of.cron_id: Room(2, "used up")}
    rows, refused = within(fires(of, 3), rooms)
    assert [(row.outcome, row.reason) for row in rows] == [
        ("fired", None), ("fired", None), ("skipped", "used up"),
    ]  # fmt: skip
    assert reached(rows, rooms, refused) == [(of, "used up")]


def test_the_last_of_all_pauses_its_cron_and_one_that_may_have_more_later_does_not() -> None:
    of = cron()
    for is_final in (True, False):
        rooms = {of.cron_id: Room(1, "the last", is_final=is_final)}
        rows, refused = within(fires(of, 1), rooms)
        assert rows[0].run is not None
        assert reached(rows, rooms, refused) == ([(of, "the last")] if is_final else [])


def test_what_waits_or_is_skipped_afterwards_has_used_nothing() -> None:
    of = cron()
    rooms = {of.cron_id: Room(1, "the last", is_final=True)}
    waiting = [NewFire(of, NOON, "waiting", reason="to be caught up")] * 3
    rows, refused = within(waiting, rooms)
    assert (rows, reached(rows, rooms, refused)) == (waiting, [])
    rows, refused = within(fires(of, 2), rooms)
    skipped = [replace(row, outcome="skipped", run=None) for row in rows]
    assert reached(skipped, rooms, refused) == []


def test_the_least_room_counts() -> None:
    assert room(Policy(), Ceilings(), Spent(runs_of_day=1500)).is_ceiling
    assert room(Policy(max_runs=3), Ceilings(), Spent(runs=1)) == Room(
        2, "max_runs: 3 of 3 were made", is_final=True
    )
    asked = Policy(max_runs=3, condition="./gates.py:should_run")
    assert not room(asked, Ceilings(), Spent(runs=1)).is_final
    assert room(Policy(budget_tokens=5, max_runs=9), Ceilings(), Spent(tokens=5)).runs == 0
