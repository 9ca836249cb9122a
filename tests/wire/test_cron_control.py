"""Crons in people's hands: run one now, pause and resume, look ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers

SAID = {"messages": [{"role": "user", "content": "What time is it?"}]}
YEARLY = "0 0 1 1 *"


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


@pytest.fixture
def cron(http: httpx.Client, thread: str) -> Iterator[dict[str, Any]]:
    made = create(http, thread)
    yield made
    http.delete(f"/runs/crons/{made['cron_id']}")


def create(http: httpx.Client, thread_id: str, **asked: Any) -> dict[str, Any]:
    body = {"assistant_id": "echo", "schedule": YEARLY, "input": SAID, **asked}
    made: dict[str, Any] = http.post(f"/threads/{thread_id}/runs/crons", json=body).raise_for_status().json()
    return made


def fires(http: httpx.Client, cron_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        http.get(f"/runs/crons/{cron_id}/fires?limit=1000").raise_for_status().json()
    )
    return found


def fire_of(http: httpx.Client, thread_id: str) -> str:
    """Let a cron of every second fire on that thread; give its id."""
    cron_id: str = create(http, thread_id, schedule="@every 1s")["cron_id"]
    until(lambda: fires(http, cron_id))
    return cron_id


@covers("POST /runs/crons/{cron_id}/trigger", "202", "a paused cron", "next_run_date")
@pytest.mark.parametrize("paused", [False, True], ids=["on", "paused"])
def test_a_cron_runs_now_paused_or_not_and_its_next_date_stays(
    http: httpx.Client, thread: str, cron: dict[str, Any], paused: bool
) -> None:
    if paused:
        cron = http.post(f"/runs/crons/{cron['cron_id']}/pause").json()
    response = http.post(f"/runs/crons/{cron['cron_id']}/trigger")
    assert response.status_code == 202, response.text
    fire = response.json()
    assert (fire["outcome"], fire["trigger"], fire["thread_id"]) == ("fired", "manual", thread)
    http.get(f"/threads/{thread}/runs/{fire['run_id']}/join").raise_for_status()
    [kept] = fires(http, cron["cron_id"])
    assert (kept["run_id"], kept["status"], kept["output"]) == (fire["run_id"], "success", "What time is it?")
    run = http.get(f"/threads/{thread}/runs/{fire['run_id']}").json()
    assert (run["metadata"]["cron_id"], run["metadata"]["scheduled_for"]) == (
        cron["cron_id"],
        fire["scheduled_for"],
    )
    after = http.get(f"/runs/crons/{cron['cron_id']}").json()
    assert {key: after[key] for key in cron} == cron


def test_a_cron_without_a_thread_runs_now_on_one_of_its_own(http: httpx.Client) -> None:
    body = {"assistant_id": "echo", "schedule": YEARLY, "input": SAID, "on_run_completed": "keep"}
    cron_id = http.post("/runs/crons", json=body).json()["cron_id"]
    fire = http.post(f"/runs/crons/{cron_id}/trigger").json()
    values = http.get(f"/threads/{fire['thread_id']}/runs/{fire['run_id']}/join").json()
    assert values["messages"][0]["content"] == "What time is it?"
    http.delete(f"/runs/crons/{cron_id}").raise_for_status()


@covers("POST /runs/crons/{cron_id}/trigger", "404", "409")
def test_what_cannot_run_now_is_refused_and_leaves_nothing(http: httpx.Client, thread: str) -> None:
    assert http.post(f"/runs/crons/{uuid4()}/trigger").status_code == 404
    careful = create(http, thread, multitask_strategy="reject")["cron_id"]
    waiting = {"assistant_id": "echo", "input": SAID, "after_seconds": 600}
    run_id = http.post(f"/threads/{thread}/runs", json=waiting).json()["run_id"]
    assert http.post(f"/runs/crons/{careful}/trigger").status_code == 409
    http.delete(f"/threads/{thread}/runs/{run_id}").raise_for_status()
    assert http.post(f"/runs/crons/{careful}/trigger").status_code == 202
    assistant_id = http.post("/assistants", json={"graph_id": "echo"}).json()["assistant_id"]
    orphan = create(http, thread, assistant_id=assistant_id)["cron_id"]
    http.delete(f"/assistants/{assistant_id}").raise_for_status()
    response = http.post(f"/runs/crons/{orphan}/trigger")
    assert (response.status_code, assistant_id in response.json()["detail"]) == (409, True)
    assert fires(http, orphan) == []
    assert len(fires(http, careful)) == 1


@covers("POST /runs/crons/{cron_id}/pause", "200", "404", "422")
@covers("POST /runs/crons/{cron_id}/resume", "200", "404")
@covers("CronPause", "reason")
def test_a_pause_says_why_and_a_resumed_cron_goes_on_from_now(http: httpx.Client, thread: str) -> None:
    cron_id = fire_of(http, thread)
    shown = http.post(f"/runs/crons/{cron_id}/pause", json={"reason": "on holiday"}).json()
    assert (shown["enabled"], shown["paused_reason"]) == (False, "on holiday")
    stopped_after = fires(http, cron_id)
    other = http.post("/threads", json={}).json()["thread_id"]
    http.delete(f"/runs/crons/{fire_of(http, other)}")  # meanwhile
    assert fires(http, cron_id)[0]["scheduled_for"] == stopped_after[0]["scheduled_for"]
    resumed = http.post(f"/runs/crons/{cron_id}/resume").json()
    assert resumed["enabled"]
    assert "paused_reason" not in resumed
    until(lambda: len(fires(http, cron_id)) > len(stopped_after))
    http.delete(f"/runs/crons/{cron_id}").raise_for_status()
    first = fires(http, cron_id)[-len(stopped_after) - 1]
    assert first["scheduled_for"] == resumed["next_run_date"], "the slots in between never were"
    assert http.post(f"/runs/crons/{cron_id}/pause").status_code == 404
    assert http.post(f"/runs/crons/{cron_id}/resume").status_code == 404
    for bad in ({"reason": ""}, {"reason": 5}):
        assert http.post(f"/runs/crons/{cron_id}/pause", json=bad).status_code == 422


@covers("GET /runs/crons/pause", "200")
@covers("POST /runs/crons/pause", "200")
@covers("POST /runs/crons/resume", "200")
@covers("CronHold", "paused", "reason", "since")
def test_all_crons_are_paused_at_once_and_each_ones_own_state_is_kept(
    http: httpx.Client, thread: str, cron: dict[str, Any]
) -> None:
    http.post(f"/runs/crons/{cron['cron_id']}/pause", json={"reason": "its own"}).raise_for_status()
    going = fire_of(http, thread)
    assert http.get("/runs/crons/pause").json() == {"paused": False, "reason": None, "since": None}
    held = http.post("/runs/crons/pause", json={"reason": "the bill"}).json()
    try:
        assert (held["paused"], held["reason"]) == (True, "the bill")
        assert http.get("/runs/crons/pause").json() == held
        skipped = until(lambda: [fire for fire in fires(http, going) if fire["outcome"] == "skipped"])
        assert {fire["reason"] for fire in skipped} == {"all crons are paused: the bill"}
        assert {fire["run_id"] for fire in skipped} == {None}
        assert http.get(f"/runs/crons/{going}").json()["enabled"]
        assert http.post(f"/runs/crons/{going}/trigger").status_code == 202, "what a person wants now"
    finally:
        assert http.post("/runs/crons/resume").json()["paused"] is False
    newest = skipped[0]["scheduled_for"]
    until(
        lambda: (
            next(f for f in fires(http, going) if f["trigger"] == "schedule" and f["run_id"])["scheduled_for"]
            > newest
        )
    )
    http.delete(f"/runs/crons/{going}").raise_for_status()
    assert http.get(f"/runs/crons/{cron['cron_id']}").json()["paused_reason"] == "its own"


def preview(http: httpx.Client, **asked: Any) -> Any:
    return http.post("/runs/crons/preview", json=asked).raise_for_status().json()


@covers("POST /runs/crons/preview", "200")
@covers("CronPreview", "schedule", "timezone", "after", "count")
@covers("Dates", "schedule", "timezone", "description", "dates")
@covers("Date", "at", "local", "note")
def test_dates_to_come_are_shown_in_local_time_with_what_the_clock_does(http: httpx.Client) -> None:
    shown = preview(
        http, schedule="30 2 * * *", timezone="Europe/Berlin", after="2026-03-28T00:00:00Z", count=3
    )
    assert shown == {
        "schedule": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "description": "At 02:30",
        "dates": [
            {"at": "2026-03-28T01:30:00+00:00", "local": "2026-03-28T02:30:00+01:00", "note": None},
            {
                "at": "2026-03-29T01:00:00+00:00",
                "local": "2026-03-29T03:00:00+02:00",
                "note": "The clock goes forward at this instant, from 02:00 to 03:00.",
            },
            {"at": "2026-03-30T00:30:00+00:00", "local": "2026-03-30T02:30:00+02:00", "note": None},
        ],
    }
    twice = preview(
        http, schedule="*/30 * * * *", timezone="America/New_York", after="2026-11-01T00:59:00-04:00", count=5
    )
    assert [date["note"] for date in twice["dates"]] == [
        "This local time comes twice; this is the first time.",
        "This local time comes twice; this is the first time.",
        "The clock goes back at this instant, from 02:00 to 01:00.",
        "This local time comes twice; this is the second time.",
        None,
    ]
    [before, after] = preview(
        http, schedule="0 12 * * 0", timezone="America/New_York", after="2026-10-20", count=2
    )["dates"]
    assert before["note"] is None
    assert after["note"] == "The clock has gone back since the date before: the UTC offset is -05:00 now."
    assert len(preview(http, schedule="@daily")["dates"]) == 10
    assert preview(http, schedule="@every 90s", count=1)["description"] == "Every 90s"


@covers("CronPreview", "cron_id")
def test_the_dates_of_a_cron_begin_with_its_own_next_one(http: httpx.Client, thread: str) -> None:
    cron = create(http, thread, schedule="@every 1h")
    shown = preview(http, cron_id=cron["cron_id"], count=3)
    assert shown["dates"][0]["at"] == cron["next_run_date"]
    assert len(shown["dates"]) == 3
    ends = {"end_time": shown["dates"][1]["at"]}
    http.patch(f"/runs/crons/{cron['cron_id']}", json=ends).raise_for_status()
    assert preview(http, cron_id=cron["cron_id"], count=3)["dates"] == shown["dates"][:2]
    http.delete(f"/runs/crons/{cron['cron_id']}").raise_for_status()


@covers("POST /runs/crons/preview", "404", "422")
@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({}, "Name either `schedule` or `cron_id`"),
        ({"schedule": "* * * * *", "cron_id": str(uuid4())}, "Name either"),
        ({"schedule": "nonsense"}, "Invalid cron schedule: 'nonsense'"),
        ({"schedule": "* * * * *", "timezone": "Nowhere"}, "Invalid timezone: 'Nowhere'"),
        ({"schedule": "* * * * *", "after": "soon"}, "after must be an ISO 8601 time"),
        ({"schedule": "* * * * *", "count": 1001}, "count"),
    ],
    ids=["nothing", "both", "no schedule", "no zone", "no time", "too many"],
)
def test_what_cannot_be_previewed_is_refused(http: httpx.Client, asked: dict[str, Any], detail: str) -> None:
    response = http.post("/runs/crons/preview", json=asked)
    assert response.status_code == 422
    assert detail in response.json()["detail"]
    assert http.post("/runs/crons/preview", json={"cron_id": str(uuid4())}).status_code == 404


@covers("POST /runs/crons/sync", "200", "422")
def test_a_project_that_declares_nothing_has_nothing_to_sync(http: httpx.Client) -> None:
    nothing = {"dry_run": False, "changes": []}
    assert http.post("/runs/crons/sync").json() == http.post("/runs/crons/sync", json={}).json() == nothing
    assert http.post("/runs/crons/sync", json={"dry_run": True}).json() == {**nothing, "dry_run": True}
    assert http.post("/runs/crons/sync", json={"dry_run": "yes"}).status_code == 422
