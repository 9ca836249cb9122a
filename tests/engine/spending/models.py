"""Graphs that call a model which reports 1,000 tokens a call; each call adds a line to `<folder>/calls`."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import anyio
import httpx
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt


class Fake(BaseChatModel):
    folder: str
    name_of_model: str = "fake-1"

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        with (Path(self.folder) / "calls").open("a") as calls:
            calls.write("1\n")
        message = AIMessage(
            "done",
            usage_metadata={"input_tokens": 900, "output_tokens": 100, "total_tokens": 1000},
            response_metadata={"model_name": self.name_of_model},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class State(TypedDict, total=False):
    folder: str
    calls: int
    model: str
    seconds: float
    done: Annotated[int, operator.add]
    errors: list[str]


def model(state: State) -> Fake:
    return Fake(folder=state["folder"], name_of_model=state.get("model", "fake-1"))


async def call(state: State) -> State:
    await anyio.sleep(state.get("seconds", 0))
    await model(state).ainvoke("hello")
    return {"done": 1}


def call_in_a_thread(state: State) -> State:
    model(state).invoke("hello")
    return {"done": 1}


def more(state: State) -> str:
    return "call" if state["done"] < state.get("calls", 1) else END


calling = (
    StateGraph(State)
    .add_node("call", call)
    .add_edge(START, "call")
    .add_conditional_edges("call", more)
    .compile()
)

inner = StateGraph(State).add_node("call", call_in_a_thread).add_edge(START, "call").compile()


def fork(state: State) -> list[Send]:
    return [Send("branch", {**state, "done": 0}) for _ in range(state["calls"])]


forking = StateGraph(State).add_node("branch", inner).add_conditional_edges(START, fork, ["branch"]).compile()


async def insist(state: State) -> State:
    """Call again and again, whatever is raised."""
    errors: list[str] = []
    for _ in range(state["calls"]):
        try:
            await model(state).ainvoke("hello")
        except Exception as refused:  # noqa: BLE001 - as careless code does
            errors.append(type(refused).__name__)
    return {"errors": errors}


stubborn = StateGraph(State).add_node(insist).add_edge(START, "insist").compile()


async def fail(state: State) -> State:
    """Call the model, then fail with what `<folder>/fails` says, a line for each time; succeed without one."""
    await model(state).ainvoke("hello")
    fails = Path(state["folder"]) / "fails"
    lines = fails.read_text().split() if fails.exists() else []
    if not lines:
        return {"done": 1}
    fails.write_text("\n".join(lines[1:]))
    kind = lines[0]
    if kind == "timeout":
        raise TimeoutError("too slow")
    if kind == "key":
        raise PermissionError("bad key")
    request = httpx.Request("POST", "http://model")
    raise httpx.HTTPStatusError(
        "refused", request=request, response=httpx.Response(int(kind), request=request)
    )


failing = (
    StateGraph(State)
    .add_node("first", call)
    .add_node(fail)
    .add_edge(START, "first")
    .add_edge("first", "fail")
    .compile()
)


async def ask(state: State) -> State:
    interrupt("may I?")
    return {"done": 1}


asking = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
