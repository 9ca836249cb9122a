"""Two nodes side by side, in a graph within a graph, that ask; the second then waits until it may go on."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, TypedDict

import anyio
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    folder: str
    heard: Annotated[list[str], operator.add]


async def twice(state: State) -> State:
    return {"heard": [interrupt("one?"), interrupt("two?")]}


async def once(state: State) -> State:
    answer = interrupt("once?")
    folder = Path(state["folder"])
    with (folder / "started").open("a") as started:
        started.write("1\n")
    while int((folder / "allowed").read_text()) < 1:  # noqa: ASYNC110 - the test is another process
        await anyio.sleep(0.01)
    return {"heard": [answer]}


def both() -> StateGraph[State]:
    return StateGraph(State).add_node(twice).add_node(once).add_edge(START, "twice").add_edge(START, "once")


graph = both().compile()
nested = StateGraph(State).add_node("inner", both().compile()).add_edge(START, "inner").compile()
