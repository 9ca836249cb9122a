"""A graph that asks two things at once."""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    left: str
    right: str


async def ask_left(state: State) -> State:
    return {"left": interrupt("Left?")}


async def ask_right(state: State) -> State:
    return {"right": interrupt("Right?")}


graph = (
    StateGraph(State)
    .add_node(ask_left)
    .add_node(ask_right)
    .add_edge(START, "ask_left")
    .add_edge(START, "ask_right")
    .compile()
)
