"""A graph that takes a context of one field and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime


@dataclass
class Context:
    tone: str = "plain"


class State(TypedDict, total=False):
    tone: str


async def work(state: State, runtime: Runtime[Context]) -> State:
    return {"tone": runtime.context.tone}


graph = StateGraph(State, context_schema=Context).add_node(work).add_edge(START, "work").compile()
