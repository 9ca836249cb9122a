from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from matins.domain.ids import system_assistant_id
from tests.wire.compatibility import covers
from tests.wire.sdks import KINDS, Refused, Sdk

SAID = {"messages": [{"role": "user", "content": "What time is it?"}]}
DAILY = "27 15 * * *"


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


def get(sdk: Sdk, cron_id: str) -> dict[str, Any]:
    """No SDK has a method to get a cron; each can search."""
    [cron] = [cron for cron in sdk("crons.search", limit=1000) if cron["cron_id"] == cron_id]
    found: dict[str, Any] = cron
    return found


def ahead(**duration: float) -> datetime:
    return datetime.now(UTC) + timedelta(**duration)  # noqa: TID251 - the clock of a client


@covers("POST /threads/{thread_id}/runs/crons", "200")
@covers("Cron", "the keys", "user_id", "payload", "*")
@covers("CronCreate", "assistant_id", "schedule")
@covers("OfRuns", "input", "metadata")
def test_a_cron_on_a_thread_is_answered_as_a_cron(sdk: Sdk, thread: str) -> None:
    cron = sdk("crons.create_for_thread", thread, "echo", schedule=DAILY, input=SAID, metadata={"m": "thr"})
    assert list(cron) == [
        *("cron_id", "assistant_id", "thread_id", "user_id", "end_time", "schedule", "timezone"),
        *(
            "payload",
            "next_run_date",
            "metadata",
            "on_run_completed",
            "enabled",
            "created_at",
            "updated_at",
            "policy",
        ),
    ]
    assistant_id = str(system_assistant_id("echo"))
    assert (cron["assistant_id"], cron["thread_id"]) == (assistant_id, thread)
    assert (cron["schedule"], cron["timezone"], cron["end_time"]) == (DAILY, None, None)
    assert (cron["user_id"], cron["on_run_completed"], cron["enabled"]) == ("", None, True)
    assert cron["metadata"] == {"m": "thr"}
    assert cron["next_run_date"].endswith("T15:27:00+00:00")
    assert datetime.fromisoformat(cron["next_run_date"]) > datetime.fromisoformat(cron["created_at"])
    payload = cron["payload"]
    assert (payload["assistant_id"], payload["input"]) == (assistant_id, SAID)
    assert payload["config"]["configurable"]["cron_id"] == cron["cron_id"]
    sdk("crons.delete", cron["cron_id"])


@covers("POST /runs/crons", "200")
@covers("OfRuns", "on_run_completed")
@covers("DELETE /runs/crons/{cron_id}", "204")
def test_a_cron_without_a_thread_deletes_what_it_made_or_keeps_it(sdk: Sdk) -> None:
    for asked in ("delete", "keep"):
        cron = sdk("crons.create", "echo", schedule=DAILY, input=SAID, on_run_completed=asked)
        assert (cron["thread_id"], cron["on_run_completed"]) == (None, asked)
        sdk("crons.delete", cron["cron_id"])


@covers("GET /runs/crons/{cron_id}", "200", "404")
@covers("DELETE /runs/crons/{cron_id}", "404")
@covers("PATCH /runs/crons/{cron_id}", "404")
@covers("Cron", "payload")
def test_a_cron_is_got_by_its_id(http: httpx.Client) -> None:
    made = http.post("/runs/crons", json={"assistant_id": "echo", "schedule": DAILY, "mine": 1}).json()
    assert made["payload"]["mine"] == 1
    place = f"/runs/crons/{made['cron_id']}"
    assert http.get(place).json() == made
    assert http.delete(place).status_code == 204
    for response in (http.get(place), http.delete(place), http.patch(place, json={"enabled": True})):
        assert response.status_code == 404


@covers("POST /runs/crons/search", "200")
@covers("POST /runs/crons/count", "200")
@covers("CronSearch", "limit", "offset", "sort_by", "sort_order", "select")
@covers("CronCount", "assistant_id", "thread_id", "enabled")
def test_crons_are_searched_counted_sorted_and_paged(sdk: Sdk, thread: str) -> None:
    assistant = sdk("assistants.create", graph_id="echo")["assistant_id"]
    made = [
        sdk("crons.create_for_thread", thread, assistant, schedule=f"0 {hour} * * *")["cron_id"]
        for hour in (9, 7, 8)
    ]
    other = sdk("crons.create", assistant, schedule=DAILY, enabled=False)["cron_id"]

    def ids(**options: object) -> list[str]:
        return [cron["cron_id"] for cron in sdk("crons.search", **options)]

    assert ids(thread_id=thread) == made[::-1]
    assert ids(assistant_id=assistant) == [other, *made[::-1]]
    assert ids(assistant_id=assistant, enabled=False) == [other]
    assert ids(thread_id=thread, sort_by="created_at", sort_order="asc", limit=2, offset=1) == made[1:]
    by_date = sdk(
        "crons.search",
        thread_id=thread,
        sort_by="next_run_date",
        sort_order="asc",
        select=["schedule", "next_run_date"],
    )
    dates = [cron["next_run_date"] for cron in by_date]
    assert dates == sorted(dates)
    assert all(set(cron) == {"schedule", "next_run_date"} for cron in by_date)
    assert sdk("crons.count", thread_id=thread) == 3
    assert sdk("crons.count", assistant_id=assistant) == 4
    for cron in (*made, other):
        sdk("crons.delete", cron)
    assert sdk("crons.count", assistant_id=assistant) == 0


