from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from matins import manifest
from matins.domain.frames import Frame
from matins.graphs.frames import Framing
from matins.graphs.registry import Registry
from matins.storage.pool import Pool
from tests.support.orders import Lane, claim, order

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"


@pytest.fixture(scope="module")
def examples() -> Registry:
    return Registry.load(manifest.read(EXAMPLES))


async def streamed(pool: Pool, registry: Registry, graph: str, **kwargs: Any) -> list[tuple[str, Any]]:
    lane = Lane(registry, pool)
    settled = await lane.execute(order(await claim(pool), graph, **kwargs))
    assert settled.outcome == "success"
    assert lane.events[0] == "metadata"
    return lane.frames[1:]


NESTED = [
    ("values", {"x": 1, "log": []}),
    ("updates", {"outer": {"log": ["outer"]}}),
    ("values", {"x": 1, "log": ["outer"]}),
    ("values|child", {"x": 1, "log": ["outer"]}),
    ("custom|child", {"inner": "hello"}),
    ("updates|child", {"inner_a": {"log": ["inner_a"], "x": 2}}),
    ("values|child", {"x": 2, "log": ["outer", "inner_a"]}),
    ("updates|child", {"inner_b": {"log": ["inner_b"]}}),
    ("values|child", {"x": 2, "log": ["outer", "inner_a", "inner_b"]}),
    ("updates", {"child": {"x": 2, "log": ["outer", "inner_a", "inner_b"]}}),
    ("values", {"x": 2, "log": ["outer", "outer", "inner_a", "inner_b"]}),
]
"""What the contract's raw trace of such a graph shows, without the ids."""


async def test_a_graph_in_a_graph_streams_as_the_contract_shows(pool: Pool, examples: Registry) -> None:
    modes = ["values", "updates", "custom"]
    found = await streamed(pool, examples, "nested", input={"x": 1}, stream_mode=modes, stream_subgraphs=True)
    assert [(event.split(":")[0], data) for event, data in found] == NESTED
    names = {event.split("|")[1] for event, _ in found if "|" in event}
    assert len(names) == 1
    assert len(names.pop().split(":")[1]) == 36


async def test_without_subgraphs_only_the_root_is_heard(pool: Pool, examples: Registry) -> None:
    modes = ["values", "updates", "custom"]
    found = await streamed(pool, examples, "nested", input={"x": 1}, stream_mode=modes)
    assert found == [each for each in NESTED if "|" not in each[0]]


@pytest.mark.parametrize("mode", ["values", "updates", "custom", "tasks", "checkpoints", "debug", "events"])
async def test_only_what_was_asked_for_is_sent(pool: Pool, examples: Registry, mode: str) -> None:
    found = await streamed(pool, examples, "events", input={"n": 2}, stream_mode=[mode])
    assert {event for event, _ in found} == {mode}


HELLO = {"messages": [{"role": "user", "content": "hello there", "id": "m1"}]}
TOKENS = ["You", " said:", " hello", " there", ""]


