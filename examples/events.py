"""Events of the graph's own: `{"n": 5000}` writes 5,000 of them, for a client that streams `custom`."""

from __future__ import annotations

from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    n: int
    written: int


async def work(state: State):
    write = get_stream_writer()
    for i in range(state.get("n", 10)):
        write({"i": i})
    return {"written": state.get("n", 10)}


graph = StateGraph(State).add_node(work).add_edge(START, "work").compile()
