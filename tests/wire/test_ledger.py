"""The ledger: did it fire, what did it do, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers

SAID = {"messages": [{"role": "user", "content": "What time is it?"}]}


def create(http: httpx.Client, thread_id: str | None = None, graph: str = "echo", **asked: Any) -> str:
    path = f"/threads/{thread_id}/runs/crons" if thread_id else "/runs/crons"
    body = {"assistant_id": graph, "schedule": "@every 1s", "input": SAID, **asked}
    cron_id: str = http.post(path, json=body).raise_for_status().json()["cron_id"]
    return cron_id


def fires(http: httpx.Client, cron_id: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        http.get(f"/runs/crons/{cron_id}/fires", params=query).raise_for_status().json()
    )
    return found


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


@pytest.fixture
def fired(http: httpx.Client, thread: str) -> Iterator[str]:
    """A cron on a thread that has fired twice, with success, and is off."""
    cron_id = create(http, thread)
    until(lambda: len(fires(http, cron_id, status="success")) >= 2)
    http.patch(f"/runs/crons/{cron_id}", json={"enabled": False}).raise_for_status()
    until(lambda: not fires(http, cron_id, status="pending") + fires(http, cron_id, status="running"))
    yield cron_id
    http.delete(f"/runs/crons/{cron_id}")


LAST = ("scheduled_for", "outcome", "reason", "trigger", "run_id", "status")
FIELDS = (
    "cron_id", "scheduled_for", "outcome", "reason", "trigger", "recorded_at", "lateness_ms", "run_id", "thread_id",
    "assistant_id", "status", "started_at", "ended_at", "error", "output",
    "retries", "model_calls", "input_tokens", "output_tokens", "tokens", "cost_usd",
)  # fmt: skip


@covers("GET /runs/crons/{cron_id}/fires", "200")
@covers("Fire", *FIELDS[:15])
def test_each_slot_is_on_record_with_what_its_run_did(http: httpx.Client, thread: str, fired: str) -> None:
    newest, older, *_ = found = fires(http, fired)
    slots = [datetime.fromisoformat(each["scheduled_for"]) for each in found]
    assert slots == sorted(slots, reverse=True)
    assert {slot.utcoffset() for slot in slots} == {timedelta()}
    assert tuple(newest) == FIELDS
    run = http.get(f"/threads/{thread}/runs/{newest['run_id']}").json()
    assert (newest["cron_id"], newest["thread_id"], newest["assistant_id"]) == (
        fired,
        thread,
        run["assistant_id"],
    )
    assert run["metadata"]["scheduled_for"] == newest["scheduled_for"]
    assert (newest["outcome"], newest["reason"], newest["trigger"]) == ("fired", None, "schedule")
    assert (newest["status"], newest["error"], newest["output"]) == ("success", None, "What time is it?")
    recorded, started, ended = (
        datetime.fromisoformat(newest[key]) for key in ("recorded_at", "started_at", "ended_at")
    )
    assert slots[0] <= recorded <= started <= ended
    assert newest["lateness_ms"] == round((recorded - slots[0]) / timedelta(milliseconds=1))
    assert older["run_id"] != newest["run_id"]


@covers("GET /runs/crons/{cron_id}/fires", "outlives")
@pytest.mark.parametrize("what", ["run", "thread", "cron"])
def test_it_outlives_run_thread_and_cron(http: httpx.Client, thread: str, fired: str, what: str) -> None:
    before = fires(http, fired)
    gone = {
        "run": f"/threads/{thread}/runs/{before[0]['run_id']}",
        "thread": f"/threads/{thread}",
        "cron": f"/runs/crons/{fired}",
    }
    http.delete(gone[what]).raise_for_status()
    assert fires(http, fired) == before


@covers("GET /runs/crons/{cron_id}/fires", "404", "422")
def test_a_cron_that_has_not_fired_has_an_empty_one_and_one_that_never_was_has_none(
    http: httpx.Client,
) -> None:
    cron_id = create(http, schedule="0 0 1 1 *")
    response = http.get(f"/runs/crons/{cron_id}/fires")
    assert (response.json(), response.headers["x-pagination-total"]) == ([], "0")
    assert "last_fire" not in http.get(f"/runs/crons/{cron_id}").json()
    http.delete(f"/runs/crons/{cron_id}").raise_for_status()
    for unknown in (cron_id, uuid4()):
        assert http.get(f"/runs/crons/{unknown}/fires").status_code == 404
    for bad in ({"outcome": "x"}, {"status": "x"}, {"trigger": "x"}, {"since": "x"}, {"limit": 0}):
        response = http.get(f"/runs/crons/{cron_id}/fires", params=bad)
        assert response.status_code == 422
        assert next(iter(bad)) in response.json()["detail"]


@covers(
    "GET /runs/crons/{cron_id}/fires",
    "?outcome",
    "?status",
    "?trigger",
    "?since",
    "?until",
    "?limit",
    "?offset",
)
def test_it_is_filtered_and_paged(http: httpx.Client, fired: str) -> None:
    whole = fires(http, fired, limit=1000)
    assert fires(http, fired, outcome="fired", status="success", trigger="schedule", limit=1000) == whole
    for none in ({"outcome": "missed"}, {"status": "error"}, {"trigger": "catch_up"}):
        assert fires(http, fired, **none) == []
    response = http.get(f"/runs/crons/{fired}/fires", params={"limit": 1})
    assert (response.json(), response.headers["x-pagination-next"]) == (whole[:1], "1")
    assert response.headers["x-pagination-total"] == str(len(whole))
    assert fires(http, fired, limit=1, offset=1) == whole[1:2]
    at = whole[0]["scheduled_for"]
    assert fires(http, fired, since=at) == whole[:1]
    assert fires(http, fired, until=at, limit=1000) == whole[1:]
    assert http.get(f"/runs/crons/{fired}/fires?since={at}").json() == whole[:1], "a '+' that was not escaped"
    naive = datetime.fromisoformat(at).astimezone(UTC).replace(tzinfo=None).isoformat()
    assert fires(http, fired, since=naive) == whole[:1]


@covers("GET /runs/crons/{cron_id}/fires", "a run that fails")
def test_a_run_that_fails_is_no_success(http: httpx.Client, thread: str) -> None:
    cron_id = create(http, thread, "failing")
    until(lambda: fires(http, cron_id, status="error"))
    shown = until(
        lambda: (cron := http.get(f"/runs/crons/{cron_id}").json()) and cron["streak"] <= -2 and cron
    )
    http.delete(f"/runs/crons/{cron_id}").raise_for_status()
    assert (shown["last_success"], shown["p50_duration_ms"]) == (None, None)
    newest = fires(http, cron_id, status="error")[0]
    assert set(newest["error"]) == {"error", "message"}
    assert (newest["outcome"], newest["output"]) == ("fired", None)


@covers("GET /runs/crons/{cron_id}/fires", "a run that is deleted")
@pytest.mark.parametrize("what", ["run", "thread"])
def test_a_run_that_is_deleted_in_flight_is_on_record_as_that(
    http: httpx.Client, thread: str, what: str
) -> None:
    http.post(f"/threads/{thread}/runs", json={"assistant_id": "echo", "input": SAID, "after_seconds": 600})
    cron_id = create(http, thread)
    [fire, *_] = until(lambda: fires(http, cron_id, status="pending"))
    http.patch(f"/runs/crons/{cron_id}", json={"enabled": False}).raise_for_status()
    runs = f"/threads/{thread}/runs/{fire['run_id']}" if what == "run" else f"/threads/{thread}"
    http.delete(runs).raise_for_status()
    [after] = fires(http, cron_id, since=fire["scheduled_for"], limit=1000)[-1:]
    assert (after["run_id"], after["status"], after["started_at"]) == (fire["run_id"], "deleted", None)
    assert after["ended_at"] is not None


@covers("LastFire", *LAST)
@covers("Cron", "last_fire", "last_success", "streak", "p50_duration_ms")
def test_a_cron_shows_what_it_comes_to(http: httpx.Client, fired: str) -> None:
    whole = fires(http, fired, limit=1000)
    shown = http.get(f"/runs/crons/{fired}").json()
    assert shown["last_fire"] == {key: whole[0][key] for key in LAST}
    assert (shown["last_success"], shown["streak"]) == (whole[0]["scheduled_for"], len(whole))
    durations = sorted(
        datetime.fromisoformat(each["ended_at"]) - datetime.fromisoformat(each["started_at"])
        for each in whole
    )
    assert durations[0] <= timedelta(milliseconds=shown["p50_duration_ms"] + 1)
    assert timedelta(milliseconds=shown["p50_duration_ms"] - 1) <= durations[-1]
    [found] = http.post("/runs/crons/search", json={"thread_id": shown["thread_id"]}).json()
    assert found == shown


@covers("POST /runs/search", "200")
@covers("RunSearch", "metadata", "status", "thread_id", "assistant_id", "limit", "offset", "select")
def test_runs_are_found_across_threads_by_the_cron_that_made_them(
    http: httpx.Client, thread: str, fired: str
) -> None:
    def search(**asked: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = http.post("/runs/search", json=asked).raise_for_status().json()
        return found

    mine = {"metadata": {"cron_id": fired}}
    whole = search(**mine, limit=1000)
    assert [run["run_id"] for run in whole] == [each["run_id"] for each in fires(http, fired, limit=1000)]
    run = whole[0]
    assert http.get(f"/threads/{thread}/runs/{run['run_id']}").json() == run
    assert (
        search(**mine, status="success", thread_id=thread, assistant_id=run["assistant_id"], limit=1000)
        == whole
    )
    assert search(**mine, limit=1, offset=1) == whole[1:2]
    assert search(**mine, limit=1, select=["run_id", "status"]) == [
        {"run_id": run["run_id"], "status": "success"}
    ]
    for none in ({"status": "error"}, {"thread_id": str(uuid4())}, {"assistant_id": str(uuid4())}):
        assert search(**{**mine, **none}) == []
    response = http.post("/runs/search", json={**mine, "limit": 1})
    assert response.headers["x-pagination-total"] == str(len(whole))
