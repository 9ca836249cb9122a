"""A graph in a graph.

With `stream_subgraphs=True` a client also sees what the inner one does, under `child:<id>`.
"""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    x: int
    log: Annotated[list[str], operator.add]


async def inner_a(state: State):
    get_stream_writer()({"inner": "hello"})  # an event of our own: `stream_mode="custom"`
    return {"log": ["inner_a"], "x": state.get("x", 0) + 1}


async def inner_b(state: State):
    return {"log": ["inner_b"]}


async def outer(state: State):
    return {"log": ["outer"]}


child = (
    StateGraph(State)
    .add_node(inner_a)
    .add_node(inner_b)
    .add_edge(START, "inner_a")
    .add_edge("inner_a", "inner_b")
    .compile()
)

graph = (
    StateGraph(State)
    .add_node(outer)
    .add_node("child", child)
    .add_edge(START, "outer")
    .add_edge("outer", "child")
    .compile()
)
