"""What each stream mode shows, beyond the plain cases of test_streams."""

from __future__ import annotations

from typing import Any, Final

import httpx
import pytest

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


def test_events_tell_what_goes_on_within(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "chat", input=SAID, stream_mode="events")
    assert {event.event for event in events} == {"metadata", "events"}
    told = data(events, "events")
    assert (told[0]["event"], told[-1]["event"]) == ("on_chain_start", "on_chain_end")
    assert told[0]["run_id"] == sdk.created[-1]["run_id"]
    chunks = [event["data"]["chunk"] for event in told if event["event"] == "on_chat_model_stream"]
    assert "".join(chunk["content"] for chunk in chunks) == "You said: hello there"


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


def test_a_task_is_told_when_it_starts_and_when_it_ends(sdk: Sdk, thread: str) -> None:
    began, ended = data(sdk("runs.stream", thread, "events", input={"n": 1}, stream_mode="tasks"), "tasks")
    assert (began["name"], began["input"]) == ("work", {"n": 1})
    assert began["triggers"] == ["branch:to:work"]
    assert {key: ended[key] for key in ("id", "name", "error", "result", "interrupts")} == {
        "id": began["id"], "name": "work", "error": None, "result": {"written": 1}, "interrupts": [],
    }  # fmt: skip


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_checkpoints_are_told_however_they_are_kept(sdk: Sdk, thread: str, durability: str) -> None:
    events = sdk(
        "runs.stream", thread, "events", input={"n": 1}, stream_mode="checkpoints", durability=durability
    )
    told = data(events, "checkpoints")
    assert [each["metadata"]["step"] for each in told] == [-1, 0, 1]
    assert [each["next"] for each in told] == [["__start__"], ["work"], []]
    assert told[-1]["values"] == {"n": 1, "written": 1}
    assert told[-1]["parent_config"]["configurable"]["thread_id"] == thread
    kept = sdk("threads.get_history", thread)
    assert len(kept) == (1 if durability == "exit" else 3)


def test_debug_tells_of_checkpoints_and_tasks(sdk: Sdk) -> None:
    told = data(sdk("runs.stream", None, "events", input={"n": 0}, stream_mode="debug"), "debug")
    assert [each["type"] for each in told] == [
        "checkpoint",
        "checkpoint",
        "task",
        "task_result",
        "checkpoint",
    ]
    assert {frozenset(each) for each in told} == {frozenset({"step", "timestamp", "type", "payload"})}


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


def test_a_cron_may_stream_events(sdk: Sdk) -> None:
    cron = sdk("crons.create", "echo", schedule="0 0 1 1 *", input=SAID, stream_mode=["events"])
    assert cron["payload"]["stream_mode"] == ["events"]
    sdk("crons.delete", cron["cron_id"])


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
