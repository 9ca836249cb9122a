"""What holds for every endpoint, walked over all that are mounted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from matins.api.app import OPERATIONS
from matins.api.operations import Operation
from matins.api.wire import assistants, backfills, crons, runs, threads
from tests.wire.compatibility import covers
from tests.wire.compatibility.rows import named

EVENTS = {"assistant_id": "events", "input": {"n": 0}}
LEAST: dict[Any, Any] = {
    assistants.AssistantCreate: {"graph_id": "echo"},
    assistants.Latest: {"version": 1},
    runs.RunOnThread: EVENTS,
    runs.RunWithoutThread: EVENTS,
    runs.CancelMany: {"status": "pending"},
    crons.CronCreate: {"assistant_id": "echo", "schedule": "0 0 1 1 *"},
    crons.CronPatch: {"enabled": False},
    backfills.CronBackfill: {"since": "2026-03-01T12:00:00Z", "until": "2026-03-01T13:00:00Z"},
    crons.CronPreview: {"schedule": "0 0 1 1 *"},
    threads.StateAt: {"checkpoint": {}},
    threads.StatePatch: {"metadata": {}},
    threads.ThreadsPrune: {"thread_ids": []},
}
"""The least that each shape asks for; nothing, where it is not named."""

WITH_BODY = [
    replace(each, request=body)
    for each in OPERATIONS
    if isinstance(body := getattr(each.request, "__origin__", each.request), type)
    and issubclass(body, msgspec.Struct)
]


@pytest.fixture(autouse=True)
def going(http: httpx.Client) -> Iterator[None]:
    """Let the crons of the server go again: one of the operations holds them all."""
    yield
    http.post("/runs/crons/resume").raise_for_status()


@pytest.fixture(scope="module")
def ids(http: httpx.Client) -> Iterator[dict[str, str]]:
    """One thing of each kind, by the name that it has in paths."""
    thread = http.post("/threads", json={}).json()["thread_id"]
    http.post(f"/threads/{thread}/runs/wait", json=EVENTS).raise_for_status()
    cron = http.post("/runs/crons", json=LEAST[crons.CronCreate]).json()["cron_id"]
    yield {
        "thread_id": thread,
        "assistant_id": http.post("/assistants", json={"graph_id": "echo"}).json()["assistant_id"],
        "run_id": http.get(f"/threads/{thread}/runs").json()[0]["run_id"],
        "cron_id": cron,
    }
    http.delete(f"/runs/crons/{cron}").raise_for_status()


@covers("Requests and answers", "every id")
def test_ids_that_the_server_makes_sort_by_the_time_at_which_they_were_made(http: httpx.Client) -> None:
    cron = LEAST[crons.CronCreate]
    for path, body, key, version in (
        ("/threads", {}, "thread_id", 7),
        ("/runs", EVENTS, "run_id", 7),
        ("/runs/crons", cron, "cron_id", 7),
        ("/assistants", {"graph_id": "echo"}, "assistant_id", 4),
    ):
        made = [http.post(path, json=body).json()[key] for _ in range(3)]
        assert {UUID(each).version for each in made} == {version}
        assert version == 4 or made == sorted(made)
        if key == "cron_id":
            assert {http.delete(f"{path}/{each}").status_code for each in made} == {204}


@covers("Requests and answers", "unknown fields")
@covers("RunCreate", "langsmith_tracer")
@pytest.mark.parametrize("operation", WITH_BODY, ids=named)
def test_unknown_fields_are_ignored(http: httpx.Client, ids: dict[str, str], operation: Operation) -> None:
    least = LEAST.get(operation.request, {})
    unknown = {"bogus": [{"x": None}], "langsmith_tracer": {"project_name": "p"}}
    response = http.request(operation.method, operation.path.format(**ids), json={**least, **unknown})
    assert response.status_code == operation.status, response.text


NULLABLE = {
    "AssistantCreate": {"description"},
    "AssistantPatch": {"description"},
    "CronCreate": {"input"},
    "CronPatch": {"input", "end_time"},
    "RunOnThread": {"input", "command", "checkpoint_id"},
    "RunWithoutThread": {"input", "command"},
    "StateUpdate": {"values", "checkpoint_id"},
}


@covers("Requests and answers", "null")
@pytest.mark.parametrize("operation", WITH_BODY, ids=named)
def test_null_is_refused_where_a_field_has_none(
    http: httpx.Client, ids: dict[str, str], operation: Operation
) -> None:
    least = LEAST.get(operation.request, {})
    for field in msgspec.structs.fields(operation.request):
        response = http.request(
            operation.method, operation.path.format(**ids), json={**least, field.encode_name: None}
        )
        if field.encode_name in NULLABLE.get(operation.request.__name__, ()):
            assert response.status_code == operation.status, (field.name, response.text)
        else:
            assert response.status_code == 422, field.name
            assert field.encode_name in response.json()["detail"]


@covers("Refusal", "422 no id")
@pytest.mark.parametrize("operation", [each for each in OPERATIONS if "_id}" in each.path], ids=named)
def test_what_is_no_id_is_refused_in_the_same_words_everywhere(
    http: httpx.Client, ids: dict[str, str], operation: Operation
) -> None:
    for name in re.findall(r"{(\w+_id)}", operation.path):
        if name == "checkpoint_id" or operation.path.endswith("/graph"):
            continue  # not ours to judge; and a graph may be drawn by its name
        path = operation.path.format(**{"checkpoint_id": "x", "namespace": "x", **ids, name: "abc"})
        body = None if operation.request is None else LEAST.get(operation.request, {})
        response = http.request(operation.method, path, json=body)
        noun = name.removesuffix("_id")
        assert (response.status_code, response.json()["detail"]) == (
            422,
            f"Invalid {noun} ID: must be a UUID",
        )


@covers("Requests and answers", "x-api-key:")
def test_headers_of_clients_are_taken(http: httpx.Client) -> None:
    sent = {"x-api-key": "k", "x-auth-scheme": "langsmith", "user-agent": "langgraph-sdk-py/0.4.14"}
    assert http.post("/threads/count", json={}, headers=sent).status_code == 200


@covers("Pages", "other lists")
def test_lists_that_are_no_search_tell_of_no_pages(http: httpx.Client, ids: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/threads/{thread_id}/runs"),
        ("POST", "/threads/{thread_id}/history"),
        ("POST", "/assistants/{assistant_id}/versions"),
    ):
        response = http.request(method, path.format(**ids), json={} if method == "POST" else None)
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("x-pagination")]


@covers("Defects", "a run waits up to a second for a worker")
def test_a_run_is_started_as_it_is_created(http: httpx.Client) -> None:
    for _ in range(5):
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        place = http.post(f"/threads/{thread_id}/runs", json=EVENTS).headers["content-location"]
        assert http.get(place).json()["status"] in {"running", "success"}


def test_every_field_that_may_be_null_is_known() -> None:
    assert not NULLABLE.keys() - {each.request.__name__ for each in WITH_BODY}
