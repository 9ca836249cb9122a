"""A graph that fails: the run ends with status `error`, and the thread remembers why."""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    x: int


async def fail(state: State):
    raise ValueError("boom happened")


graph = StateGraph(State).add_node(fail).add_edge(START, "fail").compile()
