from __future__ import annotations

import json
from uuid import uuid4

import httpx
import pytest

from tests.wire.compatibility import covers

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
SLOW = {"assistant_id": "slow", "input": {"delay": 20, "steps": 200}}


def test_a_created_run_has_the_keys_of_the_contract(api: httpx.Client, thread_id: str) -> None:
    response = api.post(
        f"/threads/{thread_id}/runs",
        json={"assistant_id": "echo", "input": HELLO, "metadata": {"m": 1}},
    )
    run = response.json()
    assert list(run) == [
        "run_id",
        "thread_id",
        "assistant_id",
        "metadata",
        "status",
        "kwargs",
        "multitask_strategy",
        "created_at",
        "updated_at",
        "langsmith_session_name",
    ]
    assert (run["status"], run["thread_id"], run["multitask_strategy"]) == ("pending", thread_id, "enqueue")
    assert run["metadata"] == {
        "created_by": "system",
        "m": 1,
        "graph_id": "echo",
        "assistant_id": run["assistant_id"],
    }
    place = f"/threads/{thread_id}/runs/{run['run_id']}"
    assert response.headers["content-location"] == place
    api.get(f"{place}/join")
    assert api.get(place).json()["status"] == "success"
    assert api.get(f"/runs/{run['run_id']}").json() == api.get(place).json()
    assert api.delete(place).status_code == 204
    assert api.get(place).status_code == 404
    assert api.delete(place).status_code == 404


@covers("GET /threads/{thread_id}/runs", "200", "newest first", "404", "422")
@covers("GET /threads/{thread_id}/runs", "?limit", "?offset", "?status", "?select")
@covers("Defects", "a JSON array of columns is refused")
def test_runs_are_listed_newest_first_with_what_is_selected(api: httpx.Client, thread_id: str) -> None:
    for _ in range(3):
        api.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "echo", "input": HELLO})
    runs = api.get(f"/threads/{thread_id}/runs").json()
    assert [run["created_at"] for run in runs] == sorted((run["created_at"] for run in runs), reverse=True)
    for select in (["run_id", "status"], ["run_id,status"], [json.dumps(["run_id", "status"])]):
        found = api.get(
            f"/threads/{thread_id}/runs", params={"select": select, "limit": 1, "offset": 1}
        ).json()
        assert found == [{"run_id": runs[1]["run_id"], "status": "success"}]
    assert api.get(f"/threads/{thread_id}/runs?status=bogus").json() == []
    assert api.get(f"/threads/{thread_id}/runs?limit=0").json() == []
    assert api.get(f"/threads/{thread_id}/runs?select=bogus").status_code == 422
    assert api.get(f"/threads/{thread_id}/runs?limit=abc").status_code == 400
    assert api.get(f"/threads/{uuid4()}/runs").status_code == 404


def test_a_run_is_cancelled_and_waited_for(api: httpx.Client, thread_id: str) -> None:
    run = api.post(f"/threads/{thread_id}/runs", json=SLOW).json()
    place = f"/threads/{thread_id}/runs/{run['run_id']}"
    response = api.post(f"{place}/cancel?wait=1")
    assert (response.status_code, response.json()) == (200, {})
    assert (response.headers["location"], response.headers["content-location"]) == (f"{place}/join", place)
    assert api.get(place).json()["status"] == "interrupted"
    again = api.post(f"{place}/cancel")
    assert (again.status_code, again.json()["detail"][:27]) == (404, "No matching runs to cancel.")
    assert api.post(f"/threads/{thread_id}/runs/{uuid4()}/cancel").status_code == 404


def test_a_run_is_cancelled_and_not_waited_for(api: httpx.Client, thread_id: str) -> None:
    run = api.post(f"/threads/{thread_id}/runs", json=SLOW).json()
    place = f"/threads/{thread_id}/runs/{run['run_id']}"
    response = api.post(f"{place}/cancel", params={"wait": "false"})
    assert (response.status_code, response.content) == (202, b"")
    assert api.get(f"{place}/join").status_code == 200
    assert api.get(place).json()["status"] == "interrupted"


