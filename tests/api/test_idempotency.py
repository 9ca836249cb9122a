"""What a request creates is created once, however often it comes with the same Idempotency-Key."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.servers import Server

RUN = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hello"}]}}
CRON = {"assistant_id": "echo", "schedule": "0 0 1 1 *", "enabled": False}

CREATES: dict[str, Callable[[str], tuple[str, Any]]] = {
    "thread": lambda _: ("/threads", {"metadata": {"a": 1}}),
    "assistant": lambda _: ("/assistants", {"graph_id": "echo", "name": "mine"}),
    "run": lambda thread: (f"/threads/{thread}/runs", RUN),
    "stateless run": lambda _: ("/runs", RUN),
    "batch": lambda _: ("/runs/batch", [RUN, RUN]),
    "cron": lambda _: ("/runs/crons", CRON),
    "cron on a thread": lambda thread: (f"/threads/{thread}/runs/crons", CRON),
}


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


@pytest.fixture(params=CREATES)
def create(request: pytest.FixtureRequest, thread_id: str) -> tuple[str, Any]:
    return CREATES[request.param](thread_id)


def told(response: httpx.Response) -> tuple[int, bytes, str | None]:
    return response.status_code, response.content, response.headers.get("content-location")


def test_the_same_request_with_the_same_key_is_answered_as_before(
    api: httpx.Client, create: tuple[str, Any], key: dict[str, str]
) -> None:
    path, asked = create
    first = api.post(path, json=asked, headers=key)
    assert first.status_code == 200
    assert told(api.post(path, json=asked, headers=key)) == told(first)
    assert told(api.post(path, json=asked)) != told(first)


def test_another_request_with_the_same_key_is_refused_and_makes_nothing(
    api: httpx.Client, create: tuple[str, Any], key: dict[str, str]
) -> None:
    path, asked = create
    api.post(path, json=asked, headers=key).raise_for_status()
    other = [*asked, asked[0]] if isinstance(asked, list) else {**asked, "metadata": {"b": 2}}
    refused = api.post(path, json=other, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")


def test_a_key_belongs_to_one_path(api: httpx.Client, key: dict[str, str]) -> None:
    api.post("/threads", json={}, headers=key).raise_for_status()
    assert api.post("/threads/search", json={}, headers=key).status_code == 200  # creates nothing
    assert api.post("/runs", json=RUN, headers=key).status_code == 409


def test_a_refusal_is_not_kept(api: httpx.Client, thread_id: str, key: dict[str, str]) -> None:
    made = str(uuid4())
    asked = {"thread_id": made, "if_exists": "raise"}
    api.post("/threads", json={"thread_id": made}).raise_for_status()
    assert api.post("/threads", json=asked, headers=key).status_code == 409
    api.delete(f"/threads/{made}").raise_for_status()
    assert api.post("/threads", json=asked, headers=key).status_code == 200
    assert api.post("/threads", json=asked, headers=key).json()["thread_id"] == made


def test_requests_at_the_same_time_create_one_thing(
    api: httpx.Client, thread_id: str, key: dict[str, str]
) -> None:
    with ThreadPoolExecutor(8) as threads:
        replies = list(
            threads.map(
                lambda _: told(api.post(f"/threads/{thread_id}/runs", json=RUN, headers=key)), range(8)
            )
        )
    assert replies[0][0] == 200
    assert len(set(replies)) == 1
    assert len(api.get(f"/threads/{thread_id}/runs").json()) == 1


@pytest.mark.parametrize("bad", ["", "a" * 256, "with space", "tab\there", "é", '"quoted" and more'])
def test_a_key_is_visible_ascii(api: httpx.Client, bad: str) -> None:
    before = api.post("/threads/count", json={}).json()
    refused = api.post("/threads", json={}, headers={b"Idempotency-Key": bad.encode()})
    assert refused.status_code == 422
    assert "Idempotency-Key" in refused.json()["detail"]
    assert api.post("/threads/count", json={}).json() == before


def test_two_keys_are_refused(api: httpx.Client) -> None:
    refused = api.post("/threads", json={}, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    assert refused.status_code == 422


@pytest.mark.parametrize("good", ["a", "a" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
def test_a_key_may_be_short_long_or_quoted(api: httpx.Client, good: str) -> None:
    asked = {"metadata": {"of": str(uuid4())}}
    first = api.post("/threads", json=asked, headers={"Idempotency-Key": good})
    assert first.status_code in (200, 409)  # another test run of the same server may have used it


def test_wait_with_the_same_key_gives_the_same_result_of_the_same_run(
    api: httpx.Client, thread_id: str, key: dict[str, str]
) -> None:
    path = f"/threads/{thread_id}/runs/wait"
    first, second = (api.post(path, json=RUN, headers=key) for _ in range(2))
    assert first.status_code == 200
    assert first.json()["messages"]
    assert first.json() == second.json()
    assert first.headers["content-location"] == second.headers["content-location"]
    assert len(api.get(f"/threads/{thread_id}/runs").json()) == 1


def test_the_result_of_a_run_that_went_with_its_thread_is_kept(
    api: httpx.Client, key: dict[str, str]
) -> None:
    first, second = (api.post("/runs/wait", json=RUN, headers=key) for _ in range(2))
    assert first.json()["messages"]
    assert second.json() == first.json()
    assert second.headers["content-location"] == first.headers["content-location"]
    assert api.get(first.headers["content-location"]).status_code == 404


def test_a_stream_of_a_run_that_went_with_its_thread_is_at_its_end(
    api: httpx.Client, key: dict[str, str]
) -> None:
    asked = {**RUN, "stream_resumable": True}
    first, second = (api.post("/runs/stream", json=asked, headers=key) for _ in range(2))
    assert events(first)
    assert (second.status_code, events(second)) == (200, [])
    assert second.headers["content-location"] == first.headers["content-location"]


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    found = []
    for block in response.text.replace("\r", "").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_resumable_stream_with_the_same_key_starts_anew(
    api: httpx.Client, thread_id: str, key: dict[str, str]
) -> None:
    path, asked = f"/threads/{thread_id}/runs/stream", {**RUN, "stream_resumable": True}
    first = api.post(path, json=asked, headers=key)
    again = api.post(path, json=asked, headers=key)
    assert events(first)
    assert events(again) == events(first)
    for header in ("location", "content-location"):
        assert again.headers[header] == first.headers[header]
    assert len(api.get(f"/threads/{thread_id}/runs").json()) == 1


def test_a_stream_that_was_not_kept_is_joined_where_it_is(
    api: httpx.Client, thread_id: str, key: dict[str, str]
) -> None:
    path = f"/threads/{thread_id}/runs/stream"
    first = api.post(path, json=RUN, headers=key)
    again = api.post(path, json=RUN, headers=key)
    assert (again.status_code, events(again)) == (200, [])  # it has ended
    assert again.headers["content-location"] == first.headers["content-location"]
    assert len(api.get(f"/threads/{thread_id}/runs").json()) == 1


def test_keys_hold_when_the_server_was_killed(server: Server, api: httpx.Client, key: dict[str, str]) -> None:
    first = api.post("/threads", json={}, headers=key)
    os.kill(server.serving, signal.SIGKILL)
    server.wait_ready()
    assert told(api.post("/threads", json={}, headers=key)) == told(first)
