"""Steps that leave a mark outside: a line in the file that EFFECTS names, at the start of each and at the end.

{"steps": 4, "pause": 0.3}    run_id  cron_id or -  pid of the worker  what began: step1 .. step4, end

With "until", the path of a file, each step, or the one that "holds" numbers, waits until there is such a file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import anyio
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    steps: int
    pause: float
    until: str
    holds: int
    done: int


def mark(config: RunnableConfig, what: str) -> None:
    run_id, cron_id = (config["configurable"].get(name, "-") for name in ("run_id", "cron_id"))
    with Path(os.environ["EFFECTS"]).open("ab", buffering=0) as effects:  # one write: never torn
        effects.write(f"{run_id} {cron_id} {os.getpid()} {what}\n".encode())


async def begin(state: State) -> State:
    return {"done": 0}


async def step(state: State, config: RunnableConfig) -> State:
    mark(config, f"step{state['done'] + 1}")
    await anyio.sleep(state.get("pause", 0.0))
    if state.get("holds", state["done"] + 1) == state["done"] + 1:
        while "until" in state and not await anyio.Path(state["until"]).exists():  # noqa: ASYNC110 - another process's
            await anyio.sleep(0.01)
    return {"done": state["done"] + 1}


async def end(state: State, config: RunnableConfig) -> State:
    mark(config, "end")
    return {}


graph = (
    StateGraph(State)
    .add_node(begin)
    .add_node(step)
    .add_node(end)
    .add_conditional_edges(START, lambda state: "begin" if state.get("steps", 1) else "end")
    .add_edge("begin", "step")
    .add_conditional_edges("step", lambda state: "step" if state["done"] < state.get("steps", 1) else "end")
    .add_edge("end", END)
    .compile()
)
