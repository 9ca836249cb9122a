"""What a cron does when things are not as planned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_sync_client

from tests.support.waiting import until
from tests.wire.compatibility import covers

SAID: dict[str, Any] = {"messages": [{"role": "user", "content": "What time is it?"}]}
LEAST: dict[str, Any] = {"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": SAID}
DEFAULT = {
    "misfire": "run_once",
    "grace_seconds": 86400.0,
    "jitter_seconds": 0.0,
    "min_interval_seconds": 0.0,
    "condition": None,
    "on_condition_error": "run",
    "max_runs": None,
    "max_run_seconds": None,
    "budget_tokens": None,
    "budget_usd": None,
    "budget_window": "day",
    "on_budget": "finish",
    "retry": None,
    "pause_after_failures": None,
    "on_interrupt": "wait",
    "context_policy": None,
    "last_n": None,
}
BUSY = "its thread was busy"
WAITING = "another of its runs was waiting already"


@pytest.fixture
def thread(http: httpx.Client) -> str:
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    return thread_id


@pytest.fixture
def made(http: httpx.Client) -> Iterator[list[str]]:
    """The crons that a test has made; they go with it."""
    crons: list[str] = []
    yield crons
    for cron_id in crons:
        http.delete(f"/runs/crons/{cron_id}")


def create(http: httpx.Client, thread_id: str | None = None, query: str = "", **asked: Any) -> httpx.Response:
    path = f"/threads/{thread_id}/runs/crons" if thread_id else "/runs/crons"
    return http.post(path + query, json={**LEAST, **asked})


def fires(http: httpx.Client, cron_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        http.get(f"/runs/crons/{cron_id}/fires?limit=1000").raise_for_status().json()
    )
    return found


@covers("Cron", "policy")
@covers("OfRuns", "policy")
@covers("Policy", "misfire", "grace_seconds", "overlap")
@pytest.mark.parametrize("place", ["body", "query", "query, field by field", "metadata", "all of them"])
def test_it_is_taken_wherever_a_client_can_put_it(http: httpx.Client, made: list[str], place: str) -> None:
    policy = {"misfire": "run_all", "grace_seconds": 60, "overlap": "skip"}
    places: dict[str, dict[str, Any]] = {
        "body": {"policy": policy},
        "query": {"query": f"?policy={json.dumps(policy)}"},
        "query, field by field": {"query": "?misfire=run_all&grace_seconds=60&overlap=skip"},
        "metadata": {"metadata": {"policy": policy, "mine": 1}},
    }
    places["all of them"] = {**places["body"], **places["query"], **places["metadata"]}
    response = create(http, **places[place])
    assert response.status_code == 200, response.text
    made.append(response.json()["cron_id"])
    shown = http.get(f"/runs/crons/{made[0]}").json()
    assert shown["policy"] == response.json()["policy"] == {**DEFAULT, **policy}
    assert shown["metadata"] == ({"mine": 1} if "metadata" in places[place] else {})
    assert "policy" not in shown["payload"]


def test_the_python_sdk_can_send_it(http: httpx.Client, made: list[str]) -> None:
    with get_sync_client(url=str(http.base_url)) as client:
        cron: Any = client.crons.create("echo", schedule="0 0 1 1 *", input=SAID, params={"misfire": "skip"})
        made.append(cron["cron_id"])
        assert cron["policy"] == {**DEFAULT, "misfire": "skip", "overlap": "allow"}
        changed: Any = client.crons.update(cron["cron_id"], enabled=False, params={"overlap": "skip"})
    assert changed["policy"] == {**DEFAULT, "misfire": "skip", "overlap": "skip"}


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        (
            {"policy": {"misfire": "skip"}, "metadata": {"policy": {"misfire": "run_all"}}},
            "policy.misfire: the body",
        ),
        (
            {"policy": {"misfire": "skip"}, "query": "?misfire=run_once"},
            "policy.misfire: the body and the query differ",
        ),
        ({"policy": {"misfires": "skip"}}, "misfires"),
        ({"policy": {"misfire": "sometimes"}}, "$.misfire"),
        ({"policy": {"grace_seconds": -1}}, "$.grace_seconds"),
        ({"policy": []}, "policy must be an object"),
        ({"policy": None}, "policy must be an object"),
        ({"metadata": {"policy": "skip"}}, "metadata.policy must be an object"),
        ({"query": "?policy={"}, "policy in the query must be a JSON object"),
        ({"query": "?grace_seconds=soon"}, "policy.grace_seconds"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_and_names_the_field(
    http: httpx.Client, asked: dict[str, Any], detail: str
) -> None:
    response = create(http, **asked)
    assert response.status_code == 422, response.text
    assert detail in response.json()["detail"]


def test_a_change_changes_the_fields_that_it_names_and_null_takes_one_back(
    http: httpx.Client, made: list[str]
) -> None:
    cron_id = create(http, policy={"misfire": "skip", "grace_seconds": 60}).json()["cron_id"]
    made.append(cron_id)
    path = f"/runs/crons/{cron_id}"
    changed = http.patch(path, json={"policy": {"grace_seconds": None, "overlap": "cancel_previous"}}).json()
    assert changed["policy"] == {**DEFAULT, "misfire": "skip", "overlap": "cancel_previous"}
    assert http.patch(path, json={"metadata": {"a": 1}}).json()["policy"] == changed["policy"]
    assert http.patch(path, json={"policy": {"overlap": "never"}}).status_code == 422
    assert http.get(path).json()["policy"] == changed["policy"]
    assert http.patch(f"{path}?misfire=run_all").status_code in (200, 422)


@covers("CronCreate", "multitask_strategy and overlap")
def test_on_a_thread_multitask_strategy_is_an_overlap_and_may_not_contradict_it(
    http: httpx.Client, thread: str, made: list[str]
) -> None:
    pairs = {
        "reject": "skip",
        "enqueue": "queue_one",
        "interrupt": "cancel_previous",
        "rollback": "cancel_previous",
    }
    for strategy, overlap in pairs.items():
        both: dict[str, Any] = {"policy": {"overlap": overlap}}
        for asked in ({}, both):
            response = create(http, thread, multitask_strategy=strategy, **asked)
            assert response.status_code == 200, response.text
            made.append(response.json()["cron_id"])
            assert response.json()["policy"]["overlap"] == overlap
        for other in {"skip", "queue_one", "cancel_previous", "allow"} - {overlap}:
            response = create(http, thread, multitask_strategy=strategy, policy={"overlap": other})
            assert response.status_code == 422
            assert "policy.overlap" in response.json()["detail"]
    assert create(http, thread, policy={"overlap": "allow"}).status_code == 422
    response = create(http, thread)
    made.append(response.json()["cron_id"])
    assert response.json()["policy"]["overlap"] == "queue_one"


@pytest.fixture
def held(http: httpx.Client, thread: str) -> Iterator[str]:
    """A thread on which a person's run waits for its time, and with it all that comes after."""
    waiting = {"assistant_id": "echo", "input": SAID, "after_seconds": 600}
    run_id = http.post(f"/threads/{thread}/runs", json=waiting).json()["run_id"]
    yield thread
    assert http.get(f"/threads/{thread}/runs/{run_id}").json()["status"] == "pending", (
        "a person's run was touched"
    )
    http.delete(f"/threads/{thread}/runs/{run_id}").raise_for_status()


