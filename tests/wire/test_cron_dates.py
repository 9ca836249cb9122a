"""Crons that fire once, later than their date, or not too often; and what is filled in of the past."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.sdks import Sdk

Rows: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SAID: dict[str, Any] = {"messages": [{"role": "user", "content": "What time is it?"}]}
DONE = "done: it was to fire once"


@pytest.fixture
def made(http: httpx.Client) -> Iterator[list[str]]:
    """The crons that a test has made; they go with it."""
    crons: list[str] = []
    yield crons
    for cron_id in crons:
        http.delete(f"/runs/crons/{cron_id}")


def ask(http: httpx.Client, **asked: Any) -> httpx.Response:
    return http.post("/runs/crons", json={"assistant_id": "echo", "input": SAID, **asked})


def create(http: httpx.Client, made: list[str], **asked: Any) -> dict[str, Any]:
    cron: dict[str, Any] = ask(http, **asked).raise_for_status().json()
    made.append(cron["cron_id"])
    return cron


def get(http: httpx.Client, cron_id: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/runs/crons/{cron_id}").raise_for_status().json()
    return found


def fires(http: httpx.Client, cron_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        http.get(f"/runs/crons/{cron_id}/fires?limit=1000").raise_for_status().json()
    )
    return found


@covers("CronCreate", "@at")
def test_every_client_can_have_something_done_once(sdk: Sdk, http: httpx.Client, stored: Rows) -> None:
    row = stored.execute("SELECT date_trunc('second', matins.now()) + interval '3 s'").fetchone()
    assert row is not None
    at: datetime = row[0]
    cron = sdk("crons.create", "echo", schedule=f"@at {at.isoformat()}", input=SAID)
    assert datetime.fromisoformat(cron["next_run_date"]) == at
    assert cron["cron_id"] in {each["cron_id"] for each in sdk("crons.search", limit=1000)}
    until(lambda: not get(http, cron["cron_id"])["enabled"])
    done = get(http, cron["cron_id"])
    assert (done["next_run_date"], done["paused_reason"]) == (None, DONE)
    [fire] = fires(http, cron["cron_id"])
    assert (fire["outcome"], fire["scheduled_for"]) == ("fired", cron["next_run_date"])
    sdk("crons.delete", cron["cron_id"])


@covers("CronCreate", "after_seconds")
@covers("POST /runs/crons/{cron_id}/resume", "422")
def test_something_is_done_after_some_seconds_and_only_once(http: httpx.Client, made: list[str]) -> None:
    cron = create(http, made, after_seconds=0.5)
    due = datetime.fromisoformat(cron["next_run_date"])
    assert cron["schedule"] == f"@at {due:%Y-%m-%dT%H:%M:%SZ}"
    assert (
        timedelta(seconds=0.5) <= due - datetime.fromisoformat(cron["created_at"]) <= timedelta(seconds=1.5)
    )
    until(lambda: not get(http, cron["cron_id"])["enabled"])
    response = http.post(f"/runs/crons/{cron['cron_id']}/resume")
    assert (response.status_code, "is done" in response.json()["detail"]) == (422, True)
    assert http.post(f"/runs/crons/{cron['cron_id']}/trigger").status_code == 202, "by hand it may run again"
    again = {"schedule": "@at 2099-01-01T00:00", "enabled": True}
    changed = http.patch(f"/runs/crons/{cron['cron_id']}", json=again).json()
    assert (changed["enabled"], changed["next_run_date"]) == (True, "2099-01-01T00:00:00+00:00")
    assert "paused_reason" not in changed
    assert http.delete(f"/runs/crons/{cron['cron_id']}").status_code == 204


@covers("CronCreate", "timezone")
def test_the_place_of_a_moment_is_taken_from_where_it_stands(http: httpx.Client, made: list[str]) -> None:
    for asked, timezone, instant in (
        ({"schedule": "@at 2098-07-01T09:00[Europe/Paris]"}, "Europe/Paris", "2098-07-01T07:00:00+00:00"),
        (
            {"schedule": "@at 2098-07-01T09:00", "timezone": "Europe/Paris"},
            "Europe/Paris",
            "2098-07-01T07:00:00+00:00",
        ),
        ({"schedule": "@at 2098-07-01T09:00"}, None, "2098-07-01T09:00:00+00:00"),
        ({"schedule": "@at 2098-07-01T09:00+03:00"}, None, "2098-07-01T06:00:00+00:00"),
    ):
        cron = create(http, made, **asked)
        assert (cron["timezone"], cron["next_run_date"]) == (timezone, instant)
    [moved] = [
        http.patch(f"/runs/crons/{made[0]}", json={"schedule": "@at 2098-07-01T09:00[Asia/Tokyo]"}).json()
    ]
    assert (moved["timezone"], moved["next_run_date"]) == ("Asia/Tokyo", "2098-07-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({}, '"schedule" is a required property'),
        ({"schedule": "@daily", "after_seconds": 5}, "Name either `schedule` or `after_seconds`"),
        ({"after_seconds": 0}, "after_seconds"),
        ({"after_seconds": 1e12}, "after_seconds"),
        ({"after_seconds": "5"}, "after_seconds"),
        ({"schedule": "@at 2020-01-01T09:00Z"}, "Its time has gone by"),
        ({"schedule": "@at 2098-07-01T09:00[Europe/Paris]", "timezone": "UTC"}, "It names Europe/Paris, and"),
        ({"schedule": "@at 2098-07-01T09:00[Nowhere]"}, "Invalid timezone: 'Nowhere'"),
        ({"schedule": "@at soon"}, "write a date and a time"),
    ],
)
def test_a_moment_that_cannot_be_is_refused(http: httpx.Client, asked: dict[str, Any], detail: str) -> None:
    response = ask(http, **asked)
    assert (response.status_code, detail in response.json()["detail"]) == (422, True), response.text


def test_the_one_date_of_a_moment_is_previewed(http: httpx.Client, made: list[str]) -> None:
    asked: dict[str, Any] = {"schedule": "@at 2098-03-30T02:30[Europe/Berlin]"}
    shown = http.post("/runs/crons/preview", json=asked).json()
    assert shown == {
        "schedule": "@at 2098-03-30T02:30[Europe/Berlin]",
        "timezone": "Europe/Berlin",
        "description": "Once, at 2098-03-30 02:30",
        "dates": [
            {
                "at": "2098-03-30T01:00:00+00:00",
                "local": "2098-03-30T03:00:00+02:00",
                "note": "The clock goes forward at this instant, from 02:00 to 03:00.",
            }
        ],
    }
    cron = create(http, made, **asked)
    assert (
        http.post("/runs/crons/preview", json={"cron_id": cron["cron_id"]}).json()["dates"] == shown["dates"]
    )
    gone = {"schedule": "@at 2020-01-01T09:00Z"}
    assert http.post("/runs/crons/preview", json=gone).json()["dates"] == []


@covers("Policy", "jitter_seconds")
@covers("Cron", "next_fire_at")
def test_jitter_is_shown_beside_the_date(http: httpx.Client, made: list[str]) -> None:
    cron = create(http, made, schedule="0 0 1 1 *", policy={"jitter_seconds": 3600})
    plain = create(http, made, schedule="0 0 1 1 *")
    assert cron["next_run_date"] == plain["next_run_date"]
    late = datetime.fromisoformat(cron["next_fire_at"]) - datetime.fromisoformat(cron["next_run_date"])
    assert timedelta() < late < timedelta(hours=1)
    assert "next_fire_at" not in plain
    assert get(http, cron["cron_id"])["next_fire_at"] == cron["next_fire_at"]
    changed = http.patch(f"/runs/crons/{cron['cron_id']}", json={"policy": {"jitter_seconds": None}}).json()
    assert (changed["next_run_date"], "next_fire_at" in changed) == (cron["next_run_date"], False)


@covers("Policy", "min_interval_seconds")
def test_a_slot_too_soon_after_the_last_is_skipped(http: httpx.Client, made: list[str]) -> None:
    cron = create(http, made, schedule="@every 1s", policy={"min_interval_seconds": 600})
    until(lambda: len(fires(http, cron["cron_id"])) >= 3)
    *later, first = fires(http, cron["cron_id"])
    assert first["outcome"] == "fired"
    assert {(fire["outcome"], fire["reason"]) for fire in later} == {
        ("skipped", "less than 600 s after its last")
    }


def backfill(http: httpx.Client, cron_id: str, since: str, until_: str, **asked: Any) -> httpx.Response:
    return http.post(f"/runs/crons/{cron_id}/backfill", json={"since": since, "until": until_, **asked})


@covers("POST /runs/crons/{cron_id}/backfill", "200", "202")
@covers("CronBackfill", "since", "until", "dry_run")
@covers("Backfilled", "dry_run", "count", "slots", "estimated_tokens", "estimated_usd")
@covers("PastSlot", "scheduled_for", "outcome", "fires", "reason")
def test_slots_of_the_past_are_shown_then_run_and_never_again(http: httpx.Client, made: list[str]) -> None:
    cron_id = create(http, made, schedule="0 * * * *", on_run_completed="keep")["cron_id"]
    day = "2026-03-01T00:00:00Z", "2026-03-01T03:00:00Z"
    slots = [f"2026-03-01T0{hour}:00:00+00:00" for hour in range(3)]
    response = backfill(http, cron_id, *day, dry_run=True)
    assert (response.status_code, response.json()) == (
        200,
        {
            "dry_run": True,
            "count": 3,
            "slots": [
                {"scheduled_for": slot, "outcome": None, "fires": True, "reason": None} for slot in slots
            ],
            "estimated_tokens": None,
            "estimated_usd": None,
        },
    )
    assert fires(http, cron_id) == []
    response = backfill(http, cron_id, *day)
    assert (response.status_code, response.json()) == (202, {**response.json(), "dry_run": False, "count": 3})
    until(lambda: [fire["status"] for fire in fires(http, cron_id)] == ["success"] * 3)
    ran = fires(http, cron_id)
    assert [fire["scheduled_for"] for fire in ran] == slots[::-1]
    assert {fire["trigger"] for fire in ran} == {"backfill"}
    began = [fire["started_at"] for fire in ran]
    assert began == sorted(began, reverse=True), "the oldest first, one after the other"
    assert http.get(f"/runs/crons/{cron_id}/fires?trigger=backfill&limit=2").json() == ran[:2]
    again = backfill(http, cron_id, *day).json()
    assert (again["count"], again["slots"][0]) == (
        0,
        {"scheduled_for": slots[0], "outcome": "fired", "fires": False, "reason": "it has had its run"},
    )
    assert len(fires(http, cron_id)) == 3


@covers("POST /runs/crons/{cron_id}/backfill", "404", "409", "422")
def test_what_cannot_be_filled_in_is_refused(http: httpx.Client, made: list[str]) -> None:
    cron_id = create(http, made, schedule="* * * * *")["cron_id"]
    for since, until_, detail in (
        ("2026-03-01", "2099-01-01", "slots to come"),
        ("2026-03-02", "2026-03-01", "before `until`"),
        ("2025-03-01", "2026-03-01", "ask for less at a time"),
        ("soon", "2026-03-01", "since must be an ISO 8601 time"),
        ("2026-03-01", "later", "until must be an ISO 8601 time"),
    ):
        response = backfill(http, cron_id, since, until_)
        assert (response.status_code, detail in response.json()["detail"]) == (422, True), response.text
    http.post(f"/runs/crons/{cron_id}/pause").raise_for_status()
    response = backfill(http, cron_id, "2026-03-01", "2026-03-01T01:00", dry_run=True)
    assert (response.status_code, "resume it first" in response.json()["detail"]) == (409, True)
    assert fires(http, cron_id) == []
    assert backfill(http, str(uuid4()), "2026-03-01", "2026-03-02").status_code == 404
