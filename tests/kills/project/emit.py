"""Events in steps: `{"steps": 10, "each": 100}` writes 1,000 of them, and marks the start of each step.

A mark is a line in the file that EFFECTS names: run_id  -  pid of the worker  number of the step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import anyio
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

TOGETHER = 10


class State(TypedDict, total=False):
    steps: int
    each: int
    pause: float
    done: int


def mark(config: RunnableConfig, number: int) -> None:
    with Path(os.environ["EFFECTS"]).open("ab", buffering=0) as effects:  # one write: never torn
        effects.write(f"{config['configurable']['run_id']} - {os.getpid()} {number}\n".encode())


async def step(state: State, config: RunnableConfig) -> State:
    number, write = state.get("done", 0), get_stream_writer()
    mark(config, number)
    for at in range(state["each"]):
        write({"step": number, "i": at})
        if at % TOGETHER == TOGETHER - 1:
            await anyio.sleep(state["pause"])
    return {"done": number + 1}


graph = (
    StateGraph(State)
    .add_node(step)
    .add_edge(START, "step")
    .add_conditional_edges("step", lambda state: "step" if state["done"] < state["steps"] else END)
    .compile()
)
