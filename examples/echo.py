"""The smallest agent: it says back what it was told.

A graph is built once, when the server imports this file, and run many times. `MessagesState` is a state with
one key, `messages`, to which every node's messages are added.
"""

from __future__ import annotations

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph


async def answer(state: MessagesState):
    """Return what is new; LangGraph adds it to the state and the server keeps it on the thread."""
    return {"messages": [AIMessage(state["messages"][-1].text)]}


graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").add_edge("answer", END).compile()
