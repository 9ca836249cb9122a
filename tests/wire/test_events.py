"""The mode `events`, and modes side by side."""

from __future__ import annotations

from typing import Any, Final

import httpx
import pytest

from tests.wire.compatibility import covers
from tests.wire.sdks import Event, Sdk

SAID: Final = {"messages": [{"role": "user", "content": "hello there"}]}
EVERYTHING: Final = [
    "values", "updates", "custom", "messages-tuple", "tasks", "checkpoints", "debug", "events",
]  # fmt: skip


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


def data(events: list[Event], name: str) -> list[Any]:
    return [event.data for event in events if event.event == name]


@covers("stream_mode", "events")
def test_events_tell_what_goes_on_within(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "chat", input=SAID, stream_mode="events")
    assert {event.event for event in events} == {"metadata", "events"}
    told = data(events, "events")
    assert (told[0]["event"], told[-1]["event"]) == ("on_chain_start", "on_chain_end")
    assert told[0]["run_id"] == sdk.created[-1]["run_id"]
    chunks = [event["data"]["chunk"] for event in told if event["event"] == "on_chat_model_stream"]
    assert "".join(chunk["content"] for chunk in chunks) == "You said: hello there"


@covers("stream_mode", "events of the run itself")
def test_what_the_run_itself_streams_is_told_as_updates(sdk: Sdk) -> None:
    for modes in ("events", EVERYTHING):
        events = sdk("runs.stream", None, "events", input={"n": 1}, stream_mode=modes)
        told = [e for e in data(events, "events") if e["event"] == "on_chain_stream" and not e["parent_ids"]]
        assert [event["data"]["chunk"] for event in told] == [{"work": {"written": 1}}]


def test_all_modes_at_once_are_each_what_they_are_alone(sdk: Sdk) -> None:
    together = sdk("runs.stream", None, "events", input={"n": 2}, stream_mode=EVERYTHING)
    for mode in ("values", "updates", "custom"):
        alone = sdk("runs.stream", None, "events", input={"n": 2}, stream_mode=mode)
        assert data(together, mode) == data(alone, mode)
    assert {event.event for event in together} == {"metadata", *EVERYTHING} - {"messages-tuple"}


def test_a_step_is_told_in_the_order_of_its_work(sdk: Sdk) -> None:
    modes = ["values", "updates", "custom", "tasks"]
    events = sdk("runs.stream", None, "events", input={"n": 1}, stream_mode=modes)
    assert [event.event for event in events[1:]] == [
        "values",
        "tasks",
        "custom",
        "tasks",
        "updates",
        "values",
    ] or [event.event for event in events[1:]] == ["values", "tasks", "custom", "updates", "tasks", "values"]


def test_an_interrupt_within_a_subgraph_is_told_there_and_at_the_root(sdk: Sdk, thread: str) -> None:
    events = sdk(
        "runs.stream",
        thread,
        "inner",
        input={"x": 1},
        stream_mode=["updates", "values"],
        stream_subgraphs=True,
    )
    stops = [
        (event.event.split(":")[0], event.data["__interrupt__"])
        for event in events
        if "__interrupt__" in event.data
    ]
    assert [event for event, _ in stops] == ["updates|child", "values|child", "updates", "values"] or [
        event for event, _ in stops
    ] == ["updates|child", "updates", "values"]
    for _, [asked] in stops:
        assert (asked["value"], asked["response_schema"]) == ("Who?", None)


def test_feedback_that_nobody_can_take_harms_no_run(sdk: Sdk, thread: str) -> None:
    options = {"input": {"n": 1}, "feedback_keys": ["quality"], "stream_mode": "custom"}
    events = sdk("runs.stream", thread, "events", **options)
    assert [event.event for event in events] == ["metadata", "custom"]
    assert sdk("runs.get", thread, sdk.created[-1]["run_id"])["status"] == "success"


def test_a_cron_may_stream_events(http: httpx.Client) -> None:
    cron = http.post(
        "/runs/crons",
        json={"assistant_id": "echo", "schedule": "0 0 1 1 *", "input": SAID, "stream_mode": ["events"]},
    )
    assert cron.json()["payload"]["stream_mode"] == ["events"]
    http.delete(f"/runs/crons/{cron.json()['cron_id']}").raise_for_status()


def test_a_resumable_stream_of_events_is_replayed(sdk: Sdk, thread: str) -> None:
    options = {"input": SAID, "stream_mode": "events", "stream_resumable": True}
    seen = sdk("runs.stream", thread, "chat", **options)
    run_id = sdk.created[-1]["run_id"]
    again = sdk("runs.join_stream", thread, run_id, stream_mode="events", last_event_id=seen[0].id)
    assert again == seen[1:]


def test_events_show_nothing_private(http: httpx.Client) -> None:
    wanted = {
        "assistant_id": "chat",
        "input": SAID,
        "stream_mode": ["events", "messages-tuple", "debug", "checkpoints", "tasks"],
        "config": {"configurable": {"api_key": "s3cret", "password": "s3cret"}},
    }
    reply = http.post("/runs/stream", json=wanted)
    assert "on_chat_model_stream" in reply.text
    assert "s3cret" not in reply.text