async def test_messages_tuple_sends_each_token_with_what_is_known_of_it(
    pool: Pool, examples: Registry
) -> None:
    found = await streamed(
        pool, examples, "chat", input=HELLO, stream_mode=["messages-tuple"], metadata={"mm": 1}
    )
    assert {event for event, _ in found} == {"messages"}
    chunks = [data[0] for _, data in found]
    assert [chunk["content"] for chunk in chunks] == TOKENS
    assert list(chunks[0]) == [
        "content", "additional_kwargs", "response_metadata", "type", "name", "id", "tool_calls",
        "invalid_tool_calls", "usage_metadata", "tool_call_chunks", "chunk_position",
    ]  # fmt: skip
    assert {chunk["type"] for chunk in chunks} == {"AIMessageChunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["usage_metadata"]["output_tokens"] == 4
    assert chunks[-1]["chunk_position"] == "last"
    about = found[0][1][1]
    assert (about["langgraph_node"], about["graph_id"], about["mm"], about["run_attempt"]) == (
        "reply",
        "chat",
        1,
        1,
    )


async def test_messages_sends_the_message_as_it_grows(pool: Pool, examples: Registry) -> None:
    found = await streamed(pool, examples, "chat", input=HELLO, stream_mode=["messages"])
    assert [event for event, _ in found] == ["messages/metadata"] + ["messages/partial"] * 5
    (message_id, about), *rest = found[0][1].items()
    assert rest == []
    assert about["metadata"]["langgraph_node"] == "reply"
    partials = [data[0] for _, data in found[1:]]
    assert [partial["content"] for partial in partials] == [
        "You", "You said:", "You said: hello", "You said: hello there", "You said: hello there",
    ]  # fmt: skip
    assert {(partial["type"], partial["id"]) for partial in partials} == {("ai", message_id)}
    assert partials[-1]["usage_metadata"]["total_tokens"] == 6


async def test_a_message_that_was_not_streamed_is_complete_at_once(pool: Pool, examples: Registry) -> None:
    found = await streamed(pool, examples, "echo", input=HELLO, stream_mode=["messages"])
    assert [event for event, _ in found] == ["messages/metadata", "messages/complete"]
    ((message_id, _),) = found[0][1].items()
    (message,) = found[1][1]
    assert (message["type"], message["content"], message["id"]) == ("ai", "hello there", message_id)
    (tuple_frame,) = await streamed(pool, examples, "echo", input=HELLO, stream_mode=["messages-tuple"])
    assert tuple_frame[1][0]["type"] == "ai"


async def test_of_both_message_modes_only_tuples_are_sent(pool: Pool, examples: Registry) -> None:
    modes = ["messages", "messages-tuple"]
    found = await streamed(pool, examples, "chat", input=HELLO, stream_mode=modes)
    assert [event for event, _ in found] == ["messages"] * len(TOKENS)


async def test_a_streamed_answer_is_kept_whole(pool: Pool, examples: Registry) -> None:
    (*_, last) = await streamed(pool, examples, "chat", input=HELLO, stream_mode=["values"])
    assert last[1]["messages"][-1]["content"] == "You said: hello there"
    assert last[1]["messages"][-1]["usage_metadata"] == {
        "input_tokens": 2,
        "output_tokens": 4,
        "total_tokens": 6,
    }


async def test_a_checkpoint_frame_shows_coordinates_and_nothing_private(
    pool: Pool, examples: Registry
) -> None:
    config = {"configurable": {"secret": "s3cret"}}
    modes = ["checkpoints", "debug"]
    found = await streamed(pool, examples, "events", input={"n": 0}, config=config, stream_mode=modes)
    checkpoints = [data for event, data in found if event == "checkpoints"]
    debugged = [data["payload"] for event, data in found if event == "debug" and data["type"] == "checkpoint"]
    for payload in checkpoints + debugged:
        assert set(payload["config"]["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    assert checkpoints[-1]["values"] == {"n": 0, "written": 0}


def framed(framing: Framing, *chunks: tuple[Any, ...]) -> list[str]:
    out: list[Frame] = []
    for chunk in chunks:
        framing.add(chunk, out)
    return [frame.event for frame in out]


def test_nested_namespaces_are_joined() -> None:
    framing = Framing(["custom", "messages"], subgraphs=True)
    message = AIMessage("x", id="1")
    assert framed(
        framing,
        (("a:1", "b:2"), "custom", 1),
        ((), "custom", 1),
        (("a:1",), "messages", (message, {})),
        (("a:1",), "messages", (AIMessageChunk(content="x", id="2"), {})),
    ) == [
        "custom|a:1|b:2", "custom", "messages/metadata|a:1", "messages/complete|a:1", "messages/metadata|a:1",
        "messages/partial|a:1",
    ]  # fmt: skip