def test_skip_starts_nothing_while_the_thread_is_busy(http: httpx.Client, held: str, made: list[str]) -> None:
    made.append(create(http, held, schedule="@every 1s", policy={"overlap": "skip"}).json()["cron_id"])
    found = until(lambda: len(fires(http, made[0])) >= 2 and fires(http, made[0]))
    assert {(fire["outcome"], fire["reason"]) for fire in found} == {("skipped", BUSY)}


def test_the_queue_of_a_cron_is_never_longer_than_one(http: httpx.Client, held: str, made: list[str]) -> None:
    made.append(create(http, held, schedule="@every 1s").json()["cron_id"])
    *later, first = until(lambda: len(fires(http, made[0])) >= 3 and fires(http, made[0]))
    assert (first["outcome"], first["status"]) == ("fired", "pending")
    assert {(fire["outcome"], fire["reason"]) for fire in later} == {("skipped", WAITING)}


@pytest.mark.parametrize(("strategy", "status"), [("interrupt", "interrupted"), ("rollback", "deleted")])
def test_a_cron_stops_its_own_previous_run_and_never_a_persons(
    http: httpx.Client, held: str, made: list[str], strategy: str, status: str
) -> None:
    made.append(create(http, held, schedule="@every 1s", multitask_strategy=strategy).json()["cron_id"])
    newest, *older = until(
        lambda: (
            (found := fires(http, made[0])) and len(found) >= 3 and found[0]["status"] == "pending" and found
        )
    )
    assert newest["outcome"] == "fired"
    assert {(fire["outcome"], fire["status"]) for fire in older} == {("fired", status)}
    assert {fire["started_at"] for fire in older} == {None}


def test_a_running_run_makes_way_too(http: httpx.Client, thread: str, made: list[str]) -> None:
    asked: dict[str, Any] = {"assistant_id": "slow", "input": {"delay": 60, "steps": 1}}
    made.append(
        create(http, thread, schedule="@every 1s", policy={"overlap": "cancel_previous"}, **asked).json()[
            "cron_id"
        ]
    )
    stopped = until(lambda: [fire for fire in fires(http, made[0]) if fire["status"] == "interrupted"])
    assert all(fire["outcome"] == "fired" for fire in stopped)
    assert any(
        fire["started_at"] for fire in until(lambda: [f for f in fires(http, made[0]) if f["started_at"]])
    )


def test_without_a_thread_a_slot_may_be_skipped_while_the_previous_run_is_under_way(
    http: httpx.Client, made: list[str]
) -> None:
    asked: dict[str, Any] = {
        "assistant_id": "slow",
        "input": {"delay": 60, "steps": 1},
        "schedule": "@every 1s",
    }
    made.append(create(http, policy={"overlap": "skip"}, **asked).json()["cron_id"])
    *later, first = until(lambda: len(fires(http, made[0])) >= 3 and fires(http, made[0]))
    assert first["outcome"] == "fired"
    assert {(fire["outcome"], fire["reason"]) for fire in later} == {
        ("skipped", "its previous run was still under way")
    }
    http.delete(f"/threads/{first['thread_id']}").raise_for_status()