@covers("POST /runs/crons/search", "X-Pagination-Total:", "X-Pagination-Next:")
@covers("CronCount", "metadata")
def test_crons_are_found_by_metadata_with_a_true_total(http: httpx.Client) -> None:
    tag = str(uuid4())
    for _ in range(3):
        http.post(
            "/runs/crons", json={"assistant_id": "echo", "schedule": DAILY, "metadata": {"tag": tag}}
        ).raise_for_status()
    page = http.post("/runs/crons/search", json={"metadata": {"tag": tag}, "limit": 2})
    assert len(page.json()) == 2
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
    assert http.post("/runs/crons/count", json={"metadata": {"tag": tag}}).json() == 3
    for cron in http.post("/runs/crons/search", json={"metadata": {"tag": tag}}).json():
        http.delete(f"/runs/crons/{cron['cron_id']}").raise_for_status()


@covers("PATCH /runs/crons/{cron_id}", "200")
@covers("CronPatch", "schedule", "end_time")
@covers("OfRuns", "metadata", "input", "enabled")
def test_a_cron_is_changed(sdk: Sdk, thread: str) -> None:
    cron = sdk("crons.create_for_thread", thread, "echo", schedule=DAILY, input=SAID, metadata={"a": 1})
    cron_id = cron["cron_id"]
    changed = sdk("crons.update", cron_id, schedule="0 0 1 1 *", metadata={"b": 2}, input={"messages": []})
    assert changed["schedule"] == "0 0 1 1 *"
    assert changed["next_run_date"].endswith("-01-01T00:00:00+00:00")
    assert changed["metadata"] == {"a": 1, "b": 2}
    assert changed["payload"]["input"] == {"messages": []}
    assert changed["payload"]["config"]["configurable"]["cron_id"] == cron_id
    assert sdk("crons.update", cron_id, enabled=False)["enabled"] is False
    again = sdk("crons.update", cron_id, enabled=True)
    assert again["enabled"] is True
    assert again["next_run_date"] == changed["next_run_date"]
    end = ahead(days=900)
    assert datetime.fromisoformat(sdk("crons.update", cron_id, end_time=end)["end_time"]) == end
    sdk("crons.delete", cron_id)


@covers("CronCreate", "end_time")
@covers("CronPatch", "end_time")
def test_an_end_is_kept_and_taken_away(http: httpx.Client) -> None:
    body = {"assistant_id": "echo", "schedule": DAILY}
    for end in ("2999-01-01T00:00:00Z", "2999-01-01T09:00:00+09:00", "2999-01-01T00:00:00"):
        cron = http.post("/runs/crons", json={**body, "end_time": end}).json()
        assert datetime.fromisoformat(cron["end_time"]) == datetime(2999, 1, 1, tzinfo=UTC)
        assert (
            http.patch(f"/runs/crons/{cron['cron_id']}", json={"end_time": None}).json()["end_time"] is None
        )
        http.delete(f"/runs/crons/{cron['cron_id']}")


@pytest.mark.parametrize("sdk", [kind for kind in KINDS if kind != "js-2.0"], indirect=True)
def test_an_end_before_the_first_slot_leaves_nothing_to_fire(sdk: Sdk, thread: str) -> None:
    cron = sdk("crons.create_for_thread", thread, "echo", schedule="@every 2h", end_time=ahead(hours=1))
    assert cron["next_run_date"] is None
    sdk("crons.delete", cron["cron_id"])


