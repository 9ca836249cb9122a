"""Runs that create runs and wait for them, in each of the ways in which that is done."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph_sdk import get_client, get_sync_client

client = get_client()  # as users do: once, when the graph is imported
sync_client = get_sync_client()


class State(TypedDict, total=False):
    depth: int
    seen: list[str]


def _below(state: State) -> dict[str, Any]:
    return {"depth": state["depth"] - 1}


def _seen(state: State, below: Any) -> dict[str, Any]:
    return {"seen": [*below["seen"], str(state["depth"])]}


async def wait(state: State) -> dict[str, Any]:
    if state["depth"] == 0:
        return {"seen": ["0"]}
    return _seen(state, await client.runs.wait(None, "wait", input=_below(state)))


def sync_wait(state: State) -> dict[str, Any]:
    if state["depth"] == 0:
        return {"seen": ["0"]}
    return _seen(state, sync_client.runs.wait(None, "sync_wait", input=_below(state)))


async def stream(state: State) -> dict[str, Any]:
    if state["depth"] == 0:
        return {"seen": ["0"]}
    last: Any = None
    async for part in get_client().runs.stream(None, "stream", input=_below(state), stream_mode="values"):
        if part.event == "values":
            last = part.data
    return _seen(state, last)


async def join(state: State) -> dict[str, Any]:
    if state["depth"] == 0:
        return {"seen": ["0"]}
    thread = await client.threads.create()
    run = await client.runs.create(thread["thread_id"], "join", input=_below(state))
    return _seen(state, await client.runs.join(thread["thread_id"], run["run_id"]))


async def thread_stream(state: State) -> dict[str, Any]:
    """Learn from its thread's stream that a run has ended."""
    if state["depth"] == 0:
        return {"seen": ["0"]}
    thread = (await client.threads.create())["thread_id"]
    await client.runs.create(thread, "thread_stream", input=_below(state), stream_resumable=True)
    stream: Any = await client.threads.join_stream(thread, last_event_id="0")
    async for part in stream:
        if part.event == "values" and "seen" in part.data:
            return _seen(state, part.data)
    raise AssertionError("the stream has ended")


def _graph(node: Any) -> StateGraph[Any]:
    built: StateGraph[Any] = StateGraph(State)
    built.add_node("node", node)
    built.add_edge(START, "node")
    built.add_edge("node", END)
    return built


waits = _graph(wait)
sync_waits = _graph(sync_wait)
streams = _graph(stream)
joins = _graph(join)
thread_streams = _graph(thread_stream)
