from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from tests.wire.compatibility import covers

ECHO = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "h\u00e9"}]}}
SLOW = {"assistant_id": "slow", "input": {"delay": 20, "steps": 200}}


def frames(content: bytes) -> list[tuple[str, Any, str | None]]:
    """Give event, data and id of each frame; any other line fails."""
    found = []
    for frame in content.removesuffix(b"\r\n\r\n").split(b"\r\n\r\n") if content else []:
        if frame == b": heartbeat":
            continue
        event, data, *rest = frame.split(b"\r\n")
        assert event.startswith(b"event: ")
        assert data.startswith(b"data: ")
        assert all(line.startswith(b"id: ") for line in rest)
        found.append(
            (event[7:].decode(), msgspec.json.decode(data[6:]), rest[0][4:].decode() if rest else None)
        )
    return found


def status(api: httpx.Client, run: str) -> str:
    found: str = api.get(run).json()["status"]
    return found


def test_a_stream_tells_where_it_is_and_what_happens(api: httpx.Client, thread_id: str) -> None:
    response = api.post(
        f"/threads/{thread_id}/runs/stream", json={**ECHO, "stream_mode": ["values", "updates"]}
    )
    seen = frames(response.content)
    assert [event for event, _, _ in seen] == ["metadata", "values", "updates", "values"]
    assert all(number is None for _, _, number in seen)
    assert "h\u00e9".encode() in response.content
    run_id = seen[0][1]["run_id"]
    assert seen[0][1] == {"run_id": run_id, "attempt": 1}
    place = f"/threads/{thread_id}/runs/{run_id}"
    assert response.headers["content-location"] == place
    assert response.headers["location"] == f"{place}/stream"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"


def test_a_run_without_a_thread_streams_and_its_thread_goes(api: httpx.Client) -> None:
    response = api.post("/runs/stream", json={**ECHO, "on_completion": "keep"})
    run_id = frames(response.content)[0][1]["run_id"]
    assert response.headers["content-location"] == f"/runs/{run_id}"
    assert response.headers["location"] == f"/runs/{run_id}/stream"
    kept = api.get(f"/runs/{run_id}").json()
    assert api.get(f"/threads/{kept['thread_id']}").json()["status"] == "idle"
    waited = api.post("/runs/wait", json=ECHO)
    assert [each["content"] for each in waited.json()["messages"]] == ["h\u00e9", "h\u00e9"]
    assert api.get(waited.headers["content-location"]).status_code == 404


def test_a_failure_is_a_frame_and_a_value(api: httpx.Client) -> None:
    failure = {"error": "ValueError", "message": "boom happened"}
    streamed = frames(api.post("/runs/stream", json={"assistant_id": "failing", "input": {"x": 1}}).content)
    assert streamed[-1][:2] == ("error", failure)
    waited = api.post("/runs/wait", json={"assistant_id": "failing", "input": {"x": 1}})
    assert (waited.status_code, waited.json()) == (200, {"__error__": failure})


@covers("GET /threads/{thread_id}/runs/{run_id}/stream", "Location:")
@covers("GET /runs/{run_id}/stream", "?stream_mode")
def test_a_run_that_was_kept_is_streamed_again(api: httpx.Client, thread_id: str) -> None:
    made = api.post(
        f"/threads/{thread_id}/runs/stream",
        json={**ECHO, "stream_resumable": True, "stream_mode": ["values", "updates"]},
    )
    seen = frames(made.content)
    assert [number for _, _, number in seen] == ["1", "2", "3", "4"]
    place = made.headers["location"]
    for after in ("0", "-1"):
        assert api.get(place, headers={"last-event-id": after}).content == made.content
    assert frames(api.get(place, headers={"last-event-id": "2"}).content) == seen[2:]
    asked = f"{place}?stream_mode=updates&cancel_on_disconnect=false"
    assert api.get(asked).headers["location"] == asked  # a client that comes back asks for the same
    assert api.get(place, headers={"last-event-id": "99"}).content == b""
    assert api.get(place, headers={"last-event-id": "9" * 30}).content == b""
    assert api.get(place, headers={"last-event-id": "abc"}).content == b""
    assert api.get(place, params={"stream_mode": ""}).content == b""
    for modes in (["values", "updates"], ["values,updates"], ['["values","updates"]']):
        replayed = api.get(place, params={"stream_mode": modes}, headers={"last-event-id": "0"})
        assert frames(replayed.content) == seen[1:]
    run_id = seen[0][1]["run_id"]
    replayed = api.get(f"/runs/{run_id}/stream?stream_mode=updates", headers={"last-event-id": "0"})
    assert frames(replayed.content) == seen[2:3]


