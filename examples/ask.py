"""A graph that asks a person: it stops at `interrupt`, and goes on when a run brings the answer.

Start it with `{"question": "Your name?"}`. The thread is then `interrupted` and shows the question. Answer
with a second run whose `command` is `{"resume": "Ada"}`, in a minute or in a month.
"""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    question: str
    answer: str


async def ask(state: State):
    return {"answer": interrupt({"q": state.get("question", "Your name?")})}


async def thank(state: State):
    return {"answer": f"Thank you, {state['answer']}."}


graph = (
    StateGraph(State).add_node(ask).add_node(thank).add_edge(START, "ask").add_edge("ask", "thank").compile()
)
