from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from matins.domain.crons import Cron
from matins.domain.ids import AssistantId, CronId, RunId, ThreadId
from matins.domain.runs import NewRun, RunStatus, StopReason
from matins.engine.overlaps import QUEUED, Displacing, UnderWay, without_overlaps
from matins.storage.fires import InFlight
from matins.storage.firing import NewFire

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
THREAD = ThreadId(uuid4())


def cron(thread_id: ThreadId | None = THREAD) -> Cron:
    facts: dict[str, Any] = dict.fromkeys(Cron.__dataclass_fields__)
    return Cron(**{**facts, "cron_id": CronId(uuid4()), "thread_id": thread_id})


def fire(of: Cron, second: int = 0, strategy: str = "enqueue") -> NewFire:
    run = NewRun(
        run_id=RunId(uuid4()),
        thread_id=of.thread_id or ThreadId(uuid4()),
        assistant_id=AssistantId(uuid4()),
        metadata=b"{}",
        kwargs=b"{}",
        multitask_strategy=strategy,
    )
    return NewFire(of, NOON + timedelta(seconds=second), "fired", run=run)


def in_flight(status: RunStatus, thread_id: ThreadId = THREAD) -> InFlight:
    return InFlight(RunId(uuid4()), thread_id, status)


PENDING, RUNNING = RunStatus.PENDING, RunStatus.RUNNING
PREVIOUS, BUSY = "its previous run was still under way", "its thread was busy"
NEXT = "its next slot was due already"
WAITING = "another of its runs was waiting already"


@pytest.mark.parametrize(
    ("overlap", "own", "is_busy", "reason"),
    [
        ("skip", [], False, None),
        ("skip", [], True, BUSY),
        ("skip", [RUNNING], True, PREVIOUS),
        ("skip", [PENDING], True, PREVIOUS),
        ("queue_one", [], False, None),
        ("queue_one", [], True, None),
        ("queue_one", [RUNNING], True, None),
        ("queue_one", [PENDING], True, WAITING),
        ("queue_one", [RUNNING, PENDING], True, WAITING),
        ("cancel_previous", [RUNNING, PENDING], True, None),
        ("cancel_previous", [], True, None),
        ("allow", [RUNNING, PENDING], False, None),
    ],
)
def test_a_slot_that_overlaps_does_as_the_policy_says(
    overlap: Any, own: list[RunStatus], is_busy: bool, reason: str | None
) -> None:
    of = cron()
    runs = [in_flight(status) for status in own]
    row = fire(of)
    busy = frozenset([THREAD]) if is_busy else frozenset()
    [written], displaced = without_overlaps([row], {of.cron_id: overlap}, UnderWay({of.cron_id: runs}, busy))
    if reason is None:
        assert written == row
    else:
        assert written == replace(row, outcome="skipped", reason=reason, run=None)
    stopped = [Displacing(each.run_id, THREAD, StopReason.INTERRUPT) for each in runs]
    assert displaced == (stopped if overlap == "cancel_previous" else [])


def test_what_is_rolled_back_is_undone() -> None:
    of, run = cron(), in_flight(RUNNING)
    row = fire(of, strategy="rollback")
    _, displaced = without_overlaps(
        [row], {of.cron_id: "cancel_previous"}, UnderWay({of.cron_id: [run]}, frozenset())
    )
    assert displaced == [Displacing(run.run_id, THREAD, StopReason.ROLLBACK)]


@pytest.mark.parametrize(
    ("overlap", "reasons"),
    [
        ("skip", [None, PREVIOUS, PREVIOUS]),
        ("queue_one", [None, QUEUED, WAITING]),
        ("cancel_previous", [NEXT, NEXT, None]),
        ("allow", [None, None, None]),
    ],
)
def test_slots_of_one_moment_overlap_each_other(overlap: Any, reasons: list[str | None]) -> None:
    of = cron(None)
    rows = [fire(of, second) for second in range(3)]
    written, displaced = without_overlaps(rows, {of.cron_id: overlap}, UnderWay({}, frozenset()))
    assert [row.reason for row in written] == reasons
    assert [row.run is None for row in written] == [reason is not None for reason in reasons]
    assert displaced == []


def test_a_slot_waits_in_the_ledger_where_each_run_has_a_thread_of_its_own() -> None:
    of, run = cron(None), in_flight(RUNNING)
    for waiting, outcome in ((frozenset(), "waiting"), (frozenset([of.cron_id]), "skipped")):
        under_way = UnderWay({of.cron_id: [run]}, frozenset(), waiting)
        [written], _ = without_overlaps([fire(of)], {of.cron_id: "queue_one"}, under_way)
        assert (written.outcome, written.run) == (outcome, None)


def test_crons_of_one_thread_make_it_busy_for_each_other() -> None:
    one, other = cron(), cron()
    overlaps: dict[CronId, Any] = {one.cron_id: "skip", other.cron_id: "skip"}
    written, _ = without_overlaps([fire(one), fire(other)], overlaps, UnderWay({}, frozenset()))
    assert [row.reason for row in written] == [None, BUSY]


def test_what_does_not_fire_overlaps_nothing() -> None:
    of = cron()
    missed = NewFire(of, NOON, "missed", reason="late")
    assert without_overlaps([missed], {of.cron_id: "skip"}, UnderWay({}, frozenset([THREAD]))) == (
        [missed],
        [],
    )
