"""A graph whose output no database and no JSON can hold as it is."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

ODD: dict[str, object] = {
    "nul": "a\0b",
    "surrogate": "a\ud800b",
    "nan": float("nan"),
    "infinity": [float("inf"), -float("inf")],
    "huge": 2**70,
    "bytes": b"\xff\x00",
    "keys": {1: "one", "nul\0": "key"},
    "surrogate key": {"low\udfff": "key"},
    "set": {1},
}


class State(TypedDict, total=False):
    which: str
    out: Any


async def work(state: State) -> State:
    out = ODD[state["which"]]
    get_stream_writer()(out)
    return {"out": out}


graph = StateGraph(State).add_node(work).add_edge(START, "work").compile()