@covers("POST /threads/{thread_id}/runs/{run_id}/cancel", "?action", "?wait")
@pytest.mark.parametrize("query", ["action=zzz", "wait=maybe"])
def test_a_cancel_that_makes_no_sense_is_refused(api: httpx.Client, thread_id: str, query: str) -> None:
    assert api.post(f"/threads/{thread_id}/runs/{uuid4()}/cancel?{query}").status_code == 422


def test_a_busy_thread_queues_or_rejects(api: httpx.Client, thread_id: str) -> None:
    first = api.post(f"/threads/{thread_id}/runs", json=SLOW).json()
    for path in ("", "/stream", "/wait"):
        response = api.post(f"/threads/{thread_id}/runs{path}", json={**SLOW, "multitask_strategy": "reject"})
        assert response.status_code == 409
        assert response.json()["detail"].startswith("Thread is already running a task.")
    second = api.post(f"/threads/{thread_id}/runs", json={"assistant_id": "echo", "input": HELLO}).json()
    assert api.get(f"/threads/{thread_id}/runs/{second['run_id']}").json()["status"] == "pending"
    assert api.post(f"/threads/{thread_id}/state", json={"values": {}}).status_code == 409
    api.post(f"/threads/{thread_id}/runs/{first['run_id']}/cancel?wait=true")
    api.get(f"/threads/{thread_id}/runs/{second['run_id']}/join")
    assert api.get(f"/threads/{thread_id}/runs/{second['run_id']}").json()["status"] == "success"


def test_a_thread_is_made_when_it_may_be(api: httpx.Client) -> None:
    fresh = str(uuid4())
    body = {"assistant_id": "echo", "input": HELLO}
    refused = api.post(f"/threads/{fresh}/runs/wait", json=body)
    assert (refused.status_code, refused.json()["detail"]) == (404, "Thread or assistant not found.")
    assert (
        api.post(f"/threads/{fresh}/runs/wait", json={**body, "if_not_exists": "create"}).status_code == 200
    )
    assert api.get(f"/threads/{fresh}").json()["metadata"]["graph_id"] == "echo"


@covers("POST /threads/{thread_id}/runs", "422")
@covers("RunCreate", "assistant_id unknown")
@covers("Defects", "numbers that mean nothing are taken", "a command of unknown keys crashes the run")
@pytest.mark.parametrize("path", ["/runs", "/runs/wait", "/runs/stream"])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"assistant_id": None}, 422),
        ({"assistant_id": "nope"}, 422),
        ({"assistant_id": str(uuid4())}, 404),
        ({"stream_mode": "zzz"}, 422),
        ({"stream_mode": None}, 422),
        ({"interrupt_before": "node"}, 422),
        ({"config": {"recursion_limit": 0}}, 422),
        ({"config": {"configurable": {"a": 1}}, "context": {"b": 1}}, 400),
        ({"after_seconds": -1}, 422),
        ({"command": {"bogus": 1}}, 422),
        ({"webhook": "ftp://somewhere"}, 422),
        ({"webhook": ""}, 422),
        ({"durability": "zzz"}, 422),
        ({"on_disconnect": "zzz"}, 422),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_begins(
    api: httpx.Client, path: str, change: dict[str, object], status: int
) -> None:
    response = api.post(path, json={"assistant_id": "echo", "input": HELLO, **change})
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)
    assert response.headers["content-type"] == "application/json"


@covers("RunOnThread", "checkpoint_id")
def test_a_checkpoint_must_be_a_uuid(api: httpx.Client, thread_id: str) -> None:
    for at in ({"checkpoint_id": "abc"}, {"checkpoint": {"checkpoint_id": "abc"}}):
        response = api.post(f"/threads/{thread_id}/runs", json={"assistant_id": "echo", **at})
        assert (response.status_code, response.json()["detail"]) == (422, "Invalid checkpoint ID")
