"""A graph that asks something from within another."""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    x: int
    answer: str


async def count(state: State) -> State:
    return {"x": state["x"] + 1}


async def ask(state: State) -> State:
    return {"answer": interrupt("Who?")}


child = (
    StateGraph(State)
    .add_node(count)
    .add_node(ask)
    .add_edge(START, "count")
    .add_edge("count", "ask")
    .compile()
)

graph = StateGraph(State).add_node("child", child).add_edge(START, "child").compile()
