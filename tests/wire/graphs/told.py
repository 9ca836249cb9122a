"""A graph that tells what it was called with."""

from __future__ import annotations

from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

KEYS = ("configurable", "max_concurrency", "metadata", "recursion_limit", "run_name", "tags")


class State(TypedDict, total=False):
    told: dict[str, Any]


async def tell(state: State, config: RunnableConfig) -> State:
    told: dict[str, Any] = {key: value for key, value in config.items() if key in KEYS}
    told["configurable"] = {key: value for key, value in told["configurable"].items() if key[:2] != "__"}
    return {"told": told}


graph = StateGraph(State).add_node(tell).add_edge(START, "tell").compile()
