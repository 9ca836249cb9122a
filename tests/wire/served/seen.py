"""A graph that tells which of the request's headers it sees."""

from __future__ import annotations

from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    seen: dict[str, str]


async def look(state: State, config: RunnableConfig) -> State:
    return {
        "seen": {key: value for key, value in config["configurable"].items() if "-" in key or key == "cookie"}
    }


graph = StateGraph(State).add_node(look).add_edge(START, "look").compile()
