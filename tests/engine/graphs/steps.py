"""A graph whose nodes a test can count, and holds back.

Each step adds a line to `<folder>/started` and then waits until `<folder>/allowed` says its number or more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import anyio
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    folder: str
    steps: int
    done: int


async def step(state: State) -> State:
    folder, number = Path(state["folder"]), state.get("done", 0) + 1
    with (folder / "started").open("a") as started:
        started.write(f"{number}\n")
    while int((folder / "allowed").read_text()) < number:  # noqa: ASYNC110 - the test is another process
        await anyio.sleep(0.01)
    return {"done": number}


def more(state: State) -> str:
    return "step" if state["done"] < state["steps"] else END


graph = StateGraph(State).add_node(step).add_edge(START, "step").add_conditional_edges("step", more).compile()


async def first(state: State) -> State:
    return {"done": 1}


async def second(state: State) -> State:
    return {"done": 2}


pair = (
    StateGraph(State)
    .add_node(first)
    .add_node(second)
    .add_edge(START, "first")
    .add_edge("first", "second")
    .compile()
)
