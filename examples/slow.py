"""Work that takes time: `{"delay": 2.5, "steps": 5}` sleeps half a second in each of 5 steps.

Good for trying what a long run is about: watch it, cancel it, or kill the server in the middle. Each finished
step is a checkpoint, and the run goes on from the last one.
"""

from __future__ import annotations

from typing import TypedDict

import anyio
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    delay: float
    steps: int
    done: int


async def step(state: State):
    await anyio.sleep(state.get("delay", 1.0) / state.get("steps", 1))
    return {"done": state.get("done", 0) + 1}


def more(state: State):
    return "step" if state["done"] < state.get("steps", 1) else END


# `done` starts over with each run, so that a second run on the thread works as the first did.
def begin(state: State):
    return {"done": 0}


graph = (
    StateGraph(State)
    .add_node(begin)
    .add_node(step)
    .add_edge(START, "begin")
    .add_edge("begin", "step")
    .add_conditional_edges("step", more, ["step", END])
    .compile()
)
