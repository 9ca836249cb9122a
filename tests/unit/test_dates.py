from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from matins.domain import backfills, dates
from matins.domain.assistants import Assistant
from matins.domain.crons import LATE, Cron, Following, Slot, plan
from matins.domain.errors import Invalid
from matins.domain.fires import Outcome
from matins.domain.ids import AssistantId, CronId
from matins.domain.policies import Policy
from matins.engine.firing import decide, prepare

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
ASSISTANT = Assistant(
    assistant_id=AssistantId(uuid4()), graph_id="g", version=1, name="g", description=None, config=b"{}",
    context=b"{}", metadata=b"{}", created_at=NOON, updated_at=NOON,
)  # fmt: skip


def cron(schedule: str = "0 * * * *", **facts: Any) -> Cron:
    made = Cron(
        cron_id=CronId(uuid4()), assistant_id=ASSISTANT.assistant_id, thread_id=None, owner="", creator=None,
        schedule=schedule, timezone=None, end_time=None, enabled=True, paused_reason=None, next_run_date=NOON,
        revision=1, payload=b"{}", metadata=b"{}", on_run_completed=None, created_at=NOON, updated_at=NOON,
        due_at=NOON,
    )  # fmt: skip
    return replace(made, **facts)


@pytest.mark.parametrize(
    ("schedule", "jitter_s", "most"),
    [
        ("0 * * * *", 600, 10 * MINUTE),
        ("0 * * * *", 86400, HOUR),
        ("@every 1s", 30, SECOND),
        ("@at 2026-03-01T12:00Z", 86400, DAY),
    ],
)
def test_jitter_spreads_crons_over_its_length_and_never_past_the_next_slot(
    schedule: str, jitter_s: float, most: timedelta
) -> None:
    policy = Policy(jitter_seconds=jitter_s)
    delays = sorted(dates.due(cron(schedule), policy, NOON) - NOON for _ in range(1000))
    assert timedelta() <= delays[0] < most / 20
    assert most * 19 / 20 < delays[-1] < most
    assert abs(delays[500] - most / 2) < most / 10


def test_jitter_is_a_crons_own_and_stays() -> None:
    made = cron(cron_id=CronId(UUID("018f0000-0000-7000-8000-000000000001")))
    policy = Policy(jitter_seconds=600)
    delay = dates.due(made, policy, NOON) - NOON
    assert [dates.due(made, policy, NOON + n * HOUR) for n in range(3)] == [
        NOON + n * HOUR + delay for n in range(3)
    ]
    assert dates.due(replace(made, revision=7), policy, NOON) == NOON + delay
    assert delay == timedelta(seconds=579.121328), "as it was in the release before"
    assert dates.due(made, Policy(), NOON) == NOON


def test_a_slot_is_late_by_what_has_gone_by_since_it_was_due() -> None:
    due_after = 10 * MINUTE

    def planned(now: datetime) -> list[Slot]:
        return plan(
            NOON, now=now, end_time=None, after=lambda slot: slot + HOUR, limit=10, policy=Policy(misfire="skip"),
            due=lambda slot: slot + due_after,
        ).slots  # fmt: skip

    assert planned(NOON + due_after - timedelta.resolution) == []
    assert planned(NOON + due_after) == [Slot(NOON, fires=True)]
    assert planned(NOON + due_after + LATE) == [Slot(NOON, fires=True)]
    assert planned(NOON + due_after + LATE + timedelta.resolution) == [Slot(NOON, fires=False)]
    assert planned(NOON + HOUR + MINUTE) == [Slot(NOON, fires=False)], "the next one is not due yet"


def test_what_fires_once_is_done_then() -> None:
    once = cron("@at 2026-03-01T12:00Z")
    for late in (SECOND, HOUR, 30 * DAY):
        decided = decide([prepare(once, ASSISTANT)], NOON + late)
        assert decided.following == {once.cron_id: Following(None, None, is_done=True)}
        assert [row.outcome for row in decided.rows] == [
            {SECOND: "fired", HOUR: "waiting"}.get(late, "missed")
        ]
    ended = cron(end_time=NOON + MINUTE)
    assert decide([prepare(ended, ASSISTANT)], NOON).following == {ended.cron_id: Following(None, None)}


