from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matins import manifest
from matins.graphs.registry import Registry
from matins.storage.pool import Pool
from tests.support.orders import Lane, claim, order

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"
HELLO = {"messages": [{"role": "user", "content": "hello there", "id": "m1"}]}

Frames = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def examples() -> Registry:
    return Registry.load(manifest.read(EXAMPLES))


async def streamed(pool: Pool, registry: Registry, graph: str, modes: list[str], **kwargs: Any) -> Frames:
    lane = Lane(registry, pool)
    held = await claim(pool)
    await lane.execute(order(held, graph, stream_mode=modes, **kwargs))
    for event in told(lane.frames):
        if not event["parent_ids"]:
            assert event["run_id"] == str(held.run_id)
    return lane.frames[1:]


def told(frames: Frames) -> list[dict[str, Any]]:
    return [data for event, data in frames if event == "events"]


def names(frames: Frames) -> list[tuple[str, str]]:
    return [(event["event"], event["name"]) for event in told(frames)]


async def test_events_tell_of_the_run_its_nodes_and_its_models(pool: Pool, examples: Registry) -> None:
    frames = await streamed(pool, examples, "chat", ["events"], input=HELLO, metadata={"mm": 1})
    assert {event for event, _ in frames} == {"events"}
    assert names(frames) == [
        ("on_chain_start", "LangGraph"),
        ("on_chain_start", "reply"),
        ("on_chat_model_start", "Parrot"),
        *[("on_chat_model_stream", "Parrot")] * 5,
        ("on_chat_model_end", "Parrot"),
        ("on_chain_stream", "reply"),
        ("on_chain_end", "reply"),
        ("on_chain_stream", "LangGraph"),
        ("on_chain_end", "LangGraph"),
    ]
    first, *_, streamed_update, last = told(frames)
    assert set(first) == {"event", "data", "name", "tags", "run_id", "metadata", "parent_ids"}
    assert first["data"] == {"input": HELLO}
    assert (first["metadata"]["mm"], first["metadata"]["graph_id"]) == (1, "chat")
    assert streamed_update["data"]["chunk"]["reply"]["messages"][0]["content"] == "You said: hello there"
    assert [m["type"] for m in last["data"]["output"]["messages"]] == ["human", "ai"]


async def test_the_chunks_of_a_model_are_messages(pool: Pool, examples: Registry) -> None:
    frames = await streamed(pool, examples, "chat", ["events"], input=HELLO)
    chunks = [event["data"]["chunk"] for event in told(frames) if event["event"] == "on_chat_model_stream"]
    assert [chunk["content"] for chunk in chunks] == ["You", " said:", " hello", " there", ""]
    assert {chunk["type"] for chunk in chunks} == {"AIMessageChunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize("subgraphs", [False, True])
async def test_events_leave_the_other_modes_as_they_are(
    pool: Pool, examples: Registry, subgraphs: bool
) -> None:
    modes = ["values", "updates", "custom", "messages-tuple", "tasks"]
    asked: dict[str, Any] = {"input": {"x": 1}, "stream_subgraphs": subgraphs}
    without = await streamed(pool, examples, "nested", modes, **asked)
    together = await streamed(pool, examples, "nested", [*modes, "events"], **asked)
    others = [event.split(":")[0] for event, _ in together if event != "events"]
    assert others == [event.split(":")[0] for event, _ in without]
    assert ("on_chain_end", "LangGraph") in names(together)


@pytest.mark.parametrize("modes", [["events"], ["events", "values", "custom", "debug"]])
async def test_what_the_run_itself_streams_is_told_as_updates(
    pool: Pool, examples: Registry, modes: list[str]
) -> None:
    for subgraphs in (False, True):
        frames = await streamed(pool, examples, "nested", modes, input={"x": 1}, stream_subgraphs=subgraphs)
        root = [
            event["data"]["chunk"]
            for event in told(frames)
            if event["event"] == "on_chain_stream" and not event["parent_ids"]
        ]
        assert root == [
            {"outer": {"log": ["outer"]}},
            {"child": {"x": 2, "log": ["outer", "inner_a", "inner_b"]}},
        ]


async def test_events_and_chunks_come_in_the_order_of_the_work(pool: Pool, examples: Registry) -> None:
    frames = await streamed(pool, examples, "nested", ["events", "values", "updates"], input={"x": 1})
    order_of_work = [
        data["event"] + " " + data["name"] if event == "events" else event
        for event, data in frames
        if event != "events" or (data["name"] in ("outer", "child") and "stream" not in data["event"])
    ]
    assert order_of_work == [
        "values", "on_chain_start outer", "on_chain_end outer", "updates", "values",
        "on_chain_start child", "on_chain_end child", "updates", "values",
    ]  # fmt: skip


async def test_events_show_nothing_of_the_config(pool: Pool, examples: Registry) -> None:
    config = {"configurable": {"secret": "s3cret", "api_key": "k3y"}}
    frames = await streamed(pool, examples, "chat", ["events"], input=HELLO, config=config)
    assert "s3cret" not in str(frames)
    assert "k3y" not in str(frames)


async def test_a_failure_ends_the_events_too(pool: Pool, examples: Registry) -> None:
    frames = await streamed(pool, examples, "failing", ["events"], input={"x": 1})
    assert frames[-1] == ("error", {"error": "ValueError", "message": "boom happened"})
    assert told(frames)[0]["event"] == "on_chain_start"


async def test_an_interrupt_is_told_in_the_events(pool: Pool, examples: Registry) -> None:
    frames = await streamed(pool, examples, "ask", ["events"], input={"question": "Who?"})
    [asked] = [
        event["data"]["chunk"]["__interrupt__"]
        for event in told(frames)
        if "__interrupt__" in str(event["data"].get("chunk")) and not event["parent_ids"]
    ]
    assert asked[0]["value"] == {"q": "Who?"}
