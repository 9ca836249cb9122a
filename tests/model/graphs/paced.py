"""A graph that takes the steps of its plan, each when somebody outside lets it: see tests/model/gate.py.

{"todo": [["a", "go"], ["b", "ask"], ["c", "fail"]]}    go: writes its name; ask: waits for an answer; fail: raises

A step that is done is put on the log and off the list. The nested one takes each step in a graph of its own, whose
checkpoints lie beside those of the thread: from outside, the two cannot be told apart.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

Step = list[str]


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    todo: list[Step]


class One(TypedDict, total=False):
    step: Step
    entry: str


async def let_through(config: RunnableConfig, name: str) -> None:
    """Say who stands at the gate, and wait until it opens. The connection ends with the node, however that ends."""
    knock: dict[str, Any] = {key: config["configurable"][key] for key in ("thread_id", "run_id")}
    knock |= {"attempt": config["metadata"]["run_attempt"], "pid": os.getpid(), "step": name}
    reader, writer = await asyncio.open_unix_connection(os.environ["GATE"])
    try:
        writer.write(json.dumps(knock).encode() + b"\n")
        await reader.readline()
    finally:
        writer.close()


async def take(step: Step, config: RunnableConfig) -> str:
    name, kind = step
    await let_through(config, name)
    if kind == "fail":
        raise ValueError(name)
    return f"{name}={interrupt(name)}" if kind == "ask" else name


async def act(state: State, config: RunnableConfig) -> State:
    first, *rest = state["todo"]
    return {"log": [await take(first, config)], "todo": rest}


async def act_one(state: One, config: RunnableConfig) -> One:
    return {"entry": await take(state["step"], config)}


one = StateGraph(One).add_node("act", act_one).add_edge(START, "act").add_edge("act", END).compile()


async def delegate(state: State, config: RunnableConfig) -> State:
    first, *rest = state["todo"]
    done = await one.ainvoke({"step": first}, config)
    return {"log": [done["entry"]], "todo": rest}


def following(state: State) -> str:
    return "step" if state.get("todo") else END


def walking(step: Any) -> Any:
    builder = StateGraph(State).add_node("step", step)
    builder.add_conditional_edges(START, following, ["step", END])
    return builder.add_conditional_edges("step", following, ["step", END]).compile()


paced = walking(act)
nested = walking(delegate)
