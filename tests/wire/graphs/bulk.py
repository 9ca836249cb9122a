"""Large events: `{"n": 300, "size": 65536}` writes 300 of 64 KiB, with a breath in between."""

from __future__ import annotations

from typing import TypedDict

import anyio
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    n: int
    size: int


async def work(state: State) -> State:
    write = get_stream_writer()
    for i in range(state["n"]):
        write({"i": i, "text": "x" * state["size"]})
        await anyio.sleep(0.005)
    return {}


graph = StateGraph(State).add_node(work).add_edge(START, "work").compile()
