"""What user code may do to its process: {"do": "block" | "burn" | "exit", "seconds": 20}."""

from __future__ import annotations

import os
import time
from typing import TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    do: str
    seconds: float
    took: float


def burn(seconds: float) -> None:
    """Hold the GIL for about so long, in one call that nothing can interrupt: a power of an integer."""
    exponent, took = 200_000, 0.0
    while took < 0.02:
        exponent *= 2
        began = time.thread_time()  # not the clock: the thread may have to wait for a processor
        _ = 7**exponent
        took = time.thread_time() - began
    _ = 7 ** int(exponent * (seconds / took) ** (1 / 1.585))  # Karatsuba's exponent


async def strike(state: State) -> State:
    began = time.perf_counter()
    match state["do"]:
        case "block":
            time.sleep(state["seconds"])  # noqa: ASYNC251 - the very thing that is not to be done
        case "burn":
            burn(state["seconds"])
        case _:
            os._exit(7)
    return {"took": time.perf_counter() - began}


graph = StateGraph(State).add_node(strike).add_edge(START, "strike").add_edge("strike", END).compile()
