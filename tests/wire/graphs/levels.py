"""A graph in a graph in a graph, which sums up where it has been."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    total: Annotated[int, operator.add]


async def add(state: State) -> State:
    return {"total": 1}


inner = StateGraph(State).add_node(add).add_edge(START, "add").compile()
middle = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
graph = StateGraph(State).add_node("middle", middle).add_edge(START, "middle").compile()