@covers("To follow a run", "a run that has ended")
@covers("What wait and join answer", "of a finished run")
def test_a_run_that_has_ended_is_joined_at_once(api: httpx.Client, thread_id: str) -> None:
    waited = api.post(f"/threads/{thread_id}/runs/wait", json=ECHO)
    took = []
    for _ in range(3):
        began = time.monotonic()
        joined = api.get(waited.headers["location"])
        streamed = api.get(waited.headers["content-location"] + "/stream")
        took.append(time.monotonic() - began)
        assert joined.json() == waited.json()
        assert streamed.content == b""
    # The best of them: one that listened for the end would look for it after a second, every time.
    assert min(took) < 0.9
    run_id = waited.headers["content-location"].rpartition("/")[2]
    assert api.get(f"/runs/{run_id}/join").json() == waited.json()


@covers("What wait and join answer", "of a finished run", "__interrupt__")
def test_a_run_that_asked_something_says_so_also_when_it_was_answered(
    api: httpx.Client, thread_id: str
) -> None:
    place = f"/threads/{thread_id}/runs"
    first = api.post(f"{place}/wait", json={"assistant_id": "ask", "input": {"question": "name?"}})
    api.post(f"{place}/wait", json={"assistant_id": "ask", "command": {"resume": "Ada"}}).raise_for_status()
    [asked] = first.json()["__interrupt__"]
    assert asked["value"] == {"q": "name?"}
    assert api.get(first.headers["location"]).json() == first.json()


@covers("GET /threads/{thread_id}/runs/{run_id}/join", "404")
@covers("GET /threads/{thread_id}/runs/{run_id}/stream", "404")
@covers("GET /runs/{run_id}/join", "404")
@covers("GET /runs/{run_id}/stream", "404")
@covers("Defects", "an unknown run is a 200")
@pytest.mark.parametrize("what", ["join", "stream"])
def test_an_unknown_run_is_not_found_before_anything_is_sent(
    api: httpx.Client, thread_id: str, what: str
) -> None:
    for place in (f"/threads/{thread_id}/runs/{uuid4()}", f"/runs/{uuid4()}"):
        response = api.get(f"{place}/{what}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/json"
    assert api.get(f"/threads/{thread_id}/runs/abc/{what}").status_code == 422


@pytest.mark.parametrize("kind", ["stream", "wait"])
@pytest.mark.parametrize(("on_disconnect", "becomes"), [("cancel", "interrupted"), (None, "success")])
def test_a_run_outlives_its_reader_unless_told_otherwise(
    api: httpx.Client, thread_id: str, kind: str, on_disconnect: str | None, becomes: str
) -> None:
    asked: dict[str, Any] = {"assistant_id": "slow", "input": {"delay": 2, "steps": 20}}
    if on_disconnect:
        asked = {**SLOW, "on_disconnect": on_disconnect}
    with api.stream("POST", f"/threads/{thread_id}/runs/{kind}", json=asked) as response:
        place = response.headers["content-location"]
    api.get(f"{place}/join")
    assert status(api, place) == becomes


@pytest.mark.parametrize("what", ["join", "stream"])
def test_a_joined_run_is_cancelled_with_its_reader_when_asked(
    api: httpx.Client, thread_id: str, what: str
) -> None:
    place = api.post(f"/threads/{thread_id}/runs", json=SLOW).headers["content-location"]
    with api.stream("GET", f"{place}/{what}?cancel_on_disconnect=1"):
        pass
    api.get(f"{place}/join")
    assert status(api, place) == "interrupted"


def test_a_long_silence_is_filled_with_heartbeats(api: httpx.Client) -> None:
    quiet = {"assistant_id": "slow", "input": {"delay": 6.5, "steps": 1}}
    streamed = api.post("/runs/stream", json=quiet)
    assert streamed.content.count(b": heartbeat\r\n\r\n") == 1
    waited = api.post("/runs/wait", json=quiet)
    assert waited.content.startswith(b"\n{")
    assert waited.json()["done"] == 1
