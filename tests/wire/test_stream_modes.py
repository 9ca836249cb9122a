"""What each mode of a stream sends, key by key and byte by byte."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.wire.compatibility import covers
from tests.wire.sdks import Event, Sdk

SAID = {"messages": [{"role": "user", "content": "hello there"}]}
MESSAGE = ["content", "additional_kwargs", "response_metadata", "type", "name", "id"]


@pytest.fixture
def thread(sdk: Sdk) -> str:
    thread_id: str = sdk("threads.create")["thread_id"]
    return thread_id


def data(events: list[Event], name: str) -> list[Any]:
    return [event.data for event in events if event.event == name]


@covers("Server-sent events", "subgraphs", "several modes")
@covers("stream_mode", "values", "updates", "custom")
def test_a_stream_of_a_graph_in_a_graph_is_what_clients_know(http: httpx.Client) -> None:
    response = http.post(
        "/runs/stream",
        json={
            "assistant_id": "nested",
            "input": {"x": 1, "log": []},
            "stream_mode": ["values", "updates", "custom"],
            "stream_subgraphs": True,
        },
    )
    run_id = response.headers["content-location"].removeprefix("/runs/")
    [child] = set(re.findall(r"\|child:([0-9a-f-]{36})\r\n", response.text))
    assert str(UUID(child)) == child
    expected = [
        ("metadata", f'{{"run_id":"{run_id}","attempt":1}}'),
        ("values", '{"x":1,"log":[]}'),
        ("updates", '{"outer":{"log":["outer"]}}'),
        ("values", '{"x":1,"log":["outer"]}'),
        (f"values|child:{child}", '{"x":1,"log":["outer"]}'),
        (f"custom|child:{child}", '{"inner":"hello"}'),
        (f"updates|child:{child}", '{"inner_a":{"log":["inner_a"],"x":2}}'),
        (f"values|child:{child}", '{"x":2,"log":["outer","inner_a"]}'),
        (f"updates|child:{child}", '{"inner_b":{"log":["inner_b"]}}'),
        (f"values|child:{child}", '{"x":2,"log":["outer","inner_a","inner_b"]}'),
        ("updates", '{"child":{"x":2,"log":["outer","inner_a","inner_b"]}}'),
        ("values", '{"x":2,"log":["outer","outer","inner_a","inner_b"]}'),
    ]
    assert response.text == "".join(f"event: {event}\r\ndata: {sent}\r\n\r\n" for event, sent in expected)


@covers("Server-sent events", "subgraphs")
def test_the_graphs_that_lead_to_an_event_stand_in_its_name(sdk: Sdk) -> None:
    events = sdk(
        "runs.stream", None, "levels", input={"total": 1}, stream_mode="updates", stream_subgraphs=True
    )
    assert [re.sub(r":[0-9a-f-]{36}", "", event.event) for event in events] == [
        "metadata",
        "updates|middle|inner",
        "updates|middle",
        "updates",
    ]


@covers("stream_mode", "updates of a question", "values of a question")
def test_a_question_is_sent_as_clients_know_it(http: httpx.Client) -> None:
    asked = {"assistant_id": "ask", "input": {"question": "q"}, "stream_mode": ["updates", "values"]}
    text = http.post("/runs/stream", json=asked).text
    [found] = set(re.findall('"id":"([0-9a-f]{32})"', text))
    sent = f'"__interrupt__":[{{"value":{{"q":"q"}},"id":"{found}","response_schema":null}}]'
    assert text.split("\r\n\r\n", 1)[1] == (
        'event: values\r\ndata: {"question":"q"}\r\n\r\n'
        f"event: updates\r\ndata: {{{sent}}}\r\n\r\n"
        f'event: values\r\ndata: {{"question":"q",{sent}}}\r\n\r\n'
    )


@covers("stream_mode", "messages-tuple")
def test_a_chunk_of_a_message_has_the_keys_of_the_contract(sdk: Sdk, thread: str) -> None:
    events = sdk(
        "runs.stream", thread, "chat", input=SAID, stream_mode="messages-tuple", metadata={"mine": 1}
    )
    first, *_, last = data(events, "messages")
    chunk, about = first
    assert sorted(chunk) == sorted(
        [*MESSAGE, "tool_calls", "invalid_tool_calls", "usage_metadata", "tool_call_chunks", "chunk_position"]
    )
    assert (chunk["content"], chunk["type"], chunk["chunk_position"]) == ("You", "AIMessageChunk", None)
    assert (last[0]["content"], last[0]["chunk_position"]) == ("", "last")
    assert len({message["id"] for message, _ in data(events, "messages")}) == 1
    assert about.items() >= {"mine": 1, "graph_id": "chat", "thread_id": thread, "run_attempt": 1}.items()
    assert about.keys() >= {
        *("langgraph_step", "langgraph_node", "langgraph_triggers", "langgraph_path"),
        *("langgraph_checkpoint_ns", "checkpoint_ns", "ls_provider", "ls_model_type"),
        *("created_by", "assistant_id", "run_id", "langgraph_version"),
    }


@covers("stream_mode", "messages-tuple of a node")
def test_a_message_that_a_node_gave_comes_whole_in_its_tuple(sdk: Sdk, thread: str) -> None:
    [[message, about]] = data(
        sdk("runs.stream", thread, "echo", input=SAID, stream_mode="messages-tuple"), "messages"
    )
    assert (message["type"], message["content"], about["langgraph_node"]) == ("ai", "hello there", "answer")
    assert sorted(message) == sorted([*MESSAGE, "tool_calls", "invalid_tool_calls", "usage_metadata"])


@covers("stream_mode", "messages of a node", "messages")
def test_a_message_is_announced_once(sdk: Sdk, thread: str) -> None:
    for graph, then in (("echo", "complete"), ("chat", "partial")):
        events = sdk("runs.stream", thread, graph, input=SAID, stream_mode="messages")
        _, announced, *rest = events
        [[message_id, about]] = announced.data.items()
        assert announced.event == "messages/metadata"
        assert list(about) == ["metadata"]
        assert {event.event for event in rest} == {f"messages/{then}"}
        assert {(message["id"], message["type"]) for event in rest for message in event.data} == {
            (message_id, "ai")
        }


@covers("stream_mode", "messages and messages-tuple")
def test_with_both_modes_of_messages_only_tuples_are_sent(sdk: Sdk, thread: str) -> None:
    events = sdk("runs.stream", thread, "chat", input=SAID, stream_mode=["messages", "messages-tuple"])
    assert {event.event for event in events} == {"metadata", "messages"}


@covers("stream_mode", "tasks")
def test_a_task_is_told_when_it_starts_and_when_it_ends(sdk: Sdk, thread: str) -> None:
    begun, done = data(sdk("runs.stream", thread, "events", input={"n": 1}, stream_mode="tasks"), "tasks")
    assert list(begun)[:4] == ["id", "name", "input", "triggers"]
    assert (begun["name"], begun["input"], begun["triggers"]) == ("work", {"n": 1}, ["branch:to:work"])
    assert done == {
        "id": begun["id"],
        "name": "work",
        "error": None,
        "result": {"written": 1},
        "interrupts": [],
    }


@covers("stream_mode", "checkpoints")
def test_checkpoints_are_told_with_their_coordinates_alone(sdk: Sdk, thread: str) -> None:
    events = data(
        sdk("runs.stream", thread, "events", input={"n": 1}, stream_mode="checkpoints"), "checkpoints"
    )
    assert [each["metadata"]["source"] for each in events] == ["input", "loop", "loop"]
    assert [each["metadata"]["step"] for each in events] == [-1, 0, 1]
    history = sdk("threads.get_history", thread)[::-1]
    for told, state in zip(events, history, strict=True):
        assert set(told) == {"config", "metadata", "values", "next", "parent_config", "tasks"}
        coordinates = told["config"]["configurable"]
        assert set(coordinates) <= {"thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map"}
        assert coordinates["checkpoint_id"] == state["checkpoint_id"]
        assert (told["values"], told["next"]) == (state["values"], state["next"])
    assert events[0]["parent_config"] is None
    [task] = events[1]["tasks"]
    assert task.items() >= {"name": "work", "interrupts": [], "state": None}.items()


@covers("stream_mode", "checkpoints")
@pytest.mark.parametrize("body", [{"durability": "exit"}, {}], ids=str)
def test_checkpoints_are_told_of_every_run(http: httpx.Client, body: dict[str, str]) -> None:
    asked = {"assistant_id": "events", "input": {"n": 1}, "stream_mode": "checkpoints", **body}
    assert http.post("/runs/stream", json=asked).text.count("event: checkpoints\r\n") == 3


@covers("stream_mode", "debug")
def test_debugging_tells_of_each_step(sdk: Sdk, thread: str) -> None:
    events = data(sdk("runs.stream", thread, "events", input={"n": 1}, stream_mode="debug"), "debug")
    assert {tuple(each) for each in events} == {("step", "timestamp", "type", "payload")}
    assert [each["type"] for each in events] == [
        *("checkpoint", "checkpoint", "task", "task_result", "checkpoint"),
    ]
