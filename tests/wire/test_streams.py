from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.support.waiting import until
from tests.wire.compatibility import covers
from tests.wire.relay import Relay
from tests.wire.sdks import Event, Sdk

SAID = {"messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


def names(events: list[Event]) -> list[str]:
    return [event.event for event in events]


def data(events: list[Event], name: str) -> list[Any]:
    return [event.data for event in events if event.event == name]


@covers("POST /threads/{thread_id}/runs/stream", "200")
@covers("Server-sent events", "metadata")
def test_a_stream_begins_with_its_run(sdk: Sdk, thread: str) -> None:
    first, *_ = sdk("runs.stream", thread, "events", input={"n": 1})
    run_id = sdk.created[-1]["run_id"]
    assert sdk.created[-1]["thread_id"] == thread
    assert (first.event, first.data) == ("metadata", {"run_id": run_id, "attempt": 1})
    assert sdk("runs.get", thread, run_id)["status"] == "success"


@covers("stream_mode", "values")
@covers("RunCreate", "stream_mode")
def test_values_are_the_state_after_each_step(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "slow", input={"delay": 0, "steps": 2})
    assert names(events) == ["metadata", *["values"] * 4]
    assert [state.get("done") for state in data(events, "values")] == [None, 0, 1, 2]


@covers("stream_mode", "updates")
@covers("RunCreate", "stream_mode")
def test_updates_are_what_each_node_said(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "slow", input={"delay": 0, "steps": 2}, stream_mode="updates")
    assert data(events, "updates") == [{"begin": {"done": 0}}, {"step": {"done": 1}}, {"step": {"done": 2}}]
    assert len(events) == 4


@covers("POST /runs/stream", "200")
@covers("stream_mode", "custom")
def test_custom_events_are_what_the_graph_wrote(sdk: Sdk) -> None:
    events = sdk("runs.stream", None, "events", input={"n": 3}, stream_mode="custom")
    assert data(events, "custom") == [{"i": 0}, {"i": 1}, {"i": 2}]


@covers("Server-sent events", "several modes")
@covers("RunCreate", "stream_mode")
def test_several_modes_come_in_the_order_of_the_work(sdk: Sdk) -> None:
    events = sdk("runs.stream", None, "events", input={"n": 2}, stream_mode=["values", "updates", "custom"])
    assert names(events) == ["metadata", "values", "custom", "custom", "updates", "values"]


@covers("stream_mode", "messages-tuple")
def test_tokens_come_as_tuples(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "chat", input=SAID, stream_mode="messages-tuple")
    tuples = data(events, "messages")
    assert "".join(chunk["content"] for chunk, _ in tuples) == "You said: hello there"
    assert {chunk["type"] for chunk, _ in tuples} == {"AIMessageChunk"}
    assert {about["langgraph_node"] for _, about in tuples} == {"reply"}
    assert tuples[-1][0]["usage_metadata"]["output_tokens"] == 4
    assert len(tuples) > 3


@covers("stream_mode", "messages")
def test_messages_grow_token_by_token(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "chat", input=SAID, stream_mode="messages")
    [announced] = data(events, "messages/metadata")
    [about] = announced.values()
    assert about["metadata"]["langgraph_node"] == "reply"
    texts = [message["content"] for [message] in data(events, "messages/partial")]
    assert texts[-1] == "You said: hello there"
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert names(events)[:2] == ["metadata", "messages/metadata"]


@covers("stream_mode", "messages of a node")
def test_a_message_that_was_not_streamed_comes_complete(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "echo", input=SAID, stream_mode="messages")
    [[message]] = data(events, "messages/complete")
    assert (message["type"], message["content"]) == ("ai", "hello there")


@covers("RunCreate", "stream_subgraphs")
@covers("Server-sent events", "subgraphs")
def test_subgraphs_are_seen_when_that_is_asked(sdk: Sdk) -> None:
    modes = ["values", "updates", "custom"]
    plain = sdk("runs.stream", None, "nested", input={"x": 1}, stream_mode=modes)
    assert set(names(plain)) == {"metadata", "values", "updates"}
    deep = sdk("runs.stream", None, "nested", input={"x": 1}, stream_mode=modes, stream_subgraphs=True)
    inner = [event for event in deep if "|child:" in event.event]
    assert {event.event.split("|")[0] for event in inner} == {"values", "updates", "custom"}
    assert [event.data for event in inner if event.event.startswith("custom")] == [{"inner": "hello"}]
    assert names(plain) == [event.event for event in deep if event not in inner]


@covers("Server-sent events", "error")
def test_a_failure_is_the_last_event(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "failing", input={"x": 1}, stream_mode="updates")
    assert events[-1][:2] == ("error", {"error": "ValueError", "message": "boom happened"})
    assert sdk("threads.get", thread)["status"] == "error"


@covers("stream_mode", "updates of a question", "values of a question")
def test_an_interrupt_is_an_update_and_a_value(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "ask", input={"question": "Who?"}, stream_mode=["updates", "values"])
    [update] = data(events, "updates")
    [asked] = update["__interrupt__"]
    assert asked["value"] == {"q": "Who?"}
    assert asked["response_schema"] is None
    assert len(asked["id"]) == 32
    assert data(events, "values")[-1] == {"question": "Who?", "__interrupt__": [asked]}
    resumed = sdk("runs.stream", thread, "ask", command={"resume": "Ada"})
    assert resumed[-1].data["answer"] == "Thank you, Ada."


@covers("stream_mode", "updates of a question")
@covers("RunCreate", "interrupt_before")
def test_a_static_breakpoint_is_an_empty_interrupt(sdk: Sdk, thread: str) -> None:
    events = sdk(
        "runs.stream", thread, "ask", input={"question": "?"}, stream_mode="updates", interrupt_before="*"
    )
    assert data(events, "updates") == [{"__interrupt__": []}]


@covers("RunCreate", "stream_resumable")
@covers("Server-sent events", "id")
def test_only_a_resumable_stream_has_numbers(sdk: Sdk, thread: str) -> None:
    plain = sdk("runs.stream", thread, "events", input={"n": 3}, stream_mode="custom")
    assert {event.id or None for event in plain} == {None}
    kept = sdk("runs.stream", thread, "events", input={"n": 3}, stream_mode="custom", stream_resumable=True)
    assert len({event.id for event in kept}) == len(kept)


@covers("GET /threads/{thread_id}/runs/{run_id}/stream", "200")
@covers(
    "To follow a run",
    "Last-Event-ID: -1",
    "Last-Event-ID",
    "Last-Event-ID of nothing",
    "a run that has ended",
)
@covers("RunCreate", "stream_resumable")
def test_a_resumable_run_is_replayed_after_any_of_its_events(sdk: Sdk, thread: str) -> None:
    seen = sdk("runs.stream", thread, "events", input={"n": 3}, stream_mode="custom", stream_resumable=True)
    run_id = sdk.created[-1]["run_id"]
    for everything in ("-1", "0"):
        assert sdk("runs.join_stream", thread, run_id, last_event_id=everything) == seen
    for number, event in enumerate(seen):
        again = sdk("runs.join_stream", thread, run_id, last_event_id=event.id)
        assert again == seen[number + 1 :]
    for nothing in ("abc", str(10**9)):
        assert sdk("runs.join_stream", thread, run_id, last_event_id=nothing) == []
    assert sdk("runs.join_stream", thread, run_id) == []


def test_a_stream_that_was_dropped_is_taken_up_where_it_broke(sdk: Sdk, thread: str) -> None:
    options = {"input": {"delay": 0.6, "steps": 3}, "stream_mode": "updates", "stream_resumable": True}
    head = sdk("runs.stream", thread, "slow", **options, take=2)
    assert len(head) == 2
    tail = sdk("runs.join_stream", thread, sdk.created[-1]["run_id"], last_event_id=head[-1].id)
    assert data(head + tail, "updates") == [
        {"begin": {"done": 0}},
        *[{"step": {"done": n}} for n in (1, 2, 3)],
    ]


@covers("To follow a run", "a client that lost its connection")
def test_a_client_that_loses_its_connection_goes_on_by_itself(
    sdk: Sdk, thread: str, relays: dict[str, Relay]
) -> None:
    relays[sdk.kind].cut_after = b'{"begin":'
    events = sdk(
        "runs.stream",
        thread,
        "slow",
        input={"delay": 0.6, "steps": 3},
        stream_mode="updates",
        stream_resumable=True,
    )
    assert relays[sdk.kind].cut_after is None
    assert data(events, "updates") == [{"begin": {"done": 0}}, *[{"step": {"done": n}} for n in (1, 2, 3)]]


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect:UserWarning")
@pytest.mark.parametrize("sdk", ["py-async", "py-sync"], indirect=True)
def test_a_wait_that_loses_its_connection_is_taken_up_by_a_join(
    sdk: Sdk, thread: str, relays: dict[str, Relay]
) -> None:
    relays[sdk.kind].cut_after = b"content-location"
    assert sdk("runs.wait", thread, "slow", input={"delay": 0.5})["done"] == 1
    assert relays[sdk.kind].cut_after is None
    assert len(sdk("runs.list", thread)) == 1


@covers("To follow a run", "a run that goes on")
def test_a_follower_sees_what_comes_after_it_came(sdk: Sdk, thread: str, relays: dict[str, Relay]) -> None:
    before = sdk("runs.create", thread, "slow", input={"delay": 600})["run_id"]
    run_id = sdk(
        "runs.create",
        thread,
        "slow",
        input={"delay": 0, "steps": 2},
        stream_mode=["values", "updates"],
    )["run_id"]
    stream = sdk.start("runs.join_stream", thread, run_id)
    # The reply begins when its run is listened to; only then may the run begin too.
    followed = ("GET", f"/threads/{thread}/runs/{run_id}/stream", 200)
    until(lambda: followed in relays[sdk.kind].seen)
    sdk("runs.cancel", thread, before, wait=True)
    live = stream.result(15)
    assert data(live, "updates") == [{"begin": {"done": 0}}, {"step": {"done": 1}}, {"step": {"done": 2}}]
    assert not any(event.id for event in live)


@covers("GET /threads/{thread_id}/runs/{run_id}/stream", "?stream_mode")
@covers("To follow a run", "stream_mode", "stream_mode, several")
@pytest.mark.parametrize("modes", ["updates", ["updates"], ["updates", "custom"]])
def test_a_follower_chooses_modes(sdk: Sdk, thread: str, modes: str | list[str]) -> None:
    sdk(
        "runs.stream",
        thread,
        "events",
        input={"n": 2},
        stream_mode=["values", "updates", "custom"],
        stream_resumable=True,
    )
    run_id = sdk.created[-1]["run_id"]
    events = sdk("runs.join_stream", thread, run_id, stream_mode=modes, last_event_id="-1")
    wanted = ["custom", "custom", "updates"] if "custom" in modes else ["updates"]
    assert names(events) == wanted


@covers("To follow a run", "stream_mode, several", "stream_mode, empty")
@covers("Defects", "of repeated modes the last wins")
def test_modes_are_read_in_every_form_that_clients_send(http: httpx.Client) -> None:
    thread_id = http.post("/threads", json={}).json()["thread_id"]
    modes = ["values", "updates", "custom"]
    response = http.post(
        f"/threads/{thread_id}/runs/stream",
        json={"assistant_id": "events", "input": {"n": 1}, "stream_mode": modes, "stream_resumable": True},
    )
    for query in (
        'stream_mode=["updates","custom"]',
        "stream_mode=updates&stream_mode=custom",
        "stream_mode=updates,custom",
        'stream_mode=["updates"]&stream_mode=custom',
    ):
        events = http.get(f"{response.headers['location']}?{query}", headers={"last-event-id": "-1"})
        assert [line for line in events.text.split("\r\n") if line.startswith("event")] == [
            "event: custom",
            "event: updates",
        ]
    everything = http.get(
        f"{response.headers['location']}?stream_mode=&cancel_on_disconnect=false",
        headers={"last-event-id": "-1"},
    )
    assert everything.text == response.text


@covers("To follow a run", "a run without a thread")
def test_a_run_without_a_thread_is_followed_by_its_id(sdk: Sdk) -> None:
    run = sdk(
        "runs.create",
        None,
        "slow",
        input={"delay": 0.5},
        stream_mode="updates",
        # So that it can still be followed when it ends before we come to that.
        stream_resumable=True,
        on_completion="keep",
    )
    # Python has no method for it, but knows the hidden thread.
    thread_id = None if sdk.is_js else run["thread_id"]
    events = sdk("runs.join_stream", thread_id, run["run_id"], last_event_id="-1")
    assert data(events, "updates") == [{"begin": {"done": 0}}, {"step": {"done": 1}}]


@covers("When a client goes away", "stream of a cancelled run")
def test_a_stream_of_a_cancelled_run_just_ends(sdk: Sdk, thread: str) -> None:
    stream = sdk.start("runs.stream", thread, "slow", input={"delay": 60}, stream_mode="updates")
    [run] = until(lambda: sdk("runs.list", thread, status="running"))
    sdk("runs.cancel", thread, run["run_id"], wait=True)
    assert set(names(stream.result(15))) <= {"metadata", "updates"}


def test_a_thousand_events_arrive_whole_and_in_order(sdk: Sdk) -> None:
    events = sdk("runs.stream", None, "events", input={"n": 1000}, stream_mode="custom")
    assert [event["i"] for event in data(events, "custom")] == list(range(1000))


@covers("Defects", "checkpoints tell who called")
@pytest.mark.parametrize("mode", ["tasks", "checkpoints", "debug"])
def test_the_inner_workings_can_be_watched(sdk: Sdk, thread: str, mode: str) -> None:
    events = sdk("runs.stream", thread, "events", input={"n": 1}, stream_mode=mode)
    assert set(names(events)) == {"metadata", mode}
    assert "langgraph_auth" not in str(events)
