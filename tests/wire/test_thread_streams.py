from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from tests.support.servers import Server
from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.relay import Relay
from tests.wire.sdks import Event, Sdk
from tests.wire.test_framing import connect

Follow = Callable[..., "Future[list[Event]]"]


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


@pytest.fixture
def follow(sdk: Sdk, thread: str, relays: dict[str, Relay]) -> Follow:
    """Begin to follow the thread: what is done after the call is listened to."""

    def start(*, take: int, **options: Any) -> Future[list[Event]]:
        stream: Future[list[Event]] = sdk.start("threads.join_stream", thread, take=take, **options)
        until(lambda: ("GET", f"/threads/{thread}/stream", 200) in relays[sdk.kind].seen)
        return stream

    return start


def run(sdk: Sdk, thread: str, graph: str, **options: Any) -> str:
    """Run a graph to its end and give the id of the run."""
    run_id: str = sdk("runs.create", thread, graph, **options)["run_id"]
    until(lambda: sdk("runs.get", thread, run_id)["status"] not in ("pending", "running"))
    return run_id


def of_run(run_id: str, *between: tuple[str, Any]) -> list[tuple[str, Any]]:
    """What a thread's stream shows of a run."""
    return [
        ("metadata", {"run_id": run_id, "attempt": 1}),
        *between,
        ("metadata", {"status": "run_done", "run_id": run_id}),
    ]


def said(events: list[Event]) -> list[tuple[str, Any]]:
    return [(event.event, event.data) for event in events]


def numbers(events: list[Event]) -> list[int]:
    return [int(event.id or 0) for event in events]


@covers("GET /threads/{thread_id}/stream", "200")
def test_a_thread_streams_one_run_after_another(sdk: Sdk, thread: str, follow: Follow) -> None:
    stream = follow(take=7)
    first = run(sdk, thread, "events", input={"n": 1})
    second = run(sdk, thread, "failing", input={"x": 1}, stream_mode="updates")
    events = stream.result(30)
    assert said(events) == [
        *of_run(first, ("values", {"n": 1}), ("values", {"n": 1, "written": 1})),
        *of_run(second, ("error", {"error": "ValueError", "message": "boom happened"})),
    ]
    assert numbers(events) == [1, 2, 3, 4, 5, 6, 7]


def test_a_thread_that_was_left_is_taken_up_after_any_of_its_events(
    sdk: Sdk, thread: str, follow: Follow
) -> None:
    whole = follow(take=5)
    run(sdk, thread, "events", input={"n": 2}, stream_mode="custom")
    run(sdk, thread, "events", input={"n": 1}, stream_mode="custom")
    events = whole.result(30)
    for seen in (1, 4):
        again = sdk("threads.join_stream", thread, last_event_id=str(events[seen - 1].id), take=5 - seen)
        assert again == events[seen:]
    for everything in ("0", "-1"):
        assert sdk("threads.join_stream", thread, last_event_id=everything, take=5) == events


def test_what_was_resumable_is_replayed_though_nobody_followed(sdk: Sdk, thread: str) -> None:
    run(sdk, thread, "events", input={"n": 1})
    kept = run(sdk, thread, "events", input={"n": 1}, stream_mode="custom", stream_resumable=True)
    events = sdk("threads.join_stream", thread, last_event_id="0", take=3)
    assert said(events) == of_run(kept, ("custom", {"i": 0}))


def test_a_follower_may_want_the_beginnings_and_ends_alone(sdk: Sdk, thread: str, follow: Follow) -> None:
    stream = follow(take=4, stream_mode="lifecycle")
    runs = [run(sdk, thread, graph, input={"n": 2, "x": 1}) for graph in ("events", "failing")]
    assert said(stream.result(30)) == of_run(runs[0]) + of_run(runs[1])


def test_a_follower_may_want_what_others_write_alone(sdk: Sdk, thread: str, follow: Follow) -> None:
    run(sdk, thread, "events", input={"n": 1})
    stream = follow(take=1, stream_mode="state_update")
    run(sdk, thread, "events", input={"n": 3})
    written = sdk("threads.update_state", thread, values={"n": 7})
    [event] = stream.result(30)
    assert event.event == "state_update"
    assert event.data["values"] == {"n": 7, "written": 3}
    assert event.data["checkpoint"]["checkpoint_id"] == written["checkpoint"]["checkpoint_id"]
    assert int(event.id or 0) > 0