def test_what_cannot_be_fired_once_is_given_up_and_not_done() -> None:
    once = cron("@at 2026-03-01T12:00Z")
    decided = decide([prepare(once, "its assistant is gone")], NOON)
    assert (decided.following, decided.given_up) == ({}, [(once, "its assistant is gone")])


@pytest.mark.parametrize(
    ("last_s", "outcomes"),
    [
        (None, ["fired", "skipped", "fired", "skipped"]),
        (0, ["fired", "skipped", "fired", "skipped"]),
        (-1, ["skipped", "fired", "skipped", "fired"]),
    ],
    ids=["never fired", "long enough ago", "just before"],
)
def test_a_slot_too_soon_after_the_one_that_fired_last_is_skipped(
    last_s: int | None, outcomes: list[str]
) -> None:
    made = cron("@every 5s", policy=b'{"min_interval_seconds": 8}')
    last = None if last_s is None else NOON - 8 * SECOND - last_s * SECOND
    prepared = replace(prepare(made, ASSISTANT), last_fired=last)
    rows = decide([prepared], NOON + 15 * SECOND).rows
    assert [row.outcome for row in rows] == outcomes
    assert {row.reason for row in rows if row.outcome == "skipped"} == {"less than 8 s after its last"}
    assert all((row.run is None) == (row.outcome == "skipped") for row in rows)


def test_what_waits_to_be_caught_up_counts_as_fired() -> None:
    made = cron(policy=b'{"min_interval_seconds": 7200, "misfire": "run_all"}')
    rows = decide([prepare(made, ASSISTANT)], NOON + 3 * HOUR + MINUTE).rows
    assert [row.outcome for row in rows] == ["waiting", "skipped", "waiting", "skipped"]


def asked(of: Cron, since: datetime, until: datetime, now: datetime = NOON + DAY) -> list[datetime]:
    return backfills.slots(of, since, until, now=now)


def test_the_past_of_a_schedule_begins_with_since_and_ends_before_until() -> None:
    assert asked(cron(), NOON, NOON + 3 * HOUR) == [NOON, NOON + HOUR, NOON + 2 * HOUR]
    assert asked(cron(), NOON + SECOND, NOON + HOUR) == []
    assert asked(cron(end_time=NOON + HOUR), NOON, NOON + 3 * HOUR) == [NOON, NOON + HOUR]
    assert asked(cron("@at 2026-03-01T12:00Z"), NOON, NOON + DAY) == [NOON]
    assert (
        asked(cron("0 0 1 1 *"), datetime(1, 1, 1, tzinfo=UTC), datetime(1975, 1, 1, tzinfo=UTC))[0].year
        == 1970
    )


def test_the_past_of_an_interval_is_counted_back_from_its_next_slot() -> None:
    made = cron("@every 1h", next_run_date=NOON + 90 * MINUTE)
    half = NOON + 30 * MINUTE
    assert asked(made, NOON, half + HOUR) == [half, half + HOUR], (
        "the last one's window reaches into what is asked"
    )
    assert asked(made, half, half + timedelta.resolution) == [half]
    assert asked(replace(made, next_run_date=None), NOON - 3 * HOUR, NOON - HOUR)[0] == NOON - 3 * HOUR
    assert backfills.window_of(made) == HOUR
    assert backfills.window_of(cron()) == timedelta.resolution


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [
        (NOON, NOON + DAY + SECOND, "slots to come"),
        (NOON, NOON, "before `until`"),
        (NOON - 42 * DAY, NOON, "more than 1,000"),
        (NOON - 90 * DAY, NOON - 89 * DAY, "kept for 90 days"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(since: datetime, until: datetime, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        asked(cron(created_at=NOON - 100 * DAY), since, until)


def test_slots_from_before_a_young_cron_was_made_may_be_filled_in() -> None:
    assert len(asked(cron(), NOON - 365 * DAY, NOON - 364 * DAY)) == 24
    assert len(asked(cron(), NOON - 1000 * HOUR, NOON)) == backfills.MOST


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_only_what_was_never_served_runs(outcome: Outcome | None) -> None:
    past = backfills.decided(cron(), NOON - HOUR, outcome)
    assert past.fires == (outcome is not Outcome.FIRED)
    assert bool(past.reason) != past.fires


def test_a_slot_that_is_due_just_now_is_left_to_its_cron() -> None:
    assert not backfills.decided(cron(), NOON, None).fires
    assert backfills.decided(cron(next_run_date=None), NOON, None).fires