@covers("POST /threads/{thread_id}/runs/crons", "422")
@covers("POST /runs/crons", "422")
@covers("Defects", "an end of a cron is not checked", "a cron without an assistant or a schedule is a 500")
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"assistant_id": "echo"}, 422, "schedule"),
        ({"schedule": DAILY}, 422, "assistant_id"),
        ({}, 422, "required"),
        ({"assistant_id": "nope", "schedule": DAILY}, 422, "nope"),
        ({"assistant_id": "5b2b5b2b-0000-4000-8000-000000000000", "schedule": DAILY}, 404, "not found"),
        ({"assistant_id": "echo", "schedule": "bogus"}, 422, "Invalid cron schedule: 'bogus'"),
        ({"assistant_id": "echo", "schedule": ""}, 422, "Invalid cron schedule"),
        ({"assistant_id": "echo", "schedule": "* * * *"}, 422, "Invalid cron schedule"),
        ({"assistant_id": "echo", "schedule": "61 * * * *"}, 422, "Invalid cron schedule"),
        ({"assistant_id": "echo", "schedule": "*/30 * * * * *"}, 422, "second"),
        ({"assistant_id": "echo", "schedule": "0 0 31 2 *"}, 422, "0 0 31 2 *"),
        ({"assistant_id": "echo", "schedule": DAILY, "timezone": "Bogus/Zone"}, 422, "Invalid timezone"),
        ({"assistant_id": "echo", "schedule": DAILY, "timezone": ""}, 422, "timezone"),
        ({"assistant_id": "echo", "schedule": DAILY, "timezone": "../UTC"}, 422, "Invalid timezone"),
        ({"assistant_id": "echo", "schedule": DAILY, "timezone": "+05:30"}, 422, "Invalid timezone"),
        ({"assistant_id": "echo", "schedule": DAILY, "end_time": "bogus"}, 422, "Invalid end_time"),
        ({"assistant_id": "echo", "schedule": DAILY, "end_time": "2020-01-01T00:00:00Z"}, 422, "passed"),
        ({"assistant_id": "echo", "schedule": DAILY, "end_time": 5}, 422, "end_time"),
        ({"assistant_id": "echo", "schedule": 5}, 422, "schedule"),
        ({"assistant_id": "echo", "schedule": DAILY, "multitask_strategy": "zzz"}, 422, "multitask_strategy"),
        ({"assistant_id": "echo", "schedule": DAILY, "enabled": "yes"}, 422, "enabled"),
        (
            {"assistant_id": "echo", "schedule": DAILY, "config": {"recursion_limit": 0}},
            422,
            "recursion_limit",
        ),
        ({"assistant_id": "echo", "schedule": DAILY, "stream_mode": ["zzz"]}, 422, "stream_mode"),
        ({"assistant_id": "echo", "schedule": DAILY, "config": {"configurable": 5}}, 422, "configurable"),
    ],
    ids=lambda value: str(value).replace("'assistant_id': 'echo', ", ""),
)
def test_a_cron_that_cannot_be_is_refused_and_the_trouble_named(
    http: httpx.Client, rows: Callable[[], dict[str, int]], body: dict[str, object], status: int, said: str
) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    before = rows()
    for path in (f"/threads/{thread_id}/runs/crons", "/runs/crons"):
        response = http.post(path, json=body)
        assert (response.status_code, list(response.json())) == (status, ["detail", "code"])
        assert said in response.json()["detail"]
    assert rows() == before


@covers("PATCH /runs/crons/{cron_id}", "400", "422")
def test_a_change_that_cannot_be_is_refused_and_changes_nothing(http: httpx.Client) -> None:
    cron = http.post("/runs/crons", json={"assistant_id": "echo", "schedule": DAILY}).json()
    place = f"/runs/crons/{cron['cron_id']}"
    for body, status in (
        ({}, 400),
        ({"schedule": "bogus"}, 422),
        ({"schedule": ""}, 422),
        ({"schedule": "0 0 31 2 *"}, 422),
        ({"timezone": "Bogus/Zone"}, 422),
        ({"timezone": ""}, 422),
        ({"end_time": "2020-01-01"}, 422),
        ({"enabled": "no"}, 422),
        ({"on_run_completed": "zzz"}, 422),
    ):
        response = http.patch(place, json=body)
        assert (body, response.status_code) == (body, status)
    assert http.get(place).json() == cron
    http.delete(place)


def test_the_curl_call_without_a_schedule_is_told_so(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    response = http.post(f"/threads/{thread_id}/runs/crons", json={"assistant_id": "echo"})
    assert response.status_code == 422
    assert "schedule" in response.json()["detail"]


@covers("POST /threads/{thread_id}/runs/crons", "404")
def test_a_cron_on_a_thread_that_is_not_there_is_not_found(sdk: Sdk) -> None:
    with pytest.raises(Refused, match="not found") as refused:
        sdk("crons.create_for_thread", str(uuid4()), "echo", schedule=DAILY)
    assert refused.value.status == 404


@covers("DELETE /threads/{thread_id}", "runs, state and crons")
def test_crons_go_with_their_thread(sdk: Sdk, thread: str) -> None:
    cron_id = sdk("crons.create_for_thread", thread, "echo", schedule=DAILY)["cron_id"]
    sdk("threads.delete", thread)
    with pytest.raises(Refused) as refused:
        sdk("crons.update", cron_id, enabled=False)
    assert refused.value.status == 404


@covers("Cron", "paused_reason")
@covers("DELETE /assistants/{assistant_id}", "its crons")
@covers("Defects", "crons vanish with their assistant")
def test_crons_stay_paused_with_a_reason_when_their_assistant_is_deleted(sdk: Sdk, thread: str) -> None:
    assistant = sdk("assistants.create", graph_id="echo")["assistant_id"]
    cron_id = sdk("crons.create_for_thread", thread, assistant, schedule="@every 1s", input=SAID)["cron_id"]
    sdk("assistants.delete", assistant)
    cron = get(sdk, cron_id)
    assert cron["enabled"] is False
    assert assistant in cron["paused_reason"]
    sdk("crons.delete", cron_id)