@pytest.fixture
def of_http(http: httpx.Client) -> str:
    """A thread with a run that was kept and, followed, a state that was written."""
    thread_id: str = http.post("/threads", json={}).json()["thread_id"]
    with http.stream("GET", f"/threads/{thread_id}/stream") as response:
        assert response.status_code == 200
        made = {"assistant_id": "events", "input": {"n": 1}, "stream_mode": "custom"}
        http.post(f"/threads/{thread_id}/runs/wait", json=made).raise_for_status()
        http.post(f"/threads/{thread_id}/state", json={"values": {"n": 2}}).raise_for_status()
    return thread_id


@covers("GET /threads/{thread_id}/stream", "?stream_mode")
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("", ["metadata", "custom", "metadata"]),
        ("stream_mode=", ["metadata", "custom", "metadata"]),
        ("stream_mode=run_modes", ["metadata", "custom", "metadata"]),
        ("stream_mode=lifecycle", ["metadata", "metadata"]),
        ('stream_mode=["lifecycle","state_update"]', ["metadata", "metadata", "state_update"]),
        ("stream_mode=lifecycle,state_update", ["metadata", "metadata", "state_update"]),
        (
            "stream_mode=run_modes&stream_mode=state_update",
            ["metadata", "custom", "metadata", "state_update"],
        ),
        ("stream_mode=state_update", ["state_update"]),
    ],
)
def test_modes_are_read_in_every_form(server: Server, of_http: str, asked: str, shown: list[str]) -> None:
    with connect(server) as wire:
        asked = asked.replace('"', "%22")
        wire.send(f"GET /threads/{of_http}/stream?{asked} HTTP/1.1\r\nlast-event-id: 0")
        status, headers = wire.head()
        assert status == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        assert not {"location", "content-location"} & headers.keys()
        last = b"id: 4\r\n" if "state_update" in asked else b"id: 3\r\n"
        events = wire.until(last + b"\r\n")
        assert re.findall(r"event: (\w+)", events.decode()) == shown
        frame = rb"(?:[0-9a-f]+\r\n)?event: \w+\r\ndata: [^\r\n]+\r\nid: [0-9]+\r\n\r\n(?:\r\n)?"
        assert re.fullmatch(b"(?:" + frame + b")+", events)


def test_a_thread_on_which_nothing_happens_is_kept_alive(server: Server, of_http: str) -> None:
    with connect(server) as wire:
        wire.send(f"GET /threads/{of_http}/stream HTTP/1.1\r\nlast-event-id: 10000")
        wire.head()
        assert b"event" not in wire.until(b": heartbeat\r\n\r\n")
        # A number beyond the end is no reason to leave out what comes.
        body = json.dumps({"assistant_id": "events", "input": {"n": 1}, "stream_mode": "custom"}).encode()
        httpx.post(f"{server.url}/threads/{of_http}/runs", content=body).raise_for_status()
        assert b"id: 5\r\n" in wire.until(b'{"i":0}')


def test_a_stream_ends_with_its_thread(server: Server, of_http: str) -> None:
    with connect(server) as wire:
        wire.send(f"GET /threads/{of_http}/stream HTTP/1.1")
        _, headers = wire.head()
        httpx.delete(f"{server.url}/threads/{of_http}").raise_for_status()
        assert wire.body(headers) == b""


@pytest.mark.parametrize(
    ("path", "last_event", "status", "text"),
    [
        ("/threads/abc/stream", None, 422, "Invalid thread ID: must be a UUID"),
        ("/threads/0194a6c0-0000-7000-8000-00000000dead/stream", None, 404, "not found"),
        ("?stream_mode=values", None, 422, "Invalid stream_mode: 'values'"),
        ("?stream_mode=[%22lifecycle%22,5]", None, 422, "stream_mode is not a JSON array"),
        ("?stream_mode=lifecycle,bogus", None, 422, "'bogus'"),
        ("", "abc", 422, "Invalid last-event-id"),
        ("", "-2", 422, "Invalid last-event-id"),
        ("", "1.5", 422, "Invalid last-event-id"),
        ("", "1795348086803-0", 422, "Invalid last-event-id"),
        ("", "\u0663".encode(), 422, "Invalid last-event-id"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_the_reply_begins(
    http: httpx.Client, of_http: str, path: str, last_event: str | bytes | None, status: int, text: str
) -> None:
    place = path if path.startswith("/") else f"/threads/{of_http}/stream{path}"
    headers: list[tuple[bytes, bytes]] = []
    if last_event is not None:
        headers = [(b"last-event-id", last_event if isinstance(last_event, bytes) else last_event.encode())]
    response = http.get(place, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert text in response.json()["detail"]


def test_a_huge_number_is_one_beyond_the_end(server: Server, of_http: str) -> None:
    with connect(server) as wire:
        wire.send(f"GET /threads/{of_http}/stream HTTP/1.1\r\nlast-event-id: {'9' * 40}")
        assert wire.head()[0] == 200
